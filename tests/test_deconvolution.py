"""Deconvolution: energies of phases that are shorter than what a sensor averages, against a truth that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal, stats

from benchmarks.trust.workload import Played, Workload, edges_of, play
from joulelab.analysis.attribution import Attribution, Edges, Source, attribute_source
from joulelab.analysis.coefficients import coefficients
from joulelab.analysis.deconvolution import deconvolved
from joulelab.analysis.phases import reduce
from joulelab.calibration.activity import Timeline, timeline
from joulelab.calibration.kernel import Timing, columns, energies, seen
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run, seal_run
from joulelab.recording.samples import SampleWriter
from joulelab.timebase import SECOND, BenchNs

Floats = NDArray[np.float64]
TEN_HZ = SensorModel(period_s=0.1, window_s=0.1, delay_s=0.037, noise_u=3.0)
UNKNOWN = SensorModel(period_s=0.1)


@st.composite
def kernels(draw: st.DrawFn) -> tuple[Timing, Floats]:
    """A timing, and edges [s] between -3 and 0."""
    times = draw(st.tuples(*(st.sampled_from([0.0, 0.02, 0.1, 0.5]) for _ in range(4))))
    gaps = draw(st.lists(st.floats(0.02, 0.8), min_size=1, max_size=8))
    return Timing(times[0] - 0.05, *times[1:]), np.cumsum(gaps) - 3.0


@given(kernels(), st.floats(-2.5, 1.0))
def test_readings_are_weighted_means_and_a_step_is_seen_more_and_more(case: tuple[Timing, Floats], at: float) -> None:
    timing, edges = case
    found = columns(np.array([at]), edges, timing)
    assert found.level.sum() == pytest.approx(1.0)
    assert found.level.toarray().min() > -1e-9
    step = seen(np.linspace(-1, 12, 400), timing)
    assert (np.diff(step) > -1e-9).all()
    assert step[[0, -1]] == pytest.approx([0, 1])


STEP_S = 5e-4


def filtered(power: Floats, timing: Timing) -> Floats:
    """What a sensor shows of a power on a grid of `STEP_S`, by moving averages and a recursive filter."""
    for box_s in (timing.ramp_s, timing.window_s):
        many = round(box_s / STEP_S)
        if many:
            sums = np.cumsum(np.concatenate([np.full(many, power[0]), power]))
            power = (sums[many:] - sums[:-many]) / many
    if timing.lowpass_s:
        kept = np.exp(-STEP_S / timing.lowpass_s)
        power = signal.lfilter([1 - kept], [1, -kept], power, zi=[kept * power[0]])[0]
    return power


@settings(max_examples=20, deadline=None)
@given(kernels(), st.floats(-2.5, 0.5))
def test_what_a_reading_shows_of_a_stretch_is_the_convolution(case: tuple[Timing, Floats], at: float) -> None:
    timing, edges = case
    t = np.arange(-16.0, 2.0, STEP_S)
    own = np.searchsorted(edges, t)
    assume(np.abs(edges - (at - timing.delay_s)).min() > 2 * STEP_S)
    found = columns(np.array([at]), edges, timing)
    for k in range(1, len(edges)):
        rise = (t - (edges[k - 1] + edges[k]) / 2) / (edges[k] - edges[k - 1])
        for power, part in (((own == k) * 1.0, found.level), (np.where(own == k, rise, 0.0), found.rise)):
            expected = np.interp(at - timing.delay_s, t + STEP_S / 2, filtered(power, timing))
            assert part[0, k] == pytest.approx(expected, abs=0.03)


def test_a_ramp_draws_some_of_a_stretch_after_its_end() -> None:
    found = energies(np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([0.0, 1.0]), Timing(ramp_s=0.2))
    assert found.level.toarray() == pytest.approx(np.array([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9]]))


def test_the_timeline_knows_all_that_drew_power_and_cuts_what_is_long() -> None:
    phases = [{"name": "prefill", "start": 10, "stop": 20}, {"name": "decode", "start": 20, "stop": 60}]
    asked = {"history": 0, "prompt": 8, "output": 4}
    found = timeline(
        [
            {"kind": "idle", "start": 0, "stop": 9},
            {"kind": "inference", "phases": phases, **asked},
            {"kind": "signature", "start": 70, "stop": 100, "inferences": [[70, 75, 80], [90, 95, 100]]},
            {"kind": "load", "start": 110, "stop": 120},
        ]
    )
    assert found.edges_ns.tolist() == [10, 20, 60, 70, 75, 80, 90, 95, 100, 110, 120]
    assert [found.labels[k][0] for k in found.label] == (
        ["idle", "prefill", "decode", "idle", "prefill", "decode", "idle", "prefill", "decode", "idle", "load", "idle"]
    )
    assert found.labels[2] == ("decode", 0, 8, 1, 4)
    cut = found.cut(20e-9)
    assert cut.edges_ns.tolist()[1:4] == [20, 40, 60]
    assert [cut.labels[k] for k in cut.label[2:4]] == [("decode", 0, 8, 1, 4, 0), ("decode", 0, 8, 1, 4, 1)]


def source(played: Played, told: SensorModel, kind: Kind = Kind.GAUGE, **more: Any) -> Source:
    channel = Channel("power", "J" if kind is Kind.COUNTER else "W", kind, sensor=told)
    return Source("meter.power", channel, played.interval_ns, played.samples, **more)


def attributed(
    seed: int,
    workload: Workload,
    sensor: SensorModel = TEN_HZ,
    told: SensorModel = UNKNOWN,
    kind: Kind = Kind.GAUGE,
    interval_s: float = 0.02,
) -> tuple[Attribution, Floats]:
    """What deconvolution finds, and the truth [J], of the prefills and then of the decodes."""
    channel = Channel("power", "J" if kind is Kind.COUNTER else "W", kind, sensor=sensor)
    played = play(workload, channel, interval_s, seed)
    return attribute_source(source(played, told, kind), edges_of(played)), played.joules.T.ravel()


def means(values: Floats) -> Floats:
    return np.asarray(values.reshape(2, -1).mean(axis=1))


def test_prefills_of_two_and_a_half_readings_come_out_with_lag_and_window_not_told() -> None:
    found, true = attributed(1, Workload(16))
    assert set(found.method) == {"deconvolve"}
    assert set(found.status) == {"ok"}
    assert means(found.energy_j) == pytest.approx(means(true), rel=0.005)


def test_prefills_of_a_quarter_of_the_window_come_out() -> None:
    found, true = attributed(1, Workload(32), replace(TEN_HZ, window_s=1.0))
    assert means(found.energy_j) == pytest.approx(means(true), rel=0.01)


def test_a_low_pass_is_found_where_the_sensor_is_said_to_have_one() -> None:
    slow = replace(TEN_HZ, window_s=0.0, lowpass_s=0.3)
    found, true = attributed(1, Workload(32), slow, replace(UNKNOWN, lowpass_s=0.2))
    assert means(found.energy_j) == pytest.approx(means(true), rel=0.015)


def test_a_counter_that_updates_slowly_gives_mean_powers() -> None:
    sensor = SensorModel(period_s=0.1, delay_s=0.02, resolution=0.01)
    found, true = attributed(1, Workload(16), sensor, replace(sensor, delay_s=0.0), Kind.COUNTER, interval_s=0.01)
    assert set(found.method) == {"deconvolve"}
    assert means(found.energy_j) == pytest.approx(means(true), rel=0.01)


def test_inferences_that_differ_are_told_from_one_another() -> None:
    found, true = attributed(1, Workload(16, spread_rel=0.05))
    prefill = slice(0, 16)
    assert np.corrcoef(found.energy_j[prefill], true[prefill])[0, 1] > 0.95


def test_the_covariance_holds() -> None:
    """Chi-square of mean prefill and decode over 40 seeds; what the noise term is about, so without a ramp."""
    squares: list[float] = []
    for seed in range(40):
        found, true = attributed(seed, Workload(8, spread_rel=0.02))
        assert found.shared is not None
        average = np.repeat(np.eye(2) / 8, 8, axis=1)
        factors = average @ found.shared.toarray()
        error = average @ (found.energy_j - true)
        squares.append(float(error @ np.linalg.solve(factors @ factors.T, error)))
    assert 0.001 < stats.chi2.sf(np.sum(squares), 2 * len(squares)) < 0.999


def test_what_prefill_and_decode_share_cancels_in_their_total() -> None:
    played = play(Workload(16), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    parts = edges_of(played)
    n = len(played.edges)
    whole = Edges(
        np.append(parts.start_ns, played.edges[:, 0]),
        np.append(parts.stop_ns, played.edges[:, 2]),
        np.append(parts.boundary_u_s, np.zeros(n)),
        np.append(parts.inference if parts.inference is not None else [], np.arange(n)).astype(np.int64),
        parts.timeline,
    )
    found = attribute_source(source(played, UNKNOWN), whole)
    prefill, decode, total = found.energy_j.reshape(3, n)
    assert total == pytest.approx(prefill + decode, rel=1e-12)
    assert found.shared is not None
    shared = found.shared.toarray().reshape(3, n, -1)
    assert shared[2] == pytest.approx(shared[0] + shared[1], abs=1e-6)
    noise = found.budget["noise"].reshape(3, n)
    assert (noise[2] < np.hypot(noise[0], noise[1])).all()
    assert found.budget["noise"] ** 2 == pytest.approx((found.shared @ found.shared.T).diagonal())


def test_the_coefficients_of_an_energy_model_come_straight_from_the_readings() -> None:
    played = play(Workload(16), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    edges, phases = edges_of(played), np.repeat(np.eye(2), 16, axis=0)
    found = coefficients(source(played, UNKNOWN), edges, phases)
    true, u = means(played.joules.T.ravel()), np.sqrt(np.diag(found.covariance))
    assert found.beta == pytest.approx(true, rel=0.005)
    assert (np.abs(found.beta - true) < 3 * u).all()
    assert (u < 0.005 * true).all()
    with pytest.raises(DataInvalid, match="need a timeline"):
        coefficients(source(played, UNKNOWN), replace(edges, timeline=None), phases)


def test_a_ramp_that_nobody_certified_is_in_the_budget_and_one_that_was_is_found() -> None:
    known = replace(TEN_HZ, delay_u_s=1e-3, window_u_s=1e-3)
    played = play(Workload(16, ramp_s=0.05), Channel("power", "W", sensor=known), 0.02, 1)
    edges, true = edges_of(played), means(played.joules.T.ravel())
    blind = attribute_source(source(played, UNKNOWN), edges)
    assert np.abs(means(blind.energy_j) - true)[0] > 0.05 * true[0]
    assert (np.abs(means(blind.energy_j) - true) < 2 * np.abs(means(blind.budget["ramp"]))).all()
    certified = attribute_source(source(played, known, certified=True), edges)
    assert means(certified.energy_j) == pytest.approx(true, rel=0.02)
    assert (np.abs(certified.budget["ramp"][:16]) < 0.3 * np.abs(blind.budget["ramp"][:16])).all()


def test_a_gap_costs_the_inferences_in_it_and_no_others() -> None:
    played = play(Workload(16), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    start, stop = int(played.edges[5, 0]), int(played.edges[6, 2])
    before = played.samples["before_ns"].to_numpy()
    holed = played._replace(samples=played.samples.filter((before < start) | (before > stop)))
    found = attribute_source(source(holed, UNKNOWN, gaps=[(start, stop)]), edges_of(played))
    prefill, true = found.energy_j[:16], played.joules[:, 0]
    assert np.flatnonzero(np.isnan(prefill)).tolist() == [5, 6]
    assert set(found.status[[5, 6]]) == {"a gap in the readings"}
    assert np.nanmean(prefill) == pytest.approx(true.mean(), rel=0.01)
    over = attribute_source(source(played, UNKNOWN, overranges=[(start, start + 10)]), edges_of(played))
    assert np.flatnonzero(np.isnan(over.energy_j[:16])).tolist() == [5]


def test_a_sensor_that_cannot_tell_is_refused_with_what_to_change() -> None:
    slow = SensorModel(period_s=1.0, window_s=1.0, noise_u=30.0)
    found, _ = attributed(1, Workload(4, prefill_s=0.05), slow, SensorModel(period_s=1.0), interval_s=0.2)
    assert np.isnan(found.energy_j[:4]).all()
    assert all("repeat" in reason for reason in found.status[:4])


def test_a_method_is_chosen_by_the_length_of_the_phases_or_by_name() -> None:
    played = play(Workload(6, prefill_s=5.0, decode_s=6.0), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    meter, edges = source(played, TEN_HZ), edges_of(played)
    assert set(attribute_source(meter, edges).method) == {"integrate"}
    by_name = attribute_source(meter, edges, "deconvolve")
    assert set(by_name.method) == {"deconvolve"}
    assert means(by_name.energy_j) == pytest.approx(means(played.joules.T.ravel()), rel=0.005)
    assert set(attribute_source(meter, replace(edges, timeline=None), "deconvolve").method) == {"integrate"}
    with pytest.raises(UserError, match="'deconvolute' is no method; did you mean 'deconvolve'"):
        attribute_source(meter, edges, "deconvolute")


POWER = Channel("power", "W", scope=Scope.WALL, sensor=UNKNOWN)
MANIFEST = Manifest(
    session="s",
    run="r",
    device="bench",
    protocol="sweep",
    arguments={},
    seed=1,
    created="2026-11-21T00:00:00+00:00",
    clock="monotonic",
    clock_offset_ns=0,
    simulated=True,
    stanza={"driver": "simulated"},
    engine={"model": "m"},
    instruments=(
        Instrument("meter", "test", {}, SECOND // 50, (Channel("power", "W", scope=Scope.WALL, sensor=UNKNOWN),)),
    ),
    power=("meter.power",),
    host={},
    versions={},
    certificates={},
)


def recorded(path: Path, played: Played) -> RunDir:
    journal = create_run(path, MANIFEST)
    writer = SampleWriter(path / "samples" / "meter.arrows", [POWER.name])
    polls = played.samples["before_ns"].to_numpy()
    writer.append(Block(polls, polls, None, played.samples["power"].to_numpy()[np.newaxis]))
    writer.close()
    journal.append(BenchNs(0), "start")
    for number, (start, first, stop) in enumerate(played.edges.tolist()):
        edge = {"boundary_u_s": 1e-3, "cpu_s": None}
        phases = [
            {"name": "prefill", "start": start, "stop": first, **edge},
            {"name": "decode", "start": first, "stop": stop, **edge},
        ]
        asked = {"history": 0, "prompt": 64, "output": 16, "repeat": number, "warmup": number == 0}
        state: dict[str, Any] = {"temperature_c": None, "throttled": None, "tokens": [], "extra": {}}
        journal.append(BenchNs(stop), "inference", step=number, inference=number, phases=phases, **asked, **state)
    seal_run(path, journal, "done")
    return RunDir(path)


def test_a_run_on_a_slow_sensor_becomes_phases_and_a_picture(tmp_path: Path) -> None:
    played = play(Workload(16), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    run = recorded(tmp_path / "r", played)
    phases = reduce(run)
    table = phases.table[phases.table["status"] == "ok"]
    assert set(table["method"]) == {"deconvolve"}
    mean = table.groupby("phase")["energy_j"].mean()
    assert mean[["prefill", "decode"]].tolist() == pytest.approx(played.joules[1:].mean(axis=0).tolist(), rel=0.005)
    assert phases.shared is not None
    rows = [0, 1, 2]
    covariance = phases.covariance(rows)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(phases.table["energy_u_j"].iloc[rows].to_numpy())
    drawn = deconvolved(run, "meter.power")
    assert drawn.timing.window_s == pytest.approx(0.1, abs=0.005)
    assert drawn.lag_u_s < 0.005
    assert len(drawn.step_w) == len(drawn.step_t_ns) - 1
    assert np.std((drawn.read_w - drawn.fitted_w) / drawn.noise_u_w) == pytest.approx(1.0, abs=0.3)


def test_a_run_without_inferences_has_nothing_to_deconvolve(tmp_path: Path) -> None:
    played = play(Workload(2), Channel("power", "W", sensor=TEN_HZ), 0.02, 1)
    run = recorded(tmp_path / "r", played._replace(edges=played.edges[:0]))
    with pytest.raises(DataInvalid, match=r"nothing to deconvolve on meter\.power"):
        deconvolved(run, "meter.power")


def test_an_empty_timeline_is_idle() -> None:
    assert Timeline.of([]).label.tolist() == [0]
