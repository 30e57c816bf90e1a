"""What sampling costs the workload."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.backbone.llama import running, shipped_plan
from benchmarks.row import Row
from benchmarks.timing import taking_turns
from joulelab.bench import Plan
from joulelab.devices.base import Engine, Request
from joulelab.instruments.sampling import ProcessSampler
from joulelab.timebase import SECOND

PAIRS = 40
PREFILLS = 3
"""Whose median is a measurement; one more before them sets the caches."""


def cost() -> Iterator[Row]:
    """What sampling at the shipped settings costs a prefill, beside what leaving it out twice seems to cost."""
    plan = shipped_plan()
    with running(plan) as engine:
        without = partial(_prefill, engine, count())
        turns = {"with": partial(_sampled, plan, without), "without": without, "again": without}
        found = taking_turns(PAIRS, turns)
    bound = _upper(found["with"], found["without"])
    nothing = {"no sampling": _upper(found["again"], found["without"])}
    yield Row("prefill with sampling over without, upper 95 % of the median", bound, "x", 1.01, "lower", nothing)


def _prefill(engine: Engine, numbers: Iterator[int]) -> float:
    """Seconds from the request to the first token."""
    phases = [engine.infer(Request(next(numbers), 0, 128, 1, seed=1)).phases[0] for _ in range(PREFILLS + 1)]
    return statistics.median((phase.stop - phase.start) / SECOND for phase in phases[1:])


def _sampled(plan: Plan, prefill: Callable[[], float]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "samples").mkdir()
        sampler = ProcessSampler(plan.instruments, 0)
        sampler.record(Path(folder))
        try:
            return prefill()
        finally:
            sampler.close()


def _upper(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The upper end of the 95 % interval of the median ratio, by bootstrap over the pairs."""
    ratios = np.array(numerator) / np.array(denominator)
    drawn = np.random.default_rng(1).choice(ratios, (10_000, len(ratios)))
    return float(np.percentile(np.median(drawn, axis=1), 97.5))
