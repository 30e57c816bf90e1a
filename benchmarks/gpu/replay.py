"""What an unpacked recording gives: the numbers that have to come out the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.archive import CERTIFICATES, RUNS
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.validation import Verdict, validate
from joulelab.analysis.phases import reduce
from joulelab.calibrate import compute
from joulelab.calibration.certificate import Certificate, Store
from joulelab.recording import RunDir
from joulelab.recording.reader import find_runs

Number = float | str | None


def runs_of(folder: Path) -> list[RunDir]:
    """The runs of an unpacked recording, oldest first."""
    return sorted(find_runs(folder / RUNS), key=lambda run: run.manifest.created)


def results(folder: Path) -> dict[str, Number]:
    """Coefficients, verdict figures and certificates, identified anew, each by a name that says what it is."""
    found: dict[str, Any] = {}
    for run in runs_of(folder):
        if run.records("inference"):
            phases = reduce(run)
            found |= {_name(model): _coefficients(model) for model in fit(phases)}
            found |= {f"{_name(v)} {v.phase} verdict": v.to_json() for v in validate(phases)}
    runs = {f"{run.manifest.session}/{run.manifest.run}": run for run in runs_of(folder)}
    for made in Store(folder / CERTIFICATES):
        found[f"{made.kind} {made.channel}"] = _again(made, runs[made.run])
    return dict(_flat("", found))


def _name(about: Model | Verdict) -> str:
    return " ".join(filter(None, (about.device, about.target, about.channel)))


def _coefficients(model: Model) -> dict[str, Any]:
    """Values and intervals by phase and term."""
    found = {p.phase: {each.name: [each.value, each.low, each.high] for each in p.coefficients} for p in model.phases}
    return found | model.refused


def _again(made: Certificate, run: RunDir) -> dict[str, float]:
    ((found, _),), _ = compute(made.kind, run, made.channel, made.conditions.get("against"))
    return found.result


def _flat(name: str, value: Any) -> Iterator[tuple[str, Number]]:
    """Every number by its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name} {key}".strip(), item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for k, item in enumerate(value):
            yield from _flat(f"{name} {k}", item)
    else:
        yield name, value
