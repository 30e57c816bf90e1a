"""Plans: which device runs each turn, how its cache gets there, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from joulelab.analysis.placement.exact import with_copies, without_copies
from joulelab.analysis.placement.tables import TRANSFER, Setting, Table
from joulelab.calibration.integrals import Floats, Ints

Choice = Callable[[int, Ints], int]
"""The device for a row of a table, from the prefixes that the devices hold [devices]."""


@dataclass(frozen=True)
class Plan:
    """Of each turn [turns]: the device, the prefix that it holds before, and the way to the rest of the context."""

    device: Ints
    held: Ints
    way: Ints

    @property
    def cells(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Where its costs stand in a table."""
        return np.arange(len(self.device)), self.held, self.device, self.way


@dataclass(frozen=True)
class Outcome:
    """What each turn of a plan takes [s], draws [J] (None for latency) and moves over the link [B]."""

    seconds: Floats
    joules: Floats | None
    moved: Floats


def outcome(table: Table, plan: Plan) -> Outcome:
    held = table.history
    missing = held[table.view.first : -1] - held[plan.held]
    moved = np.where(plan.way == TRANSFER, missing * table.kv[plan.device], 0.0)
    joules = None if table.joules is None else table.joules[plan.cells]
    return Outcome(table.seconds[plan.cells], joules, moved)


def follow(value: Floats, copies: bool, choice: Choice, held: Sequence[int] | None = None) -> Plan:
    """The plan that choices make of a table's values, each turn in the cheapest way on its device.

    `held` are the prefixes that the devices hold at the start, nothing if not given.
    """
    turns, prefixes, devices, _ = value.shape
    state = np.zeros(devices, np.int64) if held is None else np.array(held)
    steps = np.empty((turns, 3), np.int64)
    for k in range(turns):
        device = choice(k, state)
        steps[k] = device, state[device], value[k, state[device], device].argmin()
        state = advanced(state, device, prefixes - turns + k + 1, copies)
    return Plan(*steps.T)


def advanced(held: Ints, device: int, turns: int, copies: bool) -> Ints:
    """The prefixes that the devices hold once `device` has run the last of so many turns."""
    after = held.copy() if copies else np.zeros_like(held)
    after[device] = turns
    return after


def best_devices(value: Floats, copies: bool, held: Sequence[int] | None = None) -> list[int]:
    """The devices of the cheapest plan for a table's values; `held` as for `follow`."""
    cost = value.min(axis=-1)
    turns, prefixes, devices = cost.shape
    state = np.zeros(devices, np.int64) if held is None else np.array(held)
    if copies:
        return with_copies(cost, state)
    row = np.arange(turns)
    stay = cost[row, prefixes - turns + row]
    stay[0] = cost[0, state, np.arange(devices)]
    return without_copies(stay, cost[:, 0])


def exact(table: Table, setting: Setting) -> Plan:
    """The cheapest plan of all, the turns known."""
    value = table.value(setting)
    devices = best_devices(value, setting.copies)
    return follow(value, setting.copies, lambda k, _: devices[k])


def fixed(value: Floats, copies: bool, devices: Sequence[int]) -> Plan:
    """The plan with these devices [turns]."""
    return follow(value, copies, lambda k, _: devices[k])
