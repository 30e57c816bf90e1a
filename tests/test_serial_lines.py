"""Meters that write lines of text."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments import lines
from joulelab.instruments.base import Meter
from tests.peers import serial_meters as peers
from tests.peers.streams import CLOCK, Pieces, blocks_of, check_replay, joined, messages, taped


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


PATTERN = r"t=(?P<t>\d+) V=(?P<volts>[-+.\w]+) I=(?P<milliamps>[-+.\w]+)"
COLUMNS = {"volts": "V", "milliamps": "mA"}
TIME = {"group": "t", "unit": "us", "wrap": 1 << 32}


def make_lines(port: str = "none", transport: Any = None, **options: Any) -> Meter:
    stanza = {"port": port, "pattern": PATTERN, "columns": COLUMNS, "time": TIME, **options}
    return lines.Driver("ina", lines.Driver.Options.model_validate(stanza), CLOCK, transport=transport)


def lines_with(*said: str, **options: Any) -> Meter:
    """A meter that has said its first line, and says each of `said` in a piece of its own."""
    first = b"half a line\nt=0 V=5 I=1000\n"
    meter = make_lines(transport=Pieces({}, [first, *(f"{text}\n".encode() for text in said)]), **options)
    meter.open()
    return meter


def test_lines_over_a_port() -> None:
    with peers.served(peers.Talker("t={t} V=5.08 I=1240.0", rate_hz=200)) as port:
        meter = make_lines(port.path)
        tape = taped(meter)
        meter.open()
        blocks = blocks_of(meter, 20)
        meter.tape.flush()
        meter.close()
    readings = joined(blocks)
    assert [(c.name, c.unit) for c in meter.channels] == [("volts", "V"), ("milliamps", "A"), ("power", "W")]
    assert np.asarray(readings.values)[:, 0] == pytest.approx([5.08, 1.24, 5.08 * 1.24])
    assert set(np.diff(np.asarray(readings.device))) == {5_000_000}
    assert (np.asarray(readings.after) - np.asarray(readings.before) == 20_002_000).all()
    check_replay(meter, tape, blocks)


def test_lines_without_a_time_lie_before_their_arrival() -> None:
    meter = lines_with("t=9 V=5 I=2", time=None)
    block = meter.read()
    assert block.device is None
    assert block.after[0] - block.before[0] == 30_000_000


def test_columns_with_a_power_need_no_product() -> None:
    columns = {"volts": "V", "milliamps": "mW"}
    meter = lines_with("t=1 V=5 I=2500", columns=columns)
    assert [channel.unit for channel in meter.channels] == ["V", "W"]
    assert np.asarray(meter.read().values)[:, 0] == pytest.approx([5, 2.5])


def test_a_counter_is_told_by_its_unit() -> None:
    meter = lines_with(columns={"volts": "mJ"})
    assert [(c.name, c.unit, c.kind) for c in meter.channels] == [("volts", "J", "counter")]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "9.91E+37", "ovf", "error"])
def test_no_number_is_none(text: str) -> None:
    meter = lines_with(f"t=10 V={text} I=100")
    volts, amps, watts = np.asarray(meter.read().values)[:, 0]
    assert (np.isnan(volts), amps, np.isnan(watts)) == (True, pytest.approx(0.1), True)


def test_a_power_of_minus_one_is_none_and_other_negative_ones_are_not() -> None:
    meter = lines_with("t=1 V=5 I=-1", "t=2 V=5 I=-1.5", columns={"milliamps": "W"})
    assert [float(meter.read().values[0][0]) for _ in range(2)] == pytest.approx([np.nan, -1.5], nan_ok=True)


def test_the_meters_clock_wraps() -> None:
    meter = lines_with(f"t={(1 << 32) - 1000} V=5 I=1", "t=500 V=5 I=1")
    blocks = blocks_of(meter, 2)
    assert blocks[1].device is not None
    assert np.diff(np.asarray(joined(blocks).device)) == pytest.approx([1_500_000])


def test_a_restart_of_the_meter_is_a_fault_and_the_next_line_is_read() -> None:
    meter = lines_with("t=50000 V=5 I=1", "t=100 V=5 I=1", "t=5100 V=5 I=1", "t=10100 V=5 I=1")
    meter.read()
    with pytest.raises(InstrumentFault, match="ina: its clock went back") as fault:
        meter.read()
    assert fault.value.transient
    assert sum(len(block.before) for block in blocks_of(meter, 2)) == 2


def test_a_repeated_line_is_no_reading() -> None:
    meter = lines_with("t=100 V=5 I=1", "t=100 V=5 I=1", "t=200 V=5 I=1")
    assert [len(block.before) for block in blocks_of(meter, 3)] == [1, 0, 1]


def test_lines_that_do_not_fit_are_told_once_a_kind() -> None:
    odd = [f"boot {k}" for k in range(12)]
    meter = lines_with("WARN", *odd, "t=1 V=5 I=1")
    assert sum(len(block.before) for block in blocks_of(meter, 14)) == 1
    assert messages(meter) == [
        "does not fit the pattern, 1 times by now: 'WARN'",
        "does not fit the pattern, 1 times by now: 'boot #'",
        "does not fit the pattern, 10 times by now: 'boot #'",
    ]


def test_a_meter_that_only_says_other_things_is_a_fault() -> None:
    meter = lines_with(*["panic"] * 30)
    with pytest.raises(InstrumentFault, match="20 lines in a row do not fit") as fault:
        blocks_of(meter, 30)
    assert fault.value.transient


def test_another_device_is_refused_with_what_it_says() -> None:
    says = "/dev/pts/.*: lines such as 'GPGGA,#,#' do not fit the pattern"
    with peers.served(peers.Talker("GPGGA,1234,5")) as port, pytest.raises(HardwareMissing, match=says):
        make_lines(port.path).open()


def test_endless_noise_is_refused() -> None:
    with pytest.raises(HardwareMissing, match="do not fit the pattern, or the baud is wrong"):
        make_lines(transport=Pieces({}, iter(lambda: b"\xff\x00" * 2000, b""))).open()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": {"amps": "A"}}, r"the pattern has no group \(\?P<amps>"),
        ({"columns": {"volts": "volt"}}, "'volt' is no unit; expected one of"),
        ({"time": {"group": "t", "unit": "V"}}, "'V' is no unit of time"),
        ({"pattern": "(?P<t"}, "is no regular expression"),
        ({"columns": {}}, "at least 1 item"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make_lines(**options)


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"t=5 V=1 I=2\n", b"\n", b"t=1e99 V= I=--\r\n"])))
def test_lines_take_any_bytes(pieces: list[bytes]) -> None:
    meter = make_lines(transport=Pieces({}, [b"\nt=0 V=5 I=1\n", *(piece or b"." for piece in pieces)]))
    meter.open()
    for _ in pieces:
        with suppress(InstrumentFault):
            block = meter.read()
            assert np.asarray(block.values).shape == (3, len(block.before))
