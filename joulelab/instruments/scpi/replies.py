"""What SCPI meters answer, as values: pure functions of any text."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from joulelab.quantities import UNITS

_HEADER = re.compile(r"\s*:?[A-Za-z*][\w:*]*\s+(?=[^\s,])", re.ASCII)
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%]*)", re.ASCII)
_PLAIN_UNITS = {"", "V", "A", "W", "VA", "VAR", "HZ", "S"}
_NO_DATA = re.compile(r"NAN|-{2,}", re.IGNORECASE)
_OVER_RANGE = re.compile(r"[-+]?(?:INF(?:INITY)?|OL|OVLD|OVER(?:FLOW|LOAD)?)|-+O[LF]-+", re.IGNORECASE)
_OVER, _NAN = 9.895e37, 9.905e37
"""SCPI-99 vol. 1, 7.2.1.4 and 7.2.1.5: 9.9E+37 is infinity, 9.91E+37 is not a number."""

SHORT_FORM = 3
"""Letters that the short form of a keyword has at least."""


class Identity(NamedTuple):
    """The answer to `*IDN?` (IEEE 488.2, 10.14)."""

    maker: str
    model: str
    serial: str
    firmware: str

    @property
    def name(self) -> str:
        return f"{self.maker} {self.model}"


def identity(reply: str) -> Identity:
    """ValueError where the reply has not the four fields of an identity."""
    parts = [part.strip() for part in reply.split(",")]
    if len(parts) != 4 or not all(parts[:2]):
        raise ValueError(f"{reply[:60]!r} is no identity: expected maker, model, serial number, firmware")
    return Identity(*parts)


def data(reply: str) -> str:
    """A reply without the header that some meters put before it: `1` of `:INPUT:CFACTOR 1`."""
    header = _HEADER.match(reply)
    return reply[header.end() if header else 0 :].strip()


def fields(reply: str) -> list[str]:
    """The fields of a reply, header and quotes removed; a comma in quotes separates nothing."""
    parts = data(reply).replace("\0", "").split('"')
    parts[1::2] = [quoted.replace(",", "\0") for quoted in parts[1::2]]
    return [field.replace("\0", ",").strip() for field in "".join(parts).split(",")]


def parse(reply: str) -> list[float]:
    """The numbers of a reply in SI units. NaN: the meter has no data; infinity: over range. ValueError otherwise."""
    return [number(field) for field in fields(reply)]


def number(field: str) -> float:
    """One number, with or without a unit; NaN and infinity as in `parse`."""
    text = field.strip()
    if _NO_DATA.fullmatch(text):
        return math.nan
    if _OVER_RANGE.fullmatch(text):
        return math.inf
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is no number")
    value = float(match[1]) * _scale(match[2])
    if abs(value) < _OVER:
        return value
    return math.inf if abs(value) < _NAN else math.nan


def _scale(unit: str) -> float:
    if unit.upper() in _PLAIN_UNITS:
        return 1.0
    if unit not in UNITS:
        raise ValueError(f"{unit[:60]!r} is no unit")
    return UNITS[unit][1]


def error(reply: str) -> tuple[int, str]:
    """Number and text of an entry of the error queue; 0 is none. ValueError where the reply is no such entry."""
    match = re.match(r"\s*(?:[:\w]+\s+)?([-+]?\d+)\s*,?\s*(.*)", reply, re.ASCII | re.DOTALL)
    if match is None:
        raise ValueError(f"{reply[:60]!r} is no entry of an error queue")
    return int(match[1][:9]), match[2].strip().strip('"')


def same(asked: str, answered: str) -> bool:
    """Whether a setting reads back as it was asked for, however a meter spells it."""
    pairs = list(zip(fields(asked), fields(answered), strict=False))
    return len(fields(asked)) == len(fields(answered)) and all(_same_field(a, b) for a, b in pairs)


def _same_field(asked: str, answered: str) -> bool:
    try:
        return math.isclose(number(asked), number(answered), rel_tol=1e-6)
    except ValueError:
        long, short = sorted((asked.upper(), answered.upper()), key=len, reverse=True)
        return long == short or (len(short) >= SHORT_FORM and long.startswith(short))
