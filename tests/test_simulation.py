"""The simulator obeys its own physics, repeats itself, and gives its truth away only to those who hold the seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from joulelab.devices.base import Request
from joulelab.devices.simulated import Simulated
from joulelab.errors import UserError
from joulelab.instruments.sampling import InlineSampler
from joulelab.instruments.simulated import meters
from joulelab.protocols.runner import Runner
from joulelab.protocols.steps import Idle, Infer, Step
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.recorder import create_run, seal_run
from joulelab.simulation import PROFILES, SimulatedBench, truth
from joulelab.simulation.chance import Luck, normals
from joulelab.simulation.device import Device, leakage
from joulelab.simulation.profile import Meter
from joulelab.simulation.profiles import EDGE_GPU, PHONE
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.timing import Passes, decode, expected_seconds, prefill
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND, BenchNs, VirtualClock

RECORDED = Path(__file__).parents[1].parent / "shared" / "data"
MS = SECOND // 1000
EVEN = Luck(0.0, 1.0, 1.0, 1.0, 1.0)
SIZES = [(0, 16, 16), (512, 136, 64), (0, 1024, 1), (512, 16, 1)]
every_profile = pytest.mark.parametrize("profile", PROFILES)


def trace_of(knots: list[tuple[int, float]]) -> Trace:
    trace = Trace(*knots[0])
    for t, watts in knots[1:]:
        trace.append(t, watts)
    return trace


def square_wave(low: float, high: float, half_ns: int, periods: int) -> Trace:
    knots = [(0, low)]
    for edge in range(1, 2 * periods):
        before, after = (low, high) if edge % 2 else (high, low)
        knots += [(edge * half_ns, before), (edge * half_ns + 1, after)]
    return trace_of([*knots, (2 * periods * half_ns, low)])


def sensor(kind: Kind = Kind.GAUGE, seed: int = 0, clock_u_rel: float = 0.0, **model: float) -> Sensor:
    channel = Channel("x", "W" if kind is Kind.GAUGE else "J", kind, sensor=SensorModel(**model))
    return Sensor(Meter(channel, MS, 0, clock_u_rel, "a test"), (seed,))


def times(start_s: float, stop_s: float, step_s: float) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.rint(np.arange(start_s, stop_s, step_s) * SECOND).astype(np.int64)
    return found


@given(st.lists(st.tuples(st.integers(1, 10 * SECOND), st.floats(0, 100)), min_size=2, max_size=50))
def test_the_energy_of_a_trace_is_the_sum_of_its_segments(segments: list[tuple[int, float]]) -> None:
    t = np.cumsum([length for length, _ in segments])
    watts = np.array([power for _, power in segments])
    trace = trace_of(list(zip(t.tolist(), watts.tolist(), strict=True)))
    parts = np.diff(trace.energy(np.sort(np.r_[t, (t[:-1] + t[1:]) // 2])))
    assert trace.energy(t)[-1] == pytest.approx(np.trapezoid(watts, t / SECOND), rel=1e-9, abs=1e-9)
    assert parts.sum() == pytest.approx(trace.energy(t)[-1], rel=1e-9, abs=1e-9)


def test_cutting_a_trace_changes_nothing_before_the_cut() -> None:
    knots = [(0, 1.0), (SECOND, 3.0), (2 * SECOND, 2.0)]
    whole, cut, at = trace_of(knots), trace_of(knots), np.array([0, SECOND // 2, SECOND, 5 * SECOND // 4])
    cut.cut(5 * SECOND // 4)
    assert cut.end_ns == 5 * SECOND // 4
    np.testing.assert_allclose(cut.energy(at), whole.energy(at), rtol=1e-12)


def test_a_boxcar_sensor_averages_a_square_wave_exactly() -> None:
    t = times(1, 3, 0.1)
    _, seen = sensor(period_s=0.05, window_s=0.1).read(square_wave(2.0, 6.0, 50 * MS, 40), t)
    np.testing.assert_allclose(seen, 4.0, rtol=1e-6)


@given(seed=st.integers(0, 2**32))
def test_a_sensor_reads_constant_power_within_its_gain_and_in_whole_counts(seed: int) -> None:
    trace = trace_of([(0, 10.0), (20 * SECOND, 10.0)])
    _, seen = sensor(seed=seed, period_s=0.1, window_s=0.02, resolution=0.01, gain_u_rel=0.005).read(
        trace, times(0, 20, 0.1)
    )
    assert abs(seen[0] / 10 - 1) < 6 * 0.005
    assert np.ptp(seen) == 0
    np.testing.assert_allclose(seen / 0.01, np.rint(seen / 0.01), atol=1e-6)


def test_gain_errors_are_spread_as_stated() -> None:
    trace = trace_of([(0, 10.0), (SECOND, 10.0)])
    gains = [sensor(seed=s, period_s=0.1, gain_u_rel=0.01).read(trace, np.array([SECOND]))[1][0] for s in range(400)]
    assert np.std(gains) / 10 == pytest.approx(0.01, rel=0.1)


def test_a_sensor_updates_on_its_own_clock_and_holds_in_between() -> None:
    ramp = trace_of([(0, 0.0), (100 * SECOND, 100.0)])
    stamps, seen = sensor(period_s=0.5, clock_u_rel=0.01).read(ramp, times(1, 90, 0.05))
    ticks = np.unique(stamps)
    assert not np.any(ticks % (SECOND // 2))
    assert len(np.unique(seen)) == len(ticks)
    updates = 89 / (0.5 * len(ticks))
    assert 1e-5 < abs(updates - 1) < 0.05


def test_a_delay_shows_the_past() -> None:
    ramp = trace_of([(0, 0.0), (100 * SECOND, 100.0)])
    t = times(10, 20, 0.5)
    late, prompt = (sensor(period_s=1e-3, delay_s=delay).read(ramp, t)[1] for delay in (2.0, 0.0))
    np.testing.assert_allclose(prompt - late, 2.0, rtol=1e-9)


def test_noise_belongs_to_an_update_and_not_to_a_reading() -> None:
    trace, noisy = trace_of([(0, 1.0), (9 * SECOND, 1.0)]), sensor(period_s=1e-3, noise_u=0.1)
    together = noisy.read(trace, times(0, 9, 0.01))[1]
    one_by_one = [noisy.read(trace, np.array([t]))[1][0] for t in times(0, 9, 0.01)]
    np.testing.assert_array_equal(together, one_by_one)
    assert np.std(together) == pytest.approx(0.1, rel=0.1)
    assert np.mean(normals((1, 2), np.arange(10_000))) == pytest.approx(0, abs=0.05)


def test_an_energy_counter_wraps_and_still_gives_the_energy() -> None:
    trace = square_wave(2.0, 6.0, 50 * MS, 100)
    stamps, seen = sensor(Kind.COUNTER, period_s=1e-3, resolution=1e-3, wrap=4.0).read(trace, times(1, 9, 0.1))
    assert seen.min() >= 0
    assert seen.max() < 4
    gained = np.diff(seen) % 4.0
    np.testing.assert_allclose(gained, 4.0 * np.diff(stamps) / SECOND, atol=2e-3)


def test_no_reading_is_an_empty_block() -> None:
    bench = SimulatedBench("phone", 1, VirtualClock())
    for meter in meters(bench):
        meter.open()
        assert all(len(meter.read().before) in {0, 1} for _ in range(3))
        assert len(meter.read().values[0]) == 0


def busiest(passes: Passes) -> NDArray[np.float64]:
    return np.maximum(passes.memory, passes.compute)


@every_profile
@given(history=st.integers(0, 4000), prompt=st.integers(1, 4000), output=st.integers(1, 300))
def test_no_pass_beats_the_roofline(profile: str, history: int, prompt: int, output: int) -> None:
    p = PROFILES[profile]
    for passes in (prefill(p.timing, p.model, history, prompt), decode(p.timing, p.model, history + prompt, output)):
        work = passes.seconds - p.timing.pass_launch_s
        assert np.all(work >= busiest(passes) * (1 - 1e-9))
        assert np.all(work <= 2**0.5 * busiest(passes) * (1 + 1e-9))


def test_prefill_climbs_in_tiles_and_streams_the_weights_once_a_micro_batch() -> None:
    timing, model = EDGE_GPU.timing, EDGE_GPU.model
    compute = {p: prefill(timing, model, 0, p).compute.sum() for p in (100, 128, 129, 256)}
    assert compute[128] - compute[100] < 0.01 * compute[128]
    assert compute[129] > 1.9 * compute[128]
    assert compute[256] - compute[129] < 0.01 * compute[256]
    assert [len(prefill(timing, model, 0, p).seconds) for p in (512, 513, 1025)] == [1, 2, 3]


def test_decode_reads_a_cache_that_grows_and_switches_its_kernel_once() -> None:
    timing, model = EDGE_GPU.timing, EDGE_GPU.model
    read = np.diff(decode(timing, model, 400, 300).memory)
    grown = model.kv_bytes_per_token / np.array([timing.kv_bandwidth, timing.kv_bandwidth_long])
    np.testing.assert_allclose(read[: 512 - 401], grown[0])
    np.testing.assert_allclose(read[512 - 400 :], grown[1])
    assert np.sum(~np.isclose(read, grown[0]) & ~np.isclose(read, grown[1])) == 1


@every_profile
def test_history_is_context_like_any_other(profile: str) -> None:
    fresh, extended = (expected_seconds(PROFILES[profile], *sizes) for sizes in ((0, 640, 32), (512, 128, 32)))
    assert extended[1] == fresh[1]
    assert extended[0] < fresh[0]


@every_profile
def test_durations_scatter_about_what_is_expected(profile: str) -> None:
    device = Device(PROFILES[profile], seed=3)
    start, seconds = 0, []
    for number in range(400):
        played = device.play(start, 64, 32, 4, device.luck(number))
        seconds.append(np.diff([start, played.tokens[0], played.tokens[-1]]) / SECOND)
        start = played.tokens[-1] + SECOND
    noise = PROFILES[profile].noise
    np.testing.assert_allclose(np.mean(seconds, axis=0), expected_seconds(PROFILES[profile], 64, 32, 4), rtol=0.02)
    assert np.std([decoded for _, decoded in seconds]) / np.mean(seconds, axis=0)[1] == pytest.approx(
        noise.decode_cv, rel=0.15
    )


def test_a_load_ramps_up_overshoots_warms_and_cools_down() -> None:
    quiet = replace(EDGE_GPU, power=replace(EDGE_GPU.power, background_rel=0.0, leakage_w=0.0))
    device = Device(quiet, seed=0)
    played = device.play(SECOND, 0, 128, 6000, EVEN)
    device.idle_until(played.tokens[-1] + 1000 * SECOND)
    first, stop = played.tokens[0], played.tokens[-1]
    t = np.array([0, first + 150 * MS, first + 4 * SECOND, stop, stop + 46 * MS, stop + 900 * SECOND])
    idle, early, settled, last, ramping, rest = device.trace.power(t)
    assert idle == rest == pytest.approx(quiet.power.idle_w)
    assert early > settled
    assert (ramping - idle) / (last - idle) == pytest.approx(np.exp(-1), abs=0.02)
    warmed = (
        quiet.thermal.resistance * (settled - idle) * (1 - np.exp(-(stop / SECOND - 1) / quiet.thermal.time_constant_s))
    )
    cool = quiet.thermal.ambient_c + quiet.thermal.resistance * idle
    assert played.temperature_c == pytest.approx(cool + warmed, abs=0.5)


def test_leakage_grows_with_temperature_and_is_part_of_the_idle_power() -> None:
    power = EDGE_GPU.power
    assert leakage(power, 0.0) == 0
    assert leakage(power, 40.0) - leakage(power, 20.0) > leakage(power, 20.0) > 0
    assert power.leakage_w + leakage(power, np.log(2) / power.leakage_per_k) == pytest.approx(2 * power.leakage_w)


class Lab:
    """A wired simulated device: what the bench makes of one stanza."""

    def __init__(self, profile: str, seed: int = 1) -> None:
        self.clock = VirtualClock()
        options = Simulated.Options.model_validate({"profile": profile})
        self.device = Simulated("x", options, self.clock, seed)
        self.meters = meters(self.device.bench)

    def infer(self, number: int, history: int, prompt: int, output: int) -> dict[str, Any]:
        result = self.device.engine.infer(Request(number, history, prompt, output, seed=1))
        return {
            "inference": number,
            "history": history,
            "prompt": prompt,
            "output": output,
            **result.to_json(),
        }


@every_profile
def test_inferences_follow_the_clock(profile: str) -> None:
    lab = Lab(profile)
    for number, (history, prompt, output) in enumerate(SIZES):
        began = lab.clock.now()
        done = lab.infer(number, history, prompt, output)
        edges = [edge for phase in done["phases"] for edge in (phase["start"], phase["stop"])]
        assert [phase["name"] for phase in done["phases"]] == ["prefill", "decode"][: 1 + (output > 1)]
        assert edges[0] == began
        assert edges == sorted(edges)
        assert edges[-1] == done["tokens"][-1] == lab.clock.now()
        assert np.all(np.diff(done["tokens"]) > 0)
        assert len(done["tokens"]) == output


@settings(max_examples=15, deadline=None)
@given(profile=st.sampled_from(list(PROFILES)), pauses=st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=12))
def test_readings_do_not_depend_on_when_they_are_fetched(profile: str, pauses: list[int]) -> None:
    def record(fetch_often: bool) -> list[tuple[NDArray[np.int64], ...]]:
        lab = Lab(profile)
        blocks = [[meter.read()] for meter in lab.meters]
        for number, pause in enumerate(pauses):
            for part in (pause // 3, pause):
                lab.clock.sleep_until(BenchNs(lab.clock.now() + part))
                if fetch_often:
                    for meter, read in zip(lab.meters, blocks, strict=True):
                        read.append(meter.read())
            lab.infer(number, 0, 16, 2)
        for meter, read in zip(lab.meters, blocks, strict=True):
            read.append(meter.read())
        return [tuple(np.concatenate(column, axis=-1) for column in zip(*read, strict=True)) for read in blocks]

    for often, once in zip(record(True), record(False), strict=True):
        for column, other in zip(often, once, strict=True):
            np.testing.assert_array_equal(column, other)


def test_what_all_meters_have_passed_is_forgotten() -> None:
    lab = Lab("edge-gpu")
    for number in range(60):
        lab.infer(number, 0, 128, 64)
        for meter in lab.meters:
            meter.read()
    assert len(lab.device.bench._device.trace._t) < 2500


def play(path: Path, profile: str, seed: int) -> RunDir:
    """A short run with the real runner, sampler and recorder."""
    lab = Lab(profile, seed)
    sampler = InlineSampler(lab.meters)
    manifest = Manifest(
        session="s",
        run=path.name,
        device="x",
        protocol="sweep",
        arguments={},
        seed=seed,
        created="2026-11-21T00:00:00+00:00",
        clock="virtual",
        clock_offset_ns=0,
        simulated=True,
        stanza={"driver": "simulated", "options": {"profile": profile}},
        engine=lab.device.engine.describe(),
        instruments=(),
        power=(),
        host={},
        versions={},
        certificates={},
    )
    journal = create_run(path, manifest)
    sampler.record(path)
    steps: list[Step] = [Idle(5.0), *(Infer(*size, repeat=0, gap_s=0.3) for size in SIZES[:2]), Idle(5.0)]
    Runner(lab.device.engine, sampler, lab.clock, journal, seed, lambda: False, lambda _: None).play(steps)
    sampler.close()
    seal_run(path, journal, "done")
    return RunDir(path)


@every_profile
def test_the_truth_is_rebuilt_from_manifest_and_journal_alone(profile: str, tmp_path: Path) -> None:
    run = play(tmp_path / "run", profile, seed=7)
    records = run.records("inference")
    rebuilt = truth(run.manifest, records)
    reported = [(p["name"], p["start"], p["stop"]) for record in records for p in record["phases"]]
    assert [(p.phase, p.start_ns, p.stop_ns) for p in rebuilt if p.phase != "total"] == reported
    for first, second, both in zip(rebuilt[::3], rebuilt[1::3], rebuilt[2::3], strict=True):
        assert both.duration_s == pytest.approx(first.duration_s + second.duration_s)
        for channel, joules in both.energy_j.items():
            assert joules == pytest.approx(first.energy_j[channel] + second.energy_j[channel])
    assert truth(replace(run.manifest, seed=8), records) != rebuilt


@pytest.mark.parametrize("profile", ["edge-gpu", "phone"])
def test_the_meter_measures_the_truth_within_its_gain(profile: str, tmp_path: Path) -> None:
    run = play(tmp_path / "run", profile, seed=7)
    total = [phase for phase in truth(run.manifest, run.records("inference")) if phase.phase == "total"][-1]
    samples = run.samples("meter").to_pandas()
    inside = samples[samples.before_ns.between(total.start_ns, total.stop_ns)]
    assert inside.power.mean() * total.duration_s == pytest.approx(total.energy_j["meter.power"], rel=0.02)


def test_a_run_repeats_to_the_byte(tmp_path: Path) -> None:
    one, other = (play(tmp_path / name, "edge-gpu", seed=5).path / "samples" for name in ("one", "other"))
    for name in ("meter.arrows", "gauge.arrows"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(ValidationError, match="compute-puck"):
        Simulated.Options.model_validate({"profile": "toaster"})
    with pytest.raises(UserError, match="'toaster' is not a simulated device"):
        SimulatedBench("toaster", 1, VirtualClock())


@every_profile
def test_everything_says_that_it_is_simulated_and_where_it_comes_from(profile: str) -> None:
    lab = Lab(profile)
    said = lab.device.engine.describe()
    assert said["simulated"] is True
    assert all(said["sources"].values())
    assert {channel.origin for meter in lab.meters for channel in meter.channels} == {"simulated"}
    assert all(channel.gives_energy for meter in lab.meters for channel in meter.channels)


def body_and_head(layers: int, hidden: int, kv: int, feed_forward: int, vocabulary: int) -> tuple[int, int]:
    return layers * (2 * hidden * (hidden + kv) + 3 * hidden * feed_forward), vocabulary * hidden


LLAMA_8B = body_and_head(32, 4096, 1024, 14336, 128256)
LLAMA_3B = body_and_head(28, 3072, 1024, 8192, 128256)
QWEN_1_5B = body_and_head(28, 1536, 256, 8960, 151936)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings of others are not here")
def test_the_edge_gpus_decode_follows_from_the_recording() -> None:
    import pandas as pd

    decoded = pd.read_csv(RECORDED / "orin-edgereasoning" / "decode.csv").query(
        "output_tokens > 1 and decode_time_s > 0"
    )
    pass_s = {}
    for model, runs in decoded.groupby("model"):
        passes = runs.output_tokens - 1
        design = (
            np.c_[passes, passes * runs.prompt_tokens + passes * runs.output_tokens / 2]
            / runs.decode_time_s.to_numpy()[:, None]
        )
        pass_s[str(model)] = np.linalg.lstsq(design, np.ones(len(runs)))[0][0]
    long_s, short_s = pass_s["DeepSeek-R1-Distill-Llama-8B"], pass_s["DeepSeek-R1-Distill-Qwen-1.5B"]
    bandwidth = 2 * (sum(LLAMA_8B) - sum(QWEN_1_5B)) / (long_s - short_s)
    assert pytest.approx(bandwidth, rel=0.01) == EDGE_GPU.timing.weight_bandwidth
    assert short_s - 2 * sum(QWEN_1_5B) / bandwidth == pytest.approx(EDGE_GPU.timing.pass_launch_s, rel=0.02)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings of others are not here")
def test_the_phones_rates_follow_from_the_recording() -> None:
    import pandas as pd

    trials = pd.read_parquet(RECORDED / "edge-llm-bench" / "pixel_inference.parquet")
    trials = trials[(trials.variant == "Q8_0") & trials.kv_quant.isna()]
    flops, bandwidths = [], []
    for (model, sweep), runs in trials.groupby(["model", "experiment_type"]):
        body, head = LLAMA_3B if "Llama" in str(model) else QWEN_1_5B
        flops.append(2 * body * runs.prefill_tps.median())
        nearest = runs if sweep == "standard_sweep" else runs[runs.context_len == 256]
        pass_s = 1 / nearest.decode_tps.median()
        bandwidths.append(1.0625 * (body + head) / np.sqrt(pass_s**2 - (2 * (body + head) / 37.4e9) ** 2))
    assert np.mean(flops) == pytest.approx(PHONE.timing.flops, rel=0.01)
    assert np.mean(bandwidths) == pytest.approx(PHONE.timing.weight_bandwidth, rel=0.02)
