"""Recordings of others: published energies met again, and two meters of one load compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.row import Row
from joulelab.analysis.imports import import_runs
from joulelab.calibration.gain import Gain, compare
from joulelab.calibration.integrals import Floats, counter
from joulelab.calibration.levels import Signal, signal
from joulelab.recording import RunDir
from joulelab.timebase import SECOND

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ABSENT = "the recordings are not here"
TINY = DATA / "mlperf-tiny"
GPU = DATA / "gpu-power-benchmark"
COVERAGE = 1.96
LEVELS_S = {
    "A100_step": [(0.0, 1.0), (1.3, 2.0), (2.3, 6.7), (7.4, 13.6)],
    "A100_square_wave": [(0.0, 1.0), (1.1, 8.6), (9.1, 9.7)],
    "RTX3090_step": [(0.0, 1.0), (1.8, 6.5), (7.4, 8.5), (9.2, 13.6)],
}
"""Stretches in which the load goes on in the same way, from the external meter's first reading."""


def published_energies() -> Iterator[Row]:
    """Energies of MLPerf Tiny: 8 boards, 5 windows each, from the raw trace of the energy monitor."""
    what = "published energy of a window, worst relative error"
    if not TINY.is_dir():
        yield Row(what, None, "%", 0.01, "lower", reason=ABSENT)
        return
    worst = max(float(np.max(np.abs(errors(folder)))) for folder in windows())
    yield Row(what, worst * 100, "%", 0.01, "lower")


def windows() -> list[Path]:
    return sorted(path.parent for path in TINY.rglob("trace1-energy.bin"))


def errors(folder: Path) -> Floats:
    """The relative errors of the energies [windows] of a board against what was published."""
    raw = (folder / "trace1-energy.bin").read_bytes()
    rate, joules = np.frombuffer(raw, "<f4", 1, 1)[0], np.frombuffer(raw, "<f4", offset=5) * 1e-6
    t_ns = np.rint(np.arange(len(joules) + 1) / rate * SECOND).astype(np.int64)
    edges_s = np.array(json.loads((folder / "trace1-timestamps.json").read_text()))
    edges_ns = np.rint(edges_s * SECOND).astype(np.int64)
    total = np.concatenate([[0.0], np.cumsum(joules, dtype=np.float64)])
    found = counter(t_ns, total, None, edges_ns[1::2], edges_ns[2::2])
    told = re.findall(r"Energy +: +([0-9.]+) uJ", (folder / "results.txt").read_text())
    return found / (np.array(told, float) * 1e-6) - 1


def two_meters() -> Iterator[Row]:
    """A GPU's own sensor against an external meter on all its supply lines, whose gain is taken for 1 % uncertain."""
    if not GPU.is_dir():
        yield Row("gain of the internal sensor", None, "1", None, "lower", reason=ABSENT)
        return
    found = {folder: internal_gain(folder) for folder in LEVELS_S}
    for folder, gain in found.items():
        alternative = {"internal over external at the highest level": ratio(gain)}
        yield Row(f"{folder}: gain of the internal sensor", gain.gain, "1", None, "lower", alternative)
        yield Row(f"{folder}: half of its 95 % interval", COVERAGE * gain_u(gain), "1", None, "lower")
    step, square = found["A100_step"], found["A100_square_wave"]
    interval = COVERAGE * float(np.hypot(gain_u(step), gain_u(square)))
    yield Row("A100: the gains of step and square wave differ by", abs(step.gain - square.gain), "1", interval, "lower")


def gain_u(gain: Gain) -> float:
    return gain.gain * gain.gain_u_rel


def ratio(gain: Gain) -> float:
    """What the meter reads over the truth at the highest level."""
    return gain.gain + gain.offset / gain.high_w


def internal_gain(folder: str) -> Gain:
    """The internal sensor's gain in one of the recordings."""
    with TemporaryDirectory() as made:
        external, internal = recorded(GPU / folder, Path(made))
    spans = np.rint(np.array(LEVELS_S[folder]) * SECOND).astype(np.int64) + external.t_ns[0]
    return compare(internal, external, spans)


def recorded(folder: Path, out: Path) -> tuple[Signal, Signal]:
    """The external meter and the internal sensor on the clock of the first."""
    (out / "map.yaml").write_text("channels: {power: {scope: input, gain_u: 1 %}}")
    [pmd] = import_runs("elmor-pmd", [folder / "PMD_data.bin"], out / "pmd", mapping=out / "map.yaml")
    [smi] = import_runs("nvidia-smi", [folder / "gpudata.csv"], out / "smi", timezone="Europe/London")
    outside, inside = RunDir(pmd), RunDir(smi)
    shift_ns = epoch_ns(inside) - epoch_ns(outside)
    power, instant = "elmor-pmd.power", "nvidia-smi.power.draw.instant"
    return (
        signal(outside, power, outside.channels[power]),
        signal(inside, instant, inside.channels[instant], shift_ns),
    )


def epoch_ns(run: RunDir) -> int:
    """The wall-clock time [ns] of bench time 0."""
    anchor = run.journal[0]["anchor"]
    return int(anchor["wall"] - anchor["bench"])
