"""Models of the Jetson AGX Orin as EdgeReasoning recorded it, on lengths that they have not seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.row import Row
from joulelab.analysis.modelling.valid import parse
from joulelab.analysis.modelling.validation import Verdict, validate
from joulelab.analysis.tables import import_table

ROOT = Path(__file__).parents[2]
RECORDING = ROOT.parent / "shared" / "data" / "orin-edgereasoning"
ABSENT = "the recording is not here"
DECODE_TIME = {"8B": 0.75, "1.5B": 0.2}
ENERGY = {"8B": 1.5, "1.5B": 2.9}
FIRST_TOKEN = {"8B": 5.0, "1.5B": 2.0}


def decode_time() -> Iterator[Row]:
    """Orin recording: decode time, output 16 and more, a prompt length held out."""
    options: dict[str, Any] = {"split": "prompt", "valid": [parse("output>=16")]}
    yield from _rows("decode.csv", "orin-decode.yaml", "time", "decode time", DECODE_TIME, options)


def energy() -> Iterator[Row]:
    """Orin recording: total energy, output 64 and more, a prompt length held out."""
    options: dict[str, Any] = {"split": "prompt", "valid": [parse("output>=64")], "min_periods": 1}
    yield from _rows("decode.csv", "orin-energy.yaml", "energy", "total energy", ENERGY, options)


def first_token() -> Iterator[Row]:
    """Orin recording: time to first token, prompt 129 and more, a prompt length held out."""
    options: dict[str, Any] = {"split": "prompt", "valid": [parse("prompt>=129")]}
    yield from _rows("prefill.csv", "orin-prefill.yaml", "time", "time to first token", FIRST_TOKEN, options)


def _rows(
    file: str, mapping: str, target: str, what: str, limits: dict[str, float], options: dict[str, Any]
) -> Iterator[Row]:
    if not RECORDING.is_dir():
        yield from (
            Row(f"{what}, {model}", None, "%", limit, "lower", reason=ABSENT) for model, limit in limits.items()
        )
        return
    phases = import_table(RECORDING / file, ROOT / "examples" / mapping)
    judged = [v for v in validate(phases, **options) if v.target == target]
    other = "decode" if target == "energy" else "configuration"
    others = [v for v in validate(phases, **options | {"split": other}) if v.target == target]
    for verdict, beside in zip(judged, others, strict=True):
        yield _row(what, verdict, beside, limits)


def _row(what: str, verdict: Verdict, beside: Verdict, limits: dict[str, float]) -> Row:
    """The error, beside it the one by another split, in-sample, and outside the range that is declared valid."""
    limit = next(limit for model, limit in limits.items() if verdict.device.endswith(model))
    outliers = sum("outlier" in row["cause"] for row in verdict.dropped)
    other = {
        "in-sample": verdict.in_sample_percent,
        f"held out by {beside.split}": beside.mape_percent,
        "outside the range": verdict.outside_mape_percent,
        "outliers left out [rows]": outliers or None,
    }
    known = {name: float(value) for name, value in other.items() if value is not None}
    what = f"{what}, {verdict.device.rpartition('-')[2]}, held out by {verdict.split}: {verdict.verdict}"
    return Row(what, verdict.mape_percent, "%", limit, "lower", known)
