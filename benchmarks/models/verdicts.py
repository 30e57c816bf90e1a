"""How well the models of the simulated devices predict what they have not seen, in every way to hold out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.backbone.simulated import plans, recorded
from benchmarks.row import Row
from joulelab.analysis.modelling.validation import Verdict, across
from joulelab.analysis.phases import reduce
from joulelab.bench import Plan


def simulated() -> Iterator[Row]:
    """Simulated bench: time, and total energy of the widest scope, upper 95 % ends."""
    for plan in plans():
        found, restless = _verdicts(plan), _verdicts(replace(plan, stanza=plan.stanza | {"settle": 0.0}))
        widest = next(v.channel for v in found if v.channel)
        for of in (("time", None), ("energy", widest)):
            yield _row(*([v for v in each if (v.target, v.channel) == of] for each in (found, restless)))


def _verdicts(plan: Plan) -> list[Verdict]:
    with recorded(plan) as run:
        return across(reduce(run))


def _row(found: list[Verdict], restless: list[Verdict]) -> Row:
    """The upper end by configuration; beside it the errors by what was held out, and that of a device that each
    inference finds as the one before has left it.
    """
    verdict, at_once = (next(v for v in each if v.split == "configuration") for each in (found, restless))
    beside = {f"error held out by {v.split}": v.mape_percent for v in found}
    beside |= {"by configuration without `settle`": at_once.mape_percent}
    beside |= {"in-sample": verdict.in_sample_percent, "a perfect model": verdict.noise_floor_percent}
    known = {name: float(value) for name, value in beside.items() if value is not None}
    what = f"{verdict.device} (simulated), {verdict.channel or verdict.target}: upper end held out by configuration"
    upper = verdict.ci95_percent[1] if verdict.ci95_percent else None
    return Row(what, upper, "%", verdict.limit_percent, "lower", known, verdict.reason if upper is None else None)
