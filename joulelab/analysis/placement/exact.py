"""The cheapest sequence of devices for the turns of a session, exactly.

What a turn costs depends on the device and on how long a prefix of the context that device's cache holds, and on
nothing else: with a link the missing rest is always to be had from the device that ran the turn before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from joulelab.calibration.integrals import Floats, Ints
from joulelab.errors import DataInvalid

ROUNDING = 1e-9
RIVALS, MOST_LABELS = 256, 5_000
"""How many partial plans all others are compared with after a turn, and how many may stay in the running."""


def without_copies(stay: Floats, move: Floats) -> list[int]:
    """The devices [turns] of the cheapest plan where only the device that ran the last turn keeps its cache.

    `stay` and `move` [turns, devices] are the costs of a turn on the device that has the cache, and on one that first
    has to get it; in the first turn `stay` counts for all. A dynamic program over who holds the cache, O(turns x
    devices), since a move costs the same from wherever it starts.
    """
    turns, devices = stay.shape
    if devices == 1:
        return [0] * turns
    here = np.arange(devices)
    came = np.empty((turns, devices), np.int64)
    total = stay[0]
    for k in range(1, turns):
        order = total.argsort()
        source = np.where(here == order[0], order[1:2], order[0])
        stays, moves = total + stay[k], total[source] + move[k]
        came[k] = np.where(moves < stays, source, here)
        total = np.minimum(stays, moves)
    plan = [int(total.argmin())]
    for k in range(turns - 1, 0, -1):
        plan.append(int(came[k, plan[-1]]))
    return plan[::-1]


class Labels(NamedTuple):
    """Partial plans [n] up to some turn: how many turns each device's cache holds [n, devices], what they cost [n],
    and the label [n] and the device [n] that they came by.
    """

    held: Ints
    cost: Floats
    parent: Ints
    device: Ints


def with_copies(cost: Floats, held: Ints) -> list[int]:
    """The devices [turns] of the cheapest plan where every device keeps its cache and what it held stays of use.

    `cost` [turns, prefixes, devices] is that of a turn on a device whose cache holds the first so many turns of the
    session; `held` [devices] are these numbers at the start. Label setting: a partial plan is dropped where another
    costs less even after it has made up, at the worst, for every prefix in which it lags; and where it would cost more
    than a plan that is known, even with the least that later turns can cost. DataInvalid where more than
    `MOST_LABELS` stay in the running.
    """
    past = cost.shape[1] - len(cost)
    known = _known(cost, held)
    least = _least_to_go(cost)
    labels = Labels(held[None, :], np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64))
    lags = _Lags(cost)
    steps = []
    for k in range(len(cost)):
        labels = _undominated(_extended(labels, cost[k], least[k], known, past + k + 1), lags, k + 1)
        if len(labels.cost) > MOST_LABELS:
            raise DataInvalid(
                f"too many plans for {len(cost)} turns on {cost.shape[2]} devices that keep their caches are about as "
                "good: --copies drop has an exact plan"
            )
        steps.append(labels)
    at, plan = 0, []
    for step in reversed(steps):
        plan.append(int(step.device[at]))
        at = int(step.parent[at])
    return plan[::-1]


def _extended(labels: Labels, cost: Floats, least: Floats, known: float, turns: int) -> Labels:
    """Every label with the next turn on every device, after which that device holds all `turns`, cheapest first.

    Without those that with the `least` [devices] that is still to come cost more than what is `known`.
    """
    total = labels.cost[:, None] + cost[labels.held, np.arange(len(least))]
    parent, device = np.nonzero(total + least <= known)
    total, held = total[parent, device], labels.held[parent]
    held[np.arange(len(held)), device] = turns
    kept = np.argsort(total, kind="stable")
    if len(kept) > RIVALS:  # among fewer all are compared
        _, first = np.unique(held[kept], axis=0, return_index=True)
        kept = kept[np.sort(first)]
    return Labels(held[kept], total[kept], parent[kept], device[kept])


def _undominated(labels: Labels, lags: _Lags, turn: int) -> Labels:
    """The labels, cheapest first, without those that one of the cheapest beats whatever comes from `turn` on."""
    if turn == lags.turns or len(labels.cost) == 1:
        return _only(labels, slice(1))
    apart = np.flatnonzero((labels.held != labels.held[0]).any(axis=0))
    worth = labels.cost[:RIVALS, None] + sum(lags.of(j, labels.held[:, j], turn) for j in apart.tolist())
    return _only(labels, ~np.triu(worth <= labels.cost, 1).any(axis=0))


def _only(labels: Labels, kept: Any) -> Labels:
    return Labels(*(column[kept] for column in labels))


def _least_to_go(cost: Floats) -> Floats:
    """What the turns after each one cost at least [turns, devices], by the device that runs it.

    The next turn on another device is one that lacks this turn at least, and whatever lacks the least costs.
    """
    turns, prefixes, devices = cost.shape
    row = np.arange(turns)
    whole = prefixes - turns + row
    stay = cost[row, whole]
    move = np.array([own[:held].min(axis=0, initial=np.inf) for own, held in zip(cost, whole, strict=True)])
    least = np.zeros((turns, devices))
    for k in range(turns - 1, 0, -1):
        least[k - 1] = np.minimum(stay[k] + least[k], (move[k] + least[k]).min())
    return least


def _known(cost: Floats, held: Ints) -> float:
    """What a good plan costs, with what rounding may add: the best without copies, which then uses those it makes."""
    past, own = cost.shape[1] - len(cost), held.copy()
    turn = np.arange(len(cost))
    stay = cost[turn, past + turn]
    stay[0] = cost[0, held, np.arange(len(held))]
    total = 0.0
    for k, j in enumerate(without_copies(stay, cost[:, 0])):
        total += cost[k, own[j], j]
        own[j] = past + k + 1
    return float(total) * (1 + ROUNDING)


class _Lags:
    """What it costs at the most to have fewer turns in a device's cache: in the device's next turn, whichever that is;
    afterwards both plans hold the same.
    """

    def __init__(self, cost: Floats) -> None:
        self._cost, self.turns = cost, len(cost)
        self._worst: dict[tuple[int, int, int], Floats] = {}

    def of(self, device: int, held: Ints, turn: int) -> Floats:
        """What each of the first labels lags behind each label [n, m], from `turn` on, by what they hold [m]."""
        values, whose = np.unique(held, return_inverse=True)
        each = values.tolist()
        worst = np.array([[self._later(device, mine, theirs)[turn] for theirs in each] for mine in each])
        return np.asarray(worst[whose[:RIVALS, None], whose])

    def _later(self, device: int, mine: int, theirs: int) -> Floats:
        """By the turn [turns] from which on it may be the next."""
        key = device, mine, theirs
        if key not in self._worst:
            with np.errstate(invalid="ignore"):
                more = self._cost[:, mine, device] - self._cost[:, theirs, device]
            # Where neither could run, neither lags: infinite less infinite is passed over.
            self._worst[key] = np.maximum.accumulate(np.fmax(more, 0.0)[::-1])[::-1]
        return self._worst[key]
