"""This machine as `lab.yaml` has it: llama.cpp pinned to a core, the others left to whoever measures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joulelab.bench import Plan
from joulelab.devices.base import Engine
from joulelab.errors import HardwareMissing
from joulelab.lab import load_lab
from joulelab.registry import ENGINES, load_driver
from joulelab.timebase import MonotonicClock

LAB = Path(__file__).parents[2] / "lab.yaml"


def shipped_plan() -> Plan:
    """The host's sweep in the `lab.yaml` that ships."""
    return Plan.from_lab(load_lab(LAB), "host", "sweep")


@contextmanager
def running(plan: Plan) -> Iterator[Engine]:
    """The plan's engine; meanwhile this process keeps to the cores that it leaves."""
    affinity = os.sched_getaffinity(0)
    if len(affinity) < 2:
        raise HardwareMissing("one core: the sampler and llama.cpp would have to share it")
    driver = load_driver(ENGINES, plan.stanza["driver"])
    engine = driver(plan.device, driver.Options.model_validate(plan.stanza["options"]), MonotonicClock())
    engine.open()
    try:
        os.sched_setaffinity(0, engine.sampler_cores)
        yield engine
    finally:
        os.sched_setaffinity(0, affinity)
        engine.close()
