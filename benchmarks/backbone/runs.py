"""Runs to reduce: a made-up power signal, sampled at 1 kHz, with inferences one after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from joulelab.instruments.base import Block
from joulelab.quantities import Channel, Origin, Scope, SensorModel
from joulelab.recording import Manifest
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run, seal_run
from joulelab.recording.samples import SampleWriter
from joulelab.timebase import SECOND, BenchNs

RUNS, READINGS, INFERENCES, TOKENS = 200, 100_000, 50, 64
INTERVAL_NS = SECOND // 1000
CHANNEL = Channel("power", "W", scope=Scope.BOARD, origin=Origin.SIMULATED, sensor=SensorModel(period_s=0.001))
METER = Instrument("meter", "made-up", options={}, interval_ns=INTERVAL_NS, channels=(CHANNEL,))


def write_runs(folder: Path) -> None:
    """RUNS run directories below `folder`, READINGS samples and INFERENCES inferences each."""
    for k in range(RUNS):
        _write_run(folder / "session" / f"run-{k:03}", np.random.default_rng(k))


def _write_run(path: Path, rng: np.random.Generator) -> None:
    journal = create_run(path, _manifest(path))
    _write_samples(path, rng)
    for number, start in enumerate(np.linspace(SECOND, 98 * SECOND, INFERENCES, dtype=np.int64).tolist()):
        journal.append(BenchNs(start + 2 * SECOND), "inference", **_inference(number, start, rng))
    seal_run(path, journal, "done")


def _write_samples(path: Path, rng: np.random.Generator) -> None:
    before = np.arange(READINGS) * INTERVAL_NS + rng.integers(0, 60_000, READINGS)
    watts = 5 + np.abs(np.cumsum(rng.normal(0, 0.1, READINGS)))
    writer = SampleWriter(path / "samples" / f"{METER.name}.arrows", [CHANNEL.name])
    for first in range(0, READINGS, 500):
        part = slice(first, first + 500)
        writer.append(Block(before[part], before[part] + 40_000, None, watts[None, part]))
        writer.flush()
    writer.close()


def _inference(number: int, start: int, rng: np.random.Generator) -> dict[str, object]:
    tokens = (start + SECOND // 4 + np.cumsum(rng.integers(15_000_000, 25_000_000, TOKENS))).tolist()
    edges = {"prefill": (start, tokens[0]), "decode": (tokens[0], tokens[-1])}
    return {
        "inference": number,
        "repeat": 0,
        "warmup": False,
        "history": 0,
        "prompt": 128,
        "output": TOKENS,
        "phases": [
            {"name": name, "start": first, "stop": last, "boundary_u_s": 0.001, "cpu_s": None}
            for name, (first, last) in edges.items()
        ],
        "tokens": tokens,
        "temperature_c": None,
        "throttled": None,
        "extra": {},
    }


def _manifest(path: Path) -> Manifest:
    return Manifest(
        session=path.parent.name,
        run=path.name,
        device="made-up",
        protocol="sweep",
        arguments={},
        seed=1,
        created="2026-01-01T00:00:00+00:00",
        clock="virtual",
        clock_offset_ns=0,
        simulated=True,
        stanza={"driver": "simulated"},
        engine={},
        instruments=(METER,),
        power=(f"{METER.name}.{CHANNEL.name}",),
        host={},
        versions={},
        certificates={},
    )
