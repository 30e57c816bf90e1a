"""Placing turns whose outputs and successors are not known yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from joulelab.analysis.placement.plans import Plan, advanced, best_devices
from joulelab.analysis.placement.tables import Device, Setting, Table, View, tables
from joulelab.analysis.placement.turns import Turn
from joulelab.calibration.integrals import Floats


class Expected(NamedTuple):
    """What to expect where nothing is known: a turn, and how many of its kind are to follow the present one."""

    turn: Turn
    more: int

    @classmethod
    def of(cls, sessions: Sequence[Sequence[Turn]]) -> Expected:
        """The mean turn of past sessions, and how many turns followed one on average."""
        prompt, output = np.concatenate([np.array(turns) for turns in sessions]).mean(axis=0)
        remaining = np.concatenate([np.arange(len(turns)) for turns in sessions]).mean()
        return cls(Turn(round(prompt), round(output)), round(remaining))


def foreseen(past: Sequence[Turn], prompt: int, output: int | None, expected: Expected) -> View:
    """The turns so far, the present one and those expected; an output that is not known is the expected one."""
    now = Turn(prompt, expected.turn.output if output is None else output)
    return View([*past, now, *[expected.turn] * expected.more], len(past))


class Rule(Protocol):
    """Chooses the device for the first turn of a table's values, from the prefixes that the devices hold."""

    def choose(self, value: Floats, held: Sequence[int], copies: bool) -> int: ...


class Horizon:
    """Plans for all the turns that are foreseen, and does as the plan begins."""

    def choose(self, value: Floats, held: Sequence[int], copies: bool) -> int:
        past, row = value.shape[1] - len(value), np.arange(len(value))
        seen = np.isfinite(value[row, past + row]).any(axis=(1, 2))
        # No plan for turns outside every device's range: to be in it a device would have to forget.
        turns = len(value) if seen.all() else max(int(seen.argmin()), 1)
        return best_devices(value[:turns, : past + turns], copies, held)[0]


class Switching:
    """Moves once the regret of staying has grown beyond what the move costs; knows only the present turn.

    Without the future no rule is sure of less than twice the cost with it, for two devices that it costs the same to
    move between (Borodin, Linial and Saks, J. ACM 39, 1992, on metrical task systems).
    """

    def __init__(self) -> None:
        self._device: int | None = None
        self._regret = np.zeros(1)

    def choose(self, value: Floats, held: Sequence[int], copies: bool) -> int:
        best = value[0].min(axis=-1)
        now, whole = best[held, np.arange(best.shape[1])], best[value.shape[1] - len(value)]
        if self._device is None:
            self._device = int(now.argmin())
            return self._device
        with np.errstate(invalid="ignore"):  # what two devices cannot run is neither's regret
            self._regret = np.fmax(self._regret + whole[self._device] - whole, 0.0)
            due = np.nan_to_num(self._regret - (now - whole), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        if due.max() > 0 and due.argmax() != self._device:
            self._device, self._regret = int(due.argmax()), np.zeros(1)
        return self._device


RuleName = Literal["horizon", "switching"]
RULES: dict[RuleName, Callable[[], Rule]] = {"horizon": Horizon, "switching": Switching}


def online(ahead: Sequence[Table], setting: Setting, rule: Rule) -> Plan:
    """The plan of a rule that is asked turn by turn; `ahead` has what it foresees in each turn."""
    held = np.zeros(ahead[0].seconds.shape[2], np.int64)
    steps = np.empty((len(ahead), 3), np.int64)
    for k, table in enumerate(ahead):
        value = table.value(setting)
        device = rule.choose(value, held.tolist(), setting.copies)
        steps[k] = device, held[device], value[0, held[device], device].argmin()
        held = advanced(held, device, k + 1, setting.copies)
    return Plan(*steps.T)


def all_foreseen(
    devices: Sequence[Device], sessions: Sequence[Sequence[Turn]], setting: Setting, expected: Sequence[Expected]
) -> list[list[Table]]:
    """What is foreseen in each turn of each session, with what is expected there; outputs are not known."""
    views = [
        foreseen(turns[:k], turn.prompt, None, each)
        for turns, each in zip(sessions, expected, strict=True)
        for k, turn in enumerate(turns)
    ]
    found = iter(tables(devices, views, setting))
    return [[next(found) for _ in turns] for turns in sessions]
