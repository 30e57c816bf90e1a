"""How punctual sampling is beside a loaded llama.cpp, and what it costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.backbone import timer
from benchmarks.backbone.llama import running, shipped_plan
from benchmarks.row import Row
from benchmarks.timing import taking_turns
from joulelab.devices.base import Engine, Request
from joulelab.instruments.sampling import ProcessSampler
from joulelab.recording.samples import read_samples

INTERVAL_NS = 1_000_000
SEGMENT_S = 3.0
SEGMENTS = 12


class Segment(NamedTuple):
    """The 99th percentile of lateness [us], the share of a core, and the readings that are neither there nor missed."""

    late_us: float
    share: float
    lost: int = 0


def punctuality() -> Iterator[Row]:
    """Sampling at 1 kHz beside a loaded llama.cpp, and a bare timer loop in turn with it."""
    with running(shipped_plan()) as engine:
        load = partial(_infer, engine, count())
        found = taking_turns(SEGMENTS, {"ours": partial(_sampler, load), "bare": partial(_timer, load)})
    ours, bare = found["ours"], found["bare"]
    late = {"bare timer loop": _median(s.late_us for s in bare)}
    share = {"bare timer loop": 100 * _median(s.share for s in bare)}
    ratio = _median(o.late_us / b.late_us for o, b in zip(ours, bare, strict=True))
    yield Row("1 kHz sampling, p99 lateness", _median(s.late_us for s in ours), "us", None, "lower", late)
    yield Row("1 kHz sampling, p99 lateness over that of a bare timer loop", ratio, "x", 1.5, "lower")
    yield Row("1 kHz sampling, readings neither there nor told as missed", sum(s.lost for s in ours), "", 0, "lower")
    yield Row("1 kHz sampling, share of a core", 100 * _median(s.share for s in ours), "%", 4, "lower", share)


_median = statistics.median


def _infer(engine: Engine, numbers: Iterator[int]) -> None:
    """Keep the engine busy for a segment."""
    stop = time.monotonic() + SEGMENT_S
    while time.monotonic() < stop:
        engine.infer(Request(next(numbers), history=0, prompt=128, output=16, seed=1))


def _sampler(load: Any) -> Segment:
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        samples.mkdir()
        sampler = ProcessSampler({"cpu": {"driver": "cpu-time", "options": {"interval": INTERVAL_NS / 1e9}}}, 0)
        sampler.record(samples.parent)
        load()
        events = sampler.close()
        began = read_samples(samples / "cpu.arrows")["before_ns"].to_numpy()
    cost = events[-1]
    told = sum(event["missed"] for event in events if event["event"] == "gap")
    periods = (began[-1] - began[0]) // INTERVAL_NS
    return Segment(cost["lateness_p99_us"], cost["cpu_s"] / cost["wall_s"], max(0, periods - (len(began) - 1) - told))


def _timer(load: Any) -> Segment:
    command = [sys.executable, "-m", timer.__name__, str(INTERVAL_NS), str(SEGMENT_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        load()
        return Segment(**json.loads(process.communicate()[0]))
