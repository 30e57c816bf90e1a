"""From samples to the phases table: each step against a truth that is known otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulelab.analysis.attribution import Attribution, Edges, attribute
from joulelab.analysis.budget import TERMS
from joulelab.analysis.dataset import SCHEMA, read_dataset
from joulelab.analysis.phases import load_phases, merge, reduce, reduce_all
from joulelab.calibration.integrals import counter, integrate
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.journal import Journal
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run, seal_run
from joulelab.recording.samples import SampleWriter
from joulelab.timebase import SECOND, BenchNs

EPOCH = 10**18
MS = SECOND // 1000
COLUMNS = """
    session run device model quant engine mode batch threads inference repeat trials phase history prompt output
    start_ns stop_ns boundary_u_s duration_s cpu_s channel scope origin method energy_j energy_u_j gain_u_rel idle_j
    temperature_c throttled certificate status
"""


@st.composite
def signals(draw: st.DrawFn) -> tuple[list[int], list[float], int, int]:
    """Times [ns] near 1e18, powers [W], and a phase inside."""
    steps = draw(st.lists(st.integers(1, 10**9), min_size=2, max_size=30))
    times = (EPOCH + np.cumsum([0, *steps])).tolist()
    watts = draw(st.lists(st.floats(0.1, 1000), min_size=len(times), max_size=len(times)))
    start = draw(st.integers(times[0], times[-1] - 1))
    return times, watts, start, draw(st.integers(start + 1, times[-1]))


def exact(times: list[int], watts: list[float], start: int, stop: int) -> Fraction:
    """The integral [J] of the piecewise-linear signal in rational arithmetic."""
    total = Fraction(0)
    for left, right, low, high in zip(times, times[1:], watts, watts[1:], strict=False):
        a, b = max(left, start), min(right, stop)
        if a < b:
            slope = (Fraction(high) - Fraction(low)) / (right - left)
            total += (Fraction(low) + slope * (Fraction(a + b, 2) - left)) * (b - a)
    return total / SECOND


@given(signals())
def test_the_integral_is_exact(signal: tuple[list[int], list[float], int, int]) -> None:
    times, watts, start, stop = signal
    found = integrate(np.array(times), np.array(watts), np.array([start]), np.array([stop]))
    assert found[0] == pytest.approx(float(exact(times, watts, start, stop)), rel=1e-9)


def test_a_millisecond_in_an_hour_keeps_its_digits() -> None:
    t = EPOCH + np.arange(0, 3600 * SECOND, 10 * MS)
    watts = np.where(np.arange(len(t)) % 2, 0.3, 400.7)
    start = int(t[-1]) - 7_654_321
    found = integrate(t, watts, np.array([start, t[0]]), np.array([start + MS, t[-1]]))
    assert found[0] == pytest.approx(float(exact(t[-3:].tolist(), watts[-3:].tolist(), start, start + MS)), rel=1e-9)
    assert found[1] == pytest.approx(200.5 * 3599.99, rel=1e-9)


def test_a_phase_outside_the_signal_has_no_energy() -> None:
    t, watts = np.array([0, 10, 20]), np.ones(3)
    start, stop = np.array([-1, 5, 10, 20]), np.array([5, 21, 20, 30])
    assert np.isnan(integrate(t, watts, start, stop)).tolist() == [True, True, False, True]


@given(signals(), st.floats(1, 300))
def test_a_counter_unwraps(signal: tuple[list[int], list[float], int, int], above: float) -> None:
    times, gains, start, stop = signal
    wrap = 2 * max(gains) + above
    true = np.concatenate([[0.0], np.cumsum(gains[1:])])
    found = counter(np.array(times), true % wrap, wrap, np.array([start, times[0]]), np.array([stop, times[-1]]))
    t = np.array(times) - EPOCH
    expected = np.interp(stop - EPOCH, t, true) - np.interp(start - EPOCH, t, true)
    assert found == pytest.approx([expected, true[-1]], rel=1e-6, abs=1e-9)


def test_a_counter_that_was_reset_says_nothing_of_the_phase_around_it() -> None:
    t, joules = np.arange(6) * SECOND, np.array([5.0, 6.0, 7.0, 1.0, 2.0, 3.0])
    start, stop = np.array([0, 0, 3]) * SECOND, np.array([2, 4, 5]) * SECOND
    for wrap in (None, 100.0):
        assert counter(t, joules, wrap, start, stop) == pytest.approx([2.0, np.nan, 2.0], nan_ok=True)


def sampled(times: Sequence[int] | NDArray[np.int64], values: NDArray[np.float64], width: int = 0) -> Any:
    t = np.asarray(times, np.int64)
    return pa.table({"before_ns": t, "after_ns": t + width, "x": pa.array(values, from_pandas=True)})


def edges(*spans: tuple[float, float], boundary_u_s: float = 0.0) -> Edges:
    """Phases by start and stop [s]."""
    start, stop = (np.round(np.array(spans) * SECOND).astype(np.int64)).T
    return Edges(start, stop, np.full(len(spans), boundary_u_s))


def step_power(t_s: NDArray[np.float64], window_s: float) -> NDArray[np.float64]:
    """5 W, and 25 W from second 2 to second 4, averaged over the window before `t_s`."""

    def joules(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(5 * t + 20 * np.clip(t - 2, 0, 2))

    return np.asarray((joules(t_s) - joules(t_s - window_s)) / window_s)


def gauge(**sensor: Any) -> Channel:
    return Channel("x", "W", scope=Scope.WALL, sensor=SensorModel(**sensor))


def test_an_averaging_sensor_with_delay_is_centred() -> None:
    sensor = {"period_s": 0.1, "window_s": 0.1, "delay_s": 0.25}
    t = np.arange(0, 8 * SECOND, 100 * MS)
    samples = sampled(t, step_power(t / SECOND - 0.25, 0.1))
    channel, phase = gauge(**sensor), edges((2, 4))
    stale = replace(channel, sensor=SensorModel(period_s=0.1, window_s=0.1))
    assert attribute(channel, 100 * MS, samples, phase, []).energy_j == pytest.approx([50], abs=2 * 20 * 0.1 / 2)
    assert abs(attribute(stale, 100 * MS, samples, phase, []).energy_j[0] - 50) > 3


def test_a_sensor_polled_faster_than_it_updates_counts_its_updates() -> None:
    update = np.arange(0, 8, 0.1)
    held = np.repeat(np.round(step_power(update, 0.1), 1), 5)
    t = (np.repeat(update, 5) * SECOND).astype(np.int64) + np.tile(np.arange(5) * 20 * MS, len(update)) + 3 * MS
    found = attribute(gauge(period_s=0.1, window_s=0.1), 20 * MS, sampled(t, held), edges((2, 4), (5, 7)), [])
    assert found.energy_j == pytest.approx([50, 10], rel=0.01)


def test_the_budget_of_steady_power_is_gain_offset_and_resolution() -> None:
    t = np.arange(0, 3 * SECOND, MS)
    channel = gauge(period_s=1e-3, gain_u_rel=0.01, offset_u=0.2, resolution=0.5, noise_u=0.3)
    found = attribute(channel, MS, sampled(t, np.full(len(t), 10.0), 20_000), edges((1, 2), boundary_u_s=1e-3), [])
    terms = {name: float(term[0]) for name, term in found.budget.items()}
    assert tuple(terms) == TERMS
    noise = 0.3 / np.sqrt(1000)
    expected = [0.1, 0.2, 0.5 / np.sqrt(12), noise, 0, 0, 0, 0, 0, 0.01]
    assert list(terms.values()) == pytest.approx(expected, abs=1e-9)
    assert found.energy_u_j == pytest.approx(np.sqrt(np.sum(np.square(expected))))


def test_a_reading_that_is_late_matters_where_power_differs_at_the_edges() -> None:
    t = np.arange(0, 8 * SECOND, MS)
    watts = np.where(t < 3 * SECOND, 5.0, 25.0)
    channel = gauge(period_s=1e-3, delay_u_s=0.01)
    found = attribute(channel, MS, sampled(t, watts, 2 * MS), edges((2, 4), (4, 6)), [])
    assert found.budget["lag"] == pytest.approx([20 * np.hypot(0.01, 1e-3 / np.sqrt(12)), 0], abs=1e-9)
    assert found.budget["clock"] == pytest.approx([20 * 1e-3 / np.sqrt(3), 0], abs=1e-9)
    assert found.budget["sampling"] == pytest.approx([20 * 1e-3 / np.sqrt(12), 0], abs=1e-9)


def reasons(found: Attribution) -> list[str]:
    assert (np.isnan(found.energy_j) == (found.status != "ok")).all()
    assert all(np.isnan(term[found.status != "ok"]).all() for term in found.budget.values())
    return list(found.status)


def test_what_cannot_be_resolved_gets_no_energy_and_the_reason() -> None:
    t = np.delete(np.arange(0, 10 * SECOND, 100 * MS), slice(70, 80))
    samples = sampled(t, np.full(len(t), 10.0))
    phases = edges((1, 2), (1, 1.05), (3, 4), (6.5, 7.5), (9, 11))
    gaps = [(3200 * MS, 3500 * MS), (4500 * MS, 4550 * MS)]
    lost = "a gap in the readings"
    assert reasons(attribute(gauge(period_s=0.1), 100 * MS, samples, phases, gaps)) == [
        "ok",
        "shorter than the sensor resolves (0.1 s)",
        lost,
        lost,
        "not covered by readings",
    ]


def test_a_short_gap_of_a_gauge_is_bridged_and_its_doubt_is_in_the_budget() -> None:
    whole = np.arange(0, 10 * SECOND, 10 * MS)
    holed = np.delete(whole, slice(300, 304))
    found = [
        attribute(gauge(period_s=0.01), 10 * MS, sampled(t, 10 + 5 * np.sin(t / SECOND)), edges((2, 4)), gaps)
        for t, gaps in ((whole, []), (holed, [(2990 * MS, 3040 * MS)]))
    ]
    assert [reasons(one) for one in found] == [["ok"], ["ok"]]
    assert found[1].energy_j == pytest.approx(found[0].energy_j, rel=1e-3)
    assert found[1].budget["sampling"] > found[0].budget["sampling"]


def test_a_counter_counts_on_through_a_gap() -> None:
    t = np.arange(0, 10 * SECOND, 100 * MS)
    channel = Channel("x", "J", Kind.COUNTER, Scope.WALL, sensor=SensorModel(period_s=0.1, resolution=0.6))
    found = attribute(channel, 100 * MS, sampled(t, t / SECOND * 10), edges((3, 4), (3.3, 4)), [(3200 * MS, 3500 * MS)])
    assert reasons(found) == ["ok", "a gap in the readings"]
    assert found.energy_j[0] == pytest.approx(10)
    assert found.budget["resolution"][0] == pytest.approx(0.6 / np.sqrt(6))


def test_a_phase_that_met_an_over_range_gets_no_number_however_short_that_was() -> None:
    t = np.arange(0, 10 * SECOND, 10 * MS)
    samples = sampled(t, np.full(len(t), 10.0))
    over = [(1500 * MS, 1510 * MS), (4990 * MS, 5010 * MS)]
    found = attribute(gauge(period_s=0.01), 10 * MS, samples, edges((1, 2), (2, 3), (4, 5), (5, 6)), [], over)
    lost = "over the meter's range, or its range changed"
    assert reasons(found) == [lost, "ok", lost, lost]


def test_each_reading_of_a_stream_is_new() -> None:
    t = np.arange(0, 10 * SECOND, 10 * MS)
    found = attribute(gauge(period_s=0.01), None, sampled(t, np.full(len(t), 10.0)), edges((1, 2)), [])
    assert found.energy_j == pytest.approx([10])
    assert found.budget["lag"] == pytest.approx([0])


def test_an_instrument_that_gave_no_reading_gives_no_energy() -> None:
    found = attribute(gauge(), MS, sampled([0, MS], np.full(2, np.nan)), edges((0, 1)), [])
    assert reasons(found) == ["no readings"]


IDLE_W, PREFILL_W, DECODE_W = 4.0, 20.0, 12.0
POWER = Channel("power", "W", scope=Scope.WALL, sensor=SensorModel(period_s=1e-3, gain_u_rel=0.01))
ENERGY = Channel("energy", "J", Kind.COUNTER, Scope.PACKAGE, sensor=SensorModel(period_s=1e-3, wrap=40.0))
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
    simulated=False,
    stanza={"driver": "llama-server"},
    engine={"model": "llama-100m", "quant": "q8_0", "threads": 1, "batch": 1},
    instruments=(Instrument("wall", "test", {}, MS, (POWER,)), Instrument("rapl", "test", {}, MS, (ENERGY,))),
    power=("wall.power", "rapl.energy"),
    host={},
    versions={},
    certificates={"wall.power": "abc"},
)
SPANS = [(2.0, 2.5, 3.5), (4.0, 4.2, 5.0), (6.0, 6.5, 7.5), (8.0, 8.5, 8.5)]
"""Inferences [s]: start, first token, last token; the first is a warm-up, the last has one output token."""


def watts_at(t: NDArray[np.float64]) -> NDArray[np.float64]:
    watts = np.full(len(t), IDLE_W)
    for start, first, stop in SPANS:
        watts[(t >= start) & (t < first)] = PREFILL_W
        watts[(t >= first) & (t < stop)] = DECODE_W
    return watts


def write_run(path: Path, manifest: Manifest = MANIFEST, *, sealed: bool = True) -> RunDir:
    manifest = replace(manifest, run=path.name)
    journal = create_run(path, manifest)
    t = np.arange(0, 12 * SECOND, MS)
    watts = watts_at(t / SECOND)
    joules = np.append(0.0, np.cumsum(watts[:-1])) * 1e-3
    for name, channel, values in (("wall", "power", watts), ("rapl", "energy", joules % 40)):
        writer = SampleWriter(path / "samples" / f"{name}.arrows", [channel])
        writer.append(Block(t, t, None, values[np.newaxis]))
        writer.close()
    journal.append(BenchNs(0), "idle", step=0, start=0, stop=int(1.9 * SECOND))
    for number, span in enumerate(SPANS):
        start, first, stop = (BenchNs(round(x * SECOND)) for x in span)
        whole = [("prefill", start, first), ("decode", first, stop)][: 1 + (stop > first)]
        phases = [{"name": n, "start": a, "stop": b, "boundary_u_s": 1e-3, "cpu_s": 0.1} for n, a, b in whole]
        asked = {"history": 0, "prompt": 64, "output": 1 if stop == first else 16, "repeat": number}
        state = {"temperature_c": 50.0, "throttled": False, "tokens": [], "extra": {}, "warmup": number == 0}
        journal.append(stop, "inference", step=number + 1, inference=number, phases=phases, **asked, **state)
    journal.append(BenchNs(11 * SECOND), "idle", step=9, start=10 * SECOND, stop=11 * SECOND)
    if sealed:
        seal_run(path, journal, "done")
    else:
        journal.close()
    return RunDir(path)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_run(tmp_path / "runs" / "r")


def test_phases_in_the_minute_of_a_suspend_get_no_energy(run: RunDir) -> None:
    journal = Journal(run.path / "journal.jsonl")
    for t in (3.9, 7.0):
        journal.append(BenchNs(round(t * SECOND)), "anchor", anchor={"bench": round(t * SECOND)})
    journal.append(BenchNs(7 * SECOND), "jump", suspend=10 * SECOND)
    journal.close()
    table = reduce(RunDir(run.path)).table
    lost = table["status"].str.contains("suspended")
    assert sorted(set(table.loc[lost, "inference"])) == [1, 2]
    assert table.loc[lost, "energy_j"].isna().all()


def test_the_table_has_the_columns_and_units_that_everybody_shares(run: RunDir) -> None:
    assert list(reduce(run).table.columns) == SCHEMA.names == COLUMNS.split()
    assert SCHEMA.field("energy_j").metadata == {b"unit": b"J"}
    assert SCHEMA.field("start_ns").metadata == {b"unit": b"ns"}


def test_a_run_becomes_phases_on_every_channel(run: RunDir) -> None:
    phases = reduce(run)
    table = phases.table.set_index(["channel", "inference", "phase"]).sort_index()
    assert len(table) == 2 * (3 + 3 + 2)
    for channel in MANIFEST.power:
        found = table.loc[channel]
        assert found["energy_j"].tolist() == pytest.approx([9.6, 4.0, 13.6, 12.0, 10.0, 22.0, 10.0, 10.0], abs=0.05)
        assert found["idle_j"].tolist() == pytest.approx((IDLE_W * found["duration_s"]).tolist(), rel=1e-3)
        assert found["cpu_s"].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.1, 0.1, 0.2, 0.1, 0.1])
    about = table[["method", "scope", "status", "certificate"]].fillna("").drop_duplicates().to_numpy().tolist()
    assert about == [["counter", "package", "ok", ""], ["integrate", "wall", "ok", ""]]
    assert phases.notes == ["r: 1 warm-up inferences are left out"]
    assert phases.idle["idle_w"].tolist() == pytest.approx([IDLE_W, IDLE_W], rel=1e-3)
    assert phases.idle["steps"].tolist() == [2, 2]


def test_prefill_and_decode_share_their_edge_and_all_rows_their_gain(run: RunDir) -> None:
    phases = reduce(run)
    rows = np.flatnonzero(phases.table["channel"] == "wall.power")[:2].tolist()
    prefill, decode = phases.table["energy_j"].iloc[rows]
    covariance = phases.covariance(rows)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(phases.table["energy_u_j"].iloc[rows].to_numpy())
    assert covariance[0, 1] - 0.01**2 * prefill * decode < -0.5 * 1e-6 * DECODE_W**2


def test_a_dataset_is_read_back_as_it_was(run: RunDir, tmp_path: Path) -> None:
    phases = reduce(run)
    phases.save(tmp_path / "dataset")
    for path in (tmp_path / "dataset", tmp_path / "dataset" / "phases.parquet", run.path):
        found = load_phases(path)
        pd.testing.assert_frame_equal(found.table, phases.table)
        pd.testing.assert_frame_equal(found.idle, phases.idle)
        assert found.budget is not None
        assert phases.budget is not None
        pd.testing.assert_frame_equal(found.budget, phases.budget)
        assert (found.channels, found.notes) == (phases.channels, phases.notes)


def test_an_interrupted_run_and_one_without_meter_are_reduced(tmp_path: Path) -> None:
    assert len(reduce(write_run(tmp_path / "torn", sealed=False)).table) == 16
    table = reduce(write_run(tmp_path / "bare", replace(MANIFEST, power=()))).table
    assert table["channel"].isna().all()
    assert table["duration_s"].tolist() == pytest.approx([0.2, 0.8, 1.0, 0.5, 1.0, 1.5, 0.5, 0.5])
    assert set(table["origin"]) == {"measured"}


def test_a_run_that_was_killed_before_its_first_inference_has_no_phases(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", sealed=False)
    lines = (run.path / "journal.jsonl").read_text().splitlines(keepends=True)
    (run.path / "journal.jsonl").write_text(lines[0])
    phases = reduce(run)
    assert phases.table.empty
    assert list(phases.table.columns) == COLUMNS.split()
    assert phases.idle["idle_w"].tolist() == pytest.approx([IDLE_W, IDLE_W], rel=1e-3)


def test_many_runs_come_out_as_one_by_one(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(k)) for k in range(3)]
    together, apart = reduce_all(runs), merge([reduce(run) for run in runs])
    pd.testing.assert_frame_equal(together.table, apart.table)
    assert together.notes == apart.notes


def test_a_simulated_run_says_so_and_a_channel_has_one_description(tmp_path: Path) -> None:
    phases = reduce(write_run(tmp_path / "a", replace(MANIFEST, simulated=True)))
    assert set(phases.table["origin"]) == {"simulated"}
    other = replace(phases, channels={"wall.power": replace(POWER, scope=Scope.RAIL)})
    with pytest.raises(DataInvalid, match=r"wall\.power is described differently"):
        merge([phases, other])


def test_a_dataset_replaces_another_whole_or_not_at_all(run: RunDir, tmp_path: Path) -> None:
    phases = reduce(run)
    phases.save(tmp_path / "d")
    replace(phases, budget=None).save(tmp_path / "d")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["phases.parquet"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/d cannot be written: Not a directory"):
        phases.save(tmp_path / "file" / "d")


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="neither a run nor a dataset"):
        read_dataset(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("p,o")
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(DataInvalid, match=f"{name} is no phases table"):
            read_dataset(tmp_path / name)
