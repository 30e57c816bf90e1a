"""The link between devices, over which one's KV cache may move to another."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import parse_quantity

_FORM = re.compile(r"\s*(.*?/s)\s+(.*?s)(?:\s+(\S+\s*\w*J)/(?:byte|B))?\s*")


@dataclass(frozen=True)
class Link:
    """Bandwidth [B/s], round trip [s] and energy at both ends together [J/byte]; None where that is unknown."""

    bandwidth: float
    rtt_s: float
    joules_per_byte: float | None

    def seconds(self, moved: Floats) -> Floats:
        """Until so many bytes have come over it."""
        return self.rtt_s + moved / self.bandwidth


def parse_link(text: str) -> Link:
    """A link written as "200 Mbit/s 5 ms 0.5 uJ/byte"; UserError where it is not."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UserError(f"--link {text!r} lacks bandwidth or round trip: write it like '200 Mbit/s 5 ms 0.5 uJ/byte'")
    bandwidth, rtt_s = parse_quantity(match[1], "B/s"), parse_quantity(match[2], "s")
    if bandwidth <= 0 or rtt_s < 0:
        raise UserError(f"--link {text!r}: the bandwidth is more than 0, and the round trip no less")
    return Link(bandwidth, rtt_s, parse_quantity(match[3], "J") if match[3] else None)


def cache_bytes(device: str, known: float | None) -> float:
    """`known` [B/token]; DataInvalid where nothing says how large the cache of `device` is."""
    if known is None:
        raise DataInvalid(f"nothing says how large the KV cache of {device} is: leave --link out")
    return known
