"""A device whose costs follow a known law, swept in front of one specimen of a sensor: a recorded run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from joulelab.analysis.modelling.cases import KEYS
from joulelab.analysis.modelling.forms import CONTEXT, ONSET, PAIR, PASS, START, TOKEN, Form
from joulelab.analysis.solved import RAMP_S, START_U_S
from joulelab.calibration.certificate import FOLDER, certificate
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.system import SHAPE_REL
from joulelab.quantities import Channel, Origin, Scope, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run
from joulelab.recording.samples import SampleWriter
from joulelab.simulation import chance
from joulelab.simulation.profile import Meter
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND, BenchNs

LAW: dict[tuple[str, str], tuple[Form, Floats]] = {
    ("energy", "prefill"): (Form("energy", (START, TOKEN, PAIR)), np.array([3.0, 0.15, 2e-5])),
    ("energy", "decode"): (Form("energy", (ONSET, PASS, CONTEXT)), np.array([2.0, 5.0, 1e-3])),
    ("time", "prefill"): (Form("time", (START, TOKEN, PAIR)), np.array([0.02, 4e-4, 5e-8])),
    ("time", "decode"): (Form("time", (PASS, CONTEXT)), np.array([0.02, 3e-6])),
}
GRID = list(product((0, 1024), (200, 400, 700, 1100), (9, 33)))
REPEATS = 5
IDLE_W, IDLE_S, GAP_S = 80.0, 3.0, 0.3
ENERGY_CV, TIME_CV, BOUNDARY_U_S = 0.01, 0.005, 1e-3
"""From one inference to another; and the told edge between prefill and decode about the true one."""
ROUNDS = 5
"""So many make the energies what the law says, however the power follows the load."""
HALF_NS = 200_000
"""Half a poll's bracket, in which the reading lies as far off the middle in all polls of a run."""
CLOCK = "a poll's bracket is rectangular; the rates of sensor and bench agree, so that a reading keeps its age"
_ERRORS = SensorModel(delay_u_s=5e-4, resolution=0.1, noise_u=3.0, gain_u_rel=5e-3, offset_u=0.5)
_MODELS = {
    "fast": replace(_ERRORS, period_s=1e-3, window_s=1e-3, delay_s=2e-3),
    "slow": replace(_ERRORS, period_s=0.1, window_s=0.1, delay_s=0.05, delay_u_s=5e-3),
}
SENSORS = {
    name: Channel("power", "W", scope=Scope.WALL, origin=Origin.SIMULATED, sensor=model)
    for name, model in _MODELS.items()
}
INTERVAL_NS = {"fast": SECOND // 1000, "slow": SECOND // 50}


def costs(target: str, phase: str, points: pd.DataFrame) -> Floats:
    """What the law says that points with columns `history`, `prompt`, `output` cost [s or J]."""
    if phase == "total":
        return costs(target, "prefill", points) + costs(target, "decode", points)
    form, beta = LAW[target, phase]
    return form.design(points) @ beta


def record(folder: Path, channel: Channel, interval_ns: int, seed: int) -> RunDir:
    """A sweep in random order, recorded in `folder`; whatever errs is drawn from `seed`."""
    rng = np.random.default_rng(seed)
    asked = pd.DataFrame(rng.permutation(GRID * REPEATS), columns=["history", "prompt", "output"])
    edges, joules = _inferences(asked, rng)
    trace = _trace(edges, joules, _shapes(asked, rng), rng)
    end = int(edges[-1, -1]) + round(IDLE_S * SECOND)
    instrument = Instrument("meter", "simulated", {}, interval_ns, (channel,))
    journal = create_run(folder, _manifest(folder.name, instrument, seed))
    _sample(folder, instrument, trace, end, seed, rng)
    first = int(edges[0, 0])
    for start, stop in ((0, first), (int(edges[-1, -1]), end)):
        journal.append(BenchNs(stop), "idle", step=0, start=start, stop=stop)
    told = edges + np.rint([0.0, BOUNDARY_U_S * SECOND, 0.0] * rng.standard_normal((len(edges), 3))).astype(np.int64)
    for number, (row, told_edges) in enumerate(zip(asked.to_dict("records"), told.tolist(), strict=True)):
        journal.append(BenchNs(told_edges[-1]), "inference", **_inference(number, row, told_edges))
    journal.close()
    run = RunDir(folder)
    certificate(run, "sensor", "meter.power", "steps of load", {}, about={"against": CLOCK}).write(folder / FOLDER)
    return run


def _inferences(asked: pd.DataFrame, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """The true edges [inferences, 3] in ns and the energies [inferences, 2] in J of prefill and decode."""
    parts = ("prefill", "decode")
    seconds, joules = (
        np.stack([costs(target, part, asked) for part in parts], axis=1) for target in ("time", "energy")
    )
    seconds *= 1 + TIME_CV * rng.standard_normal(seconds.shape)
    joules *= 1 + ENERGY_CV * rng.standard_normal(joules.shape)
    gaps = GAP_S * (1 + rng.random(len(asked)))
    stop = IDLE_S + np.cumsum(gaps + seconds.sum(axis=1))
    edges = stop[:, None] - np.stack([seconds.sum(axis=1), seconds[:, 1], np.zeros(len(asked))], axis=1)
    return np.rint(edges * SECOND).astype(np.int64), joules


def _shapes(asked: pd.DataFrame, rng: np.random.Generator) -> Floats:
    """Rise and bend [2, inferences, 2], relative, of prefill and decode: a rise for each configuration of a phase, and
    a bend for all.
    """
    own = [asked.groupby(KEYS[phase]).ngroup().to_numpy() for phase in ("prefill", "decode")]
    rises = np.stack([rng.standard_normal(k.max() + 1)[k] for k in own], axis=1)
    return SHAPE_REL * np.stack([rises, np.tile(rng.standard_normal(2), (len(asked), 1))])


def _trace(edges: Ints, joules: Floats, shapes: Floats, rng: np.random.Generator) -> Trace:
    """The power that draws these energies between the edges, of these shapes within; it follows the load in a straight
    ramp or, as likely, as a low-pass does that is as late. The load begins as late or early of each request.
    """
    ramp_s = rng.uniform(1e-3, RAMP_S)
    means = [(ramp_s, 1.0)] if rng.random() < 0.5 else _low_pass(ramp_s / 2)
    late_ns = round(START_U_S * rng.standard_normal() * SECOND)
    begun = edges + np.array([late_ns, 0, 0])
    seconds: Floats = np.diff(edges, axis=1) / SECOND
    watts: Floats = joules / seconds
    for _ in range(ROUNDS):
        trace = _followed(*_load(begun, watts, shapes), means)
        drawn: Floats = np.diff(trace.energy(edges.ravel()).reshape(edges.shape), axis=1)
        watts = watts + (joules - drawn) / (seconds - ramp_s / 2)
    return trace


def _load(edges: Ints, watts: Floats, shapes: Floats) -> tuple[Ints, Floats]:
    """Knots. Each phase rises or falls, and bends in the middle; its steps take 1 us about the edges."""
    middle = (edges[:, 1:] + edges[:, :-1]) // 2
    at = np.stack([edges[:, :2] + 500, middle, edges[:, 1:] - 500], axis=2)
    rise, bend = shapes[..., None] * np.array([[-0.5, 0.0, 0.5], [-0.5, 0.5, -0.5]])[:, None, None]
    phase = watts[:, :, None] * (1 + rise + bend)
    rest = np.stack([edges[:, 0] - 500, edges[:, -1] + 500], axis=1)
    idle = np.full(len(edges), IDLE_W)
    t = np.column_stack([rest[:, 0], at.reshape(len(edges), -1), rest[:, 1]]).ravel()
    return t, np.column_stack([idle, phase.reshape(len(edges), -1), idle]).ravel()


def _low_pass(constant_s: float) -> list[tuple[float, float]]:
    """Running means, each with its weight, that together are a low-pass: its memory as a staircase."""
    ends = constant_s * np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0])
    heights = np.diff(-np.exp(-ends / constant_s)) / np.diff(ends)
    weights = ends[1:] * (heights - np.append(heights[1:], 0.0))
    return list(zip(ends[1:].tolist(), (weights / weights.sum()).tolist(), strict=True))


def _followed(knots: Ints, watts: Floats, means: list[tuple[float, float]]) -> Trace:
    """The sum of running means over the last so many seconds, each with its weight."""
    load = _joined(knots, watts)
    ends = np.unique([*np.linspace(0, means[0][0], 5), *(seconds for seconds, _ in means)])
    t = np.unique(knots[:, None] + np.rint(ends * SECOND).astype(np.int64))
    drawn = np.zeros(len(t))
    for seconds, weight in means:
        before = np.asarray(t - seconds * SECOND, np.float64)
        drawn += weight * (load.energy(t) - load.energy(before)) / seconds
    return _joined(t, drawn)


def _joined(t: Ints, watts: NDArray[Any]) -> Trace:
    trace = Trace(-SECOND, IDLE_W)
    for knot, power in zip(t.tolist(), watts.tolist(), strict=True):
        trace.append(knot, power)
    trace.append(int(t[-1]) + 60 * SECOND, IDLE_W)
    return trace


def _sample(folder: Path, instrument: Instrument, trace: Trace, end: int, seed: int, rng: np.random.Generator) -> None:
    assert instrument.interval_ns is not None
    (channel,) = instrument.channels
    polls = np.arange(round(rng.uniform(0, instrument.interval_ns)), end, instrument.interval_ns)
    meter = Meter(channel, instrument.interval_ns, 0, 0.0, CLOCK)
    _, watts = Sensor(meter, chance.key(seed, channel.name)).read(trace, polls)
    middle = polls + round(rng.uniform(-HALF_NS, HALF_NS))
    writer = SampleWriter(folder / "samples" / f"{instrument.name}.arrows", [channel.name])
    writer.append(Block(middle - HALF_NS, middle + HALF_NS, None, watts[np.newaxis]))
    writer.close()


def _inference(number: int, asked: dict[Hashable, Any], edges: list[int]) -> dict[str, Any]:
    start, first, stop = edges
    phases = [
        {"name": name, "start": begin, "stop": end, "boundary_u_s": BOUNDARY_U_S, "cpu_s": None}
        for name, begin, end in (("prefill", start, first), ("decode", first, stop))
    ]
    about: dict[str, Any] = {
        "step": number,
        "inference": number,
        "repeat": 0,
        "warmup": False,
        "tokens": [],
        "extra": {},
    }
    asked_for = {str(name): x for name, x in asked.items()}
    return about | asked_for | {"phases": phases, "temperature_c": None, "throttled": None}


def _manifest(run: str, instrument: Instrument, seed: int) -> Manifest:
    return Manifest(
        session="s",
        run=run,
        device="law",
        protocol="sweep",
        arguments={},
        seed=seed,
        created="2026-11-21T00:00:00+00:00",
        clock="virtual",
        clock_offset_ns=0,
        simulated=True,
        stanza={},
        engine={},
        instruments=(instrument,),
        power=(f"{instrument.name}.{instrument.channels[0].name}",),
        host={},
        versions={},
        certificates={},
    )
