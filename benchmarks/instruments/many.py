"""Many meters on one bench, each polled over a real protocol."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.instruments import peers
from benchmarks.row import Row
from joulelab.instruments.sampling import ProcessSampler
from joulelab.recording.samples import read_samples

METERS = 20
INTERVAL_S = 0.1
SECONDS = 10.0
LATE_S = 0.010


def punctuality() -> Iterator[Row]:
    """20 SCPI meters at 10 Hz on one bench, each over a TCP socket of its own, beside one alone."""
    late, cpu_us = _late_and_cost(METERS)
    late_alone, cpu_alone_us = _late_and_cost(1)
    in_time, alone = (100 * float((x <= LATE_S).mean()) for x in (late, late_alone))
    yield Row(f"{METERS} meters at 10 Hz, readings within 10 ms", in_time, "%", 99, "higher", {"one meter": alone})
    worst = {"one meter": 1e3 * float(late_alone.max())}
    yield Row(f"{METERS} meters at 10 Hz, latest reading", 1e3 * float(late.max()), "ms", None, "lower", worst)
    yield Row(
        "CPU of a reading of a WT310E, cassette included", cpu_us, "us", None, "lower", {"one meter": cpu_alone_us}
    )


def _late_and_cost(meters: int) -> tuple[Any, float]:
    """How late each reading began [s], and the CPU time of one [us]."""
    with _peers(meters) as resources, tempfile.TemporaryDirectory() as folder:
        for room in ("samples", "wire"):
            Path(folder, room).mkdir()
        specs = {f"meter-{k}": _spec(resource) for k, resource in enumerate(resources)}
        sampler = ProcessSampler(specs, 0)
        sampler.record(Path(folder))
        time.sleep(SECONDS)
        costs = [event for event in sampler.close() if event["event"] == "sampler"]
        began = [read_samples(path)["before_ns"].to_numpy() for path in Path(folder, "samples").iterdir()]
    cpu_us = 1e6 * sum(cost["cpu_s"] for cost in costs) / sum(cost["readings"] for cost in costs)
    return np.concatenate([_late(stamps) for stamps in began]), cpu_us


def _late(began: Any) -> Any:
    """Against deadlines one interval apart, the first of which is where no reading is early."""
    late = began * 1e-9 - INTERVAL_S * np.arange(len(began))
    return late - late.min()


def _spec(resource: str) -> dict[str, Any]:
    return {"driver": "scpi/yokogawa-wt310e", "options": {"resource": resource, "interval": INTERVAL_S}, "wiring": {}}


@contextmanager
def _peers(meters: int) -> Iterator[list[str]]:
    command = [sys.executable, "-m", peers.__name__, str(meters)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
