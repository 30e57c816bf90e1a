"""How good plans are: cost, regret against the best one, gain over the best static device, what moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from joulelab.analysis.placement.plans import Outcome, Plan, outcome
from joulelab.analysis.placement.tables import Setting, Table
from joulelab.calibration.integrals import Floats

DRAWS, SEED = 2000, 0
LEVEL = 0.95


class Interval(NamedTuple):
    """A value with its 95 % interval, which a single session does not give."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Costs:
    """What the plans of a policy cost: each session's turns, and per session [sessions] their sum.

    `over_cap` counts turns that break the cap, `switches` turns on another device than the one before.
    """

    turns: list[Floats]
    seconds: float
    joules: float | None
    moved_bytes: float
    switches: int
    over_cap: int

    @property
    def sessions(self) -> Floats:
        return np.array([turns.sum() for turns in self.turns])

    @property
    def total(self) -> float:
        return float(self.sessions.sum())


def costs(tables: Sequence[Table], plans: Sequence[Plan], setting: Setting) -> Costs:
    """What plans cost by tables, which need not be those that they were made with."""
    outcomes = [outcome(table, plan) for table, plan in zip(tables, plans, strict=True)]
    joules = [each.joules for each in outcomes if each.joules is not None]
    return Costs(
        [_objective(each, setting) for each in outcomes],
        float(sum(each.seconds.sum() for each in outcomes)),
        float(sum(each.sum() for each in joules)) if joules else None,
        float(sum(each.moved.sum() for each in outcomes)),
        int(sum(np.count_nonzero(np.diff(plan.device)) for plan in plans)),
        0 if setting.cap_s is None else int(sum((each.seconds > setting.cap_s).sum() for each in outcomes)),
    )


def _objective(found: Outcome, setting: Setting) -> Floats:
    """What each turn costs; that it breaks the cap is counted besides."""
    if found.joules is None:
        return found.seconds
    return found.joules * found.seconds if setting.objective == "edp" else found.joules


class Regret(NamedTuple):
    """What sessions cost over the least that they could, less 1: in all, the mean, 95th percentile and maximum."""

    total: float
    mean: float
    p95: float
    largest: float


def regret(found: Costs, least: Costs) -> Regret:
    each = found.sessions / least.sessions - 1
    return Regret(found.total / least.total - 1, float(each.mean()), float(np.quantile(each, 0.95)), float(each.max()))


class Largest(NamedTuple):
    """The largest gain of a turn: where it stands, and what share of the workload's cost on the static device it is."""

    gain: Interval
    session: str
    turn: int
    history: int
    prompt: int
    output: int
    share: float


class Gains(NamedTuple):
    """Factors by which plans cost less than a static device: of sessions in all and in the geometric mean, of turns at
    the most.
    """

    total: Interval
    geometric_mean: Interval
    largest: Largest


def gains(static: Costs, found: Costs, tables: Sequence[Table], names: Sequence[str]) -> Gains:
    """The intervals are from bootstrap over sessions."""
    n = len(names)
    drawn = np.random.default_rng(SEED).integers(n, size=(DRAWS, n))
    a, b = static.sessions, found.sessions
    turns = [alone / own for alone, own in zip(static.turns, found.turns, strict=True)]
    most = np.array([each.max() for each in turns])
    session = int(most.argmax())
    turn = int(turns[session].argmax())
    return Gains(
        _interval(a.sum() / b.sum(), a[drawn].sum(axis=1) / b[drawn].sum(axis=1), n),
        _interval(np.exp(np.log(a / b).mean()), np.exp(np.log(a / b)[drawn].mean(axis=1)), n),
        Largest(
            _interval(most[session], most[drawn].max(axis=1), n),
            names[session],
            turn + 1,
            int(tables[session].history[turn]),
            *tables[session].view.turns[turn],
            share=float(static.turns[session][turn] / static.total),
        ),
    )


def _interval(value: float, drawn: Floats, sessions: int) -> Interval:
    if sessions < 2:
        return Interval(float(value), None, None)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
