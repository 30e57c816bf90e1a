"""What is plugged in or reachable, as stanzas for `lab.yaml`; and what keeps the rest from working."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from joulelab.errors import JoulelabError
from joulelab.instruments.base import Check, Meter
from joulelab.instruments.undo import left_over
from joulelab.registry import INSTRUMENTS, drivers, load_driver
from joulelab.timebase import MonotonicClock
from joulelab.transports.connection import Connection, connect

CONNECTION = re.compile("(ssh|adb)://")


def discover(addresses: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stanzas {name, stanza, note}: all that this machine lists, or what is at the addresses.

    An address is a VISA resource, a port, or a connection to another machine, whose own sensors are looked for.
    """
    clock = MonotonicClock()
    here = connect("local", clock)
    names: dict[str, int] = {}
    for address in addresses or (None,):
        away = address is not None and CONNECTION.match(address)
        place = connect(address, clock) if address and away else here
        for driver, meter in _meters():
            for name, stanza, note in meter.discover(place, None if away else address):
                names[name] = names.get(name, 0) + 1
                numbered = name if names[name] == 1 else f"{name}-{names[name]}"
                via = {"via": address} if away else {}
                yield {"name": numbered, "stanza": {"driver": driver, **via, **stanza}, "note": note}


def as_yaml(found: Iterable[dict[str, Any]]) -> str:
    """The stanzas as they go into `lab.yaml`, each below its note."""
    lines = ["instruments:"]
    for one in found:
        text = yaml.safe_dump({one["name"]: one["stanza"]}, sort_keys=False, allow_unicode=True)
        lines += [f"  # {one['note']}", *(f"  {line}" for line in text.splitlines())]
    return "\n".join(lines)


def doctor(connections: Sequence[str]) -> Iterator[tuple[str, Check]]:
    """What each driver needs of this machine, or of the machines that `connections` lead to: driver and finding."""
    clock = MonotonicClock()
    for resource in left_over():
        mend = "joulelab check --online"
        yield "settings", Check(resource, False, "a run that crashed has left its settings changed", mend)
    for name in sorted(drivers(INSTRUMENTS)):
        try:
            load_driver(INSTRUMENTS, name)
        except JoulelabError as error:
            yield name, Check(name, False, str(error))
    for url in connections or ("local",):
        place = connect(url, clock)
        yield from _of_drivers(place)


def _of_drivers(place: Connection) -> Iterator[tuple[str, Check]]:
    """Every check of every driver once: drivers of one family share theirs."""
    seen: set[Check] = set()
    for driver, meter in _meters():
        try:
            checks = list(meter.doctor(place))
        except JoulelabError as error:
            checks = [Check(place.url, False, str(error))]
        for check in checks:
            if check not in seen:
                seen.add(check)
                yield driver, check


def _meters() -> Iterator[tuple[str, type[Meter]]]:
    """The drivers that can be loaded; one that cannot is for `doctor` to tell."""
    for name in sorted(drivers(INSTRUMENTS)):
        try:
            loaded = load_driver(INSTRUMENTS, name)
        except JoulelabError:
            continue
        if issubclass(loaded, Meter):
            yield name, loaded
