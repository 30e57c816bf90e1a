"""A device that plays idle time and inferences: their durations, and the power that they draw meanwhile."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab.simulation import chance, timing
from joulelab.simulation.profile import Power, Profile
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND

GRID_NS = SECOND // 2
"""Background activity changes on this grid, and the power has knots there."""
RAMP = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Knots after a change of load, in time constants of the ramp."""
STEPS = 8
"""The load of a phase follows its passes in so many steps at most."""


class Played(NamedTuple):
    """An inference as it went: when it began, when each output token came [ns], how hot the device was at the end."""

    start: int
    tokens: tuple[int, ...]
    temperature_c: float


class State(NamedTuple):
    """Where a device stands at `t` [ns].

    `dynamic` power lags the load, `onset` is a transient that decays, `watts` is the whole power at the input [W].
    """

    t: int
    dynamic: float
    onset: float
    temperature: float
    watts: float


class Device:
    """One specimen of a profile, at rest at bench time 0.

    What it does is decided by its seed and by what it has played so far.
    """

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self._key = chance.key(seed, profile.name)
        self._cool = profile.thermal.ambient_c + profile.thermal.resistance * profile.power.idle_w
        self._ramp_ns = [round(r * profile.power.ramp_s * SECOND) for r in RAMP]
        self._state = self._ahead = self._stand(0, 0.0, 0.0, self._cool)
        self._load_since = 0
        self.trace = Trace(0, self._state.watts)

    def luck(self, number: int) -> chance.Luck:
        """What chance does to inference `number` of a run."""
        return chance.luck(self.profile.noise, (*self._key, 0, number))

    def idle_until(self, t: int) -> None:
        """Extend the trace with idle power to `t` [ns] or a little further: to a knot that does not depend on `t`."""
        while self._ahead.t < t:
            self._state = self._ahead
            self._ahead = self._relax(self._state, self._knot_after(self._state.t), 0.0)
            self.trace.append(self._ahead.t, self._ahead.watts)

    def play(self, start: int, history: int, prompt: int, output: int, luck: chance.Luck) -> Played:
        """One inference from `start` [ns] on, not before the last one ended; its history is in the cache already."""
        self._stop_idling(start)
        t = self.profile.timing
        host_s = t.request_launch_s * luck.prefill_time + luck.stall_s
        self._bear(start + round(host_s * SECOND), 0.0)
        self._work(timing.prefill(t, self.profile.model, history, prompt), luck.prefill_time, luck.prefill_power)
        passes = timing.decode(t, self.profile.model, history + prompt, output)
        tokens = self._work(passes, luck.decode_time, luck.decode_power)
        self._ahead, self._load_since = self._state, self._state.t
        return Played(start, tuple(tokens.tolist()), self._state.temperature)

    def _stop_idling(self, t: int) -> None:
        """Stand at `t`; the idle power may have been extended beyond it."""
        self.idle_until(t)
        if t < self._ahead.t:
            self._ahead = self._relax(self._state, t, 0.0)
            self.trace.cut(t)
        self._state = self._ahead

    def _work(self, passes: timing.Passes, slower: float, hungrier: float) -> NDArray[np.int64]:
        """Play passes under the load that they make, in a few steps; the edges of all passes [n + 1] [ns]."""
        power = self.profile.power
        edges = self._state.t + np.rint(np.cumsum(np.r_[0.0, passes.seconds]) * slower * SECOND).astype(np.int64)
        n = len(passes.seconds)
        bounds = np.linspace(0, n, min(STEPS, n) + 1).astype(int)
        for first, last in pairwise(bounds):
            part = slice(first, last)
            seconds, memory, compute = (column[part].sum() for column in passes)
            load = power.active_w + (power.memory_w * memory + power.compute_w * compute) / seconds
            self._bear(int(edges[last]), load * hungrier)
        return edges

    def _bear(self, stop: int, load: float) -> None:
        """Play a constant load [W] until `stop`, with a knot wherever the power bends."""
        self._load_since = self._state.t
        self._state = self._begin(self._state, load)
        while self._state.t < stop:
            self._state = self._relax(self._state, min(self._knot_after(self._state.t), stop), load)
            self.trace.append(self._state.t, self._state.watts)

    def _begin(self, state: State, load: float) -> State:
        """A rise of the load sets off an onset transient; it grows as the ramp does, and so starts from nothing."""
        kick = self.profile.power.onset_rel * max(load - state.dynamic, 0.0)
        return state._replace(dynamic=state.dynamic - kick, onset=state.onset + kick)

    def _relax(self, state: State, t: int, load: float) -> State:
        """The state at `t` under a constant load: ramp, onset and temperature relax exponentially."""
        power, thermal = self.profile.power, self.profile.thermal
        seconds = (t - state.t) / SECOND
        warm = thermal.ambient_c + thermal.resistance * state.watts
        return self._stand(
            t,
            load + (state.dynamic - load) * math.exp(-seconds / power.ramp_s),
            state.onset * math.exp(-seconds / power.onset_s),
            warm + (state.temperature - warm) * math.exp(-seconds / thermal.time_constant_s),
        )

    def _stand(self, t: int, dynamic: float, onset: float, temperature: float) -> State:
        power = self.profile.power
        idle = power.idle_w * (1 + power.background_rel * self._background(t))
        return State(t, dynamic, onset, temperature, idle + leakage(power, temperature - self._cool) + dynamic + onset)

    def _knot_after(self, t: int) -> int:
        grid = (t // GRID_NS + 1) * GRID_NS
        ramp = bisect_right(self._ramp_ns, t - self._load_since)
        return min(grid, self._load_since + self._ramp_ns[ramp]) if ramp < len(RAMP) else grid

    def _background(self, t: int) -> float:
        """What the system does besides, in standard deviations: white on the grid, linear between."""
        index, rest = divmod(t, GRID_NS)
        here, there = (chance.normal((*self._key, 1), i) for i in (index, index + 1))
        return here + (there - here) * rest / GRID_NS


def leakage(power: Power, warmer_k: float) -> float:
    """What leaks more than at idle [W], so many kelvin above the idle device's temperature."""
    return power.leakage_w * math.expm1(power.leakage_per_k * warmer_k)
