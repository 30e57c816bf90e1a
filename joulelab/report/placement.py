"""Where turns should run, for the terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table as Grid

from joulelab.analysis.placement.metrics import Gains, Interval
from joulelab.analysis.placement.plans import Plan, outcome
from joulelab.analysis.placement.study import PLAN, STATIC, Study
from joulelab.analysis.placement.tables import TRANSFER, Setting, Table
from joulelab.analysis.placement.waits import waits
from joulelab.analysis.space.bottlenecks import KINDS, largest
from joulelab.analysis.space.costs import OBJECTIVES, DeviceCosts
from joulelab.report.moves import link_alone, loading
from joulelab.report.numbers import number, percent, quantity

LEGEND = (
    "plan: all turns known. regret: cost over the best plan's, in all and by session. learnt: on the other half of the "
    "sessions. looking ahead, switching rule: outputs and later turns unknown; they expect what the other half does."
)
ALONE = (
    "waits for: the kind of work that takes most of the turn's time, and its share. With a single session, what is "
    "learnt is learnt on this one."
)
PER_TURN = "The energy-delay product is that of each turn, added up."


def as_text(study: Study, costs: Sequence[DeviceCosts]) -> Group:
    """The plan of a single session, the policies beside each other, and the gain."""
    parts: list[Any] = [_what(study, costs), *_notes(study, costs)]
    if len(study.sessions) == 1:
        plan = steps(study.judged[0], study.plans[PLAN][0], costs)
        parts.append(_columns(_shown(step, study.setting) for step in plan))
    return Group(*parts, _policies(study), *_gains(study), LEGEND, *[ALONE] * (len(study.sessions) == 1))


def _notes(study: Study, costs: Sequence[DeviceCosts]) -> list[str]:
    alone = link_alone(costs, ["time", "energy"]) if study.setting.link else []
    return [*[PER_TURN] * (study.setting.objective == "edp"), *loading(costs), *alone]


def _what(study: Study, costs: Sequence[DeviceCosts]) -> str:
    models = [model for each in costs for model in each.models]
    origins = "/".join(dict.fromkeys(str(model.origin) for model in models))
    scopes = dict.fromkeys(f", energy at scope {model.scope}" for model in models if model.scope)
    turns = sum(map(len, study.sessions.values()))
    return f"{study.setting.objective} of {turns} turns in {len(study.sessions)} sessions ({origins}{''.join(scopes)})"


def steps(table: Table, plan: Plan, costs: Sequence[DeviceCosts]) -> list[dict[str, Any]]:
    """A session's turns, one by one. `bottleneck` is the kind of work that takes most of the time, by `share`."""
    found, held = outcome(table, plan), table.history
    most, share = largest(waits(table, plan, costs))
    return [
        {
            "turn": k + 1,
            "history": int(held[k]),
            "prompt": turn.prompt,
            "output": turn.output,
            "device": costs[plan.device[k]].device,
            "way": "transfer" if plan.way[k] == TRANSFER else "re-prefill" if held[plan.held[k]] < held[k] else "stay",
            "missing": int(held[k] - held[plan.held[k]]),
            "moved_bytes": float(found.moved[k]),
            "seconds": float(found.seconds[k]),
            "joules": None if found.joules is None else float(found.joules[k]),
            "bottleneck": [*KINDS][most[k]],
            "share": float(share[k]),
        }
        for k, turn in enumerate(table.view.turns)
    ]


def _shown(step: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """A turn as a line of the plan."""
    line = {name: step[name] for name in ("turn", "history", "prompt", "output", "device", "way", "missing")}
    moved = {"KV moved": f"{number(step['moved_bytes'] / 1e6)} MB"} if setting.link else {}
    costs = {name: step[name] for name in ("seconds", "joules") if step[name] is not None}
    return {**line, **moved, **costs, "waits for": f"{step['bottleneck']} {100 * step['share']:.0f} %"}


def rows(study: Study) -> list[dict[str, Any]]:
    """The policies. What would leave the range of the models has no cost."""
    found = []
    for name, costs in study.costs.items():
        regret = study.regret(name)
        found.append(
            {
                "policy": f"{name} ({study.static})" if name == STATIC else name,
                "cost": _finite(costs.total),
                "seconds": _finite(costs.seconds),
                "joules": _finite(costs.joules),
                **{f"regret_{key}": _finite(value) for key, value in regret._asdict().items()},
                "switches": costs.switches,
                "moved_bytes": costs.moved_bytes,
                "over_cap": costs.over_cap,
            }
        )
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _policies(study: Study) -> Grid:
    unit = OBJECTIVES[study.setting.objective]
    shown = []
    for row in rows(study):
        regrets = {
            name: percent(None if row[f"regret_{key}"] is None else row[f"regret_{key}"] * 100)
            for name, key in (("regret", "total"), ("mean", "mean"), ("P95", "p95"), ("max", "largest"))
        }
        one = {"policy": row["policy"], "cost": quantity(row["cost"], unit), **regrets, "switches": row["switches"]}
        if study.setting.link:
            one["KV moved"] = f"{number(row['moved_bytes'] / 1e6)} MB"
        if study.setting.cap_s is not None:
            one["over the cap"] = row["over_cap"]
        shown.append(one)
    return _columns(shown)


def _columns(shown: Iterable[dict[str, Any]]) -> Grid:
    listed = list(shown)
    made = Grid(box=None, pad_edge=False, header_style="bold")
    for name, value in listed[0].items():
        made.add_column(name, justify="left" if isinstance(value, str) and not value[:1].isdigit() else "right")
    for row in listed:
        made.add_row(*(number(x) if isinstance(x, float) else "-" if x is None else str(x) for x in row.values()))
    return made


def _gains(study: Study) -> list[str]:
    found = study.gains()
    if found is None:
        return ["No device can run all of the turns by itself: there is no gain over one."]
    most = found.largest
    where = f"turn {most.turn} of {most.session}, history {most.history}, prompt {most.prompt}, output {most.output}"
    over = study.costs[STATIC].over_cap
    breaks = (
        [f"{study.static} alone breaks the cap in {over} turns: what it saves by that lowers the gain."] if over else []
    )
    return [
        f"gain over the best static device, {study.static} (95 % interval over sessions):",
        f"  in all {_factor(found.total)}, geometric mean of sessions {_factor(found.geometric_mean)}",
        f"  largest of a turn {_factor(most.gain)}, {percent(most.share * 100)} of what the workload costs: {where}",
        *breaks,
    ]


def _factor(gain: Interval) -> str:
    return f"{gain.value:.2f}" + (f" [{gain.low:.2f}, {gain.high:.2f}]" if gain.low and gain.high else "")


def encoded(study: Study, costs: Sequence[DeviceCosts]) -> dict[str, Any]:
    """All of it as JSON; the turns of every session's plan."""
    plans = zip(study.sessions, study.judged, study.plans[PLAN], strict=True)
    found = study.gains()
    return {
        "objective": study.setting.objective,
        "unit": OBJECTIVES[study.setting.objective],
        "static": study.static,
        "notes": _notes(study, costs),
        "loading_s": {each.device: each.loading_s for each in costs},
        "plan": {name: steps(table, plan, costs) for name, table, plan in plans},
        "policies": rows(study),
        "gains": found and _encoded_gains(found),
    }


def _encoded_gains(gains: Gains) -> dict[str, Any]:
    largest = gains.largest._asdict() | gains.largest.gain._asdict()
    del largest["gain"]
    return {"total": gains.total._asdict(), "geometric_mean": gains.geometric_mean._asdict(), "largest": largest}
