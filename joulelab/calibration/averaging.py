"""Which averaging explains a sensor's readings: none, a window, a low-pass, or both, by an information criterion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulelab.calibration.kernel import TINY_S, Timing
from joulelab.calibration.timing import NONE_S, RATES, SAME, Problem, Start, TimingFit

INSTANTANEOUS, WINDOW, LOWPASS = "instantaneous", "window", "low-pass"
MODELS: dict[str, tuple[str, ...]] = {
    INSTANTANEOUS: (),
    WINDOW: ("window_s",),
    LOWPASS: ("lowpass_s",),
    "window and low-pass": ("window_s", "lowpass_s"),
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
    rates, rate = (RATES, ("rate",)) if drifts else (SAME, ())
    some = problem.last(ENOUGH)
    none, wide = some.coarse(NONE_S, rates), some.coarse(rates=rates)
    fits = {name: some.fit(_start(wide, free) if free else none, (*free, *rate)) for name, free in MODELS.items()}
    fits = {name: fit for name, fit in fits.items() if all(getattr(fit.timing, t) > TINY_S for t in MODELS[name])}
    worth = min(fits.values(), key=lambda fit: fit.squares).readings
    scores = {name: worth * np.log(fit.squares) + np.log(worth) * len(fit.free) for name, fit in fits.items()}
    near = [name for name, score in scores.items() if score < min(scores.values()) + SURE]
    best = min(near, key=lambda name: (len(MODELS[name]), scores[name]))
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
