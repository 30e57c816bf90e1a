"""Whether the transformers engine's times can be predicted on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.backbone.simulated import recorded
from benchmarks.gpu.model import need_torch
from benchmarks.row import Row
from joulelab.analysis.modelling.cases import INFERENCE
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.phases import reduce
from joulelab.bench import Plan
from joulelab.lab import load_lab

LAB = Path(__file__).parents[2] / "examples" / "two-engines.yaml"


def cpu() -> Iterator[Row]:
    """The held-out error of times on one core, of a model of 100 million parameters (about three minutes)."""
    need_torch()
    plan = Plan.from_lab(load_lab(LAB), "pytorch", "sweep")
    with recorded(plan) as run:
        verdicts = validate(reduce(run))
    for verdict in verdicts:
        if verdict.target == "time" and verdict.phase in INFERENCE:
            what = f"llama-100m on one core, {verdict.phase} time ({verdict.verdict}): upper 95 % of the held-out error"
            upper = verdict.ci95_percent and verdict.ci95_percent[1]
            floor = verdict.noise_floor_ci95_percent
            beside = {"the error itself": verdict.mape_percent, "lower 95 % of the noise floor": floor and floor[0]}
            known = {name: percent for name, percent in beside.items() if percent is not None}
            reason = verdict.reason if upper is None else None
            yield Row(what, upper, "%", verdict.limit_percent, "lower", known, reason)
