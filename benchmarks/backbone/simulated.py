"""Runs of the simulated devices of the `lab.yaml` that ships."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.backbone.llama import LAB
from joulelab.bench import Plan, record
from joulelab.lab import load_lab
from joulelab.recording import RunDir


def plans() -> list[Plan]:
    """The sweep on every simulated device."""
    lab = load_lab(LAB)
    found = [Plan.from_lab(lab, device, "sweep") for device in lab.devices]
    return [plan for plan in found if plan.simulated]


@contextmanager
def recorded(plan: Plan, seed: int | None = None) -> Iterator[RunDir]:
    """A run of the plan, with its own seed or another; it is gone afterwards."""
    arguments = plan.arguments if seed is None else plan.arguments | {"seed": seed}
    with tempfile.TemporaryDirectory() as runs:
        yield record(replace(plan, arguments=arguments), Path(runs), stop=lambda: False, progress=lambda _: None)
