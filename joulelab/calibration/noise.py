"""What readings scatter by, and the powers behind them: variance components by restricted maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from joulelab.calibration import arrow
from joulelab.calibration.integrals import Floats, Ints

LEAST_REL, MOST_REL = 1e-5, 0.5
LEAST_S, MOST_S = 1e-6, 1.0
BEGIN_REL, BEGIN_S = 0.003, 1e-4
ENOUGH, MOST_STEPS = 0.1, 20
"""A noise is likely enough where the deviance has no more to lose."""


@dataclass(frozen=True)
class Noise:
    """The standard deviations of a reading: constant, relative to what it shows, and from the doubt of its time.

    `spread` [kinds]: by how much the power of one stretch differs from another's of its kind, relative.
    """

    white_w: float
    relative: float
    jitter_s: float
    spread: Floats

    @classmethod
    def first(cls, watts: Floats, floor_w: float, kinds: int) -> Noise:
        """Before anything is known: 1 % of what is read, and stretches of a kind are alike."""
        return cls(max(0.01 * float(np.abs(watts).mean()), floor_w), 0.0, 0.0, np.zeros(kinds))

    @classmethod
    def of_logs(cls, logs: Floats) -> Noise:
        u = np.exp(logs)
        return cls(float(u[0]), float(u[1]), float(u[2]), u[3:])

    def of(self, shapes: Floats) -> Floats:
        """The standard deviation [n] of readings whose `shapes` [3, n] are 1, the power and its slope [W/s]."""
        return np.asarray(np.sqrt(np.square([self.white_w, self.relative, self.jitter_s]) @ shapes**2))

    def of_stretches(self, kind: Ints, power: Floats) -> Floats:
        """The standard deviation [m] of the power of stretches."""
        return np.where(kind < 0, 0.0, np.append(self.spread, 0.0)[kind] * np.abs(power))


class Problem(NamedTuple):
    """Readings [n] in W with the `shapes` [3, n] of their noise; what they show of the border's and the inside's
    unknowns, the border's `precision` beforehand, and of the inside's, the stretches [m], `kind` and `power`.
    """

    watts: Floats
    shapes: Floats
    border: sparse.csr_array
    inside: sparse.csr_array
    precision: Floats
    kind: Ints
    power: Floats

    def solve(self, noise: Noise, pull: Floats | None = None) -> Whitened:
        """All unknowns for this noise; the inside's in units of their spread."""
        sigma = noise.of(self.shapes)
        spread = noise.of_stretches(self.kind, self.power)
        border, inside = (_over(part, sigma) for part in (self.border, self.inside))
        inside.data *= spread[inside.indices]
        pull = np.zeros(len(self.precision)) if pull is None else pull
        return Whitened(arrow.solve(self.watts / sigma, border, inside, self.precision, pull), border, inside, sigma)


class Whitened(NamedTuple):
    """A solution and the system that it is of, in units of its noise [n]."""

    solution: arrow.Arrow
    border: sparse.csr_array
    inside: sparse.csr_array
    noise_u_w: Floats


def _over(matrix: sparse.csr_array, sigma: Floats) -> sparse.csr_array:
    data = matrix.data / np.repeat(sigma, np.diff(matrix.indptr))
    return sparse.csr_array((data, matrix.indices, matrix.indptr), matrix.shape)


def estimate(problem: Problem, start: Noise, floor_w: float) -> Noise:
    """The noise that makes the readings likeliest, by Fisher's scoring of its logarithms.

    The spread has the prior of Chung et al. (Psychometrika 78, 2013), which keeps it from a zero that few stretches
    cannot prove.
    """
    level, kinds = float(np.abs(problem.watts).mean()), len(start.spread)
    least = np.log([max(floor_w, LEAST_REL * level), LEAST_REL, LEAST_S, *np.full(kinds, LEAST_REL)])
    most = np.log([max(level, 2 * floor_w), MOST_REL, MOST_S, *np.full(kinds, MOST_REL)])
    begin = start.white_w, start.relative or BEGIN_REL, start.jitter_s or BEGIN_S, *start.spread
    logs = np.clip(np.log(np.maximum(begin, [0, 0, 0, *np.full(kinds, BEGIN_REL)])), least, most)
    for _ in range(MOST_STEPS):
        slope, curve = _slopes(problem, Noise.of_logs(logs))
        step = np.clip(-np.linalg.solve(curve, slope), -1.0, 1.0)
        moved = np.clip(logs + step, least, most)
        gained, logs = float(slope @ (logs - moved)), moved
        if gained < ENOUGH:
            break
    return Noise.of_logs(logs)


def _slopes(problem: Problem, noise: Noise) -> tuple[Floats, Floats]:
    """The slope [k] of the deviance, -2 log of the restricted likelihood, along the logarithms of the noise, and about
    how it curves [k, k].

    By Fisher's identity the slope is that of the likelihood if errors and deviations had been seen, averaged over what
    they may be.
    """
    solution, border, inside, sigma = problem.solve(noise)
    left = problem.watts / sigma - border @ solution.border - inside @ solution.inside
    apart = linalg.cho_solve_banded((solution.band, True), np.eye(inside.shape[1]), check_finite=False)
    leaning = solution.through @ solution.factor
    shown = (inside @ apart) * inside.toarray()
    bound = shown.sum(axis=1) + np.square(border @ solution.factor - inside @ leaning).sum(axis=1)
    parts = (np.square([noise.white_w, noise.relative, noise.jitter_s])[:, None] * problem.shapes**2) / sigma**2
    doubt = np.diag(apart) + np.square(leaning).sum(axis=1)
    kinds = problem.kind == np.arange(len(noise.spread))[:, None]
    slope = np.concatenate([2 * parts @ (1 - left**2 - bound), 2 * kinds @ (1 - solution.inside**2 - doubt) - 2])
    curve = np.diag(np.concatenate([np.full(3, 4.0), 4 * kinds @ (1 - doubt) ** 2 + 4]))
    curve[:3, :3] += 4 * (parts * (1 - bound) ** 2) @ parts.T
    return slope, curve
