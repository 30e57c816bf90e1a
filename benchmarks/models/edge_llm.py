"""Three real devices as edge-llm-bench (K. D'Costa, CC BY 4.0) recorded them: throttling, time models, the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.row import Row
from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.space.costs import device_costs
from joulelab.analysis.tables import import_table

ROOT = Path(__file__).parents[2]
RECORDING = ROOT.parent / "shared" / "data" / "edge-llm-bench"
ABSENT = "the recording is not here"
MAPS = {"pixel": "edge-llm-bench", "x86": "edge-llm-bench", "m4": "edge-llm-bench-m4"}
LLAMA = "Llama-3.2-3B-Instruct"
OUTPUT = 64
PROMPTS = (40, 100, 192, 256, 395)


def throttled() -> Iterator[Row]:
    """edge-llm-bench (CC BY 4.0): series that throttled, found in the order of their trials."""
    if not RECORDING.is_dir():
        yield Row("throttled series", None, "1", None, "higher", reason=ABSENT)
        return
    for name in MAPS:
        phases = _phases(name)
        causes = phases.table.loc[phases.table["throttled"].fillna(value=False)].groupby(["model", "quant"])["status"]
        series = len(phases.table.groupby(["model", "quant"]))
        found = {f"{model} {quant}, {cause.iloc[0]}": 1.0 for (model, quant), cause in causes}
        yield Row(f"{name}: throttled series of {series}", float(len(found)), "1", None, "higher", found)


def prompts() -> Iterator[Row]:
    """edge-llm-bench (CC BY 4.0): how long its prompts were, of what they were meant to be, by its time stamps."""
    for name in ("pixel", "x86"):
        file, what = RECORDING / f"{name}_inference.parquet", f"{name}: prompt tokens over nominal"
        reason = None if file.is_file() else ABSENT
        yield Row(what, None if reason else _prompt_share(file), "1", None, "higher", reason=reason)


def _prompt_share(file: Path) -> float:
    """Between a trial's end and the next one's lie the load, the prefill at its own rate and the decode at its own."""
    trials = pd.read_parquet(file)
    trials = trials[trials["experiment_type"] == "cliff_sweep"]
    shares = []
    for _, series in trials.groupby(["model", "variant"]):
        took = pd.to_datetime(series["ts"]).diff().dt.total_seconds() - (OUTPUT - 1) / series["decode_tps"]
        nominal = (series["context_len"] - OUTPUT) / series["prefill_tps"]
        same = series["context_len"].diff() == 0
        shares.append(np.polyfit(nominal[same], took[same], 1)[0])
    return float(np.median(shares))


def held_out() -> Iterator[Row]:
    """edge-llm-bench (CC BY 4.0): time of Llama-3.2-3B at prompts that its models have not seen."""
    for name in MAPS:
        if not RECORDING.is_dir():
            yield Row(f"{name}: time", None, "%", None, "lower", reason=ABSENT)
            continue
        for verdict in validate(_llama(name)):
            if verdict.phase == "total" and verdict.mape_percent is not None:
                beside = {"95 % upper end": verdict.ci95_percent[1]} if verdict.ci95_percent else {}
                floor = verdict.noise_floor_percent
                beside |= {} if floor is None else {"noise floor": floor}
                yield Row(f"{verdict.device}: total time", verdict.mape_percent, "%", None, "lower", beside)


def fastest() -> Iterator[Row]:
    """edge-llm-bench (CC BY 4.0): the fastest device by prompt, Llama-3.2-3B, output 64, of those that have seen it."""
    if not RECORDING.is_dir():
        yield Row("fastest", None, "s", None, "lower", reason=ABSENT)
        return
    models = [model for name in MAPS for model in fit(_llama(name)) if len(model.phases) > 1]
    for quant in sorted({model.subject["quant"] for model in models}):
        yield from _fastest(quant, [model for model in models if model.subject["quant"] == quant])


def _fastest(quant: str, models: list[Model]) -> Iterator[Row]:
    every = device_costs(models, energy=False)
    for prompt in PROMPTS:
        seen = [costs for costs in every if not costs.time.outside(0, prompt, OUTPUT).warning]
        seconds = {costs.device: float(costs.seconds(0, prompt, OUTPUT)[0]) for costs in seen}
        if len(seconds) > 1:
            best = min(seconds, key=lambda device: seconds[device])
            what = f"{quant}, prompt {prompt}: fastest is {best}"
            yield Row(what, seconds.pop(best), "s", None, "lower", seconds)


def _llama(name: str) -> Phases:
    phases = _phases(name)
    return Phases(phases.table[phases.table["model"] == LLAMA].reset_index(drop=True))


@cache
def _phases(name: str) -> Phases:
    return import_table(RECORDING / f"{name}_inference.parquet", ROOT / "examples" / f"{MAPS[name]}.yaml")
