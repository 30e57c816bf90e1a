"""Sampling in a process of its own: every missed period is told, and it ends with its parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.instruments.base import Block, Meter
from joulelab.instruments.build import describe
from joulelab.instruments.sampling import Event, ProcessSampler
from joulelab.instruments.thread import Sampling
from joulelab.quantities import Channel
from joulelab.recording.samples import read_samples
from joulelab.timebase import MonotonicClock
from joulelab.transports.base import Transport
from joulelab.transports.tape import Cassette

SPECS = {"here": {"driver": "cpu-time", "options": {"interval": 0.005}}}


def a_meter(*channels: Channel) -> Meter:
    """A polled meter with nothing behind it."""

    class Driver(Meter):
        driver = "a-meter"

        class Options(BaseModel):
            interval: float = 0.001

        def connect(self) -> Transport:
            return Cassette([])

        def start(self) -> Sequence[Channel]:
            return channels

        def read(self) -> Block:
            raise NotImplementedError

    return Driver("wall", Driver.Options(), MonotonicClock())


@pytest.fixture
def sampler(tmp_path: Path) -> Iterator[ProcessSampler]:
    (tmp_path / "samples").mkdir()
    sampler = ProcessSampler(SPECS, 0)
    yield sampler
    sampler.close()


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def test_readings_and_missed_periods_add_up(sampler: ProcessSampler, tmp_path: Path) -> None:
    sampler.record(tmp_path)
    time.sleep(0.3)
    os.kill(sampler._child.pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(sampler._child.pid, signal.SIGCONT)
    time.sleep(0.2)
    events = sampler.events() + sampler.close()
    table = read_samples(tmp_path / "samples" / "here.arrows")
    after = table["after_ns"].to_numpy()
    missed = sum(gap["missed"] for gap in of_kind(events, "gap"))
    (cost,) = of_kind(events, "sampler")
    assert max(gap["missed"] for gap in of_kind(events, "gap")) >= 35
    assert cost["readings"] == table.num_rows
    assert cost["missed"] == missed
    assert table.num_rows + missed == pytest.approx((after[-1] - after[0]) / 5e6, abs=3)
    holes = np.flatnonzero(np.diff(after) > 10_000_000)
    for k in holes:
        assert any(gap["start"] <= after[k + 1] and gap["stop"] >= after[k] for gap in of_kind(events, "gap"))


def test_a_sampler_that_dies_ends_the_run(sampler: ProcessSampler, tmp_path: Path) -> None:
    sampler.record(tmp_path)
    sampler._child.kill()
    sampler._child.wait()
    with pytest.raises(InstrumentFault, match="sampler process has ended"):
        sampler.events()


def wait_for_a_fault(sampler: ProcessSampler) -> None:
    while True:
        sampler.events()
        time.sleep(0.01)


def test_samples_that_cannot_be_written_end_the_run(sampler: ProcessSampler, tmp_path: Path) -> None:
    (tmp_path / "samples").rmdir()
    sampler.record(tmp_path)
    with pytest.raises(InstrumentFault, match="samples of here cannot be written"):
        wait_for_a_fault(sampler)


def test_last_samples_that_cannot_be_written_are_a_fault_too(sampler: ProcessSampler, tmp_path: Path) -> None:
    sampler.record(tmp_path)
    time.sleep(0.2)
    resource.prlimit(sampler._child.pid, resource.RLIMIT_FSIZE, (0, 0))
    with pytest.raises(InstrumentFault, match="samples of here cannot be written"):
        sampler.close()
    assert of_kind(sampler.close(), "sampler")


def test_a_driver_with_a_bug_ends_the_run_and_keeps_what_it_had_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    meter = a_meter(Channel("power", "W"))
    left = iter((2, 1, 0))

    def read() -> Block:
        t = time.monotonic_ns()
        return Block([t], [t], None, [[1 / next(left)]])

    meter.read = read  # type: ignore[method-assign]
    meter.open()
    (tmp_path / "samples").mkdir()
    (tmp_path / "wire").mkdir()
    said: list[tuple[str, dict[str, object]]] = []
    thread = Sampling(meter, {}, tmp_path, MonotonicClock(), lambda event, **what: said.append((event, what)))
    thread.start()
    thread.join()
    fatal = next(what for event, what in said if event == "fatal")
    assert "ZeroDivisionError" in str(fatal["message"])
    assert "Traceback" in capfd.readouterr().err
    assert read_samples(tmp_path / "samples" / "wall.arrows").num_rows == 2


def test_unknown_driver_and_missing_hardware_are_told_by_the_parent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no instrument driver is called 'nmvl'.*'nvml'"):
        ProcessSampler({"gpu": {"driver": "nmvl", "options": {}}}, 0)
    with pytest.raises(HardwareMissing, match="rapl"):
        ProcessSampler({"rapl": {"driver": "powercap", "options": {"root": str(tmp_path)}}}, 0)


def test_the_sampler_ends_with_its_parent_and_keeps_its_samples(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    parent = f"""
import time
from pathlib import Path
from joulelab.instruments.sampling import ProcessSampler
sampler = ProcessSampler({SPECS!r}, 0)
sampler.record(Path({str(tmp_path)!r}))
print(sampler._child.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.5)
    process.kill()
    process.wait()
    process.stdout.close()
    while Path(f"/proc/{child}/stat").exists() and ") Z " not in Path(f"/proc/{child}/stat").read_text():
        time.sleep(0.02)
    assert read_samples(tmp_path / "samples" / "here.arrows").num_rows > 10


def test_what_it_says_is_json(sampler: ProcessSampler) -> None:
    assert json.loads(json.dumps(sampler.instruments))[0]["channels"][0]["origin"] == "estimated"


def test_the_wiring_gives_a_bench_meters_power_its_scope() -> None:
    meter = a_meter(Channel("power", "W"), Channel("voltage", "V"))
    meter.open()
    told = describe(meter, {"scope": "wall", "serial": "C3WA01001E"})
    assert [channel["scope"] for channel in told["channels"]] == ["wall", None]
    assert told["wiring"]["serial"] == "C3WA01001E"
