"""One timeline: stamps of other clocks lie on the bench clock within the bound that is stated, whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from benchmarks.trust.clocks import simulated
from benchmarks.trust.workload import Workload, play
from joulelab.calibration.clock import ClockMap, arrivals, unwrap
from joulelab.calibration.clocks import clock_certificate, clock_maps
from joulelab.calibration.feasible import lines
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.readings import readings
from joulelab.calibration.updates import update_period
from joulelab.instruments import hwmon
from joulelab.instruments.probes import PROBE_NS, Prober
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.formats import km003c
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run
from joulelab.recording.samples import SampleWriter, schema
from joulelab.timebase import SECOND, BenchNs, MonotonicClock, VirtualClock
from joulelab.transports import agent
from joulelab.transports.base import Reply, Transport
from joulelab.transports.files import AgentFiles
from joulelab.transports.process import ProcessTransport

MS = SECOND // 1000
CAPTURES = Path(__file__).parents[2] / "shared" / "data" / "km003c" / "usb_captures.parquet"
SPAN_S = 120.0

Far = Callable[[Floats], Floats]


def steady(bench: Floats) -> Floats:
    """100 ms ahead, 50 ppm fast."""
    return bench * (1 + 50e-6) + 100 * MS


def slewed(bench: Floats) -> Floats:
    return steady(bench) + 500e-6 * np.clip(bench - 40 * SECOND, 0, 30 * SECOND)


def stepped(by_ns: float) -> Far:
    return lambda bench: steady(bench) + by_ns * (bench > 50.1 * SECOND)


def reset(bench: Floats) -> Floats:
    """Starts from 0 again after 60.1 s."""
    return np.where(bench < 60.1 * SECOND, steady(bench), bench - 60.1 * SECOND)


def mapped(far: Far, clock_map: ClockMap, near_ns: int = 20 * MS) -> tuple[Floats, Floats]:
    """How far off its stamps are and their bounds, each known to `near_ns` before."""
    truth = np.linspace(0, SPAN_S, 5001) * SECOND
    roughly = (truth.astype(np.int64) - near_ns, truth.astype(np.int64) + near_ns)
    bench, half = clock_map.to_bench(np.rint(far(truth)).astype(np.int64), roughly)
    return np.abs(bench - truth)[np.isfinite(half)], half


def reasons(clock_map: ClockMap) -> list[str]:
    return [broken.reason for broken in clock_map.breaks]


# Lines


@st.composite
def brackets(draw: st.DrawFn) -> tuple[Ints, Ints, Ints, float, float]:
    """Far stamps, and brackets around their true bench times on a line that crystals may keep to."""
    gaps = draw(st.lists(st.integers(1, 10**10), min_size=1, max_size=30))
    far = np.cumsum(gaps) + draw(st.integers(0, 10**18))
    ahead, drift = draw(st.integers(-(10**15), 10**15)), draw(st.floats(-2e-4, 2e-4))
    early, late = (
        np.array(draw(st.lists(st.integers(0, 10**8), min_size=len(gaps), max_size=len(gaps)))) for _ in range(2)
    )
    truth = far + ahead + np.rint(drift * (far - far[0])).astype(np.int64)
    return far, truth - early, truth + late, ahead, drift


@given(brackets(), st.integers(-(10**10), 10**12))
def test_the_bound_holds_for_every_true_line(given_: tuple[Ints, Ints, Ints, float, float], beyond: int) -> None:
    far, before, after, ahead, drift = given_
    clock_map = ClockMap.fit(far, before, after)
    asked = np.append(far, far[0] + beyond)
    truth = asked + ahead + np.rint(drift * (asked - far[0])).astype(np.int64)
    bench, half = clock_map.to_bench(asked)
    assert clock_map.pieces == 1
    assert (np.abs(bench - truth) <= half).all()
    assert (half >= (after - before).min() / 2).all()


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_the_spread_of_lines_is_that_of_the_linear_programme(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 1, n))
    low, high = 0.1 * x - rng.exponential(1, n), 0.1 * x + rng.exponential(1, n)
    found = lines(x, low, high, 0.7)
    assert found is not None
    at = rng.uniform(-0.5, 1.5, 3)
    constraints = np.concatenate([np.stack([np.ones(n), x], 1), -np.stack([np.ones(n), x], 1)])
    for k, here in enumerate(at):
        for sign, bound in ((1, found.at(at)[1][k]), (-1, found.at(at)[2][k])):
            solved = linprog(
                [sign, sign * here], constraints, np.concatenate([high, -low]), bounds=[(None, None), (-0.7, 0.7)]
            )
            assert solved.fun is not None
            assert bound == pytest.approx(sign * solved.fun, abs=1e-7)


def test_no_line_through_brackets_that_contradict_one_another() -> None:
    x = np.array([0.0, 1.0, 2.0])
    assert lines(x, np.array([0.0, 1.0, 0.0]), np.array([0.1, 1.1, 0.1]), 10.0) is None


# Maps


def test_wifi_within_its_figure() -> None:
    clock_map = ClockMap.fit(*simulated(steady, SPAN_S, 1))
    off, half = mapped(steady, clock_map)
    assert np.percentile(off, 95) < 0.2 * MS
    assert (off <= half).all()
    assert half.min() >= 2 * MS
    assert clock_map.drift == pytest.approx(50e-6, abs=3e-6)
    assert clock_map.offset == pytest.approx(0.1, abs=2e-4)


@pytest.mark.parametrize("by_ns", [6 * MS, -6 * MS, 80 * MS, -80 * MS, 3600 * SECOND])
def test_a_step_splits_the_map(by_ns: int) -> None:
    clock_map = ClockMap.fit(*simulated(stepped(by_ns), SPAN_S, 2))
    off, half = mapped(stepped(by_ns), clock_map, int(10 * SPAN_S * SECOND))
    assert (off <= half[np.isfinite(half)]).all()
    assert reasons(clock_map) == ["step"]
    (broken,) = clock_map.breaks
    assert broken.start_ns <= 50.1 * SECOND <= broken.stop_ns
    assert broken.step_ns == pytest.approx(by_ns, abs=MS)
    assert clock_map.suspended([2 * SECOND]).breaks == (broken,)


def test_a_suspend_of_the_bench_is_a_step_with_its_reason() -> None:
    clock_map = ClockMap.fit(*simulated(stepped(7.5 * SECOND), SPAN_S, 3)).suspended([round(7.5 * SECOND)])
    assert reasons(clock_map) == ["suspend"]


def test_a_slewed_clock_is_followed() -> None:
    clock_map = ClockMap.fit(*simulated(slewed, SPAN_S, 4))
    off, half = mapped(slewed, clock_map)
    assert (off <= half).all()
    assert np.median(half) < 5 * MS
    assert set(reasons(clock_map)) == {"slew"}


def test_after_a_reset_what_is_known_roughly_tells_times_apart() -> None:
    probes = simulated(reset, SPAN_S, 5)
    clock_map = ClockMap.fit(*probes)
    off, half = mapped(reset, clock_map)
    assert np.isfinite(half).mean() > 0.99
    assert (off <= half[np.isfinite(half)]).all()
    assert reasons(clock_map) == ["reset"]
    _, unknown = clock_map.to_bench(probes.far)
    assert np.isinf(unknown).any()


def test_coarse_stamps_widen_the_bound() -> None:
    far, before, after = simulated(steady, SPAN_S, 6)
    clock_map = ClockMap.fit(far // MS * MS, before, after, resolution_ns=MS)
    truth = np.linspace(0, SPAN_S, 1001) * SECOND
    bench, half = clock_map.to_bench(steady(truth).astype(np.int64) // MS * MS)
    assert (np.abs(bench - truth) <= half).all()


def test_the_bound_grows_with_the_time_since_the_last_probe() -> None:
    clock_map = ClockMap.fit(np.array([0]), np.array([0]), np.array([MS]))
    _, half = clock_map.to_bench(np.array([0, 10 * SECOND]))
    assert half[0] == pytest.approx(MS / 2, abs=3)
    assert half[1] >= 2 * MS


@given(st.integers(3, 60), st.integers(10, 10**5), st.integers(0, 2**32 - 1))
def test_a_counter_is_unwrapped_whatever_the_pauses(n: int, wrap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ticks = np.cumsum(rng.integers(1, 5 * wrap, n)) + rng.integers(0, wrap)
    near = ticks * MS + np.rint(rng.uniform(-0.2, 0.2, n) * wrap * MS).astype(np.int64)
    assert (unwrap(ticks % wrap, wrap, MS, near) == (ticks - ticks[0]) * MS).all()


@pytest.mark.skipif(not CAPTURES.exists(), reason="no captures here")
def test_the_counter_of_a_km003c_lies_on_the_hosts_time() -> None:
    packets = pq.read_table(CAPTURES, filters=[("session_id", "=", "orig_adc_1000hz.6")]).to_pylist()
    sequences = [km003c.parse(bytes.fromhex(packet["payload_hex"] or "")).seq for packet in packets]
    stamps = [packet["urb_ts_sec"] * SECOND + packet["urb_ts_usec"] * 1000 for packet in packets]
    newest = [(seq[-1], came) for seq, came in zip(sequences, stamps, strict=True) if len(seq)]
    seq, came = (np.array(column, np.int64) for column in zip(*newest, strict=True))
    far = unwrap(seq, 65_536, MS, came)
    clock_map = ClockMap.fit(far, *arrivals(far, came - MS, came))
    late = came - clock_map.to_bench(far)[0]
    assert late.std() <= 0.4 * MS
    assert clock_map.drift == pytest.approx(9e-6, abs=50e-6)


# Readings


def table(before: Ints, after: Ints, device: Ints, values: Floats) -> Any:
    return pa.table([before, after, device, values], schema=schema(["power"]))


def test_a_stream_with_stamps_of_its_own_is_smooth() -> None:
    """Each reading arrives up to 30 ms late, the fastest 1 ms; the first one waits in a buffer."""
    rng = np.random.default_rng(7)
    truth = np.arange(0, 20 * SECOND, 10 * MS)
    late = MS + np.append(300 * MS, rng.integers(0, 30 * MS, len(truth) - 1))
    far = np.rint(steady(truth.astype(float))).astype(np.int64)
    ahead = np.minimum.accumulate(truth + late - far)
    after = far + ahead
    found = readings(Channel("power", "W"), None, table(after - 2 * MS, after, far, np.ones(len(far))))
    assert np.abs(found.taken_ns - truth).max() < 1.5 * MS
    assert np.diff(found.taken_ns) == pytest.approx(10 * MS, rel=1e-3)


def test_updates_of_a_polled_sensor_are_a_period_apart() -> None:
    channel = Channel("power", "W", sensor=SensorModel(period_s=0.1, window_s=0.1, lowpass_s=0.03, noise_u=3.0))
    played = play(Workload(16), channel, 0.017, seed=1)
    found = readings(channel, played.interval_ns, played.samples)
    assert found.half_width_s < 1e-3
    assert np.diff(found.taken_ns) == pytest.approx(0.1 * SECOND, rel=1e-3)
    assert found.taken_ns[0] - found.t_ns[0] == 80 * MS


@pytest.mark.parametrize("seed", range(10))
def test_polls_that_stall_cost_no_update_its_place(seed: int) -> None:
    """A counter that goes up each 20.01 ms, polled each 7 ms but for stalls of up to three periods."""
    rng, period_ns = np.random.default_rng(seed), 20.01 * MS
    stalls = np.where(rng.random(2000) < 0.03, rng.integers(5 * MS, 60 * MS, 2000), 0)
    before = np.cumsum(7 * MS + stalls)
    after = before + rng.integers(MS, 3 * MS, 2000)
    shown = np.floor(rng.integers(before, after) / period_ns)
    period = update_period(before, after, shown)
    assert period is not None
    assert period.period_s * SECOND == pytest.approx(period_ns, rel=1e-4)
    counter = Channel("power", "J", kind=Kind.COUNTER, sensor=SensorModel(period_s=period.period_s))
    found = readings(counter, 7 * MS, table(before, after, before, shown))
    assert len(found.values) > 0.9 * len(set(shown))
    assert found.taken_ns == pytest.approx(found.values * period_ns, abs=MS)


def test_a_sensor_that_keeps_no_period_stays_between_its_polls() -> None:
    rng = np.random.default_rng(8)
    polls = np.arange(0, 40 * SECOND, 20 * MS)
    updated = np.cumsum(rng.uniform(60 * MS, 140 * MS, 400))
    values = np.searchsorted(updated, polls, "right").astype(float)
    found = readings(
        Channel("power", "W", sensor=SensorModel(period_s=0.1)), 20 * MS, table(polls, polls, polls, values)
    )
    assert found.half_width_s == pytest.approx(0.01, rel=0.01)
    new = np.flatnonzero(np.diff(values)) + 1
    assert (np.isin(polls[new] - 10 * MS, found.taken_ns)).all()


def test_what_a_certificate_says_of_the_gain_is_applied() -> None:
    t = np.arange(0, SECOND, 100 * MS)
    channel = Channel("power", "W", sensor=SensorModel(gain=1.05, offset=2.0))
    assert readings(channel, 100 * MS, table(t, t, t, np.full(10, 107.0))).values == pytest.approx(100.0)


# Runs


def manifest(*instruments: Instrument) -> Manifest:
    return Manifest(
        session="s",
        run="r",
        device="orin",
        protocol="sweep",
        seed=1,
        created="",
        clock="monotonic",
        arguments={},
        clock_offset_ns=0,
        simulated=False,
        stanza={},
        engine={},
        instruments=instruments,
        power=(),
        host={},
        versions={},
        certificates={},
    )


RAILS = Instrument("rails", "ina3221", {}, 100 * MS, (Channel("power", "W"),))


def recorded(folder: Path, far: Far, suspend_ns: int = 0) -> tuple[RunDir, Ints]:
    """A run whose instrument is polled over Wi-Fi, and when its readings were really taken."""
    path = folder / "s" / "r"
    journal = create_run(path, manifest(RAILS))
    for device, before, after in zip(*(column.tolist() for column in simulated(far, SPAN_S, 9)), strict=True):
        journal.append(BenchNs(after), "probe", instrument="rails", before=before, after=after, device=device)
    journal.append(BenchNs(60 * SECOND), "jump", suspend=suspend_ns, wall_step=123_000_000)
    journal.close()
    rng = np.random.default_rng(10)
    truth = np.arange(0, SPAN_S * SECOND, 100 * MS).astype(np.int64) + 20 * MS
    before, after = (truth + sign * (2 + rng.exponential(4, len(truth))) * MS for sign in (-1, 1))
    device = np.rint(far(truth.astype(float))).astype(np.int64)
    writer = SampleWriter(path / "samples" / "rails.arrows", ["power"])
    writer.append(Block(before.astype(np.int64), after.astype(np.int64), device, np.ones((1, len(truth)))))
    writer.close()
    return RunDir(path), truth


@pytest.mark.parametrize(
    ("far", "reason"),
    [
        (steady, []),
        (stepped(-40 * MS), ["step"]),
        (stepped(3 * SECOND), ["suspend"]),
        (reset, ["reset"]),
        (slewed, ["slew"]),
    ],
    ids=["steady", "step", "suspend", "reset", "slew"],
)
def test_readings_of_a_run_are_never_at_a_false_time(tmp_path: Path, far: Far, reason: list[str]) -> None:
    run, truth = recorded(tmp_path, far, suspend_ns=3 * SECOND)
    found = readings(RAILS.channels[0], RAILS.interval_ns, run.samples("rails"), clock_maps(run)["rails"])
    online = readings(RAILS.channels[0], RAILS.interval_ns, run.samples("rails"))
    off, off_online = (np.abs(one.taken_ns - truth) for one in (found, online))
    before, after = (run.samples("rails")[name].to_numpy() for name in ("before_ns", "after_ns"))
    assert (off <= (after - before) / 2 + MS).all()
    assert np.median(off) < np.median(off_online) / (1.2 if far is slewed else 3)
    assert found.half_width_s < online.half_width_s
    (figures,) = clock_certificate(run)
    assert {broken["reason"] for broken in figures.breaks} == set(reason)
    assert (figures.source, figures.probes) == ("probes", 400)
    assert figures.drift_ppm == pytest.approx(50, abs=10) or reason == ["reset"]


def test_a_stream_has_figures_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s" / "r"
    create_run(path, manifest(Instrument("pmd", "serial/elmor-pmd", {}, None, RAILS.channels))).close()
    truth = np.arange(0, 10 * SECOND, 10 * MS)
    far = np.rint(steady(truth.astype(float))).astype(np.int64)
    writer = SampleWriter(path / "samples" / "pmd.arrows", ["power"])
    writer.append(Block(truth, truth + 3 * MS, far, np.ones((1, len(truth)))))
    writer.close()
    (figures,) = clock_certificate(RunDir(path))
    assert (figures.instrument, figures.source, figures.pieces, figures.breaks) == ("pmd", "arrivals", 1, [])
    assert figures.bound_s == pytest.approx(0.0015, rel=0.05)


# Probes


class Place:
    """A machine behind a real agent over a local pipe."""

    url = "ssh://lab@here"

    def open(self, argv: Any) -> Transport:
        raise NotImplementedError

    def files(self) -> Transport:
        clock = MonotonicClock()
        lines_ = ProcessTransport([sys.executable, agent.__file__, "files"], clock, "agent")
        assert lines_.exchange().data == agent.HELLO
        return AgentFiles(lines_)


def test_polled_files_of_another_machine_come_with_probes(tmp_path: Path) -> None:
    chip = tmp_path / "hwmon0"
    chip.mkdir()
    (chip / "name").write_text("ina226\n")
    (chip / "power1_input").write_text("1500000\n")
    meter = hwmon.Driver("far", hwmon.Driver.Options(root=str(tmp_path)), MonotonicClock(), Place())
    meter.open()
    try:
        block = meter.read()
    finally:
        meter.close()
    probes = [fields for kind, fields in meter.told if kind == "probe"]
    assert probes
    assert all(fields["instrument"] == "far" and fields["before"] <= fields["after"] for fields in probes)
    clock_map = ClockMap.fit(*(np.array([p[key] for p in probes]) for key in ("device", "before", "after")))
    bench, half = clock_map.to_bench(np.asarray(block.device))
    assert block.before[0] - half[0] <= bench[0] <= block.after[0] + half[0]


@pytest.mark.parametrize("interval_s", [0.04, 0.1, 1.0, 10.0])
def test_at_least_200_probes_a_minute(interval_s: float) -> None:
    clock = VirtualClock()
    meter = hwmon.Driver("far", hwmon.Driver.Options(interval=interval_s), clock)

    def ask() -> tuple[Reply, int]:
        return Reply(b"", clock.now(), clock.now()), clock.now()

    prober = Prober(meter, ask, unsure_ns=5)
    while clock.now() < 60 * SECOND:
        prober.catch_up(clock.now())
        clock.sleep_until(BenchNs(clock.now() + round(interval_s * SECOND)))
    assert 200 <= len(meter.told) <= 60 * SECOND / PROBE_NS + 1
    assert all(fields["after"] - fields["before"] == 10 for _, fields in meter.told)


def test_the_bench_itself_is_not_probed() -> None:
    meter = hwmon.Driver("here", hwmon.Driver.Options(), VirtualClock())
    Prober(meter, lambda: (Reply(b"", BenchNs(0), BenchNs(0)), None)).catch_up(0)
    assert meter.told == []
