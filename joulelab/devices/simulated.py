"""A simulated device: an engine whose inferences pass in virtual time. Its bench feeds the meters, too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from joulelab.devices.base import Inference, Phase, Request
from joulelab.simulation import SimulatedBench
from joulelab.timebase import BenchNs, Clock


class Simulated:
    """Whoever wires it up hands its `bench` to `joulelab.instruments.simulated.meters`."""

    class Options(BaseModel):
        """`profile` names the device to simulate."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        profile: Literal["edge-gpu", "phone", "compute-puck"]

    def __init__(self, name: str, options: Options, clock: Clock, seed: int) -> None:
        self.name = name
        self.bench = SimulatedBench(options.profile, seed, clock)
        self.engine = SimulatedEngine(self.bench)


class SimulatedEngine:
    """Reports the edges exactly, since the simulation knows them."""

    def __init__(self, bench: SimulatedBench) -> None:
        self._bench = bench

    def open(self) -> None:
        """There is nothing to open."""

    def describe(self) -> dict[str, Any]:
        return self._bench.describe()

    def infer(self, request: Request) -> Inference:
        played = self._bench.infer(request.number, request.history, request.prompt, request.output)
        tokens = tuple(map(BenchNs, played.tokens))
        edges = [BenchNs(played.start), tokens[0], tokens[-1]]
        phases = (Phase(name, *edge, boundary_u_s=0.0) for name, edge in zip(NAMES, pairwise(edges), strict=True))
        return Inference(tuple(phases)[: len(tokens)], tokens, played.temperature_c, throttled=False)

    def close(self) -> None:
        """There is nothing to close."""


NAMES = ("prefill", "decode")
