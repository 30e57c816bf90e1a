"""How punctual sampling is beside a loaded llama.cpp, and what it costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
SEGMENTS = 9

Load = Callable[[], None]


class Segment(NamedTuple):
    """The 99th percentile of lateness [us], the share of a core, and the readings that are neither there nor missed."""

    late_us: float
    share: float
    lost: int = 0


def punctuality() -> Iterator[Row]:
    """Sampling at 1 kHz beside a loaded llama.cpp, in turn with a bare timer loop.

    RAPL is the meter that ships with this interval; its counter is a made-up file here, since few virtual machines have
    one. The kernel takes longer to put together the CPU times of the estimator, which ships with twice the interval.
    """
    with running(shipped_plan()) as engine, _made_up_rapl() as root:
        load = partial(_infer, engine, count())
        rapl = partial(_sampler, load, "powercap", {"root": root})
        cpu = partial(_sampler, load, "cpu-time", {})
        turns = {"joulelab": rapl, "cpu-time estimator": cpu, "bare timer loop": partial(_timer, load)}
        found = taking_turns(SEGMENTS, turns)
    lost = sum(segment.lost for segments in found.values() for segment in segments)
    ratios = [s.late_us / b.late_us for s, b in zip(found["joulelab"], found["bare timer loop"], strict=True)]
    late_us = {name: statistics.median(s.late_us for s in segments) for name, segments in found.items()}
    percent = {name: 100 * statistics.median(s.share for s in segments) for name, segments in found.items()}
    yield Row("1 kHz sampling, p99 lateness", late_us.pop("joulelab"), "us", None, "lower", late_us)
    yield Row("1 kHz sampling, that over the bare timer loop's", statistics.median(ratios), "x", 1.5, "lower")
    yield Row("1 kHz sampling, readings neither there nor told as missed", lost, "", 0, "lower")
    yield Row("1 kHz sampling, share of a core", percent.pop("joulelab"), "%", 4, "lower", percent)


@contextmanager
def _made_up_rapl() -> Iterator[str]:
    """The root of a powercap tree with one counter."""
    with tempfile.TemporaryDirectory() as root:
        zone = Path(root, "intel-rapl:0")
        zone.mkdir()
        for name, text in {
            "name": "package-0",
            "energy_uj": "123456789",
            "max_energy_range_uj": "262143328850",
        }.items():
            (zone / name).write_text(f"{text}\n")
        yield root


def _infer(engine: Engine, numbers: Iterator[int]) -> None:
    """Keep the engine busy for a segment."""
    stop = time.monotonic() + SEGMENT_S
    while time.monotonic() < stop:
        engine.infer(Request(next(numbers), history=0, prompt=128, output=16, seed=1))


def _sampler(load: Load, driver: str, options: dict[str, Any]) -> Segment:
    meter = {"driver": driver, "options": {"interval": INTERVAL_NS / 1e9, **options}, "wiring": {}}
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        samples.mkdir()
        sampler = ProcessSampler({"meter": meter}, 0)
        sampler.record(samples.parent)
        load()
        events = sampler.close()
        began = read_samples(samples / "meter.arrows")["before_ns"].to_numpy()
    cost = events[-1]
    told = sum(event["missed"] for event in events if event["event"] == "gap")
    periods = (began[-1] - began[0]) // INTERVAL_NS
    return Segment(cost["lateness_p99_us"], cost["cpu_s"] / cost["wall_s"], max(0, periods - (len(began) - 1) - told))


def _timer(load: Load) -> Segment:
    command = [sys.executable, "-m", timer.__name__, str(INTERVAL_NS), str(SEGMENT_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        load()
        return Segment(**json.loads(process.communicate()[0]))
