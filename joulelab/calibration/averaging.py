"""Which averaging explains a sensor's readings: none, a window, a low-pass, or both, by an information criterion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from joulelab.calibration.kernel import TINY_S, Timing
from joulelab.calibration.timing import NONE_S, RATES, SAME, Problem, Start, TimingFit

INSTANTANEOUS, WINDOW, LOWPASS, BOTH = "instantaneous", "window", "low-pass", "window and low-pass"
MODELS: dict[str, tuple[str, ...]] = {
    INSTANTANEOUS: (),
    WINDOW: ("window_s",),
    LOWPASS: ("lowpass_s",),
    BOTH: ("window_s", "lowpass_s"),
}
ENOUGH = 15_000
"""So many readings tell the model; the last are taken, since a ladder ends with its square waves."""
SURE = 6.0
"""A model is better than another where its criterion is lower by this much: odds of 20 to 1 (Kass and Raftery 1995)."""


@dataclass(frozen=True)
class Averaging:
    """The model that explains best, its fit, and by how much the criterion of each other one is higher."""

    model: str
    fit: TimingFit
    worse: dict[str, float]

    @property
    def rival(self) -> str | None:
        """The other kind of averaging, where it explains nearly as well."""
        other = {WINDOW: LOWPASS, LOWPASS: WINDOW}.get(self.model, "")
        return other if self.worse.get(other, np.inf) < SURE else None


def averaging(problem: Problem, drifts: bool = False) -> Averaging:
    """The simplest model that the best one is not clearly better than, by Schwarz's criterion.

    `drifts`: the power was read on another clock, whose rate is fitted, too.
    """
    some, rates = problem.last(ENOUGH), RATES if drifts else SAME
    none, wide = some.coarse(NONE_S, rates), some.coarse(rates=rates)
    starts = {name: _start(wide, free) if free else none for name, free in MODELS.items()}
    return _best(problem, MODELS, starts, drifts)


def averaging_of_counter(problem: Problem, window_s: float, drifts: bool = False) -> Averaging:
    """The same where the window is known: a counter tells what was drawn between two updates."""
    wide = problem.last(ENOUGH).coarse((window_s,), RATES if drifts else SAME)
    blurred = wide.timing._replace(delay_s=wide.timing.delay_s - window_s / 4, lowpass_s=window_s / 4)
    starts = {WINDOW: wide, BOTH: Start(blurred, wide.rate)}
    return _best(problem, {WINDOW: (), BOTH: ("lowpass_s",)}, starts, drifts)


def _best(
    problem: Problem, models: Mapping[str, tuple[str, ...]], starts: Mapping[str, Start], drifts: bool
) -> Averaging:
    some, rate = problem.last(ENOUGH), ("rate",) if drifts else ()
    fits = {name: some.fit(starts[name], (*free, *rate)) for name, free in models.items()}
    fits = {name: fit for name, fit in fits.items() if all(getattr(fit.timing, t) > TINY_S for t in models[name])}
    worth = min(fits.values(), key=lambda fit: fit.squares).readings
    scores = {name: worth * np.log(fit.squares) + np.log(worth) * len(fit.free) for name, fit in fits.items()}
    near = [name for name, score in scores.items() if score < min(scores.values()) + SURE]
    best = min(near, key=lambda name: (len(models[name]), scores[name]))
    worse = {name: float(score - scores[best]) for name, score in scores.items() if name != best}
    found = fits[best]
    if some is not problem:
        found = problem.fit(Start(found.timing, found.rate), found.free[1:])
    return Averaging(best, found, worse)


def _start(coarse: Start, free: tuple[str, ...]) -> Start:
    """The boxcar's lag and about its width, by the model's own means."""
    width_s = coarse.timing.window_s
    window_s = width_s if "window_s" in free else 0.0
    lowpass_s = width_s / 4 if "lowpass_s" in free else 0.0
    return Start(Timing(coarse.timing.lag_s - window_s / 2 - lowpass_s, window_s, lowpass_s), coarse.rate)
