"""The Mapper: asked turn by turn where the next one should run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from joulelab.analysis.placement.online import RULES, Expected, RuleName, foreseen
from joulelab.analysis.placement.plans import advanced
from joulelab.analysis.placement.ranges import Ranged
from joulelab.analysis.placement.tables import Setting, View, tables
from joulelab.analysis.placement.turns import Turn
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.errors import DataInvalid


class Mapper:
    """Places the turns of one session, one after another.

    `place` says where the next turn should run, `ran` how many tokens came out and, if not where it was placed, where
    it ran. `expected` stands in for what `place` is not told.
    """

    def __init__(
        self, costs: Sequence[DeviceCosts], setting: Setting, expected: Expected, rule: RuleName = "horizon"
    ) -> None:
        self._devices = [Ranged(each) for each in costs]
        self._setting, self._expected, self._rule = setting, expected, RULES[rule]()
        self._turns: list[Turn] = []
        self._held = np.zeros(len(costs), np.int64)
        self._placed: tuple[int, int] | None = None

    def place(self, prompt: int, output: int | None = None, later: Sequence[Turn] | None = None) -> str:
        """The device for a turn of `prompt` new tokens. Its output and the turns after it may be known or predicted.

        DataInvalid where the turn lies outside every device's range.
        """
        view = foreseen(self._turns, prompt, output, self._expected)
        if later is not None:
            view = View([*view.turns[: view.first + 1], *later], view.first)
        [table] = tables(self._devices, [view], self._setting)
        value = table.value(self._setting)
        if not np.isfinite(value[0]).any():
            raise DataInvalid(f"turn {view.first + 1} (prompt {prompt}) lies outside every device's range")
        device = self._rule.choose(value, self._held.tolist(), self._setting.copies)
        self._placed = prompt, device
        return self._devices[device].device

    def ran(self, output: int, device: str | None = None) -> None:
        """The turn that was placed last is done."""
        assert self._placed, "place a turn first"
        prompt, placed = self._placed
        names = [each.device for each in self._devices]
        self._turns.append(Turn(prompt, output))
        where = placed if device is None else names.index(device)
        self._held = advanced(self._held, where, len(self._turns), self._setting.copies)
        self._placed = None
