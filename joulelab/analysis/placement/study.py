"""A workload placed by every policy, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from joulelab.analysis.placement import policies
from joulelab.analysis.placement.metrics import Costs, Gains, Regret, costs, gains, regret
from joulelab.analysis.placement.online import RULES, Expected, RuleName, all_foreseen, online
from joulelab.analysis.placement.plans import Plan, exact
from joulelab.analysis.placement.tables import Device, Setting, Table, View, tables
from joulelab.analysis.placement.turns import Turn
from joulelab.errors import DataInvalid

PLAN = "plan"
STATIC = "best static"
ONLINE: dict[RuleName, str] = {
    "horizon": "looking ahead",
    "switching": "switching rule",
}


@dataclass(frozen=True)
class Study:
    """What a workload costs with every policy, by the tables `judged`; the first one is the exact plan.

    `static` is the device that would cost the least if it ran everything; `least` what the judging tables' own exact
    plan costs, the turns known.
    """

    setting: Setting
    devices: list[str]
    sessions: Mapping[str, Sequence[Turn]]
    judged: list[Table]
    plans: dict[str, list[Plan]]
    costs: dict[str, Costs]
    least: Costs
    static: str

    def regret(self, policy: str) -> Regret:
        return regret(self.costs[policy], self.least)

    def gains(self, policy: str = PLAN) -> Gains | None:
        """Over the best static device; None where no device can run all of the sessions."""
        if not np.isfinite(self.costs[STATIC].total):
            return None
        return gains(self.costs[STATIC], self.costs[policy], self.judged, list(self.sessions))


def study(
    devices: Sequence[Device],
    sessions: Mapping[str, Sequence[Turn]],
    setting: Setting,
    truth: Sequence[Device] | None = None,
) -> Study:
    """Place sessions with what `devices` are believed to cost, and judge by the `truth`, or by the same.

    DataInvalid where no device keeps the cap in some turn.
    """
    turns = list(sessions.values())
    views = [View(each) for each in turns]
    believed = tables(devices, views, setting)
    judged = tables(truth, views, setting) if truth else believed
    plans = {PLAN: [exact(table, setting) for table in believed]}
    _check(believed, plans[PLAN], setting, list(sessions))
    static = policies.best_static(judged, setting)
    plans |= _baselines(believed, judged, setting, static)
    ahead = all_foreseen(devices, turns, setting, _expected(turns))
    for rule, name in ONLINE.items():
        plans[name] = [online(each, setting, RULES[rule]()) for each in ahead]
    least = [exact(table, setting) for table in judged] if truth else plans[PLAN]
    found = {name: costs(judged, each, setting) for name, each in plans.items()}
    names = [device.device for device in devices]
    return Study(setting, names, sessions, judged, plans, found, costs(judged, least, setting), names[static])


def _baselines(
    believed: Sequence[Table], judged: Sequence[Table], setting: Setting, best: int
) -> dict[str, list[Plan]]:
    """By name; the static devices in hindsight are chosen by what they really cost."""

    def each(rule: policies.Rule) -> list[Plan]:
        return [rule(table) for table in believed]

    def always(device: int) -> policies.Rule:
        return partial(policies.static, setting=setting, device=device)

    def trained_static(training: Sequence[Table]) -> policies.Rule:
        return always(policies.best_static(training, setting))

    def trained_threshold(training: Sequence[Table]) -> policies.Rule:
        return partial(policies.best_threshold(training, setting).plan, setting=setting)

    own = [policies.best_static([table], setting) for table in judged]
    return {
        STATIC: each(always(best)),
        "best static, learnt": policies.halves(believed, trained_static),
        "best static, each session": [always(device)(table) for device, table in zip(own, believed, strict=True)],
        "always the fastest": each(always(policies.fastest(believed))),
        "token threshold, learnt": policies.halves(believed, trained_threshold),
        "greedy": each(partial(policies.greedy, setting=setting)),
        "random": each(partial(policies.at_random, setting=setting)),
    }


def _expected(sessions: Sequence[Sequence[Turn]]) -> list[Expected]:
    """What each session expects: even ones from the odd ones, and reverse; a single one knows its own mean."""
    by_half = [Expected.of(sessions[1::2] or sessions), Expected.of(sessions[::2])]
    return [by_half[number % 2] for number in range(len(sessions))]


def _check(tables: Sequence[Table], plans: Sequence[Plan], setting: Setting, names: Sequence[str]) -> None:
    """DataInvalid where a plan, which is the best there is, leaves the models' range or breaks the cap."""
    for name, table, plan in zip(names, tables, plans, strict=True):
        seconds = table.seconds[plan.cells]
        if not np.isfinite(seconds).all():
            raise DataInvalid(
                f"no plan for session {name} stays in the range of the models: fit them to longer prompts"
            )
        if setting.cap_s is not None and seconds.max() > setting.cap_s:
            turn = int(seconds.argmax())
            raise DataInvalid(
                f"no device keeps the cap of {setting.cap_s:g} s in turn {turn + 1} of session {name}: "
                f"the plan takes {seconds[turn]:.3g} s"
            )
