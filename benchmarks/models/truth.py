"""What inferences on the simulated devices really cost, without the noise of single runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import ArrayLike

from joulelab.calibration.integrals import Floats
from joulelab.simulation.bench import profile_named
from joulelab.simulation.chance import Luck
from joulelab.simulation.device import Device
from joulelab.timebase import SECOND

Point = tuple[int, int, int]
"""History, prompt, output."""


@dataclass(frozen=True)
class Truth:
    """A simulated device, with the seconds and joules of all points that are asked. Its caches move at no cost of its
    own.
    """

    device: str
    idle_w: float | None
    kv_bytes_per_token: float | None
    known: dict[Point, tuple[float, float]]

    def seconds(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return self._column(0, history, prompt, output)

    def joules(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return self._column(1, history, prompt, output)

    def moving_seconds(self, tokens: ArrayLike) -> Floats:
        return np.zeros(np.shape(tokens))

    def moving_joules(self, tokens: ArrayLike) -> Floats:
        return np.zeros(np.shape(tokens))

    def _column(self, column: int, *point: ArrayLike) -> Floats:
        rows = zip(*(np.asarray(x).tolist() for x in point), strict=True)
        return np.array([self.known[row][column] for row in rows])


def truths(profiles: Iterable[str], points: Sequence[Point]) -> list[Truth]:
    """The truth of every device at the points; each is played by itself on a device at rest."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return [
            _truth(name, dict(zip(points, pool.map(partial(played, name), points, chunksize=256), strict=True)))
            for name in profiles
        ]


def _truth(name: str, known: dict[Point, tuple[float, float]]) -> Truth:
    profile = profile_named(name)
    return Truth(name, profile.power.idle_w, profile.model.kv_bytes_per_token, known)


def played(name: str, point: Point) -> tuple[float, float]:
    """Seconds and joules at the supply of one inference with the mean of all luck and nothing in the background."""
    profile = profile_named(name)
    quiet = replace(profile, power=replace(profile.power, background_rel=0.0))
    stall_s = profile.noise.stall_probability * profile.noise.stall_mean_s
    device = Device(quiet, seed=0)
    last = device.play(0, *point, Luck(stall_s, 1.0, 1.0, 1.0, 1.0)).tokens[-1]
    return last / SECOND, float(device.trace.energy(np.array([last]))[0])
