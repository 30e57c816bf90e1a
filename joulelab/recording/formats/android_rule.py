"""In which unit and with which sign a phone tells its battery current: learned from readings, never assumed."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Literal, NamedTuple

from joulelab.errors import DataInvalid
from joulelab.recording.formats.android import Battery

Unit = Literal["mA", "uA"]
Sign = Literal["positive-discharging", "negative-discharging"]
UNITS: dict[Unit, float] = {"mA": 1e-3, "uA": 1e-6}
SIGNS: dict[Sign, int] = {"positive-discharging": 1, "negative-discharging": -1}
DRAWN_W = (0.05, 15.0)
"""What a phone draws from its battery, screen off and idle to flat out."""
ENOUGH = 8
"""The fewest readings to learn from."""
SURE = 0.9
"""The share of the readings that has to agree."""


class Rule(NamedTuple):
    """How to read a phone's current; `source` says whence that is known."""

    unit: Unit
    sign: Sign
    source: str

    def drawn(self, reading: Battery) -> float | None:
        """The current drawn from the battery [A], negative while it is charged; None where it is unknown."""
        return None if reading.current is None else reading.current * UNITS[self.unit] * SIGNS[self.sign]


def learn(readings: Iterable[Battery], unit: Unit | None = None, sign: Sign | None = None) -> Rule:
    """The rule, from readings of a phone that runs on its battery, idle and under load.

    Unless they are known, its unit is the one with which the power is within DRAWN_W, its sign the one that the current
    has. DataInvalid where there are too few such readings, or they do not agree.
    """
    products = [
        reading.current * reading.voltage
        for reading in readings
        if reading.status == "Discharging" and not reading.feeds and reading.current and reading.voltage
    ]
    if len(products) < ENOUGH:
        raise DataInvalid(
            f"{len(products)} readings of a battery that discharges are too few to learn its current's unit and sign "
            f"from ({ENOUGH} are enough): unplug the phone, or say current_unit and current_sign"
        )
    unit, sign = unit or _unit(products), sign or _sign(products)
    power_w = median(map(abs, products)) * UNITS[unit]
    return Rule(unit, sign, f"learned from {len(products)} readings, median {power_w:.2f} W")


def _unit(products: list[float]) -> Unit:
    low, high = DRAWN_W
    for unit, scale in UNITS.items():
        if _share(low <= abs(product) * scale <= high for product in products) >= SURE:
            return unit
    typical = median(map(abs, products))
    raise DataInvalid(
        f"the battery's power is neither in mA ({typical * 1e-3:.3g} W) nor in uA ({typical * 1e-6:.3g} W) that of a "
        f"phone that runs ({low:g} to {high:g} W): nothing was measured; is it fed? Load it, or say current_unit"
    )


def _sign(products: list[float]) -> Sign:
    positive = _share(product > 0 for product in products)
    if 1 - SURE < positive < SURE:
        raise DataInvalid(
            "the battery's current has both signs while it discharges: it may be fed all the same; unplug the phone, "
            "or say current_sign"
        )
    return "positive-discharging" if positive >= SURE else "negative-discharging"


def _share(truths: Iterable[bool]) -> float:
    all_of_them = list(truths)
    return sum(all_of_them) / len(all_of_them)
