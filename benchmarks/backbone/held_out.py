"""How well the models of the simulated devices predict configurations that they have not seen."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.backbone.simulated import plans, recorded
from benchmarks.row import Row
from joulelab.analysis.modelling.validation import Verdict, validate
from joulelab.analysis.phases import reduce


def errors() -> Iterator[Row]:
    """Held-out errors of the simulated devices' time and energy models."""
    for plan in plans():
        with recorded(plan) as run:
            verdicts = validate(reduce(run))
        yield from (_row(verdict) for verdict in verdicts if verdict.phase == "total")


def _row(verdict: Verdict) -> Row:
    what = f"{verdict.device} (simulated), {verdict.channel or verdict.target}: upper 95 % of the held-out error"
    if verdict.ci95_percent is None:
        return Row(what, None, "%", verdict.limit_percent, "lower", reason=verdict.reason)
    beside = {"the error itself": verdict.mape_percent, "a perfect model": verdict.noise_floor_percent}
    known = {name: percent for name, percent in beside.items() if percent is not None}
    return Row(what, verdict.ci95_percent[1], "%", verdict.limit_percent, "lower", known)
