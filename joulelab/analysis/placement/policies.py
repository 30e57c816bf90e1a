"""What placing turns is compared with: one device for all, and simple rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from joulelab.analysis.placement.plans import Plan, fixed, follow
from joulelab.analysis.placement.tables import Setting, Table
from joulelab.calibration.integrals import Floats, Ints

THRESHOLDS = tuple(2**n for n in range(4, 13))
"""Numbers of tokens among which the threshold rule chooses."""
SEED = 0


def total(value: Floats, plan: Plan) -> float:
    return float(value[plan.cells].sum())


def static(table: Table, setting: Setting, device: int) -> Plan:
    """Always the same device."""
    return fixed(table.value(setting), setting.copies, [device] * len(table.seconds))


def best_static(training: Sequence[Table], setting: Setting) -> int:
    """The device that costs the least where it runs all of a workload."""
    return int(_static_totals([table.value(setting) for table in training]).argmin())


def fastest(training: Sequence[Table]) -> int:
    """The device that takes the least time where it runs all of a workload."""
    return int(_static_totals([table.seconds for table in training]).argmin())


def _static_totals(values: Sequence[Floats]) -> Floats:
    """What a workload costs on each device alone [devices]."""
    alone = [value[np.arange(len(value)), np.arange(len(value)), :, 0].sum(axis=0) for value in values]
    return np.asarray(np.sum(alone, axis=0))


def greedy(table: Table, setting: Setting) -> Plan:
    """The device that costs the least in this turn, whatever comes."""
    best = table.value(setting).min(axis=-1)
    here = np.arange(best.shape[2])

    def cheapest(k: int, held: Ints) -> int:
        return int(best[k, held, here].argmin())

    return follow(table.value(setting), setting.copies, cheapest)


def at_random(table: Table, setting: Setting) -> Plan:
    """Any device, each equally often."""
    turns, _, devices, _ = table.seconds.shape
    chosen = np.random.default_rng(SEED).integers(devices, size=(turns,))
    return fixed(table.value(setting), setting.copies, chosen.tolist())


class Threshold(NamedTuple):
    """`below` runs the turns whose prompt (column 0) or output (column 1) has at most `tokens`, `above` the others.

    The rule of Wilkins et al. (arXiv 2407.04014).
    """

    below: int
    above: int
    column: int
    tokens: int

    def plan(self, table: Table, setting: Setting) -> Plan:
        few = np.array(table.view.turns)[:, self.column] <= self.tokens
        return fixed(table.value(setting), setting.copies, [self.below if under else self.above for under in few])


def best_threshold(training: Sequence[Table], setting: Setting) -> Threshold:
    """The rule that costs a workload the least; every device alone is one of them."""
    devices = range(training[0].seconds.shape[2])
    rules = [Threshold(*rule) for rule in product(devices, devices, (0, 1), THRESHOLDS)]
    return min(rules, key=lambda rule: sum(total(t.value(setting), rule.plan(t, setting)) for t in training))


Rule = Callable[[Table], Plan]


def halves(tables: Sequence[Table], trained: Callable[[Sequence[Table]], Rule]) -> list[Plan]:
    """Plans by a rule that has not seen the sessions it is judged on: even ones by that of the odd ones, and reverse.

    A single session has no others to learn from, and teaches itself.
    """
    rules = [trained(tables[1::2] or tables), trained(tables[::2])]
    return [rules[number % 2](table) for number, table in enumerate(tables)]
