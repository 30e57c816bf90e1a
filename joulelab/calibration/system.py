"""The least squares of deconvolution: linear in the powers of stretches, not in the timing of the sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from joulelab.calibration import noise
from joulelab.calibration.arrow import Arrow
from joulelab.calibration.integrals import Floats
from joulelab.calibration.kernel import Timing, columns
from joulelab.calibration.layout import Free, Layout, Measured, allowed, times_of, timing_of
from joulelab.calibration.noise import Noise, Problem

SHAPE_REL = 0.1
"""How much power may rise or fall within a phase, and how far bend in its middle, before it has been seen: standard
deviations, relative."""
STEP_S = 2e-4
"""Over which derivatives by a time are taken."""
ROUNDS, STEPS = 2, 6
"""Of noise and timing in turn, and of Gauss and Newton within each."""
PARTS = (1.0, 0.5, 0.2, 0.05)
"""Of a step of Gauss and Newton, to try in turn."""
SETTLED = 0.05
"""A time stays where it is when it moves by less of its uncertainty."""
ENOUGH, ENOUGH_STRETCHES = 1500, 300
"""So many readings of so many stretches tell the noise; more only take time."""
LOOK_BACK_S = 30.0
"""No reading shows what is longer ago."""
TINY_W = 1e-9
UNSEEN_REL = 10.0
"""The power of what no reading shows is 0 with so many times the greatest reading as standard deviation."""


@dataclass(frozen=True)
class Fit:
    """The powers, the timing, and how well they are known.

    `levels` [c], `rises` [s], `bends` [kinds] and the `free` times stand in this order in `solution.border` (there the
    times as distances from where they are), with the covariance `solution.factor @ solution.factor.T`. `deviation_w`
    [m + 1] is what each stretch deviates by, `spread_w` [m + 1] its standard deviation beforehand. `fitted_w` and
    `noise_u_w` [n].
    """

    timing: Timing
    free: tuple[str, ...]
    levels: Floats
    rises: Floats
    bends: Floats
    deviation_w: Floats
    spread_w: Floats
    fitted_w: Floats
    noise_u_w: Floats
    noise: Noise
    solution: Arrow

    @property
    def covariance(self) -> Floats:
        return np.asarray(self.solution.factor @ self.solution.factor.T)

    def time_u_s(self, name: str) -> float:
        """The standard uncertainty of one of the `free` times."""
        k = len(self.levels) + len(self.rises) + len(self.bends) + self.free.index(name)
        return float(np.linalg.norm(self.solution.factor[k]))


class Design(NamedTuple):
    """What readings [n] show of the levels, rises and bends [c + s + kinds], and of the stretches [m + 1]."""

    border: sparse.csr_array
    inside: sparse.csr_array


@dataclass(frozen=True)
class System:
    """Readings, stretches and the times to find, put together.

    Power follows the load in a straight ramp of `ramp_s`; where it `decays`, as a low-pass does that is as late.
    """

    measured: Measured
    layout: Layout
    free: Sequence[Free]
    decays: bool = False

    def fit(self, timing: Timing) -> Fit:
        """The powers and the `free` times, which begin where `timing` has them.

        Gauss and Newton on all at once, in turn with the noise, whose parts are found by restricted maximum likelihood.
        """
        part = self.part()
        found = part.first(timing)
        for _ in range(ROUNDS):
            found = part.settle(found)
            found = replace(found, noise=part.noise(found))
        return self.settle(replace(self.first(found.timing), noise=found.noise))

    def part(self, most: int | None = None) -> System:
        """The same with no more than so many readings, from the middle; else with as many as tell the noise."""
        there = len(self.measured.t_s)
        most = most or min(ENOUGH, ENOUGH_STRETCHES * there // (len(self.layout.edges_s) + 1))
        begin = max(there - most, 0) // 2
        few = self.measured.only(np.arange(begin, min(begin + most, there)))
        return replace(self, measured=few, layout=self.layout.between(few.t_s[0] - LOOK_BACK_S, few.t_s[-1]))

    def design(self, timing: Timing, levels: Floats) -> Design:
        """At this timing, where the levels are about `levels`."""
        if self.decays:
            timing = timing._replace(lowpass_s=timing.lowpass_s + timing.ramp_s / 2, ramp_s=0.0)
        seen = columns(self.measured.t_s, self.layout.edges_s, timing, self.measured.window_s)
        return Design(self.layout.powers(seen, levels), seen.level)

    def first(self, timing: Timing) -> Fit:
        """The powers at this timing, before anything is known of the noise."""
        m, c, s = *self.layout.level.shape, self.layout.rise.shape[1]
        watts, kinds = self.measured.watts, self.layout.kinds
        noise = Noise.first(watts, self.measured.floor_u_w, kinds)
        level = np.full(c, float(np.abs(watts).mean()))
        nothing = Arrow(np.zeros(0), np.zeros(0), np.zeros((1, 0)), np.zeros((0, 0)), np.zeros((0, 0)))
        blank = Fit(
            timing, (), level, np.zeros(s), np.zeros(kinds), np.zeros(m), np.zeros(m), watts, watts, noise, nothing
        )
        return self._solved(self._problem(self.design(timing, level), blank), blank, ())

    def settle(self, found: Fit) -> Fit:
        """Move the times until they stay where they are."""
        found = self.again(found)
        noise_u_w = found.noise_u_w
        for _ in range(STEPS):
            solved, moves = self.step(found)
            u = [solved.time_u_s(free.name) for free in self.free]
            better = None if np.all(np.abs(moves) < SETTLED * np.array(u)) else self._better(found, moves, noise_u_w)
            if better is None:
                return solved
            found = better
        return self.step(found)[0]

    def _better(self, found: Fit, moves: Floats, noise_u_w: Floats) -> Fit | None:
        """What explains the readings better along the `moves` of the times; None where nothing near does."""
        cost = self.cost(found, noise_u_w)
        for part in PARTS:
            times = times_of(found.timing)
            for free, move in zip(self.free, moves, strict=True):
                times[free.name] += part * move
            moved = self.again(replace(found, timing=timing_of(allowed(times))))
            if self.cost(moved, noise_u_w) < cost:
                return moved
        return None

    def cost(self, found: Fit, noise_u_w: Floats) -> float:
        """The sum of squares that a fit has left, in units of a given noise, and those of what was known beforehand."""
        left = (self.measured.watts - found.fitted_w) / noise_u_w
        times = times_of(found.timing)
        known = sum(((times[free.name] - free.mean) / free.u) ** 2 for free in self.free)
        return float(left @ left + found.solution.inside @ found.solution.inside + known)

    def again(self, found: Fit) -> Fit:
        """The powers once more, timing and noise being what was found."""
        return self._solved(self._problem(self.design(found.timing, found.levels), found), found, ())

    def noise(self, found: Fit) -> Noise:
        problem = self._problem(self.design(found.timing, found.levels), found)
        return noise.estimate(problem, found.noise, self.measured.floor_u_w)

    def step(self, found: Fit) -> tuple[Fit, Floats]:
        """One step of Gauss and Newton: the powers, and by how much each free time moves."""
        here = self.design(found.timing, found.levels)
        powers = np.concatenate([found.levels, found.rises, found.bends])
        times, shown = times_of(found.timing), here.border @ powers + here.inside @ found.deviation_w
        slopes = []
        for free in self.free:
            there = self.design(timing_of(times | {free.name: times[free.name] + STEP_S}), found.levels)
            slopes.append((there.border @ powers + there.inside @ found.deviation_w - shown) / STEP_S)
        border = sparse.hstack([here.border, *(sparse.csr_array(slope[:, None]) for slope in slopes)], format="csr")
        problem = self._problem(Design(border, here.inside), found)
        pull = np.zeros(len(problem.precision))
        for k, free in enumerate(self.free, len(powers)):
            pull[k] = (free.mean - times[free.name]) / free.u**2
        solved = self._solved(problem, found, tuple(free.name for free in self.free), pull)
        return solved, solved.solution.border[len(powers) :]

    def _problem(self, design: Design, found: Fit) -> Problem:
        """The linear system around what was found before, which the noise depends on."""
        power = self.layout.level @ found.levels
        slope = np.gradient(found.fitted_w, self.measured.t_s)
        # A mean over a longer time scatters less.
        window = self.measured.window_s
        constant = np.ones(len(slope)) if window is None else np.median(window) / window
        reach = UNSEEN_REL * float(np.abs(self.measured.watts).max())
        share = abs(self.layout.level).max(axis=0).toarray().ravel()
        unseen = np.where(share > 0, share, 1.0) / reach
        size = (self.layout.rise.T @ np.abs(power)) / np.maximum(self.layout.rise.sum(axis=0), 1.0)
        rises, bends = 1 / np.maximum(SHAPE_REL * size, TINY_W) ** 2, np.full(len(found.bends), SHAPE_REL**-2)
        powers = np.concatenate([unseen**2, rises, bends])
        times = [1 / free.u**2 for free in self.free][: design.border.shape[1] - len(powers)]
        return Problem(
            self.measured.watts,
            np.stack([constant, found.fitted_w, slope]),
            *design,
            np.concatenate([powers, times]),
            self.layout.kind,
            power,
        )

    def _solved(self, problem: Problem, found: Fit, free: tuple[str, ...], pull: Floats | None = None) -> Fit:
        solution = problem.solve(found.noise, pull).solution
        c, s, kinds = len(found.levels), len(found.rises), len(found.bends)
        spread = found.noise.of_stretches(problem.kind, problem.power)
        deviation = solution.inside * spread
        return replace(
            found,
            free=free,
            levels=solution.border[:c],
            rises=solution.border[c : c + s],
            bends=solution.border[c + s : c + s + kinds],
            deviation_w=deviation,
            spread_w=spread,
            fitted_w=problem.border @ solution.border + problem.inside @ deviation,
            noise_u_w=found.noise.of(problem.shapes),
            solution=solution,
        )
