"""Sensors are identified from load steps, and told apart; what the data cannot tell is refused with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulelab.analysis.imports.runs import import_runs
from joulelab.analysis.means import means
from joulelab.analysis.phases import reduce
from joulelab.analysis.steady import agreement, steady
from joulelab.bench import Plan, record
from joulelab.calibration.averaging import averaging
from joulelab.calibration.kernel import Timing
from joulelab.calibration.sensor import identify
from joulelab.calibration.shape import Curve, Steps
from joulelab.calibration.signature import lag
from joulelab.calibration.timing import Problem
from joulelab.calibration.updates import resolution, update_period
from joulelab.errors import DataInvalid, UserError
from joulelab.protocols.patterns import pseudo_random
from joulelab.quantities import Channel, SensorModel
from joulelab.recording import RunDir
from joulelab.registry import PROTOCOLS, load_driver
from joulelab.simulation import SimulatedBench
from joulelab.simulation.profile import Meter
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND, VirtualClock

MS = 10**6
GPU = Path(__file__).parents[1].parent / "shared" / "data" / "gpu-power-benchmark"
recorded = pytest.mark.skipif(not GPU.is_dir(), reason=f"the recordings are not in {GPU}")

EDGES = np.cumsum([3.0, *pseudo_random(0.0973, 20.0)])
PATTERN = Steps(EDGES, np.arange(len(EDGES) + 1) % 2)
METER, GAUGE = "meter.power", "gauge.VDD_GPU_SOC"


def play(folder: Path, protocol: str, profile: str = "edge-gpu", **options: Any) -> RunDir:
    arguments = load_driver(PROTOCOLS, protocol).Options(**options).model_dump(mode="json")
    device = {"group": "joulelab.devices", "driver": "simulated", "options": {"profile": profile}}
    plan = Plan(profile, device | {"power": None, "connect": None}, {}, protocol, arguments)
    return record(plan, folder, lambda: False, lambda _: None)


@pytest.fixture(scope="module")
def signature(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return play(tmp_path_factory.mktemp("signature"), "signature", seconds=10.0, warmup=1.0, idle=2.0)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A slow average of 1 s beside a fast counter."""
    return play(
        tmp_path_factory.mktemp("ladder"), "ladder", "compute-puck", hold=4.0, warmup=2.0, period=1.0, square=8.0
    )


def trace(edges: Any = EDGES) -> Trace:
    found = Trace(-10 * SECOND, 80.0)
    for k, edge in enumerate(np.rint(edges * SECOND).astype(int).tolist()):
        found.append(edge, 80.0 if k % 2 == 0 else 400.0)
        found.append(edge + 1000, 400.0 if k % 2 == 0 else 80.0)
    found.append(found.end_ns + 60 * SECOND, 400.0 if len(edges) % 2 else 80.0)
    return found


def seen(seed: int, **model: float) -> Problem:
    """What a sensor shows of the pattern, each reading at the time that it was made."""
    told = SensorModel(noise_u=16.0, **model)
    period_s = told.period_s or 0.0
    sensor = Sensor(Meter(Channel("p", "W", sensor=told), round(period_s * SECOND), 0, 0.0, ""), (seed,))
    t_s = np.arange((-sensor._origin_ns / SECOND) % period_s, EDGES[-1] + 3, period_s)
    return Problem(t_s, sensor.read(trace(), np.rint((t_s + period_s / 2) * SECOND).astype(np.int64))[1], PATTERN)


class Known(NamedTuple):
    model: str
    sensor: dict[str, float]


KNOWN = [
    Known("instantaneous", {"period_s": 0.1}),
    Known("window", {"period_s": 0.1, "window_s": 0.1}),
    Known("window", {"period_s": 0.1, "window_s": 0.025}),
    Known("window", {"period_s": 0.1, "window_s": 1.0}),
    Known("low-pass", {"period_s": 0.01, "lowpass_s": 0.02}),
    Known("window and low-pass", {"period_s": 0.02, "window_s": 0.2, "lowpass_s": 0.05}),
]


@pytest.mark.parametrize("known", KNOWN, ids=[f"{k.model} {k.sensor}" for k in KNOWN])
def test_the_averaging_of_a_sensor_comes_out_with_its_times(known: Known) -> None:
    truth = SensorModel(delay_s=0.3, **known.sensor)
    found = averaging(seen(1, delay_s=0.3, **known.sensor))
    assert found.model == known.model
    for name in ("window_s", "lowpass_s"):
        assert getattr(found.fit.timing, name) == pytest.approx(
            getattr(truth, name), abs=4 * found.fit.u_s(name) + 1e-9
        )
    age_s = truth.delay_s + truth.window_s / 2 + truth.lowpass_s
    assert found.fit.age_s == pytest.approx(age_s, abs=4 * found.fit.u_s("age_s"))
    assert found.fit.u_s("age_s") < 0.2 * (truth.period_s or 0.0)


def test_lags_of_up_to_two_and_a_half_seconds_are_found() -> None:
    fit = averaging(seen(1, period_s=0.1, window_s=0.1, delay_s=2.4)).fit
    assert fit.age_s == pytest.approx(2.45, abs=4 * fit.u_s("age_s"))


def test_stated_intervals_of_the_lag_cover() -> None:
    errors = []
    for seed in range(8):
        fit = averaging(seen(seed, period_s=0.1, window_s=0.1, delay_s=0.04)).fit
        errors.append((fit.age_s - 0.09) / fit.u_s("age_s"))
    assert 0.4 < np.sqrt(np.mean(np.square(errors))) < 1.8


def test_noise_alone_follows_nothing() -> None:
    rng = np.random.default_rng(0)
    t_s = np.arange(0, 30, 0.1)
    assert not averaging(Problem(t_s, rng.normal(100, 5, len(t_s)), PATTERN)).fit.follows


@given(st.floats(0.002, 0.5), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_measured_curve_and_steps_show_the_same(delay_s: float, window_s: float, lowpass_s: float) -> None:
    edges_s, fine_s = np.array([1.0, 1.4, 2.5]), np.arange(-4.0, 6.0, 1e-3)
    power = np.where(((fine_s > 1.0) & (fine_s < 1.4)) | (fine_s > 2.5), 10.0, 0.0)
    t_s, timing = np.linspace(0, 5, 60), Timing(delay_s, window_s, lowpass_s)
    steps = Steps(edges_s, np.array([0, 1, 0, 1])).shown(t_s, timing) @ [0.0, 10.0]
    curve = Curve.through(fine_s, power, 1e-3).shown(t_s, timing)[:, 1]
    assert np.abs(curve - steps).max() <= 10 * 2.5e-3 / max(window_s, lowpass_s, 2.5e-3)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.floats(0.05, 0.4), st.floats(0.005, 0.02))
def test_the_update_period_comes_from_changes_between_unsteady_polls(seed: int, period_s: float, poll_s: float) -> None:
    rng = np.random.default_rng(seed)
    polls = np.cumsum(poll_s * rng.uniform(0.7, 1.3, round(200 * period_s / poll_s)))
    update = np.floor(polls / period_s + rng.random()).astype(int)
    values = rng.integers(0, 4, update[-1] + 1)[update].astype(float)
    before = np.rint(polls * SECOND).astype(np.int64)
    found = update_period(before, before + MS, values)
    assert found is not None
    assert found.period_s == pytest.approx(period_s, rel=2e-3)


def test_what_changes_as_fast_as_it_is_polled_or_hardly_ever_has_no_period_to_see() -> None:
    before = np.arange(300) * 10 * MS
    assert update_period(before, before, np.arange(300.0)) is None
    assert update_period(before, before, np.repeat([1.0, 2.0], 150)) is None


@pytest.mark.parametrize("step", [0.4, 3.8e-3, 0.01, 0.0244])
def test_the_resolution_is_the_greatest_common_step(step: float) -> None:
    values = np.random.default_rng(2).normal(50, 5, 2000)
    assert resolution(np.rint(values / step) * step) == pytest.approx(step)
    assert resolution(values) == 0.0


def test_the_step_of_a_counter_is_small_against_what_it_gains() -> None:
    gains = np.random.default_rng(3).integers(7_000, 40_000, 2000)
    joules = np.asarray((5_000_000_000 + np.cumsum(gains)) * 1e-3, np.float64)
    assert resolution(joules) == pytest.approx(1e-3)


def test_a_simulated_low_pass_is_exact_on_a_piecewise_linear_trace() -> None:
    rng, found = np.random.default_rng(0), Trace(0, 10.0)
    for edge in np.cumsum(rng.integers(MS, 300 * MS, 60)).tolist():
        found.append(edge, float(rng.uniform(5, 50)))
    constant_s, step_ns = 0.03, 10_000
    fine = np.arange(-SECOND, found.end_ns, step_ns)
    kept = np.exp(-step_ns / SECOND / constant_s)
    shown = [10.0]
    for watts in found.power(fine[:-1] + step_ns // 2):
        shown.append(kept * shown[-1] + (1 - kept) * watts)
    at = slice(SECOND // step_ns, None, 997)
    assert found.lowpassed(fine[at], constant_s) == pytest.approx(np.array(shown)[at], abs=1e-4)


def test_a_window_behind_a_low_pass_averages_what_that_shows() -> None:
    both = SensorModel(period_s=0.01, window_s=0.2, lowpass_s=0.05)
    meter = Meter(Channel("p", "W", sensor=both), 10 * MS, 0, 0.0, "")
    t_s = np.arange(3.0, 10.0, 0.01)
    sensor = Sensor(meter, (3,))
    stamps, watts = sensor.read(trace(), np.rint(t_s * SECOND).astype(np.int64))
    expected = PATTERN.shown((stamps - sensor._origin_ns) / SECOND, Timing(0.0, 0.2, 0.05)) @ [80.0, 400.0]
    assert watts == pytest.approx(expected, abs=0.02)


def test_a_signature_tells_the_lag_of_each_channel_and_its_own_each_time(signature: RunDir) -> None:
    found = lag(signature, METER)
    # The edge GPU's power follows its load with 46 ms, and 9.65 ms of every inference's 22 are spent launching it.
    assert found.averaging == "low-pass"
    assert found.lag_s == pytest.approx(0.0005 + 0.046 + 0.0048, abs=0.004)
    assert found.lag_u_s < 0.002
    [(_, alone_s, alone_u_s)] = found.each
    assert alone_s == pytest.approx(found.lag_s, abs=4 * alone_u_s)


def test_a_run_without_a_signature_has_no_lag(ladder: RunDir, tmp_path: Path) -> None:
    bare = play(tmp_path, "wiring", bit=0.3)
    with pytest.raises(DataInvalid, match="has no signature: play the protocol signature"):
        lag(bare, METER)
    with pytest.raises(
        UserError, match=r"'meter.amps' is no power channel of .*; there are: meter.energy, gauge.battery"
    ):
        identify(ladder, "meter.amps")


def test_a_slow_average_is_identified_against_a_fast_meter_or_against_the_load(ladder: RunDir) -> None:
    beside, alone = identify(ladder, "gauge.battery", "meter.energy"), identify(ladder, "gauge.battery")
    assert beside.simulated
    assert (beside.conditions["averaging"], beside.conditions["against"]) == ("window", "meter.energy")
    assert alone.conditions["against"] is None
    for found in (beside, alone):
        assert found.kind == "sensor"
        assert found.result["period_s"] == pytest.approx(1.0, abs=0.02)  # its clock may be 0.6 % off
        assert found.result["resolution"] == pytest.approx(3.8e-3)
        assert found.result["window_s"] == pytest.approx(1.0, abs=0.01)
        assert found.covariance["names"][:2] == ["age_s", "window_s"]
        assert np.linalg.eigvalsh(found.covariance["matrix"]).min() > 0
    # Behind the meter it lags by its own delay, behind the load by the ramp of the power, too, which seems a low-pass.
    truth_s = SimulatedBench("compute-puck", ladder.manifest.seed, VirtualClock())._sensors["gauge"]._delay_ns / SECOND
    assert beside.result["delay_s"] == pytest.approx(truth_s, abs=4 * beside.result["delay_u_s"])
    assert beside.result["delay_u_s"] < 0.005
    assert (beside.result["lowpass_s"], alone.conditions["averaging"]) == (0.0, "window and low-pass")
    assert alone.result["lowpass_s"] == pytest.approx(0.046, abs=0.02)


def test_what_is_not_faster_is_no_reference(signature: RunDir) -> None:
    with pytest.raises(DataInvalid, match=r"gauge\.VDD_GPU_SOC is not 5 times as fast as the sensor"):
        identify(signature, METER, GAUGE)


def test_steady_energies_agree_with_deconvolved_ones(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"prompt": [1024], "decode": [64], "seed": 3}
    held = steady(play(tmp_path / "held", "steady", **sizes, hold=12.0), GAUGE)
    by_phase = held.table.set_index(["output", "phase"])["energy_j"]
    assert by_phase[64, "total"] == pytest.approx(by_phase[1, "prefill"] + by_phase[64, "decode"])
    assert held.table["energy_u_j"].to_numpy() == pytest.approx(np.sqrt(np.diag(held.covariance)))
    swept = reduce(play(tmp_path / "swept", "sweep", **sizes, repeats=16, gap=0.2), method="deconvolve")
    both = agreement(held, means(swept), GAUGE).set_index("phase")
    assert {"prefill", "decode", "total"} == set(both.index)
    assert (both["z"].abs() < 3).all()
    assert both.loc["total", "ratio"] == pytest.approx(1, abs=0.03)


def test_a_load_held_for_too_short_is_refused(tmp_path: Path) -> None:
    held = play(tmp_path, "steady", prompt=[64], decode=[4], hold=1.0, idle=1.0, repeats=1)
    with pytest.raises(DataInvalid, match=r"holds no load long enough for gauge\.VDD_GPU_SOC: hold it for 3 s"):
        steady(held, GAUGE)


def imported(folder: Path, name: str) -> tuple[RunDir, RunDir]:
    (folder / "map.yaml").write_text("channels: {power: {scope: input}}")
    [gpu] = import_runs("nvidia-smi", [GPU / name / "gpudata.csv"], folder / "gpu", timezone="Europe/London")
    [meter] = import_runs("elmor-pmd", [GPU / name / "PMD_data.bin"], folder, mapping=folder / "map.yaml")
    return RunDir(gpu), RunDir(meter)


@recorded
def test_the_average_power_of_an_rtx_3090_is_one_of_a_second(tmp_path: Path) -> None:
    gpu, meter = imported(tmp_path, "RTX3090_step")
    found = identify(gpu, "nvidia-smi.power.draw", "elmor-pmd.power", meter)
    assert found.conditions["averaging"] == "window"
    assert found.result["window_s"] == pytest.approx(1.0, abs=0.1)
    assert found.result["period_s"] == pytest.approx(0.1, abs=0.001)
    assert not found.simulated


@recorded
def test_two_steps_do_not_tell_how_an_a100_averages(tmp_path: Path) -> None:
    gpu, meter = imported(tmp_path, "A100_step")
    with pytest.raises(DataInvalid, match="readings that see a step pass: play more steps"):
        identify(gpu, "nvidia-smi.power.draw.instant", "elmor-pmd.power", meter)


@recorded
def test_a_square_wave_tells_how_an_a100_averages(tmp_path: Path) -> None:
    gpu, meter = imported(tmp_path, "A100_square_wave")
    found = identify(gpu, "nvidia-smi.power.draw.instant", "elmor-pmd.power", meter)
    width_s = found.result["window_s"] / np.sqrt(12) + found.result["lowpass_s"]
    assert 0.005 < width_s < 0.02
