"""Calibration from the bench: play the protocol that a kind of certificate needs, and compute it from the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from joulelab.bench import Plan, Stop, record
from joulelab.calibration.certificate import Certificate, Store, certificate
from joulelab.errors import DataInvalid, UserError
from joulelab.lab import Lab
from joulelab.recording import RunDir
from joulelab.registry import nearest

PROTOCOL = "ladder"

Found = tuple[Certificate, list[dict[str, Any]]]


def check_arguments(what: str, channel: str | None, against: str | None) -> None:
    """UserError where a kind of calibration lacks what it is about."""
    if what in {"sensor", "gain"} and channel is None:
        raise UserError(f"calibrate {what}: name the channel, such as meter.power, or its instrument")
    if what == "gain" and against is None:
        raise UserError(f"calibrate gain {channel}: name the meter that it is compared with, with --against")


def play(lab: Lab, device: str, session: Path, stop: Stop, progress: Callable[[str, int], Any]) -> RunDir:
    """Play the ladder on a device; as `lab.yaml` sets it up, or by default."""
    plan = Plan.from_lab(lab, device, PROTOCOL)
    with progress(device, len(plan.steps())) as advance:
        return record(plan, session, stop, advance)


def device_of(lab: Lab, channel: str | None, named: Sequence[str]) -> str:
    """The device to play on: as named, else the one that the channel's instrument watches, or the only one."""
    if unknown := [name for name in named if name not in lab.devices]:
        raise UserError(f"lab.yaml has no device {unknown[0]!r}{nearest(unknown[0], lab.devices)}")
    meter = (channel or "").partition(".")[0]
    watched = [name for name in lab.devices if _watches(Plan.from_lab(lab, name, PROTOCOL), meter)]
    found = list(named) or watched or list(lab.devices)
    if len(found) != 1:
        about = f"load {channel}" if channel else "load"
        raise UserError(f"which device shall {about}? Name one with --device: {', '.join(found)}")
    return found[0]


def _watches(plan: Plan, meter: str) -> bool:
    """Whether an instrument is among those of a plan; `here: auto` stands for here-powercap and the like."""
    return any(meter == name or meter.startswith(f"{name}-") for name in plan.instruments)


def compute(
    what: str, run: RunDir, channel: str | None, against: str | None = None, store: Store | None = None
) -> tuple[list[Found], dict[str, str]]:
    """The certificates that a recording gives, that of closure with its findings, one a row; and why a channel of
    those that were asked for has none.
    """
    if what == "clock":
        return _clocks(run), {}
    if what == "closure":
        from joulelab.calibration.closure import closure

        return [closure(run, store)], {}
    assert channel is not None
    if what == "sensor":
        return _sensors(run, channel, against)
    from joulelab.calibration.gain import gain

    assert against is not None
    return [(gain(run, resolve(run, channel), resolve(run, against), store), [])], {}


def _sensors(run: RunDir, name: str, against: str | None) -> tuple[list[Found], dict[str, str]]:
    """Identify each power channel of that name; DataInvalid where none of them can be told."""
    from joulelab.calibration.sensor import identify
    from joulelab.calibration.threads import one_thread

    other = resolve(run, against) if against else None
    found: list[Found] = []
    untold: dict[str, str] = {}
    with one_thread():
        for channel in named(run, name):
            try:
                found.append((identify(run, channel, other), []))
            except DataInvalid as why:
                untold[channel] = str(why)
    if not found:
        raise DataInvalid("; ".join(untold.values()))
    return found, untold


def _clocks(run: RunDir) -> list[Found]:
    from joulelab.calibration.clocks import clock_certificate

    if not (found := clock_certificate(run)):
        raise DataInvalid(f"{run.path.name} is read through the bench's own clock only: there is none to map")
    figures = ("offset_s", "drift_ppm", "bound_s", "probes", "pieces")
    return [
        (
            certificate(
                run,
                "clock",
                clock.instrument,
                f"feasible lines through {clock.source}",
                {name: getattr(clock, name) for name in figures},
                about={"breaks": clock.breaks},
            ),
            [],
        )
        for clock in found
    ]


def named(run: RunDir, name: str) -> list[str]:
    """The power channels of that full name, or of the instrument of that name; UserError where there is none."""
    known = [found for found, channel in run.channels.items() if channel.gives_energy]
    if not (matches := [found for found in known if name in {found, found.partition(".")[0]}]):
        raise UserError(f"{name!r} names 0 power channels of {run.path.name}; there are: {', '.join(known) or 'none'}")
    return matches


def resolve(run: RunDir, name: str) -> str:
    """A power channel by its full name, or by its instrument's where that has one."""
    matches = named(run, name)
    if len(matches) != 1:
        raise UserError(f"{name!r} names {len(matches)} power channels of {run.path.name}: {', '.join(matches)}")
    return matches[0]


def sensor_table(made: Sequence[Certificate]) -> list[dict[str, str]]:
    """A row for each channel's sensor, as people read it."""
    from joulelab.report.numbers import expanded, quantity

    return [
        {
            "channel": each.channel.partition(".")[2],
            "new every": quantity(each.result.get("period_s"), "s"),
            "in steps of": quantity(each.result.get("resolution"), each.conditions["unit"]),
            "mean over": _averaging(each),
            "delay": expanded(each.result["delay_s"], each.result["delay_u_s"], "s"),
            "idle": f"{quantity(each.result.get('idle_w'), 'W')} ± {quantity(each.result.get('idle_sd_w'), 'W')}",
        }
        for each in made
    ]


def _averaging(made: Certificate) -> str:
    """Over what a reading is the mean of power: its window, or the time constant of its low-pass."""
    from joulelab.report.numbers import expanded

    if made.conditions["unit"] == "J":
        return "what is new"
    times = {"": "window", " (low-pass)": "lowpass"}
    parts = [
        expanded(made.result[f"{time}_s"], made.result[f"{time}_u_s"], "s") + label
        for label, time in times.items()
        if made.result[f"{time}_s"]
    ]
    return ", ".join(parts) or "nothing"


def reading_cost(made: Certificate) -> str:
    """How long the instrument takes to be read; empty where it is not asked."""
    from joulelab.report.numbers import quantity

    if "call_p50_s" not in made.result:
        return ""
    half, most = (quantity(made.result[name], "s") for name in ("call_p50_s", "call_p99_s"))
    return f"{made.channel.partition('.')[0]} takes {half} to be read, {most} at the 99th percentile"


def described(made: Certificate, path: Path, findings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A certificate as people read it: each figure with its standard uncertainty as far as it has one."""
    names, matrix = made.covariance["names"], made.covariance["matrix"]
    u = {name: matrix[k][k] ** 0.5 for k, name in enumerate(names)}
    against = made.conditions.get("against")
    shown = {
        made.kind: f"{made.channel}{' (simulated)' if made.simulated else ''}",
        "against": against,
        "power": made.conditions.get("power"),
        "method": made.method,
        "from": made.run,
        "result": {name: _text(value, u.get(name)) for name, value in made.result.items()},
        "findings": [f"{'ok' if row['ok'] else 'no'}: {row['what']}: {row['message']}" for row in findings],
        "valid until": made.valid_until[:10],
        "certificate": str(path),
        "hash": made.hash,
    }
    return {name: value for name, value in shown.items() if value}


def encoded(made: Certificate, path: Path, findings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A certificate with where it is and what was found on the way, for JSON."""
    return {**asdict(made), "hash": made.hash, "path": str(path), "findings": list(findings)}


def _text(value: float, u: float | None) -> str:
    return f"{value:.6g}" if u is None else f"{value:.6g} +- {u:.2g}"
