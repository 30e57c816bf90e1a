"""Verdicts: held-out errors with their intervals against the targets, or the reason why there can be no verdict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy import stats

from joulelab.analysis.cases import Case, cases
from joulelab.analysis.crossval import HeldOut, Split, hold_out
from joulelab.analysis.dataset import Phases
from joulelab.analysis.models import parts
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Origin, Scope
from joulelab.registry import nearest

LIMITS = {"time": 2.7, "energy": 5.2}
"""The targets: mean absolute percentage errors, held out."""
MIN_CONFIGURATIONS = 32
MIN_REPEATS = 5
MAX_DROPPED = 0.05
RESAMPLES = 2000
SIMULATED = "simulated: never counts towards the targets"
NO_METER = "no meter: the energy is estimated, it only repeats the time"


@dataclass(frozen=True)
class Verdict:
    """Whether a model's held-out error keeps its limit. Errors in percent, against means over repeats.

    Beyond what `to_json` gives: `points`, the held-out configurations with `observed` and `predicted`; the `dropped`
    rows, each with its `cause`; the `forms` that the folds chose and how often; `method`, chained or direct;
    `mape_all_percent`, with short phases; `direct_mape_percent`, of totals fitted directly beside chained ones (where
    the two disagree, look for a mistake in the measurement).
    """

    device: str
    target: str
    phase: str
    mape_percent: float | None
    ci95_percent: tuple[float, float] | None
    limit_percent: float
    split: str
    noise_floor_percent: float | None
    configurations: int
    dropped_rows: int
    verdict: str
    reason: str | None
    channel: str | None
    scope: str | None
    origin: str
    method: str
    points: pd.DataFrame
    dropped: list[dict[Hashable, Any]]
    forms: dict[str, int]
    median_ape_percent: float | None
    p95_ape_percent: float | None
    bias_percent: float | None
    single_run_mape_percent: float | None
    mape_all_percent: float | None
    direct_mape_percent: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields from `device` to `origin`."""
        names = [field.name for field in fields(self)]
        return {name: getattr(self, name) for name in names[: names.index("origin") + 1]}


def validate(
    phases: Phases,
    *,
    limits: Mapping[str, float] = LIMITS,
    split: Split = "configuration",
    min_periods: float = 5.0,
    seed: int = 1,
) -> list[Verdict]:
    """A verdict for each subject, target, channel and phase.

    Energies of phases under `min_periods` sensor periods are left out of the fits; `seed` draws folds and resamples.
    `split` says what a fold holds out: a tenth of the configurations, or one prompt length.
    """
    if split not in get_args(Split):
        raise UserError(f"cannot hold out by {split!r}{nearest(split, get_args(Split))}")
    return [
        _judge(case, phase, limits[case.target], split, seed)
        for case in cases(phases, min_periods)
        for phase in case.phases
    ]


def _judge(case: Case, phase: str, limit: float, split: Split, seed: int) -> Verdict:
    points, lost = case.points(phase), case.lost(phase)
    summed = parts(case) if phase == "total" else (phase,)
    chained, notes = phase not in summed, [SIMULATED] if case.origin == Origin.SIMULATED else []
    interval, found = None, HeldOut.nothing()
    try:
        case.check(phase)
        found = hold_out(case, phase, summed, split, seed)
        interval = confidence_interval(found.long["ape_percent"].to_numpy(), seed)
        doubts = _doubts(case, phase, points)
    except DataInvalid as refusal:
        doubts = [str(refusal)]
    if case.scope == Scope.ESTIMATE:
        doubts.insert(0, NO_METER)
    verdict, reasons = _decide(interval, limit, doubts)
    return Verdict(
        device=case.label,
        target=case.target,
        phase=phase,
        ci95_percent=interval,
        limit_percent=limit,
        split=split,
        noise_floor_percent=noise_floor(points),
        configurations=len(points),
        dropped_rows=len(lost),
        verdict=verdict,
        reason="; ".join([*notes, *reasons]) or None,
        channel=case.channel,
        scope=case.scope,
        origin=case.origin,
        method="chained" if chained else "direct",
        points=found.points,
        dropped=lost.to_dict("records"),
        forms=dict(found.forms),
        direct_mape_percent=_direct(case, split, seed) if chained and interval else None,
        **found.errors(),
    )


def noise_floor(points: pd.DataFrame) -> float | None:
    """The error in percent that a perfect model would have against means of so many repeats; None for single runs.

    The mean deviation of a normal variable is sqrt(2 / pi) of its standard deviation.
    """
    floor = (np.sqrt(2 / np.pi) * points["cv"] / np.sqrt(points["runs"])).mean() * 100
    return None if np.isnan(floor) else float(floor)


def confidence_interval(errors: Floats, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean error over resampled configurations, bias-corrected and accelerated (BCa).

    Efron, Better bootstrap confidence intervals, JASA 82 (1987): errors are skewed, plain percentiles come out low.
    """
    found = stats.bootstrap((errors,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _doubts(case: Case, phase: str, points: pd.DataFrame) -> list[str]:
    """What keeps a verdict undecided however small the error is."""
    repeats, lost = points["runs"].median(), case.lost_share(phase)
    runs = "one run" if repeats == 1 else f"{repeats:g} runs"
    doubts = {
        f"{len(points)} configurations, {MIN_CONFIGURATIONS} needed": len(points) < MIN_CONFIGURATIONS,
        f"{runs} a configuration, {MIN_REPEATS} needed": repeats < MIN_REPEATS,
        f"{lost * 100:.1f} % of the rows dropped, {MAX_DROPPED * 100:.0f} % allowed": lost > MAX_DROPPED,
    }
    return [doubt for doubt, holds in doubts.items() if holds]


def _decide(interval: tuple[float, float] | None, limit: float, doubts: list[str]) -> tuple[str, list[str]]:
    if doubts or interval is None:
        return "undecided", doubts
    if interval[1] <= limit:
        return "pass", []
    if interval[0] > limit:
        return "fail", []
    return "undecided", ["the interval spans the limit"]


def _direct(case: Case, split: Split, seed: int) -> float | None:
    try:
        return hold_out(case, "total", ("total",), split, seed).errors()["mape_percent"]
    except DataInvalid:
        return None
