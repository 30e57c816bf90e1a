"""A solved system of readings: the energies of phases, how they are correlated, and what else they may err by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from joulelab.calibration.activity import KINDS, seconds
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.kernel import Timing, energies
from joulelab.calibration.layout import times_of, timing_of
from joulelab.calibration.system import Fit, System

RAMP_S = 0.1
"""The unknown lag of a sensor may hide a ramp of the power of up to so long. The rise of an RTX 3090 comes 46 ms late
on average, as one of 92 ms would (recording of GPU_Power_Benchmark)."""
START_U_S = 0.005
"""How far the begin of an engine's work lies from the told start of its request: a standard deviation. Client and
llama.cpp's server agree within 1 to 4 ms on the first token; vLLM on an Orin took 10 ms to launch (EdgeReasoning)."""
NUDGE_S = 2e-4
FADED_STRETCHES, NEGLIGIBLE = 64, 1e-8
"""What one stretch says of another fades within so many; smaller parts of a standard deviation count as nothing."""


@dataclass(frozen=True)
class Solved:
    """One channel's system with its solution. Times in seconds after `origin_ns`."""

    origin_ns: int
    system: System
    fit: Fit

    def energies(self, start_s: Floats, stop_s: Floats) -> Floats:
        """The energy [J] that was drawn from `start_s` to `stop_s` [rows]."""
        layout, fit = self.system.layout, self.fit
        drawn = energies(start_s, stop_s, layout.edges_s, self._follows)
        powers = np.concatenate([fit.levels, fit.rises, fit.bends])
        return np.asarray(layout.powers(drawn, fit.levels) @ powers + drawn.level @ fit.deviation_w)

    @property
    def _follows(self) -> Timing:
        ramp_s = self.fit.timing.ramp_s
        return Timing(lowpass_s=ramp_s / 2) if self.system.decays else Timing(ramp_s=ramp_s)

    def shared(self, start_s: Floats, stop_s: Floats) -> sparse.csr_array:
        """Factors [rows, factors] in J of these energies' covariance, which is shared @ shared.T."""
        layout, fit = self.system.layout, self.fit
        drawn = energies(start_s, stop_s, layout.edges_s, self._follows)
        own = sparse.csr_array(drawn.level @ sparse.diags_array(fit.spread_w))
        powers = layout.powers(drawn, fit.levels).toarray()
        times = np.stack([self._slope(name, start_s, stop_s) for name in fit.free], axis=1) if fit.free else None
        border = powers if times is None else np.hstack([powers, times])
        common = (border - own @ fit.solution.through) @ fit.solution.factor
        return sparse.csr_array(sparse.hstack([sparse.csr_array(common), _whitened(fit.solution.band, own)]))

    def _slope(self, name: str, start_s: Floats, stop_s: Floats) -> Floats:
        """By how much the energies grow with one of the free times, the powers being what they are [J/s]."""
        times = times_of(self.fit.timing)
        moved = replace(self.fit, timing=timing_of(times | {name: times[name] + NUDGE_S}))
        return (replace(self, fit=moved).energies(start_s, stop_s) - self.energies(start_s, stop_s)) / NUDGE_S

    def moved(self, shift_s: Floats) -> Solved:
        """The solution if the edges had been `shift_s` [m] later."""
        system = replace(self.system, layout=replace(self.system.layout, edges_s=self.system.layout.edges_s + shift_s))
        return replace(self, system=system, fit=system.step(self.fit)[0])

    def ramped(self, ramp_s: float) -> Solved:
        """The solution if the power had followed the load in a ramp; the sensor is that much younger."""
        times = times_of(self.fit.timing)
        times |= {"ramp_s": ramp_s, "age_s": times["age_s"] - ramp_s / 2}
        return self._settled(self.system, timing_of(times))

    def begun(self, late_s: float) -> Solved:
        """The solution if the load had begun so long after each request."""
        prefill = self.system.layout.kind == KINDS.index("prefill")
        edges = self.system.layout.edges_s
        late = np.minimum(edges + late_s * (prefill[1:] & ~prefill[:-1]), np.append(edges[1:], np.inf))
        system = replace(self.system, layout=replace(self.system.layout, edges_s=late))
        return self._settled(system, self.fit.timing)

    def _settled(self, system: System, timing: Timing) -> Solved:
        """The solution of another system, its timing found from there on by a part of the readings."""
        part = system.part()
        settled = part.settle(replace(part.first(timing), noise=self.fit.noise))
        return replace(self, system=system, fit=system.again(replace(self.fit, timing=settled.timing)))

    def decaying(self) -> tuple[Solved, float]:
        """The solution if power followed the load as a low-pass does instead of in a ramp, and how likely that is.

        Before the readings both are; a sensor that has a low-pass of its own tells the two apart no better than that.
        """
        system = replace(self.system, decays=True)
        other = replace(self, system=system, fit=system.settle(self.fit))
        worse = system.cost(other.fit, self.fit.noise_u_w) - self.system.cost(self.fit, self.fit.noise_u_w)
        return other, float(expit(-worse / 2))


def _whitened(band: Floats, own: sparse.csr_array) -> sparse.csr_array:
    """`own` [rows, m] times the inverse root of the normal equations whose lower Cholesky factor is `band` [b + 1, m].

    The inverse of the factor column by column, all of them at once, as far from the diagonal as it has not faded.
    """
    reach, many = len(band) - 1, band.shape[1]
    inverse = np.zeros((FADED_STRETCHES, many))
    inverse[0] = 1 / band[0]
    for far in range(1, min(FADED_STRETCHES, many)):
        columns = np.arange(many - far)
        for k in range(1, min(far, reach) + 1):
            inverse[far, columns] -= band[k, columns + far - k] * inverse[far - k, columns]
        inverse[far, columns] /= band[0, columns + far]
    inverse[np.abs(inverse) < NEGLIGIBLE] = 0.0
    apart, column = np.nonzero(inverse)
    lower = sparse.csr_array((inverse[apart, column], (column, column + apart)), (many, many))
    return sparse.csr_array(own @ lower)


class Energies(NamedTuple):
    """Energies [rows], the `shared` factors [rows, factors] of their noise, and signed terms [rows] beside it, in J.

    `sound`: whether there are readings all around a row.
    """

    energy_j: Floats
    shared: sparse.csr_array
    terms: dict[str, Floats]
    sound: NDArray[np.bool_]


def phase_energies(solved: Solved, start_ns: Ints, stop_ns: Ints, boundary_u_s: Floats) -> Energies:
    """The energies of phases, and what they may err by together.

    boundary: what they would be if the inner edges were that much later.
    start:    what they would be if the load began `START_U_S` after each request.
    ramp:     what a ramp of 0 to `RAMP_S` moves, each as likely, the timing being found anew (the mean square by
              Simpson's rule, since it levels off where the ramp is longer than the phase). Where the ramp is found,
              power may also follow the load as a low-pass does: the energy is the mean of both stories, each as likely
              as the readings make it, and this is how far it is from either.
    """
    start, stop = (seconds(t, solved.origin_ns) for t in (start_ns, stop_ns))
    energy = solved.energies(start, stop)
    late, early = np.maximum(boundary_u_s, 0.0), np.maximum(-boundary_u_s, 0.0)
    began = solved.begun(START_U_S).energies(start, stop)
    terms = {"boundary": np.zeros(len(energy)), "ramp": np.zeros(len(energy)), "start": began - energy}
    if np.any(boundary_u_s):
        edges = solved.system.layout.edges_s
        shift = np.zeros(len(edges))
        shift[np.searchsorted(edges, stop[late > 0])] = late[late > 0]
        terms["boundary"] = solved.moved(shift).energies(start + early, stop + late) - energy
    if "ramp_s" in solved.fit.free:
        other, share = solved.decaying()
        apart = other.energies(start, stop) - energy
        energy, terms["ramp"] = energy + share * apart, np.sqrt(share * (1 - share)) * apart
    else:
        half, whole = (solved.ramped(ramp_s).energies(start, stop) - energy for ramp_s in (RAMP_S / 2, RAMP_S))
        terms["ramp"] = np.copysign(np.sqrt((4 * half**2 + whole**2) / 6), whole)
    t_s = solved.system.measured.t_s - solved.fit.timing.delay_s
    sound = (start >= t_s[0]) & (stop <= t_s[-1])
    return Energies(energy, solved.shared(start, stop), terms, sound)
