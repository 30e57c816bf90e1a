"""Lines of PTDaemon, the power daemon of SPEC that MLPerf uses: its samples (`spl.txt`) and its messages."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime

QUANTITIES = {"Watts": ("power", "W"), "Volts": ("voltage", "V"), "Amps": ("current", "A"), "PF": ("power_factor", "1")}
"""Field -> (channel, SI unit)."""
NOTHING = -1.0
"""What PTDaemon writes where the meter gave no value (MLCommons power-dev, issue 38)."""

_STAMP = r"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{3})"
_TIME = re.compile(_STAMP, re.ASCII)
_MESSAGE = re.compile(
    rf"(?:{_STAMP}: .+|ERROR: .+|Buffer was .*|Analyzer identity response of \d+ bytes: .+)", re.ASCII
)
_SECTION = re.compile(r"Ch\d+", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Sample:
    """One row of `spl.txt`: its local time, and values in SI by channel, NaN where `refused` says what stood there.

    A daemon that watches several channels of the meter adds theirs behind the totals, as `ch1.power` and so on.
    """

    stamp: datetime
    values: dict[str, float]
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Message:
    """What the daemon says in its own log. `bad`: readings were lost or spoiled."""

    text: str
    bad: bool


def parse(line: str) -> Sample | Message:
    """A line without its end; ValueError with the reason where PTDaemon writes no such line."""
    if not line.startswith("Time,"):
        if not _MESSAGE.fullmatch(line):
            raise ValueError("PTDaemon writes no such line")
        return Message(line, bad="ERROR" in line)
    _, stamp, *fields = line.split(",")
    sample = Sample(_stamp(stamp), {})
    _fill(sample, fields)
    return sample


def _stamp(text: str) -> datetime:
    """Local time, written month first (PTDaemon states no zone)."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 02-18-2023 17:36:10.241")
    month, day, year, hour, minute, second, milli = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, 1000 * milli)  # noqa: DTZ001 it states no zone


def _fill(sample: Sample, fields: list[str]) -> None:
    """Names and values in turn; `Ch1` and the like open a section. The total's ends with its mark."""
    section, words = "", iter(fields)
    marked = False
    for name in words:
        if _SECTION.fullmatch(name):
            section = f"{name.lower()}."
            continue
        text = next(words, None)
        if text is None or (name not in QUANTITIES and name != "Mark"):
            raise ValueError(f"{name!r} is cut off or no field of a sample")
        marked |= name == "Mark"
        if name in QUANTITIES:
            _put(sample, section + QUANTITIES[name][0], text)
    if not marked:
        raise ValueError("the sample has no mark: its end is cut off")
    if "power" not in sample.values:
        raise ValueError("the sample has no watts")


def _put(sample: Sample, channel: str, text: str) -> None:
    """The value, or NaN and a word of what is there instead: `nan`, an error word, or -1."""
    if channel in sample.values:
        raise ValueError(f"the sample has its {channel} twice")
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    known = math.isfinite(value) and value != NOTHING
    sample.values[channel] = value if known else math.nan
    if not known:
        sample.refused.append(f"{channel} reads {text[:40]!r}")
