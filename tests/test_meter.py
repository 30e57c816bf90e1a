"""What all meters share: settings that are put back, faults that are retried, streams that find the bench's time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Meter
from joulelab.instruments.recovery import Recovery
from joulelab.instruments.stream import StreamClock
from joulelab.instruments.thread import Sampling
from joulelab.instruments.undo import Undo, left_over
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.samples import read_samples
from joulelab.timebase import SECOND, BenchNs, MonotonicClock, VirtualClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.tape import Cassette


class Box:
    """A meter's other end: a range that can be set, a power that can be asked for, and faults to order."""

    def __init__(self) -> None:
        self.range = "auto"
        self.faults: list[InstrumentFault] = []
        self.identity = "box 1"
        self.opened = self.closed = 0

    def exchange(self, request: bytes = b"") -> Reply:
        if self.faults:
            raise self.faults.pop(0)
        asked = request.decode()
        if asked.startswith("range "):
            self.range = asked.removeprefix("range ")
        answers = {"who": self.identity, "power": "42.5", "range?": self.range}
        return Reply(answers.get(asked, "").encode(), BenchNs(1), BenchNs(2))

    def close(self) -> None:
        self.closed += 1


class BoxMeter(Meter):
    driver = "test-box"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: float = 0.001

    box: Box

    def connect(self) -> Transport:
        self.box.opened += 1
        return self.box

    def start(self) -> Sequence[Channel]:
        self.identity = {"model": self.ask("who")}
        self.undo.remember([f"range {self.ask('range?')}"])
        self.ask("range 10")
        return [Channel("power", "W", sensor=SensorModel(period_s=0.001))]

    def read(self) -> Block:
        reply = self.exchange(b"power")
        return Block([reply.before], [reply.after], None, [[float(reply.data)]])


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def meter() -> BoxMeter:
    made = BoxMeter("wall", BoxMeter.Options(), MonotonicClock())
    made.box = Box()
    return made


class TestSettings:
    def test_they_are_put_back_at_the_end(self, meter: BoxMeter) -> None:
        meter.open()
        assert meter.box.range == "10"
        assert list(left_over()) == ["test-box wall"]
        meter.close()
        assert meter.box.range == "auto"
        assert list(left_over()) == []

    def test_and_when_the_meter_is_opened_next_after_a_crash(self, meter: BoxMeter) -> None:
        meter.open()  # ... and the process dies here
        meter.box.range = "10"
        again = BoxMeter("wall", BoxMeter.Options(), MonotonicClock())
        again.box = meter.box
        again.open()
        again.close()
        assert meter.box.range == "auto"

    def test_a_meter_that_does_not_answer_is_disconnected_and_keeps_its_list(self, meter: BoxMeter) -> None:
        meter.open()
        meter.box.faults = [InstrumentFault("wall: silent", transient=True)]
        with pytest.raises(InstrumentFault, match="silent"):
            meter.close()
        assert meter.box.closed == 1
        assert list(left_over()) == ["test-box wall"]

    def test_a_start_that_fails_puts_back_what_it_had_changed(self, meter: BoxMeter) -> None:
        meter.box.faults = [InstrumentFault("wall: not there")]
        with pytest.raises(InstrumentFault, match="not there"):
            meter.open()
        assert meter.box.range == "auto"
        assert meter.box.closed == 1

    def test_what_is_to_be_sent_is_on_disk_in_its_order(self) -> None:
        sent: list[str] = []
        undo = Undo("TCPIP0::192.0.2.1::5025::SOCKET", sent.append)
        undo.remember(["range 1"])
        undo.remember(["mode a", "mode b"])
        Undo("TCPIP0::192.0.2.1::5025::SOCKET", sent.append).run()
        assert sent == ["mode a", "mode b", "range 1"]

    def test_a_damaged_list_is_told(self, tmp_path: Path) -> None:
        Undo("wall", str).remember(["x"])
        (tmp_path / "state" / "joulelab" / "undo" / "wall.json").write_text("[")
        with pytest.raises(JoulelabError, match=r"wall\.json is damaged: set the meter by hand"):
            Undo("wall", str)


class TestReplay:
    def test_a_cassette_gives_the_same_readings_and_leaves_no_state(self, meter: BoxMeter) -> None:
        lines: list[dict[str, Any]] = []
        meter.open()
        meter.record(lines.append)
        recorded = meter.read()
        meter.close()
        meter.tape.flush()
        replayed = BoxMeter("wall", BoxMeter.Options(), MonotonicClock(), transport=Cassette(lines))
        replayed.open()
        assert replayed.read() == recorded
        assert replayed.identity == meter.identity
        assert list(left_over()) == []
        replayed.close()

    def test_a_tape_that_is_off_keeps_nothing(self, meter: BoxMeter) -> None:
        meter.open()
        meter.record(None)
        meter.read()
        assert not meter.tape._exchanges
        meter.close()


class TestRecovery:
    clock = VirtualClock()

    def recovery(self, meter: BoxMeter) -> Recovery:
        meter.open()
        return Recovery(meter, self.clock, lambda: None, passing(self.clock))

    def test_three_faults_in_a_row_open_it_again(self, meter: BoxMeter) -> None:
        recovery = self.recovery(meter)
        meter.box.faults = [InstrumentFault(f"wall: {k}", transient=True) for k in range(3)]
        assert [recovery.attempt(meter.read) for _ in range(3)] == [None] * 3
        assert meter.box.opened == 2
        assert [kind for kind, _ in meter.told] == ["fault", "fault", "fault", "reconnect"]
        assert recovery.attempt(meter.read) is not None
        meter.close()
        assert meter.box.range == "auto"

    def test_a_stable_fault_is_let_through(self, meter: BoxMeter) -> None:
        recovery = self.recovery(meter)
        meter.box.faults = [InstrumentFault("wall: wrong model")]
        with pytest.raises(InstrumentFault, match="wrong model"):
            recovery.attempt(meter.read)

    def test_another_meter_at_the_address_ends_the_run(self, meter: BoxMeter) -> None:
        recovery = self.recovery(meter)
        meter.box.faults = [InstrumentFault("wall: silent", transient=True)] * 3
        meter.box.identity = "box 2"
        with pytest.raises(InstrumentFault, match=r"another meter answers now.*box 2.*box 1"):
            until_it_ends(recovery, meter)

    def test_a_minute_without_a_reading_ends_the_run(self, meter: BoxMeter) -> None:
        recovery = self.recovery(meter)
        meter.box.faults = [InstrumentFault("wall: silent", transient=True)] * 1000
        with pytest.raises(InstrumentFault, match="no reading for 60 s: wall: silent"):
            until_it_ends(recovery, meter)


class Stream(Meter):
    """A stream of ten blocks of two readings 1 ms apart; the fifth block is lost on the way."""

    driver = "test-stream"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def connect(self) -> Transport:
        self._next = 0
        return Box()

    def start(self) -> Sequence[Channel]:
        return [Channel("power", "W", sensor=SensorModel(period_s=0.001))]

    def read(self) -> Block:
        self._next += 1 + (self._next == 4)
        if self._next > 10:
            raise InstrumentFault(f"{self.name}: the stream has ended")
        t = np.array([2_000_000 * self._next, 2_000_000 * self._next + 1_000_000])
        return Block(t, t + 10, t, [[1.0, 2.0]])


def test_a_stream_is_stored_as_it_comes_and_its_gaps_are_told(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "wire").mkdir()
    meter = Stream("ppk", Stream.Options(), MonotonicClock())
    meter.open()
    said: list[tuple[str, dict[str, Any]]] = []
    thread = Sampling(meter, {}, tmp_path, MonotonicClock(), lambda event, **what: said.append((event, what)))
    thread.start()
    thread.join()
    table = read_samples(tmp_path / "samples" / "ppk.arrows")
    assert table.num_rows == 18
    assert table["device_ns"].to_pylist() == table["before_ns"].to_pylist()
    assert [what for event, what in said if event == "gap"] == [
        {"instrument": "ppk", "start": 9_000_000, "stop": 12_000_000, "missed": 2}
    ]
    (fatal,) = [what for event, what in said if event == "fatal"]
    assert fatal["message"] == "ppk: the stream has ended"
    assert json.dumps(said)


def test_an_order_is_obeyed_between_two_readings(tmp_path: Path, meter: BoxMeter) -> None:
    ordered: list[str] = []
    meter.range = ordered.append  # type: ignore[assignment,method-assign]
    (tmp_path / "samples").mkdir()
    (tmp_path / "wire").mkdir()
    meter.open()
    thread = Sampling(meter, {}, tmp_path, MonotonicClock(), lambda event, **what: None)
    thread.start()
    assert thread.range("fixed").wait(5)
    thread.stopping.set()
    thread.join()
    meter.close()
    assert ordered == ["fixed"]
    assert len((tmp_path / "wire" / "wall.jsonl").read_text().splitlines()) >= 4


def test_readings_that_failed_are_told_as_a_gap(tmp_path: Path, meter: BoxMeter) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "wire").mkdir()
    meter.open()
    read, said = meter.read, []
    outcomes = iter([True, False, False, True, None])
    thread = Sampling(meter, {}, tmp_path, MonotonicClock(), lambda event, **what: said.append((event, what)))

    def sometimes() -> Block:
        if (outcome := next(outcomes)) is None:
            raise InstrumentFault("wall: enough")
        if not outcome:
            raise InstrumentFault("wall: hiccup", transient=True)
        now = MonotonicClock().now()
        return read()._replace(before=[now], after=[now])

    meter.read = sometimes  # type: ignore[method-assign]
    thread.start()
    thread.join()
    (gap,) = [what for event, what in said if event == "gap"]
    assert gap["missed"] >= 2
    before = read_samples(tmp_path / "samples" / "wall.arrows")["before_ns"].to_pylist()
    assert [gap["start"], gap["stop"]] == before


class TestStreamClock:
    def arrivals(self, delays_ns: Sequence[int], drift: float = 0.0) -> list[tuple[Any, Reply]]:
        """Blocks of ten readings 1 ms apart on the device, whose clock runs fast by `drift`, arriving late."""
        blocks = []
        for k, delay in enumerate(delays_ns):
            device = (10 * k + np.arange(10)) * 1_000_000
            taken = round(int(device[-1]) * (1 - drift)) + 5_000_000_000
            blocks.append((device, Reply(b"", BenchNs(taken), BenchNs(taken + delay))))
        return blocks

    @pytest.mark.parametrize("drift", [-1e-4, 0.0, 1e-4])
    def test_the_bracket_holds_the_truth(self, drift: float) -> None:
        delays = np.random.default_rng(3).integers(200_000, 30_000_000, 500)
        delays[::7] = 200_000
        clock = StreamClock("ppk", latency_s=0.001)
        for device, reply in self.arrivals([int(d) for d in delays], drift):
            before, after = clock.bracket(device, reply)
            truth = np.round(device * (1 - drift)) + 5_000_000_000
            assert (before <= truth + 1).all()
            assert (truth <= after + 1).all()

    def test_a_clock_that_went_back_was_restarted(self) -> None:
        clock = StreamClock("ppk", latency_s=0.001)
        (first, reply), (second, later) = self.arrivals([0, 0])
        clock.bracket(second, later)
        with pytest.raises(InstrumentFault, match="ppk: its clock went back") as fault:
            clock.bracket(first, reply)
        assert fault.value.transient
        clock.bracket(second, later)


def test_hardware_that_is_missing_at_a_reconnect_is_waited_for(meter: BoxMeter) -> None:
    meter.open()
    clock = VirtualClock()
    recovery = Recovery(meter, clock, lambda: None, passing(clock))
    connect, meter.connect = meter.connect, gone  # type: ignore[method-assign]
    meter.box.faults = [InstrumentFault("wall: unplugged", transient=True)] * 5
    for _ in range(4):
        recovery.attempt(meter.read)
    assert ("fault", {"source": "wall", "message": "wall: no such port"}) in meter.told
    meter.connect = connect  # type: ignore[method-assign]
    meter.box.faults = [InstrumentFault("wall: unplugged", transient=True)]
    recovery.attempt(meter.read)
    assert meter.told[-1][0] == "reconnect"
    meter.close()


def passing(clock: VirtualClock) -> Callable[[float], None]:
    """Lets the clock go on for so many seconds."""
    return lambda seconds: clock.sleep_until(BenchNs(clock.now() + round(seconds * SECOND)))


def until_it_ends(recovery: Recovery, meter: BoxMeter) -> None:
    while True:
        recovery.attempt(meter.read)


def gone() -> Transport:
    raise HardwareMissing("wall: no such port")
