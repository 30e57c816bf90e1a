"""Patterns of load and rest: a maximum-length sequence, and square waves."""

from __future__ import annotations

from itertools import cycle, groupby, islice

BIT_S = 0.0613
"""No multiple of any meter's period, so that readings fall anywhere in a bit."""


def pseudo_random(bit_s: float, seconds: float) -> tuple[float, ...]:
    """Load and rest in turns [s], together `seconds` long and one bit at least: the bits of a 9-bit register.

    x^9 + x^5 + 1 is primitive: the sequence of 511 bits looks like none of its own shifts; then it repeats.
    """
    bits = islice(cycle(_register()), max(round(seconds / bit_s), 1))
    return tuple(bit_s * len(list(run)) for _, run in groupby(bits))


def _register() -> tuple[int, ...]:
    bits = [1] * 9
    while len(bits) < 2**9 - 1:
        bits.append(bits[-9] ^ bits[-5])
    return tuple(bits)


def square(period_s: float, duty: float, seconds: float) -> tuple[float, ...]:
    """Whole periods of a square wave [s], together about `seconds` long and one at least; duty 1 is a steady load."""
    if duty == 1:
        return (seconds,)
    return (duty * period_s, (1 - duty) * period_s) * max(round(seconds / period_s), 1)
