"""Channels, what their sensors do to the truth, and the table of units."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from joulelab.errors import UserError


class Kind(StrEnum):
    """A gauge reads the quantity now; a counter reads its sum since some start."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Scope(StrEnum):
    """What a power channel includes, widest first. Channels of different scope are never added up."""

    WALL = "wall"
    INPUT = "input"
    BATTERY = "battery"
    BOARD = "board"
    PACKAGE = "package"
    RAIL = "rail"
    ESTIMATE = "estimate"


class Origin(StrEnum):
    """Where a channel's values come from."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    SIMULATED = "simulated"
    IMPORTED = "imported"


@dataclass(frozen=True)
class SensorModel:
    """How a reading relates to the true quantity. Times in seconds, the rest in the channel's unit; None is unknown.

    A reading taken at t is the truth averaged over [t - delay - window, t - delay] (boxcar; window 0: instantaneous),
    after a first-order low-pass of time constant `lowpass_s`. `delay_u_s` is the standard uncertainty of the mean age
    of what is read, delay + window / 2 + lowpass: that is what steps of the load tell, whatever the averaging is.
    Accuracy figures are standard uncertainties; a data-sheet limit a becomes a / sqrt(3) (rectangular, GUM 4.3.7).
    A reading r of the sensor means (r - offset) / gain. `gain_u_rel` and `offset_u` are independent of each other at
    the value `pivot`: where the truth is x, they add up to gain_u_rel * (x - pivot) and offset_u. `offset`, `pivot` and
    `offset_u` of an energy counter are powers: it adds them up while time goes by.
    """

    period_s: float | None = None
    window_s: float = 0.0
    window_u_s: float = 0.0
    lowpass_s: float = 0.0
    lowpass_u_s: float = 0.0
    delay_s: float = 0.0
    delay_u_s: float = 0.0
    resolution: float = 0.0
    noise_u: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    pivot: float = 0.0
    gain_u_rel: float = 0.0
    offset_u: float = 0.0
    wrap: float | None = None


@dataclass(frozen=True)
class Channel:
    """One quantity of one instrument. `unit` is SI: W and V and A for gauges, J for energy counters, degC, 1."""

    name: str
    unit: str
    kind: Kind = Kind.GAUGE
    scope: Scope | None = None
    origin: Origin = Origin.MEASURED
    sensor: SensorModel = field(default_factory=SensorModel)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Channel:
        scope = Scope(data["scope"]) if data["scope"] else None
        return cls(
            data["name"], data["unit"], Kind(data["kind"]), scope, Origin(data["origin"]), SensorModel(**data["sensor"])
        )

    @property
    def gives_energy(self) -> bool:
        """A power gauge or an energy counter: what attribution can turn into joules."""
        return (self.unit, self.kind) in {("W", Kind.GAUGE), ("J", Kind.COUNTER)}


UNITS: dict[str, tuple[str, float]] = {
    "ns": ("s", 1e-9),
    "us": ("s", 1e-6),
    "ms": ("s", 1e-3),
    "s": ("s", 1.0),
    "min": ("s", 60.0),
    "h": ("s", 3600.0),
    "Hz": ("Hz", 1.0),
    "kHz": ("Hz", 1e3),
    "uW": ("W", 1e-6),
    "mW": ("W", 1e-3),
    "W": ("W", 1.0),
    "kW": ("W", 1e3),
    "uJ": ("J", 1e-6),
    "mJ": ("J", 1e-3),
    "J": ("J", 1.0),
    "kJ": ("J", 1e3),
    "Wh": ("J", 3600.0),
    "mV": ("V", 1e-3),
    "V": ("V", 1.0),
    "mA": ("A", 1e-3),
    "A": ("A", 1.0),
    "C": ("C", 1.0),
    "degC": ("degC", 1.0),
    "B/s": ("B/s", 1.0),
    "MB/s": ("B/s", 1e6),
    "GB/s": ("B/s", 1e9),
    "TB/s": ("B/s", 1e12),
    "Mbit/s": ("B/s", 1e6 / 8),
    "Gbit/s": ("B/s", 1e9 / 8),
    "GFLOP/s": ("FLOP/s", 1e9),
    "TFLOP/s": ("FLOP/s", 1e12),
    "%": ("1", 1e-2),
    "1": ("1", 1.0),
}
"""Unit -> (SI unit of its dimension, factor)."""

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%1/]*)\s*")


def factor(unit: str, into: str) -> float:
    """The factor from `unit` to the SI unit `into`; UserError where the dimension differs or the unit is unknown."""
    si, scale = UNITS.get(unit, (None, 0.0))
    if si != into:
        known = ", ".join(u for u, (dimension, _) in UNITS.items() if dimension == into)
        raise UserError(f"{unit!r} is not a unit of {into}; expected one of {known}")
    return scale


def parse_quantity(text: str, into: str) -> float:
    """`"100 ms"` as a number in the SI unit `into`; UserError where the number or its unit is wrong or missing."""
    match = _QUANTITY.fullmatch(text)
    if match is None or not match[2]:
        raise UserError(f"{text!r} is not a quantity with a unit, such as '100 ms' or '5 W'")
    return float(match[1]) * factor(match[2], into)
