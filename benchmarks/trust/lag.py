"""How late a sensor is: from a signature on simulated meters, from real recordings, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.row import Row
from joulelab.analysis.imports.pmd import LATE_NS
from joulelab.analysis.imports.runs import import_runs
from joulelab.analysis.means import means
from joulelab.analysis.phases import reduce
from joulelab.analysis.steady import agreement, steady
from joulelab.bench import Plan, record
from joulelab.calibration.averaging import averaging
from joulelab.calibration.integrals import NS, Floats
from joulelab.calibration.kernel import Timing
from joulelab.calibration.readings import readings
from joulelab.calibration.sensor import identify, measured
from joulelab.calibration.shape import Steps
from joulelab.calibration.taken import taken
from joulelab.calibration.timing import MOST_LAG_S, NONE_S, Problem, Start
from joulelab.errors import DataInvalid
from joulelab.protocols.patterns import pseudo_random
from joulelab.protocols.signature import SignatureOnly
from joulelab.quantities import Channel, SensorModel
from joulelab.recording import RunDir
from joulelab.registry import DEVICES, PROTOCOLS, load_driver
from joulelab.simulation import chance
from joulelab.simulation.profile import Meter
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND

IDLE_W, STEP_W, NOISE_W = 80.0, 320.0, 32.0
RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "gpu-power-benchmark"


KILOHERTZ = SensorModel(period_s=1e-3, noise_u=NOISE_W)


class Case(NamedTuple):
    what: str
    sensor: SensorModel
    free: tuple[str, ...]
    seeds: int
    limit_ms: float


CASES = (
    Case("10 Hz integrating", SensorModel(period_s=0.1, window_s=0.1, noise_u=NOISE_W), ("window_s",), 40, 3.0),
    Case(
        "1 kHz, low-pass of 5 ms fitted",
        SensorModel(period_s=1e-3, lowpass_s=5e-3, noise_u=NOISE_W),
        ("lowpass_s",),
        8,
        0.1,
    ),
    Case(
        "1 kHz, low-pass of 20 ms fitted",
        SensorModel(period_s=1e-3, lowpass_s=0.02, noise_u=NOISE_W),
        ("lowpass_s",),
        8,
        0.1,
    ),
)


def signatures() -> Iterator[Row]:
    """Lag behind the workload from one signature, power step ten times the noise of a reading."""
    options = SignatureOnly.Options()
    pattern = np.cumsum([3.0, *pseudo_random(options.bit, options.seconds)])
    covered = []
    for case in CASES:
        trials = np.array([_trial(case, pattern, seed) for seed in range(case.seeds)]).T
        errors_ms, shifts_ms, u_ms = 1e3 * trials
        within, by_shift = (float(1.96 * np.sqrt(np.mean(np.square(e)))) for e in (errors_ms, shifts_ms))
        what = f"lag from a signature of {options.seconds:g} s: {case.what}: 95 % within"
        yield Row(what, within, "ms", case.limit_ms, "lower", {"best whole-period shift": by_shift})
        covered += list(np.abs(errors_ms) <= 1.96 * u_ms)
    yield Row("lag from a signature: stated 95 % intervals that cover", float(np.mean(covered)), "1", 0.88, "higher")


def _trial(case: Case, pattern: Floats, seed: int) -> tuple[float, float, float]:
    """Errors [s] of the fitted lag and of the best whole shift, and the fit's standard uncertainty."""
    delay_s, period_s = float(np.random.default_rng(seed).uniform(0, 0.1)), case.sensor.period_s or 0.0
    channel = Channel("p", "W", sensor=replace(case.sensor, delay_s=delay_s))
    sensor = Sensor(Meter(channel, round(period_s * SECOND), 0, 0.0, "a signature"), chance.key(seed, "p"))
    trace = _trace(pattern)
    t_s = np.arange(_first_update_s(sensor, trace, period_s), pattern[-1] + 3, period_s)
    _, watts = sensor.read(trace, np.rint((t_s + period_s / 2) * SECOND).astype(np.int64))
    problem = Problem(t_s, watts, Steps(pattern, np.arange(len(pattern) + 1) % 2))
    coarse = problem.coarse().timing
    start = Timing(coarse.delay_s, **dict.fromkeys(case.free, coarse.window_s))
    fit = problem.fit(Start(start), case.free)
    truth = delay_s + case.sensor.window_s / 2 + case.sensor.lowpass_s
    return fit.age_s - truth, _best_shift_s(problem, period_s) - truth, fit.u_s("age_s")


def _first_update_s(sensor: Sensor, trace: Trace, period_s: float) -> float:
    t_s = np.linspace(0, period_s, 10_001)
    stamps, _ = sensor.read(trace, np.rint(t_s * SECOND).astype(np.int64))
    return float(t_s[np.argmax(np.diff(stamps)) + 1])


def _best_shift_s(problem: Problem, period_s: float) -> float:
    """The whole number of periods by which the readings follow the load best, by cross-correlation."""
    load = problem.shape.shown(problem.t_s, Timing())[:, 1]
    lags = np.arange(round(MOST_LAG_S / period_s))
    rest = problem.watts - problem.watts.mean()
    return float(np.argmax([rest[k:] @ load[: len(load) - k] for k in lags]) * period_s)


def _trace(pattern: Floats) -> Trace:
    """Power that steps with the load, in 1 us."""
    watts = IDLE_W + STEP_W * (np.arange(len(pattern) + 1) % 2)
    trace = Trace(-10 * SECOND, IDLE_W)
    for edge_ns, before, after in zip(np.rint(pattern * SECOND).astype(int).tolist(), watts, watts[1:], strict=False):
        trace.append(edge_ns, float(before))
        trace.append(edge_ns + 1000, float(after))
    trace.append(trace.end_ns + 60 * SECOND, float(watts[-1]))
    return trace


def steadiness() -> Iterator[Row]:
    """Energies by deconvolution against those of phases held steady, on one simulated device and its 10 Hz gauge."""
    channel, sizes = "gauge.VDD_GPU_SOC", {"prompt": [1024, 2048], "decode": [64]}
    with TemporaryDirectory() as folder:
        held = steady(_played(Path(folder), "steady", sizes), channel)
        swept = _played(Path(folder), "sweep", sizes | {"repeats": 32, "gap": 0.2})
        by_method = [agreement(held, means(reduce(swept, method=m)), channel) for m in ("deconvolve", "integrate")]
    z, ratio = (_worst(by_method[0], name, at) for name, at in (("z", 0.0), ("ratio", 1.0)))
    clipped = {"clip and integrate": 100 * _worst(by_method[1], "ratio", 1.0)}
    yield Row("steady against deconvolved: difference over its uncertainty, at most", z, "1", 3.0, "lower")
    yield Row("steady against deconvolved: difference, at most", 100 * ratio, "%", None, "lower", clipped)


def _worst(both: pd.DataFrame, name: str, at: float) -> float:
    return float((both[name] - at).abs().max())


def _played(folder: Path, protocol: str, options: dict[str, Any]) -> RunDir:
    arguments = load_driver(PROTOCOLS, protocol).Options(**options).model_dump(mode="json")
    device = {"group": DEVICES, "driver": "simulated", "options": {"profile": "edge-gpu"}}
    plan = Plan("edge-gpu", device | {"power": None, "connect": None}, {}, protocol, arguments)
    return record(plan, folder / protocol, lambda: False, lambda _: None)


def recordings() -> Iterator[Row]:
    """Sensors of real GPUs against an external meter (GPU_Power_Benchmark)."""
    shift, window, square = (
        "A100, step: shift against the external meter",
        "RTX 3090, step: window of the average power",
        "A100, square wave: identified",
    )
    if not RECORDINGS.is_dir():
        for what, unit in ((shift, "ms"), (window, "s"), (square, "1")):
            yield Row(what, None, unit, None, "lower", reason="the recordings of GPU_Power_Benchmark are not here")
        return
    with TemporaryDirectory() as folder:
        yield from _shift(shift, *_imported("A100_step", Path(folder)))
        yield from _window(window, *_imported("RTX3090_step", Path(folder)))
        yield from _square(square, *_imported("A100_square_wave", Path(folder)))


def _imported(name: str, out: Path) -> tuple[RunDir, RunDir]:
    """The GPU's own readings and the external meter's of a recording."""
    (out / "map.yaml").write_text("channels: {power: {scope: input}}")
    folder = RECORDINGS / name
    [gpu] = import_runs("nvidia-smi", [folder / "gpudata.csv"], out / name / "gpu", timezone="Europe/London")
    [meter] = import_runs("elmor-pmd", [folder / "PMD_data.bin"], out / name / "meter", mapping=out / "map.yaml")
    return RunDir(gpu), RunDir(meter)


def _off(what: str, value: float, unit: str, expected: float, allowed: float, **others: float) -> Iterator[Row]:
    """The value, and its distance from what is expected."""
    yield Row(what, value, unit, None, "lower", others)
    yield Row(f"{what}: off {expected:g} +- {allowed:g} {unit} by", abs(value - expected), unit, allowed, "lower")


def _shift(what: str, gpu: RunDir, meter: RunDir) -> Iterator[Row]:
    """As the poll prints it and the clocks are stated, 50 ms taken off the meter's stamp as its source does; beside it
    by the sensor's updates, the rate of the meter's clock fitted.
    """
    name = "nvidia-smi.power.draw.instant"
    read = taken(gpu, name)
    source = measured(gpu, read, "elmor-pmd.power", meter)
    polls = readings(gpu.channels[name], None, gpu.samples("nvidia-smi"))
    polled = source.problem(replace(read, t_ns=polls.taken_ns, watts=polls.values))
    plain_s = polled.fit(polled.coarse(NONE_S)).age_s + LATE_NS * NS / 2
    fitted = averaging(source.problem(read), drifts=True).fit
    beside = {"its updates, the meter's clock fitted": 1e3 * (fitted.age_s + LATE_NS * NS / 2)}
    yield from _off(what, 1e3 * plain_s, "ms", 190, 40, **beside)


def _window(what: str, gpu: RunDir, meter: RunDir) -> Iterator[Row]:
    found = identify(gpu, "nvidia-smi.power.draw", "elmor-pmd.power", meter)
    yield from _off(what, found.result["window_s"], "s", 1.0, 0.1)


def _square(what: str, gpu: RunDir, meter: RunDir) -> Iterator[Row]:
    try:
        found = identify(gpu, "nvidia-smi.power.draw.instant", "elmor-pmd.power", meter)
    except DataInvalid as refusal:
        yield Row(what, None, "1", None, "higher", reason=f"refused: {refusal}")
        return
    yield Row(
        f"{what}: {found.conditions['averaging']}, constant", 1e3 * found.result["lowpass_s"], "ms", None, "lower"
    )
