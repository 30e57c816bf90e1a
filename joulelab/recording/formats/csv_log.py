"""Cells of log tables that other tools write: numbers that may be missing, and time stamps."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from joulelab.timebase import SECOND

MISSING = frozenset({"", "-", "nan", "na", "n/a", "[n/a]", "[not supported]", "null", "none", "error", "inf", "-inf"})
"""Words, in lower case, that stand for a value that is not there."""
SCPI_LIMIT = 9.9e37
"""From here on a number is one of the two that SCPI (1999, 7.2.1.4-5) writes for infinity and for not-a-number."""
TICKS = {"s": SECOND, "ms": 10**6, "us": 1000, "ns": 1}
"""Unit of a numeric stamp -> ns."""
LATEST_NS = 2**62
"""Stamps from here on (year 2116 since the epoch) are no stamps: their differences would not fit 64 bits."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_STAMP = re.compile(r"[-+]?\d{1,19}(?:\.(\d{1,19}))?", re.ASCII)
_FRACTION = re.compile(r"\.(\d{1,9})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stamp(NamedTuple):
    """A time: ns on the log's clock, and the `date` where it was written as one. `coarse_ns` is its last place."""

    ns: int
    date: datetime | None
    coarse_ns: int


def number(text: str, missing: frozenset[str] = frozenset()) -> float:
    """The value of a cell, NaN where it is missing; ValueError where it is neither."""
    cell = text.strip()
    if cell.lower() in MISSING or cell in missing:
        return math.nan
    if not _NUMBER.fullmatch(cell):
        raise ValueError(f"{cell[:40]!r} is not a number")
    value = float(cell)
    return value if abs(value) < SCPI_LIMIT else math.nan


def numeric_stamp(text: str, unit: str) -> Stamp:
    """A stamp that counts `unit` (s, ms, us, ns); exact, since a float of seconds since 1970 is 0.2 us coarse."""
    cell = text.strip()
    match = _STAMP.fullmatch(cell)
    if match is None:
        raise ValueError(f"{cell[:40]!r} is no time in {unit}")
    ns = int(Decimal(cell) * TICKS[unit])
    if abs(ns) >= LATEST_NS:
        raise ValueError(f"{cell[:40]!r} is no time in {unit}: too large")
    return Stamp(ns, None, max(TICKS[unit] // 10 ** len(match[1] or ""), 1))


def date_stamp(text: str, form: str) -> Stamp:
    """A date by `form`, which is `iso` (ISO 8601) or a format of strptime."""
    cell = text.strip()
    date = datetime.fromisoformat(cell) if form == "iso" else datetime.strptime(cell, form)  # noqa: DTZ007 as it says
    fraction = _FRACTION.search(cell)
    return Stamp(date_ns(date), date, SECOND // 10 ** min(len(fraction[1]), 6) if fraction else SECOND)


def date_ns(date: datetime) -> int:
    """Nanoseconds since the epoch; of a date without a zone as if it were UTC."""
    since = (date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
