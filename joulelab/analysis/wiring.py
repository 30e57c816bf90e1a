"""The wiring check: what each channel saw of each device's load, held against what the lab file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joulelab.analysis.response import Response, responses
from joulelab.quantities import Scope
from joulelab.recording import RunDir
from joulelab.recording.manifest import Instrument

WIDEST_FIRST = list(Scope)


@dataclass(frozen=True)
class Seen:
    """What the channels saw of one device's load, and the instruments that ought to see it."""

    run: RunDir
    found: dict[str, Response]
    expected: set[str]

    def sees(self, channel: str) -> bool:
        return channel in self.found and self.found[channel].sign != 0

    def wants(self, channel: str) -> bool:
        return channel.partition(".")[0] in self.expected


def judge(runs: Mapping[str, RunDir]) -> list[dict[str, Any]]:
    """Rows {device, channel, step_w, step_u_w, ratio, ok, message} from a run of the protocol `wiring` a device.

    `ratio` is the step over that of the widest channel that should and does see the device.
    """
    seen = {device: Seen(run, {r.channel: r for r in responses(run)}, _expected(run)) for device, run in runs.items()}
    rows = []
    for device, one in seen.items():
        widest = _widest(one)
        for channel, response in one.found.items():
            step_w = response.step_w
            rows.append(
                {
                    "device": device,
                    "channel": channel,
                    "step_w": step_w,
                    "step_u_w": response.step_u_w,
                    "ratio": step_w / widest if step_w is not None and widest else None,
                    **_finding(device, channel, seen),
                }
            )
    return rows


def _expected(run: RunDir) -> set[str]:
    """The instruments that ought to see a device's load: those that feed it or run on it, and all upstream of them."""
    device, stanza = run.manifest.device, run.manifest.stanza
    named = {channel.partition(".")[0] for channel in stanza.get("power") or ()}
    meters = {meter.name: meter.wiring for meter in run.manifest.instruments}
    ways = {device, stanza.get("connect")} - {None}
    found = {name for name, w in meters.items() if name in named or ways & {*w.get("feeds", ()), w.get("via")}}
    while above := {name for name, w in meters.items() if found & set(w.get("upstream_of", ()))} - found:
        found |= above
    return found


def _widest(one: Seen) -> float | None:
    followers = [name for name, r in one.found.items() if r.sign > 0 and one.wants(name)]
    if not followers:
        return None
    return one.found[min(followers, key=lambda name: _width(one.run, name))].step_w


def _width(run: RunDir, channel: str) -> int:
    return WIDEST_FIRST.index(run.channels[channel].scope or Scope.ESTIMATE)


def _finding(device: str, channel: str, seen: Mapping[str, Seen]) -> dict[str, Any]:
    one = seen[device]
    complain = _of_its_own if one.wants(channel) else _of_a_stranger
    if complaint := complain(device, channel, seen):
        return {"ok": False, "message": complaint}
    if not one.sees(channel):
        return {"ok": True, "message": "does not see the load"}
    hint = "" if one.wants(channel) else f"; if it feeds {device}, say 'feeds: [{device}]'"
    return {"ok": True, "message": f"follows the load{hint}"}


def _of_its_own(device: str, channel: str, seen: Mapping[str, Seen]) -> str | None:
    """What is wrong with a channel that ought to see the device."""
    one = seen[device]
    response = one.found[channel]
    if response.step_w is None:
        return "gave no readings in enough of the load's steps"
    if response.sign < 0:
        return "falls when the load comes: its wires or its sign are reversed"
    if not response.sign and not _of_many(one, channel):
        return f"does not see the load{_swapped(device, channel, seen)}"
    if narrower := _exceeded_by(one, channel):
        return f"sees less than {narrower}, which is a part of it: swapped, or a wrong range"
    return None


def _of_a_stranger(device: str, channel: str, seen: Mapping[str, Seen]) -> str | None:
    one = seen[device]
    feeds = _meter(one.run, channel).wiring.get("feeds", ())
    return f"sees {device}, but feeds {', '.join(feeds)} by lab.yaml" if one.sees(channel) and feeds else None


def _meter(run: RunDir, channel: str) -> Instrument:
    return next(meter for meter in run.manifest.instruments if meter.name == channel.partition(".")[0])


def _of_many(one: Seen, channel: str) -> bool:
    """Whether another channel of the same instrument follows the load: not every rail of a board does."""
    meter = channel.partition(".")[0]
    return any(one.sees(name) for name in one.found if name.partition(".")[0] == meter)


def _swapped(device: str, channel: str, seen: Mapping[str, Seen]) -> str:
    """Who sees this device instead, where this channel sees that one's device."""
    for other, there in seen.items():
        if other != device and there.sees(channel) and not there.wants(channel):
            for stranger in seen[device].found:
                if there.wants(stranger) and seen[device].sees(stranger) and not seen[device].wants(stranger):
                    return f", but that of {other}, and {stranger} sees {device}: the two are swapped"
            return f", but that of {other}"
    return ""


def _exceeded_by(one: Seen, channel: str) -> str | None:
    """A channel of narrower scope whose step is larger, beyond three standard errors of the difference."""
    this = one.found[channel]
    if not one.wants(channel) or this.step_w is None or this.step_u_w is None:
        return None
    for name, other in one.found.items():
        if one.wants(name) and _width(one.run, name) > _width(one.run, channel) and other.sign > 0:
            assert other.step_w is not None
            assert other.step_u_w is not None
            limit = this.step_w + 3 * (this.step_u_w**2 + other.step_u_w**2) ** 0.5
            allowed = other.step_w * (1 - 3 * _gain(one.run, name) - 3 * _gain(one.run, channel))
            if allowed > limit:
                return name
    return None


def _gain(run: RunDir, channel: str) -> float:
    return run.channels[channel].sensor.gain_u_rel
