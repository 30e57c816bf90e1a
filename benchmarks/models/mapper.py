"""The Mapper on the simulated bench: planned with fitted models, paid for in the simulator's noise-free costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.models import box
from benchmarks.models.sessions import sessions
from benchmarks.models.truth import Point, truths
from benchmarks.row import Row
from joulelab.analysis.placement.metrics import Interval
from joulelab.analysis.placement.ranges import Ranged, check_seen
from joulelab.analysis.placement.study import ONLINE, PLAN, STATIC, Study, study
from joulelab.analysis.placement.tables import Grid, Setting, View
from joulelab.analysis.placement.turns import Turn
from joulelab.analysis.space.link import parse_link

LINK = parse_link("200 Mbit/s 5 ms 0.5 uJ/byte")
"""Wi-Fi: 62.5 nJ a bit at both ends together, assumed."""
CAP_S = 20.0
"""The longest output of the box takes the fastest device some 16 s: whatever the turn, one device keeps it."""
REGRET_PERCENT = 3.0
ASKED = 2.4
"""The factor that the concept of the Mapper promises on real devices."""


class Case(NamedTuple):
    name: str
    setting: Setting


CASES = (
    Case("latency", Setting("latency", None, LINK)),
    Case("energy", Setting("energy", None, LINK)),
    Case("energy, the others awake", Setting("energy", None, LINK, idle="awake")),
    Case("energy-delay product", Setting("edp", None, LINK)),
    Case("energy under 20 s a turn", Setting("energy-capped", CAP_S, LINK)),
    Case("energy, copies dropped", Setting("energy", None, LINK, copies=False)),
)


def placement() -> Iterator[Row]:
    """The Mapper on the simulated bench: regret against the noise-free dynamic program, gains over one device."""
    workload = {name: [Turn(*turn) for turn in turns] for name, turns in sessions().items()}
    measured = box.measured()
    for own in measured:
        yield Row(f"{own.models[0].device}: measuring the box takes", own.seconds / 3600, "h", None, "lower")
    costs = box.costs(measured)
    true = truths([each.device for each in costs], points(workload))
    devices = [Ranged(each) for each in costs]
    check_seen(devices, workload)
    found = {case.name: study(devices, workload, case.setting, true) for case in CASES}
    for name, one in found.items():
        yield from _rows(name, one)
    yield from _statement(found)


def points(workload: dict[str, list[Turn]]) -> list[Point]:
    """Every inference that a plan may consist of, whatever prefix the device holds."""
    grids = [Grid.of(View(turns)) for turns in workload.values()]
    return sorted({point for grid in grids for point in zip(*(x.tolist() for x in grid[2:5]), strict=True)})


def _rows(name: str, found: Study) -> Iterator[Row]:
    regret = found.regret(PLAN)
    spread = {"in all": regret.total * 100, "P95": regret.p95 * 100, "largest": regret.largest * 100}
    yield Row(f"{name}: regret, mean of sessions", regret.mean * 100, "%", REGRET_PERCENT, "lower", spread)
    others = [*ONLINE.values(), "greedy", "token threshold, learnt", "best static, learnt", STATIC]
    beside = {_said(other, found.costs[other].over_cap): found.regret(other).total * 100 for other in others}
    yield Row(f"{name}: regret in all, beside that of other policies", regret.total * 100, "%", None, "lower", beside)
    gains = found.gains()
    assert gains
    static = f"{name}: gain over {found.static}, the best static device"
    yield _gain(f"{static}, in all", gains.total)
    yield _gain(f"{static}, geometric mean", gains.geometric_mean)
    most = gains.largest
    where = f"history {most.history}, prompt {most.prompt}, output {most.output}: {most.share:.3%} of the cost"
    yield _gain(f"{static}, largest of a turn ({where})", most.gain)
    costs = found.costs[PLAN]
    moved = {"KV moved [MB]": costs.moved_bytes / 1e6, "turns over the cap": float(costs.over_cap)}
    yield Row(f"{name}: switches of device", float(costs.switches), "1", None, "lower", moved)


def _said(policy: str, over_cap: int) -> str:
    return f"{policy}, {over_cap} turns over the cap" if over_cap else policy


def _gain(what: str, gain: Interval) -> Row:
    ends = {} if gain.low is None or gain.high is None else {"low": gain.low, "high": gain.high}
    return Row(what, gain.value, "x", None, "higher", ends)


def _statement(found: dict[str, Study]) -> Iterator[Row]:
    """Whether the factor asked for was reached: in all, and in a single turn."""
    gains = {name: one.gains() for name, one in found.items()}
    for what, values in (
        ("in all", {name: each.total.value for name, each in gains.items() if each}),
        ("in a single turn", {name: each.largest.gain.value for name, each in gains.items() if each}),
    ):
        best = max(values, key=lambda name: values[name])
        reached = "reached" if values[best] >= ASKED else "not reached"
        yield Row(
            f"{ASKED}x over the best static device {what}: {reached}, most for {best}",
            values[best],
            "x",
            None,
            "higher",
        )
