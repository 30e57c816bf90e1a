"""Whether designed configurations teach a model more than as much measuring time of configurations drawn at random.

A design begins with a few space-filling configurations and goes on in rounds, each on the models of all before it, as
`run --until` does; the random ones are one run. What is measured takes as long in all. Of the simulated devices a
perfect meter's energies are taken: what a real one adds is no business of a design.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.row import Row
from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.design import Problem, choose, space_filling
from joulelab.analysis.modelling.models import Model, fit_model
from joulelab.analysis.modelling.potential import problem
from joulelab.analysis.modelling.validation import LIMITS
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid
from joulelab.protocols.rounds import RoundOptions, framed
from joulelab.protocols.steps import Idle, Infer
from joulelab.quantities import Channel, Origin, Scope
from joulelab.simulation.device import Device
from joulelab.simulation.profile import Profile
from joulelab.simulation.profiles import PROFILES
from joulelab.simulation.timing import expected_seconds
from joulelab.timebase import SECOND

SEEDS, REPEATS = 50, 5
GAP_S, SETTLE_S = 0.1, 0.3
WAIT_S = SETTLE_S + GAP_S / 2
TARGET = 0.9
PILOT, ROUNDS = 8, 4
PLACES = 16
"""Among the measured inferences at which each held-out one is played: a device is as warm as they have made it."""
BUDGET = 0.02
"""Of the time that all candidates would take, besides the pilot's."""
FIRST_SEED = 5000
"""None of those that the design was written by."""
LONGER = (1.0, 2.0, 4.0, 8.0)
SEEDS_OF_LONGER = 8
HISTORY, PROMPT = (0, 256, 1024, 2048), (16, 32, 64, 96, 120, 128, 136, 192, 256, 320, 384, 512, 520, 640, 768, 1024)
OUTPUT = (16, 32, 64, 96, 128, 192, 256)
NAMES = ["history", "prompt", "output"]
CANDIDATES = pd.DataFrame(list(product(HISTORY, PROMPT, OUTPUT)), columns=NAMES, dtype=float)
METER = Channel("power", "W", scope=Scope.INPUT, origin=Origin.SIMULATED)

Points = list[tuple[int, int, int]]


class Seed(NamedTuple):
    """The held-out errors [%] of time and energy after a design and after random draws of as much time."""

    designed: dict[str, float]
    random: dict[str, float]


def designed() -> Iterator[Row]:
    """Designed configurations against random ones of equal measuring time and repeats, on the simulated edge GPU."""
    yield from _compare("edge-gpu")


def designed_elsewhere() -> Iterator[Row]:
    """The same on the other simulated devices."""
    for name in ("compute-puck", "phone"):
        yield from _compare(name)


def same_error() -> Iterator[Row]:
    """How much longer random configurations must be measured until time is predicted as well as after a design."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        errors = np.array(list(pool.map(_longer, range(FIRST_SEED, FIRST_SEED + SEEDS_OF_LONGER))))
    reached, *random = np.median(errors, axis=0)
    times = np.interp(-np.log(reached), -np.log(np.minimum.accumulate(random)), np.log(LONGER))
    beside = {
        f"random, {longer:g} times as long: error in %": float(e) for longer, e in zip(LONGER, random, strict=True)
    }
    what = "edge-gpu (simulated): measuring time of random configurations for the design's error, over the design's"
    yield Row(what, float(np.exp(times)), "1", None, "higher", beside | {"the design's error in %": float(reached)})


def _compare(name: str) -> Iterator[Row]:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(_seed, name), range(FIRST_SEED, FIRST_SEED + SEEDS)))
    for target in LIMITS:
        pairs = [(each.designed[target], each.random[target]) for each in found]
        better = sum(ours < theirs for ours, theirs in pairs) / len(pairs)
        ours, theirs = np.median(pairs, axis=0)
        beside = {"median error designed, %": float(ours), "median error random, %": float(theirs)}
        what = f"{name} (simulated), {target}: share of {SEEDS} seeds in which the design's held-out error is lower"
        yield Row(what, better, "1", TARGET, "higher", beside)


def _seed(name: str, seed: int) -> Seed:
    lab = _Lab(name)
    return Seed(lab.errors(seed, lab.design(seed)), lab.errors(seed, lab.random(seed)))


def _longer(seed: int) -> list[float]:
    """The errors in time of a design, and of random configurations that take longer and longer."""
    lab = _Lab("edge-gpu")
    sets = [lab.design(seed), *(lab.random(seed, longer) for longer in LONGER)]
    return [lab.errors(seed, runs)["time"] for runs in sets]


class _Lab:
    """A simulated device, and what its costs really are at configurations that nobody measures."""

    def __init__(self, name: str) -> None:
        self.profile = PROFILES[name]
        self.seconds = np.array([sum(expected_seconds(self.profile, *each)) for each in _tuples(CANDIDATES)])
        self.price = REPEATS * (self.seconds + WAIT_S)
        self.budget_s = BUDGET * float(self.price.sum())
        first = space_filling(CANDIDATES, PILOT)
        self.pilot, self.pilot_s = _tuples(CANDIDATES.iloc[first]), float(self.price[first].sum())
        self.held_out = _held_out()

    def design(self, seed: int) -> list[Points]:
        """The pilot's configurations and those of each round."""
        runs, left_s = [self.pilot], self.budget_s
        for rounds_left in range(ROUNDS, 0, -1):
            found = self._problem(measured(self.profile, seed, runs))
            if chosen := choose(found, left_s / rounds_left):
                runs.append(_tuples(found.candidates.iloc[chosen]))
                left_s -= float(found.seconds[chosen].sum())
        return runs

    def _problem(self, phases: Phases) -> Problem:
        fitted = [(case, fit_model(case, phases)) for case in cases(phases, 5.0)]
        return problem(fitted, CANDIDATES, REPEATS, WAIT_S, LIMITS)

    def random(self, seed: int, longer: float = 1.0) -> list[Points]:
        order = np.random.default_rng(seed).permutation(len(CANDIDATES))
        left, chosen = (self.pilot_s + self.budget_s) * longer, []
        for number in order:
            if self.price[number] <= left:
                chosen.append(number)
                left -= self.price[number]
        return [_tuples(CANDIDATES.iloc[chosen])]

    def errors(self, seed: int, runs: Sequence[Points]) -> dict[str, float]:
        """The mean errors [%] of models of these runs; infinite where they support no model."""
        phases = measured(self.profile, seed, runs)
        true = truth(self.profile, self.held_out, runs, seed)
        found = dict.fromkeys(true, math.inf)
        for case in cases(phases, 5.0):
            with suppress(DataInvalid):
                found[case.target] = _error(fit_model(case, phases), self.held_out, true[case.target])
        return found


def _error(model: Model, points: Points, true: Floats) -> float:
    return float(np.abs(model.predict(*np.array(points).T) / true - 1).mean() * 100)


def _held_out() -> Points:
    """Configurations drawn log-uniformly from the box, a quarter of them without a history."""
    rng, n = np.random.default_rng(0), 150
    prompt, output = (np.exp(rng.uniform(np.log(axis[0]), np.log(axis[-1]), n)) for axis in (PROMPT, OUTPUT))
    history = rng.integers(0, HISTORY[-1], n) * (rng.random(n) < 3 / 4)
    return _tuples(pd.DataFrame(np.rint(np.column_stack([history, prompt, output])), columns=NAMES))


def measured(profile: Profile, seed: int, runs: Sequence[Points]) -> Phases:
    """The phases of a session of runs, inferences being played as the runner plays them."""
    device, now, rows = Device(profile, seed), 0, []
    for number, (run, step, wait_s) in enumerate(_steps(runs, seed)):
        start = now + round(wait_s * SECOND)
        device.trace.drop_before(start)
        first, *_, now = device.play(start, step.history, step.prompt, step.output, device.luck(number)).tokens
        asked = {"history": step.history, "prompt": step.prompt, "output": step.output, "repeat": step.repeat}
        edges = {"prefill": (start, first), "decode": (first, now), "total": (start, now)}
        for phase, (begin, end) in edges.items() if not step.warmup else ():
            before, after = device.trace.energy(np.array([begin, end]))
            measured = {"phase": phase, "duration_s": (end - begin) / SECOND, "energy_j": after - before}
            rows.append(asked | {"run": f"r{run}", "inference": number} | measured)
    table = pd.DataFrame(rows).assign(session="s", device=profile.name, channel="meter.power", scope=METER.scope)
    table = table.assign(origin=Origin.SIMULATED, status="ok", gain_u_rel=0.0, energy_u_j=0.0)
    return Phases(table.reindex(columns=SCHEMA.names), {"meter.power": METER})


def truth(profile: Profile, asked: Points, runs: Sequence[Points], seed: int) -> dict[str, Floats]:
    """What inferences take and draw without any noise, on average over places in a session of runs."""
    quiet = replace(profile.noise, prefill_cv=0.0, decode_cv=0.0, power_cv=0.0, stall_probability=0.0)
    device = Device(replace(profile, noise=quiet, power=replace(profile.power, background_rel=0.0)), seed)
    steps = _steps(runs, seed)
    timed = [number for number, (_, step, _) in enumerate(steps) if not step.warmup]
    place = np.random.default_rng(seed).choice(timed, (PLACES, len(asked)))
    now, joules = 0, np.zeros(len(asked))
    for number, (_, step, wait_s) in enumerate(steps):
        start = now + round(wait_s * SECOND)
        device.trace.drop_before(start)
        here = np.count_nonzero(place == number, axis=0)
        for k in np.flatnonzero(here):
            joules[k] += here[k] / PLACES * _energy(copy.deepcopy(device), start, asked[k])
        now = device.play(start, step.history, step.prompt, step.output, device.luck(0)).tokens[-1]
    return {"time": np.array([sum(expected_seconds(profile, *each)) for each in asked]), "energy": joules}


def _steps(runs: Sequence[Points], seed: int) -> list[tuple[int, Infer, float]]:
    """The inferences of a session, each with the number of its run and the wait [s] before it."""
    found, rest_s = [], 0.0
    for run, points in enumerate(runs):
        options = RoundOptions(repeats=REPEATS, seed=seed * 10 + run, gap=GAP_S, signature=0.0)
        for step in framed(points, options):
            if isinstance(step, Idle):
                rest_s += step.seconds
            if isinstance(step, Infer):
                found.append((run, step, rest_s + SETTLE_S + step.gap_s))
                rest_s = 0.0
    return found


def _energy(device: Device, start: int, asked: tuple[int, int, int]) -> float:
    stop = device.play(start, *asked, device.luck(0)).tokens[-1]
    before, after = device.trace.energy(np.array([start, stop]))
    return float(after - before)


def _tuples(points: pd.DataFrame) -> Points:
    return [(int(h), int(p), int(o)) for h, p, o in points[NAMES].to_numpy()]
