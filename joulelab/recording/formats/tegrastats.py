"""Lines of NVIDIA's `tegrastats`, Tegra 2 to Thor (L4T 38)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from joulelab.errors import DataInvalid

_HEAD = re.compile(
    r"\s*(?:(?P<month>\d\d)-(?P<day>\d\d)-(?P<year>\d{4}) (?P<time>\d\d:\d\d:\d\d)\s+)?"
    r"(?:\S{1,40}\s*\(\s*\d+\):\s+)?"  # logcat's tag and process, as on Tegra 2
    r"RAM (?P<ram>\d{1,9})/\d+(?P<unit>[kMG])B\s"
)
_BYTES = {"k": 2**10, "M": 2**20, "G": 2**30}
# Each begins with the space before it: that finds the few places where a match may begin faster than a look behind.
_RAIL = re.compile(r"\s([A-Za-z][\w.+-]*)\s+(-?\d{1,9})(mW)?/(-?\d{1,9})(?(3)mW)(?!\S)", re.ASCII)
_ZONE = re.compile(r"\s([A-Za-z][\w.+-]*)@(-?\d{1,4}(?:\.\d{1,6})?)C(?!\S)", re.ASCII)
_LOAD = re.compile(r"\s(GR3D|EMC)(?:_FREQ)?\s+(\d{1,3})%", re.ASCII)
_CPU = re.compile(r"\s(?:CPU|cpu) \[([^\]]{1,4000})\]")
_CORE = re.compile(r"(?<![^,])(\d{1,3})%")
_SECOND_HEAD = re.compile(r"RAM (?<![A-Za-z]RAM )\d")
NO_SENSOR = "NC"
"""How the kernel labels an input of a power monitor that is not connected."""
OFF = -256.0
"""The temperature of a zone whose part of the chip has no power [degC]."""


class Power(NamedTuple):
    """Of one rail: now, and the mean since tegrastats was started [W]."""

    now: float
    average: float


class Line(NamedTuple):
    """One line. `stamp` is the device's local wall-clock time in whole seconds, which tegrastats prints since L4T 34.

    `temperatures` [degC]; `off` names the zones whose sensor is off. `loads` are fractions of 1, `CPU` the mean of the
    cores that are on. `ram` is what is used [bytes]. `reason` says why there are no `rails`, empty where there are.
    """

    stamp: datetime | None
    rails: dict[str, Power]
    temperatures: dict[str, float]
    off: tuple[str, ...]
    loads: dict[str, float]
    ram: int
    reason: str


def parse(line: str, *, whole: bool = True) -> Line:
    """A line, with or without its newline; of one that is not `whole`, the end of a cut file, without its last word.

    A rail is a name and `now/average` in mW, with the unit (L4T 32.6 and newer) or without. It counts only in full, so
    that a cut line gives fewer numbers, never wrong ones. DataInvalid for what is no line of tegrastats, and for two
    that ran into one another.
    """
    if not whole:
        line = line[: len(line) - len(re.split(r"\s", line)[-1])]
    head = _HEAD.match(line)
    if head is None:
        raise DataInvalid(f"no line of tegrastats: {line[:60]!r}")
    start = head.end() - 1
    if _SECOND_HEAD.search(line, start):
        raise DataInvalid(f"two lines of tegrastats in one: {line[:60]!r}")
    rails = _rails(line, start)
    zones = {name: float(degrees) for name, degrees in _ZONE.findall(line, start)}
    return Line(
        _stamp(head),
        rails,
        {name: degrees for name, degrees in zones.items() if degrees > OFF},
        tuple(name for name, degrees in zones.items() if degrees <= OFF),
        _loads(line, start),
        int(head["ram"]) * _BYTES[head["unit"]],
        "" if rails else f"no rails recognised: this board or release of L4T prints no power in {line[:60]!r}",
    )


def _rails(line: str, start: int) -> dict[str, Power]:
    found = [groups for groups in _RAIL.findall(line, start) if groups[0] != NO_SENSOR]
    rails = {name: Power(int(now) / 1000, int(average) / 1000) for name, now, _, average in found}
    if len(rails) < len(found):
        raise DataInvalid(f"a rail stands twice in one line of tegrastats: {line[:60]!r}")
    return rails


def _loads(line: str, start: int) -> dict[str, float]:
    loads = {name: int(percent) / 100 for name, percent in _LOAD.findall(line, start)}
    if (cpu := _CPU.search(line, start)) and (cores := _CORE.findall(cpu[1])):
        loads["CPU"] = sum(map(int, cores)) / len(cores) / 100
    return loads


def _stamp(head: re.Match[str]) -> datetime | None:
    if head["year"] is None:
        return None
    text = f"{head['year']}-{head['month']}-{head['day']}T{head['time']}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DataInvalid(f"no time of day: {head[0].strip()[:19]!r}") from None
