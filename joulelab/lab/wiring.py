"""Whether what a lab file says of the wiring makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from joulelab.lab.tree import Loc, Tree
from joulelab.quantities import Scope

ADDRESSES = ("resource", "port")
"""The options that name one meter: two instruments cannot share it."""


def check_wiring(tree: Tree, instruments: Mapping[str, Any], devices: Mapping[str, Any]) -> None:
    """Put into `tree` what cannot be: `instruments` and `devices` are the stanzas that could be read, by name."""
    for loc, message in (*_meters(instruments, devices), *_twins(instruments), *_feeders(instruments, devices)):
        tree.error(loc, message)


def _meters(instruments: Mapping[str, Any], devices: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    for name, meter in instruments.items():
        at = ("instruments", name)
        if meter.via in devices and devices[meter.via].connect is None:
            yield (*at, "via"), f"devices.{meter.via} has no 'connect', so there is no way to read anything on it"
        if meter.calibrated and meter.calibrated > datetime.now(UTC).date():
            yield (*at, "calibrated"), f"{meter.calibrated} is in the future"
        for k, below in enumerate(meter.upstream_of):
            if message := _upstream(name, below, instruments):
                yield (*at, "upstream_of", k), message


def _twins(instruments: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    seen: dict[tuple[str, str], str] = {}
    for name, meter in instruments.items():
        for key, value in _identities(meter):
            if (other := seen.setdefault((key, value), name)) != name:
                yield ("instruments", name, key), f"is that of instruments.{other}, too: they would be the same meter"


def _feeders(instruments: Mapping[str, Any], devices: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    for name, device in devices.items():
        for k, channel in enumerate(device.power or ()):
            meter = instruments.get(channel.partition(".")[0])
            if meter and meter.feeds and name not in meter.feeds:
                yield ("devices", name, "power", k), f"{channel} feeds {', '.join(meter.feeds)}, not {name}"


def _upstream(name: str, below: str, instruments: Mapping[str, Any]) -> str | None:
    if below in _all_below(below, instruments) or below == name:
        return f"{below} is upstream of itself"
    meter, other = instruments[name], instruments.get(below)
    order = list(Scope)
    if other and meter.scope and other.scope and order.index(meter.scope) > order.index(other.scope):
        return f"a meter of scope {meter.scope} cannot be upstream of {below}, whose scope {other.scope} is wider"
    return None


def _all_below(name: str, instruments: Mapping[str, Any]) -> set[str]:
    """Everything downstream of an instrument, itself where the wiring goes in a circle."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        meter = instruments.get(ahead.pop())
        new = set(meter.upstream_of if meter else ()) - found
        found |= new
        ahead += new
    return found


def _identities(meter: Any) -> Iterator[tuple[str, str]]:
    """What tells a meter from all others, as far as its stanza has it."""
    if meter.serial:
        yield "serial", f"{meter.driver} {meter.serial}"
    for key in ADDRESSES:
        if address := getattr(meter.options, key, None):
            yield key, f"{address} {getattr(meter.options, 'address', '')}"
