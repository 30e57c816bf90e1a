"""How well the models of the simulated devices predict what they have not seen, in every way to hold out."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.backbone.simulated import plans, recorded
from benchmarks.row import Row
from joulelab.analysis.modelling.validation import Verdict, across
from joulelab.analysis.phases import reduce


def simulated() -> Iterator[Row]:
    """Simulated bench: time, and total energy of the widest scope, upper 95 % ends."""
    for plan in plans():
        with recorded(plan) as run:
            found = across(reduce(run))
        widest = next(v.channel for v in found if v.channel)
        for target, channel in (("time", None), ("energy", widest)):
            yield _row([v for v in found if (v.target, v.channel) == (target, channel)])


def _row(found: list[Verdict]) -> Row:
    """The upper end by configuration; beside it the errors by what was held out."""
    verdict = next(v for v in found if v.split == "configuration")
    beside = {f"error held out by {v.split}": v.mape_percent for v in found}
    beside |= {"in-sample": verdict.in_sample_percent, "a perfect model": verdict.noise_floor_percent}
    known = {name: float(value) for name, value in beside.items() if value is not None}
    what = f"{verdict.device} (simulated), {verdict.channel or verdict.target}: upper end held out by configuration"
    upper = verdict.ci95_percent[1] if verdict.ci95_percent else None
    return Row(what, upper, "%", verdict.limit_percent, "lower", known, verdict.reason if upper is None else None)
