"""How figures are written: three significant digits, SI prefixes, a dash where there is no figure."""

from __future__ import annotations

import math
from typing import TypeGuard

DASH = "\N{EN DASH}"
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "\N{MICRO SIGN}", -3: "m", 0: "", 3: "k", 6: "M"}


def _exponent(value: float, digits: int = 3) -> int:
    """The decimal exponent that `value` has once it is rounded to so many digits; 0 for 0."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def number(value: float | None) -> str:
    """`value` with three significant digits and no exponent: 0.0123, 1.23, 1234."""
    return f"{value:.{max(2 - _exponent(value), 0)}f}" if _known(value) else DASH


def error(value: float | None) -> str:
    """An error in percent with three significant digits, but at most three decimals: 12.3, 0.098, 0.000."""
    if not _known(value):
        return DASH
    return f"{value:z.{min(max(2 - _exponent(value), 0), 3)}f}"


def percent(value: float | None) -> str:
    return f"{error(value)} %" if _known(value) else DASH


def prefixed(value: float | None, unit: str) -> tuple[float, str]:
    """The factor and the unit that bring `value`, in s, J or W or one of these divided by something, to 1 to 1000."""
    if not _known(value) or value == 0 or unit[:1] not in {"s", "J", "W"}:
        return 1.0, unit
    largest = 0 if unit[0] == "s" else 6
    power = min(max(_exponent(value) // 3 * 3, min(PREFIXES)), largest)
    return 10.0**-power, PREFIXES[power] + unit


def quantity(value: float | None, unit: str) -> str:
    """`value` with its unit, such as `12.3 mJ`."""
    factor, unit = prefixed(value, unit)
    return f"{number(value * factor)} {unit}" if _known(value) else DASH


def rate(value: float, unit: str) -> str:
    """A rate of arithmetic or of bytes, such as `15.4 TFLOP/s`."""
    factor, prefix = (1e-12, "T") if value >= 1e12 else (1e-9, "G")
    return f"{number(value * factor)} {prefix}{unit}"


def bounded(value: float | None, ends: tuple[float, float] | None, unit: str) -> tuple[str, str, str]:
    """Value, interval and their common unit, with as many decimals as the interval's width asks for."""
    known = [x for x in (value, *(ends or ())) if _known(x)]
    factor, unit = prefixed(max(known, key=abs, default=None), unit)
    decimals = _decimals([x * factor for x in known])

    def text(x: float | None) -> str:
        return f"{x * factor:.{decimals}f}" if _known(x) else DASH

    return text(value), f"[{text(ends[0])}, {text(ends[1])}]" if ends else DASH, unit


def _decimals(values: list[float]) -> int:
    """Three significant digits of the largest, two of the width."""
    if not values:
        return 0
    width = max(values) - min(values)
    return max(2 - _exponent(max(values, key=abs)), 1 - _exponent(width, 2) if width else 0, 0)


def expanded(value: float | None, half_width: float, unit: str) -> str:
    """`value` with an uncertainty of two digits and their unit, such as `12.34 ± 0.12 mJ`."""
    if not (_known(value) and _known(half_width)):
        return quantity(value, unit)
    factor, unit = prefixed(value, unit)
    decimals = max(1 - _exponent(half_width * factor, 2), 0)
    return f"{value * factor:.{decimals}f} ± {half_width * factor:.{decimals}f} {unit}"


def interval(ends: tuple[float, float] | None) -> str:
    return bounded(None, ends, "1")[1]
