"""Bugs that measuring tools really had, none of which joulelab may have: each test names the bug and the tool."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from joulelab.analysis.imports import import_runs
from joulelab.analysis.phases import Phases, reduce
from joulelab.cli import main
from joulelab.devices.base import Inference, Phase, Request
from joulelab.errors import InstrumentFault, UserError
from joulelab.instruments import lines, tegrastats
from joulelab.instruments.base import Meter
from joulelab.instruments.sampling import ProcessSampler
from joulelab.instruments.scpi.models import SiglentSPD, YokogawaWT310E
from joulelab.instruments.thread import Sampling
from joulelab.protocols.runner import Runner
from joulelab.protocols.steps import Idle, Infer
from joulelab.quantities import Scope
from joulelab.recording import RunDir, find_runs
from joulelab.recording.journal import Journal, read_journal
from joulelab.recording.samples import read_samples
from joulelab.timebase import SECOND, Clock, MonotonicClock
from tests.peers import scpi, serial_meters

JOULELAB = str(Path(sys.executable).parent / "joulelab")
PEERS = Path(__file__).parent / "peers"
CLOCK = MonotonicClock()
MS = SECOND // 1000
TALK = "t={t} V=5.02 I=431.5"
PATTERN = r"t=(?P<t>\d+) V=(?P<volts>[-\d.]+) I=(?P<amps>[-\d.]+)"

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def sampling(meter: Meter, folder: Path) -> Iterator[Told]:
    """Sample a meter as the sampler process does; what is told of it meanwhile. Afterwards `stored` has its samples."""
    told: Told = []
    for name in ("samples", "wire"):
        (folder / name).mkdir()
    meter.open()
    with closing(meter):
        thread = Sampling(meter, {}, folder, CLOCK, lambda kind, **fields: told.append((kind, fields)))
        thread.start()
        yield told
        thread.stopping.set()
        thread.join()


def stored(meter: Meter, folder: Path) -> Any:
    return read_samples(folder / "samples" / f"{meter.name}.arrows")


def stamps(table: Any) -> tuple[Any, Any]:
    return table["before_ns"].to_numpy(), table["after_ns"].to_numpy()


def supply(resource: str, interval_s: float = 0.02) -> Meter:
    return SiglentSPD("wall", SiglentSPD.Options(resource=resource, interval=interval_s), CLOCK)


def talker(port: str, **options: Any) -> Meter:
    own = lines.Time(group="t", unit="us")
    stanza = lines.Driver.Options(port=port, pattern=PATTERN, columns={"volts": "V", "amps": "mA"}, time=own, **options)
    return lines.Driver("ina", stanza, CLOCK)


def phases_of(folder: Path, t_s: Sequence[float] | Any, watts: Any, *spans: tuple[float, float]) -> Phases:
    """Import a log of power as a run with an inference at each of `spans` [s], and reduce it."""
    rows = [f"{round(t * SECOND)},{p!r}" for t, p in zip(map(float, t_s), map(float, watts), strict=True)]
    (folder / "log.csv").write_text("\n".join(["t,p", *rows, ""]))
    (folder / "map.yaml").write_text(
        "time: {column: t, unit: ns, clock: own}\nchannels: {power: {column: p, unit: W, scope: wall}}\n"
    )
    asked = [f"prefill,{start},{stop},{number},0,64,1" for number, (start, stop) in enumerate(spans)]
    (folder / "phases.csv").write_text("\n".join(["phase,start,stop,inference,history,prompt,output", *asked, ""]))
    run = import_runs(
        "csv", [folder / "log.csv"], folder / "runs", mapping=folder / "map.yaml", phases=folder / "phases.csv"
    )
    return reduce(RunDir(run[0]))


def prefills(phases: Phases) -> Any:
    return phases.table[phases.table["phase"] == "prefill"]


def joules(phases: Phases) -> list[float]:
    return [float(energy) for energy in prefills(phases)["energy_j"]]


def test_wall_clock_for_intervals_and_stamps_only_at_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenHTF's core/monitors.py takes `time.time()`, and a sample as "taken when the function returns"."""
    wall = count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(wall)))
    monkeypatch.setattr(time, "time_ns", lambda: next(wall) * SECOND)
    there = scpi.spd1168x()

    def slowly(query: str, reply: str) -> bytes:
        time.sleep(0.01 * query.startswith("MEAS"))
        return reply.encode() + b"\n"

    there.manner = slowly
    start = CLOCK.now()
    with scpi.tcp(there) as resource, sampling(meter := supply(resource), tmp_path):
        until(lambda: len(there.log) > 20)
    before, after = stamps(stored(meter, tmp_path))
    assert start < before[0] < after[-1] < CLOCK.now()
    assert (np.diff(before) > 0).all()
    assert (after - before > 10 * MS).all()


class Nap:
    """An engine whose inferences are 5 ms of prefill and 5 ms of decode."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def open(self) -> None:
        """There is nothing to open."""

    close = open

    def describe(self) -> dict[str, Any]:
        return {}

    def infer(self, _request: Request) -> Inference:
        edges = [self._clock.now()]
        for _ in range(2):
            time.sleep(0.005)
            edges.append(self._clock.now())
        return Inference((Phase("prefill", *edges[:2]), Phase("decode", *edges[1:])), tuple(edges[1:]))


def test_clocks_mixed(tmp_path: Path) -> None:
    """Kernel Tuner's observers/nvml.py starts at `perf_counter()` and ends at `time.time()`.

    The run's clock is ahead of the host's, as after a resume: a part that reads another one lies far off.
    """
    (tmp_path / "samples").mkdir()
    clock = MonotonicClock(10**15)
    start = clock.now()
    sampler = ProcessSampler({"here": {"driver": "cpu-time", "options": {"interval": 0.005}}}, clock.offset_ns)
    journal = Journal(tmp_path / "journal.jsonl")
    runner = Runner(Nap(clock), sampler, clock, journal, 1, lambda: False, lambda _done: None)
    sampler.record(tmp_path)
    runner.play([Idle(0.1), Infer(history=0, prompt=8, output=2, repeat=0), Idle(0.1)])
    runner.note(sampler.close())
    journal.close()
    records = list(read_journal(tmp_path / "journal.jsonl"))
    (inference,) = [record for record in records if record["kind"] == "inference"]
    edges = [phase[edge] for phase in inference["phases"] for edge in ("start", "stop")]
    before, after = stamps(read_samples(tmp_path / "samples" / "here.arrows"))
    times = [record["t"] for record in records] + edges + inference["tokens"] + [*before, *after]
    assert start <= min(times) <= max(times) <= clock.now()
    assert before[0] < edges[0] < edges[-1] < after[-1]


def test_the_row_of_the_readings_in_the_place_of_the_column(tmp_path: Path) -> None:
    """Kernel Tuner's observers/nvml.py again: it averages a row of (time, volts) and calls that the voltage."""
    with serial_meters.served(serial_meters.Talker(TALK)) as port, sampling(meter := talker(port.path), tmp_path):
        time.sleep(0.2)
    table = stored(meter, tmp_path)
    means = [float(table[channel.name].to_numpy().mean()) for channel in meter.channels]
    assert means == pytest.approx([5.02, 0.4315, 5.02 * 0.4315])


def test_energy_as_median_power_times_time(tmp_path: Path) -> None:
    """Kernel Tuner's observer.py (PR #276, PR #168): of short peaks a median knows nothing."""
    t = np.arange(0, 8, 0.001)
    watts = np.where(np.arange(len(t)) % 100 < 10, 100.0, 5.0)
    assert joules(phases_of(tmp_path, t, watts, (2, 6))) == pytest.approx([4 * (10.0 + 4.5)], rel=1e-3)


def test_missing_timestamps_and_an_assumed_rate(tmp_path: Path) -> None:
    """devlib's monsoon.py writes no time column and assumes 500 Hz."""
    (tmp_path / "log").write_text("RAM 1/2MB CPU [1%@102] AO@42.5C VDD_IN 2532/2698\n" * 5)
    with pytest.raises(UserError, match="has no time stamps: give the --interval of tegrastats"):
        import_runs("tegrastats", [tmp_path / "log"], tmp_path / "runs")
    (tmp_path / "map.yaml").write_text("channels: {power: {column: p, unit: W, scope: wall}}\n")
    (tmp_path / "log").write_text("p\n1\n2\n")
    with pytest.raises(UserError, match="time: Field required"):
        import_runs("csv", [tmp_path / "log"], tmp_path / "runs", mapping=tmp_path / "map.yaml")


def test_right_rectangles_without_gap_check_or_window_clipping(tmp_path: Path) -> None:
    """devlib's derived/energy.py: a rising power, phases whose edges lie between readings, a hole, and an early end."""
    t = np.delete(np.arange(0, 20, 0.1), slice(140, 150))
    found = phases_of(tmp_path, t, 2 + 3 * t, (2.03, 8.47), (11, 16), (17, 25))
    exact = 2 * (8.47 - 2.03) + 1.5 * (8.47**2 - 2.03**2)
    assert joules(found) == pytest.approx([exact, math.nan, math.nan], rel=1e-6, nan_ok=True)
    assert list(prefills(found)["status"])[1:] == ["a gap in the readings", "not covered by readings"]


@pytest.mark.parametrize("rate_hz", [2, 20, 50])
def test_times_instead_of_divided_by_the_sampling_rate(tmp_path: Path, rate_hz: int) -> None:
    """Workload Automation #328: 40 kJ for five minutes of a phone, which are 600 J at 2 W and at any rate."""
    t = np.arange(0, 310, 1 / rate_hz)
    assert joules(phases_of(tmp_path, t, np.full(len(t), 2.0), (5, 305))) == pytest.approx([600.0])


def test_an_average_that_is_none(tmp_path: Path) -> None:
    """jetson_stats' core/power.py: `avg = (power + old_avg) // 2`, of integers, so floored and mostly the last one."""
    milliwatts = [90_000] * 50 + [3, 4] * 100 + [90_000] * 50
    log = "".join(f"RAM 1/2MB CPU [1%@102] AO@42.5C VDD_IN {mw}mW/45000mW\n" for mw in milliwatts)
    (tmp_path / "log").write_text(log)
    (tmp_path / "map.yaml").write_text("interval: 100 ms\n")
    (tmp_path / "phases.csv").write_text("phase,start,stop\nidle,5,25\n")
    known = {"mapping": tmp_path / "map.yaml", "phases": tmp_path / "phases.csv"}
    [run] = import_runs("tegrastats", [tmp_path / "log"], tmp_path / "runs", **known)  # type: ignore[arg-type]
    assert reduce(RunDir(run)).idle["idle_w"].tolist() == pytest.approx([0.0035])


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host where `tegrastats` says what stands in this file, line by line."""
    monkeypatch.setenv("PATH", f"{PEERS}:{os.environ['PATH']}")
    monkeypatch.setenv("TEGRASTATS_LINES", str(tmp_path / "lines"))
    return tmp_path / "lines"


def rails(*added: str) -> Meter:
    return tegrastats.Driver("rails", tegrastats.Driver.Options(interval=0.02, sum=added), CLOCK)


def test_total_as_the_sum_of_rails_where_no_rail_is_the_input(jetson: Path) -> None:
    """jetson_stats' `total_power` adds up nested rails; an AGX Orin has no rail for what goes into it."""
    names = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    jetson.write_text("RAM 1/2MB CPU [1%@102] " + " ".join(f"{name} 1000mW/1000mW" for name in names) + "\n")
    with closing(meter := rails()):
        meter.open()
        assert {channel.name: channel.scope for channel in meter.channels} == dict.fromkeys(names, Scope.RAIL)
    with closing(meter := rails(*names)), pytest.raises(UserError, match=r"VIN_SYS_5V0 and VDDQ_VDD2_1V8AO .* overlap"):
        meter.open()


def test_the_devices_own_time_stamp_thrown_away(tmp_path: Path) -> None:
    """jetson_stats' `tegra_parse.DATE` strips it, and a log that was held up looks even."""
    line = "10-01-2025 20:05:{} RAM 1/2MB CPU [1%@102] tj@40C VDD_IN 5545mW/5542mW\n"
    (tmp_path / "log").write_text("".join(map(line.format, (55, 56, 59))))
    [run] = import_runs("tegrastats", [tmp_path / "log"], tmp_path / "runs")
    assert RunDir(run).samples("tegrastats")["before_ns"].to_pylist() == [0, SECOND, 4 * SECOND]
    with serial_meters.served(serial_meters.Talker(TALK)) as port, sampling(meter := talker(port.path), tmp_path):
        time.sleep(0.2)
    assert set(np.diff(stored(meter, tmp_path)["device_ns"].to_numpy())) == {10 * MS}


def test_a_dead_sampler_is_told_and_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """jetson_stats' tegrastats.py loops at 100 % CPU once its child has exited; #485 ends in silence.

    This tegrastats ends after three lines, however often it is started.
    """
    program = tmp_path / "tegrastats"
    line = "RAM 1/2MB CPU [1%@102] AO@42.5C VDD_IN 2532/2698"
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/starts\nfor k in 1 2 3; do echo '{line}'; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with sampling(rails(), tmp_path) as told:
        until(lambda: any("has ended" in fields.get("message", "") for _, fields in told))
        time.sleep(0.5)
    assert len((tmp_path / "starts").read_text()) <= 3


def test_an_interval_that_would_load_the_device() -> None:
    """jetson_stats #414 and #668: short intervals of tegrastats are unstable and cost the device CPU time."""
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.01"):
        tegrastats.Driver.Options(interval=0.001)


def test_sentinel_values_among_the_readings(tmp_path: Path) -> None:
    """MLCommons power-dev #38: of a WT310 that was unplugged PTDaemon logs -1 W."""
    begin = datetime(2023, 2, 18, 17, 36, 10)  # noqa: DTZ001 local time, as in the log
    watts = [20.0] * 30 + [-1.0] * 3 + [20.0] * 40
    times = [f"{begin + timedelta(seconds=k):%m-%d-%Y %H:%M:%S}.000" for k in range(len(watts))]
    rest = "Volts,230.0,Amps,0.1,PF,0.9,Mark,run\n"
    log = "".join(f"Time,{t},Watts,{w:.6f},{rest}" for t, w in zip(times, watts, strict=True))
    (tmp_path / "spl.txt").write_text(log)
    spans = "prefill,2023-02-18T17:36:{}Z,2023-02-18T17:{}Z,{},0,64,1\n"
    asked = spans.format("11", "36:38", 0) + spans.format("31", "36:59", 1)
    (tmp_path / "phases.csv").write_text(f"phase,start,stop,inference,history,prompt,output\n{asked}")
    [run] = import_runs("ptd", [tmp_path / "spl.txt"], tmp_path, timezone="UTC", phases=tmp_path / "phases.csv")
    assert RunDir(run).samples("ptd")["power"].null_count == 3
    assert joules(reduce(RunDir(run))) == [pytest.approx(20.0 * 27), pytest.approx(math.nan, nan_ok=True)]


def test_a_wrong_setting_stretches_no_time_axis(tmp_path: Path) -> None:
    """EEMBC energyrunner #24: with the wrong channels on, time is 1.33 or 2 times too long, and samples are zero.

    Here the operator believes that lines come every 7.5 ms, and they come every 10 ms.
    """
    there = serial_meters.Talker(TALK)
    with serial_meters.served(there) as port, sampling(meter := talker(port.path, period=0.0075), tmp_path):
        time.sleep(0.5)
    table = stored(meter, tmp_path)
    before, _ = stamps(table)
    assert before[-1] - before[0] == pytest.approx(10 * MS * (len(before) - 1), rel=0.01)
    assert (table["power"].to_numpy() > 2).all()


class Clipping(scpi.WT310E):
    """Takes no current range above 5 A, and says nothing."""

    def set(self, header: str, value: str) -> None:
        clipped = header == ":INPUT:CURRENT:RANGE" and float(value) > 5
        super().set(header, "5.0E+00" if clipped else value)


@pytest.mark.parametrize(
    ("amperes", "refusal", "message"),
    [(25.0, UserError, "25 A is no current range"), (20.0, InstrumentFault, "was set to 20.* reads back as")],
)
def test_a_request_that_is_silently_clipped(amperes: float, refusal: type[Exception], message: str) -> None:
    """pymeasure's `truncated_range` on a current range: asked for more than there is, the most is set."""
    with scpi.tcp(Clipping()) as resource:
        options = YokogawaWT310E.Options(resource=resource, range={"voltage": 300.0, "current": amperes})
        with pytest.raises(refusal, match=message):
            YokogawaWT310E("wall", options, CLOCK).open()


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr().err


def test_a_wrong_unit_becomes_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pymeasure's `CSVFormatter` writes nan for a value in another unit than its column's, and a line in a log."""
    (tmp_path / "log.csv").write_text("t,p\n1,2.0\n2,2.0\n")
    channel = "power: {column: p, unit: W, scope: wall, resolution: 1 mV}"
    (tmp_path / "map.yaml").write_text(f"time: {{column: t, unit: s}}\nchannels: {{{channel}}}\n")
    files = (tmp_path / "log.csv", "--map", tmp_path / "map.yaml", "--out", tmp_path / "runs")
    assert said(capsys, "import", "csv", *files) == (
        1,
        "joulelab: 'mV' is not a unit of W; expected one of uW, mW, W, kW\n",
    )
    assert not list((tmp_path / "runs").glob("*"))
    (tmp_path / "lab.yaml").write_text("version: 1\ninstruments: {here: {driver: cpu-time, interval: 100 mW}}\n")
    code, message = said(capsys, "check", "--lab", tmp_path / "lab.yaml")
    assert code == 1
    assert "instruments.here.interval" in message


def test_an_exception_is_not_swallowed_while_polling(tmp_path: Path) -> None:
    """ophyd-async's `_soft_signal_backend._poll`: the value stands still, and nobody is told."""
    there = scpi.spd1168x()
    replies = chain([b"6.0\n"] * 4, [b"?!\n"] * 2, repeat(b"6.0\n"))
    there.manner = lambda query, reply: next(replies) if "POWE" in query else reply.encode() + b"\n"
    with scpi.tcp(there) as resource, sampling(meter := supply(resource), tmp_path) as told:
        until(lambda: len(there.log) > 40)
    faults = [fields["message"] for kind, fields in told if kind == "fault"]
    assert len(faults) == 2
    assert all("?!" in message for message in faults)
    assert sum(fields["missed"] for kind, fields in told if kind == "gap") >= 2
    assert set(stored(meter, tmp_path)["power"].to_pylist()) == {6.0}


LAB = """
version: 1
instruments:
  wall: {{driver: scpi/yokogawa-wt310e, resource: "{resource}", scope: wall, feeds: [host]}}
devices:
  host:
    engine: {{driver: llama-server, model: {{random: llama-15m}}, context: 256}}
protocols:
  sweep: {{prompt: [8], decode: [4], repeats: 500, idle: 500 ms}}
"""


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp is not installed: uv sync --extra host")
def test_settings_are_restored_on_ctrl_c(tmp_path: Path) -> None:
    """Kernel Tuner PR #243: `__del__` is not run, and clocks stay locked."""
    there = scpi.WT310E()
    before = dict(there.settings)
    with scpi.tcp(there) as resource:
        (tmp_path / "lab.yaml").write_text(LAB.format(resource=resource))
        command = [JOULELAB, "run", "--lab", str(tmp_path / "lab.yaml"), "--runs", str(tmp_path / "runs")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: any(run.records("inference") for run in find_runs(tmp_path / "runs")))
        assert there.settings != before
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
    assert (process.returncode, next(find_runs(tmp_path / "runs")).state) == (4, "aborted"), message
    assert there.settings == before
    assert not list(tmp_path.glob("state/joulelab/undo/*.json"))
