"""The meters of a simulated bench, polled in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np

from joulelab.instruments.base import Block
from joulelab.quantities import Channel
from joulelab.simulation import SimulatedBench


class SimulatedMeter:
    """One meter of a bench, polled at whole multiples of its interval of bench time."""

    driver = "simulated"

    def __init__(self, name: str, bench: SimulatedBench) -> None:
        self._bench, self._meter = bench, bench.profile.meters[name]
        self.name = name
        self.options: dict[str, Any] = {"profile": bench.profile.name}
        self.channels: tuple[Channel, ...] = (self._meter.channel,)
        self.interval_ns = self._meter.interval_ns
        self.identity: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self._next = 0

    def open(self) -> None:
        self._next = -(-self._bench.clock.now() // self.interval_ns)

    def read(self) -> Block:
        """Every reading that has been answered since the last call; an empty block where none has."""
        latency = self._meter.latency_ns
        stop = max((self._bench.clock.now() - latency) // self.interval_ns + 1, self._next)
        before = np.arange(self._next, stop) * self.interval_ns
        self._next = stop
        device, values = self._bench.read(self.name, before + latency // 2)
        return Block(before, before + latency, device, values[np.newaxis])

    def close(self) -> None:
        """There is nothing to close."""


def meters(bench: SimulatedBench) -> list[SimulatedMeter]:
    """All meters of a bench: `meter` in its supply line, and the device's own `gauge`."""
    return [SimulatedMeter(name, bench) for name in bench.profile.meters]
