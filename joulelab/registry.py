"""What is registered by entry point: the drivers of instruments, engines, devices and protocols, ours and others'."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from joulelab.errors import HardwareMissing, UserError

INSTRUMENTS = "joulelab.instruments"
ENGINES = "joulelab.engines"
DEVICES = "joulelab.devices"
PROTOCOLS = "joulelab.protocols"
_KINDS = {INSTRUMENTS: "instrument driver", ENGINES: "engine", DEVICES: "device driver", PROTOCOLS: "protocol"}


@cache
def drivers(group: str) -> dict[str, EntryPoint]:
    """What is registered in a group of entry points, by name."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_driver(group: str, name: str) -> type[Any]:
    """The class registered as `name`; UserError where none is, HardwareMissing where a library is missing."""
    entry = drivers(group).get(name)
    if entry is None:
        raise UserError(f"no {_KINDS[group]} is called {name!r}{nearest(name, drivers(group))}")
    try:
        loaded: type[Any] = entry.load()
    except ImportError as error:
        raise HardwareMissing(f"the {_KINDS[group]} {name!r} cannot be loaded: {error}") from error
    return loaded


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest one that is known, else all of them."""
    names = sorted(known)
    listed = f"; expected one of {', '.join(names)}" if names else "; there is none"
    return did_you_mean(name, names) or listed


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The nearest known name as the end of a message; empty where none is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
