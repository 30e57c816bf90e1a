"""Gain and closure: lines with errors in both, levels of a load, and meters that cannot both be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trust import recordings
from joulelab.bench import Plan, record
from joulelab.calibration.closure import claims, closure
from joulelab.calibration.gain import Gain, compare, gain
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.levels import Signal, level_means, levels
from joulelab.calibration.line import york
from joulelab.errors import DataInvalid
from joulelab.protocols.ladder import Ladder
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording import RunDir
from joulelab.recording.manifest import Instrument
from joulelab.simulation import chance
from joulelab.simulation.bench import profile_named
from joulelab.simulation.sensor import Sensor
from joulelab.timebase import SECOND

LEVELS_W = np.array([10.0, 40.0, 20.0, 30.0, 15.0, 35.0])
LEVEL_S, STEP_S = 20.0, 0.05
SPANS: Ints = np.array([(k, k + 1) for k in range(6)], np.int64) * round(LEVEL_S * SECOND)
SEEDS = 300


def test_pearsons_data_with_yorks_weights() -> None:
    """The example of York et al. 2004, their table II."""
    x = np.array([0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
    y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
    covariance = np.zeros((10, 2, 2))
    covariance[:, 0, 0] = 1 / np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1.0])
    covariance[:, 1, 1] = 1 / np.array([1.0, 1.8, 4, 8, 20, 20, 70, 70, 100, 500])
    line = york(x, y, covariance)
    assert line.slope == pytest.approx(-0.48053340745, abs=1e-10)
    assert line.offset == pytest.approx(5.47991022403, abs=1e-10)
    assert line.chi_square == pytest.approx(11.866353194, abs=1e-8)
    assert np.sqrt(np.diag(line.covariance)) == pytest.approx([0.057985, 0.294971], abs=1e-5)


@given(st.floats(0.2, 5), st.floats(-5, 5), st.floats(-0.9, 0.9), st.floats(0.1, 100))
def test_points_on_a_line_give_it_back(slope: float, offset: float, correlation: float, scale: float) -> None:
    x = LEVELS_W * scale
    one = np.array([[1.0, correlation], [correlation, 1.0]])
    line = york(x, offset + slope * x, np.tile(one, (len(x), 1, 1)))
    assert (line.slope, line.offset) == pytest.approx((slope, offset), rel=1e-9, abs=1e-7)
    assert line.chi_square == pytest.approx(0, abs=1e-9)


def a_signal(watts: Floats, **sensor: float) -> Signal:
    t_ns = np.arange(len(watts)) * round(STEP_S * SECOND)
    return Signal("some.power", Channel("power", "W", sensor=SensorModel(period_s=STEP_S, **sensor)), t_ns, watts)


def the_load() -> Floats:
    """A load that wanders a little within each level, which both meters see."""
    t_s = np.arange(0, len(LEVELS_W) * LEVEL_S, STEP_S)
    return np.asarray(LEVELS_W[(t_s // LEVEL_S).astype(int)] + 0.3 * np.sin(t_s))


def noise(rng: np.random.Generator, n: int, correlation: float) -> Floats:
    found = rng.standard_normal(n)
    for k in range(1, n):
        found[k] = correlation * found[k - 1] + np.sqrt(1 - correlation**2) * found[k]
    return 0.5 * found


def compared(seed: int, correlation: float = 0.0) -> Gain:
    """A meter of gain 0.95 and offset 0.7 W against a reference whose own errors are drawn as it states them."""
    rng, load = np.random.default_rng(seed), the_load()
    reference = load * (1 + rng.normal(0, 0.003)) + rng.normal(0, 0.05) + noise(rng, len(load), correlation)
    meter = 0.95 * load + 0.7 + noise(rng, len(load), correlation)
    return compare(a_signal(meter), a_signal(reference, gain_u_rel=0.003, offset_u=0.05), SPANS)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_intervals_cover(correlation: float) -> None:
    found = [compared(seed, correlation) for seed in range(SEEDS)]
    for watts in (5.0, 25.0, 60.0):
        corrected = [(0.95 * watts + 0.7 - each.offset) / each.gain - watts for each in found]
        u = [np.hypot(each.gain_u_rel * (watts - each.pivot), each.offset_u) for each in found]
        assert np.mean(np.abs(corrected) < 1.96 * np.array(u)) == pytest.approx(0.95, abs=0.035)
    assert np.mean([each.p < 0.05 for each in found]) < 0.09
    assert np.mean([each.gain for each in found]) == pytest.approx(0.95, abs=5e-4)


def test_what_is_independent_at_the_pivot_is_the_covariance() -> None:
    found = compared(1)
    jacobian = -np.array([(30.0 - 0) / found.gain, 1 / found.gain])
    u = np.hypot(found.gain_u_rel * (30.0 - found.pivot), found.offset_u)
    assert u**2 == pytest.approx(float(jacobian @ found.covariance @ jacobian), rel=1e-9)


def test_a_curved_meter_is_found_out_and_trusted_less() -> None:
    load = the_load()
    rng = np.random.default_rng(0)
    reference = a_signal(load + noise(rng, len(load), 0), gain_u_rel=1e-4)
    straight, curved = (
        compare(a_signal(load + bend * (load - 25) ** 2 + noise(rng, len(load), 0)), reference, SPANS)
        for bend in (0.0, 0.005)
    )
    assert straight.p > 0.05
    assert curved.p < 1e-6
    assert curved.gain_u_rel > 3 * straight.gain_u_rel


def test_a_counter_is_compared_by_its_mean_power() -> None:
    load = the_load()
    joules = np.cumsum(1.1 * load * STEP_S) % 1000
    counter = replace(a_signal(joules, wrap=1000.0, resolution=1e-3))
    counter = replace(counter, channel=replace(counter.channel, kind=Kind.COUNTER, unit="J"))
    found = compare(counter, a_signal(load, gain_u_rel=1e-4), SPANS)
    assert found.gain == pytest.approx(1.1, rel=2e-3)


@pytest.mark.parametrize(
    ("spans", "reference", "said"),
    [
        (SPANS[:2], {"gain_u_rel": 0.01}, "2 levels of the load are long enough for both meters, 3 are needed"),
        (SPANS // 100, {"gain_u_rel": 0.01}, "0 levels"),
        (SPANS[[0, 0, 0]], {"gain_u_rel": 0.01}, "too little to tell gain from offset: load the device more"),
        (SPANS, {}, "states no accuracy"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_change(spans: Any, reference: Any, said: str) -> None:
    load = the_load()
    with pytest.raises(DataInvalid, match=said):
        compare(a_signal(load), a_signal(load, **reference), spans)


@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_a_wandering_load_is_no_error_of_the_meters(seed: int, swing_w: float) -> None:
    rng = np.random.default_rng(seed)
    load = the_load() + swing_w * np.sin(np.arange(len(the_load())) / 100)
    means = level_means([a_signal(load), a_signal(2 * load + noise(rng, len(load), 0))], SPANS)
    along = np.array([-2.0, 1.0])
    assert np.all(np.sqrt(along @ means.covariance @ along) < 0.1)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return climbed(tmp_path_factory.mktemp("ladder"))


def climbed(folder: Path, profile: str = "edge-gpu", seed: int = 1) -> RunDir:
    stanza = {"group": "joulelab.devices", "driver": "simulated", "power": None, "connect": None}
    arguments = Ladder.Options(seed=seed).model_dump(mode="json")
    plan = Plan("dut", {**stanza, "options": {"profile": profile}}, {}, "ladder", arguments)
    return record(plan, folder, lambda: False, lambda _: None)


def truth(profile: str, seed: int) -> tuple[float, float]:
    """What the simulated gauge's gain against the input and its offset [W] really are."""
    described = profile_named(profile)
    gauge = Sensor(described.gauge, chance.key(seed, profile, "gauge", described.gauge.channel.name))
    share, below = described.gauge.share, described.gauge.offset_w
    return gauge._gain * share, gauge._gain * below + gauge._offset


def test_the_gain_of_a_simulated_gauge(ladder: RunDir) -> None:
    made = gain(ladder, "gauge.VDD_GPU_SOC", "meter.power")
    u = np.sqrt(np.diag(made.covariance["matrix"]))
    found = np.array([made.result["gain"], made.result["offset"]])
    assert np.abs(found - truth("edge-gpu", 1)) == pytest.approx(0, abs=2.5 * u.max())
    assert np.all(np.abs(found - truth("edge-gpu", 1)) < 2.5 * u)
    assert made.simulated
    assert made.conditions["against"] == "meter.power"
    assert made.result["levels"] >= 8


def test_square_waves_that_look_for_beats_are_no_levels(ladder: RunDir) -> None:
    assert np.diff(levels(ladder, ["meter"])).min() > 9 * SECOND


def test_a_simulated_bench_closes(ladder: RunDir) -> None:
    made, rows = closure(ladder)
    (row,) = rows
    assert row["what"] == "meter.power >= gauge.VDD_GPU_SOC"
    assert row["ok"]
    assert row["message"].startswith("leaves a loss of: ")
    assert list(made.result) == made.covariance["names"] == [row["what"]]


def wired(ladder: RunDir, *meters: tuple[str, dict[str, Any], dict[str, tuple[Scope, Kind]]]) -> RunDir:
    """The manifest of a bench with other meters."""
    instruments = tuple(
        Instrument(name, "any", {}, None, tuple(Channel(c, "W", k, s) for c, (s, k) in of.items()), wiring=wiring)
        for name, wiring, of in meters
    )
    run = RunDir(ladder.path)
    run.__dict__["manifest"] = replace(ladder.manifest, instruments=instruments)
    return run


def claimed(run: RunDir) -> set[str]:
    return {str(claim) for claim in claims(run, run.manifest.channels)}


G, C = Kind.GAUGE, Kind.COUNTER


def test_scope_wiring_and_names_say_what_must_hold(ladder: RunDir) -> None:
    rails = {"VDD_IN": (Scope.INPUT, G), "VDD_CPU": (Scope.RAIL, G), "VDD_GPU": (Scope.RAIL, G)}
    run = wired(ladder, ("wall", {}, {"power": (Scope.WALL, G)}), ("board", {}, rails))
    assert claimed(run) == {
        "wall.power >= board.VDD_IN",
        "wall.power >= board.VDD_CPU + board.VDD_GPU",
        "board.VDD_IN >= board.VDD_CPU + board.VDD_GPU",
    }
    gpu = {"gpu0_power": (Scope.BOARD, G), "gpu0_energy": (Scope.BOARD, C), "gpu1_power": (Scope.BOARD, G)}
    run = wired(ladder, ("nvml", {}, gpu), ("clamp", {"upstream_of": ["nvml"]}, {"power": (Scope.BOARD, G)}))
    assert "nvml.gpu0_power = nvml.gpu0_energy" in claimed(run)
    assert "nvml.gpu0_power = nvml.gpu1_power" not in claimed(run)


def test_a_meter_below_another_that_reads_more_is_found(ladder: RunDir) -> None:
    meters = [replace(i, channels=tuple(replace(c, scope=s) for c in i.channels)) for i, s in swapped(ladder)]
    run = RunDir(ladder.path)
    run.__dict__["manifest"] = replace(ladder.manifest, instruments=tuple(meters))
    _, (row,) = closure(run)
    assert row["what"] == "gauge.VDD_GPU_SOC >= meter.power"
    assert not row["ok"]
    assert row["message"].startswith("cannot be: ")


def swapped(run: RunDir) -> list[tuple[Instrument, Scope]]:
    return [(i, Scope.RAIL if i.name == "meter" else Scope.INPUT) for i in run.manifest.instruments]


@pytest.mark.skipif(not recordings.TINY.is_dir(), reason=recordings.ABSENT)
@pytest.mark.parametrize("folder", recordings.windows(), ids=lambda path: path.parent.name)
def test_published_energies_are_met(folder: Path) -> None:
    assert np.abs(recordings.errors(folder)) == pytest.approx(0, abs=1e-4)


@pytest.mark.skipif(not recordings.GPU.is_dir(), reason=recordings.ABSENT)
@pytest.mark.parametrize("folder", recordings.LEVELS_S)
def test_an_internal_sensor_against_an_external_meter(folder: str) -> None:
    """The external meter sees cables and slot, the internal one 4 to 5 % less; a square wave's beats tell little."""
    found = recordings.internal_gain(folder)
    u = recordings.gain_u(found)
    assert abs(found.gain - 0.955) < 2 * u
    assert u < (0.3 if folder == "A100_square_wave" else 0.02)
