"""Serial meters that are asked: PZEM-004T and UM34C, their ports, and what is said where something is wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, UserError
from joulelab.instruments import pmd, ppk2, pzem, um34c
from joulelab.instruments.base import Block, Meter
from joulelab.timebase import MonotonicClock
from joulelab.transports.connection import connect
from joulelab.transports.serial_port import SerialTransport, collect
from joulelab.transports.tape import Cassette, Line
from tests.peers import serial_meters as peers

CLOCK = MonotonicClock()
HERE = connect("local", CLOCK)
FRAMES = Path(__file__).parents[2] / "shared" / "data" / "scpi-serial" / "serial_frames.json"
PZEM_REPLY = bytes.fromhex("01041408d1006c000000f400000026000001f4006400005134")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(pmd, "SETTLE_S", 0.05)


def make_pzem(port: str, **options: object) -> Meter:
    return pzem.Driver("wall", pzem.Driver.Options.model_validate({"port": port, **options}), CLOCK)


def make_um34c(port: str) -> Meter:
    return um34c.Driver("usb", um34c.Driver.Options(port=port), CLOCK)


def values(meter: Meter, block: Block) -> dict[str, float]:
    return {channel.name: float(row[0]) for channel, row in zip(meter.channels, block.values, strict=True)}


# --- the port ---


@pytest.fixture
def echo() -> Iterator[peers.Port]:
    with peers.served(peers.Scripted(lambda request: request.upper())) as port:
        yield port


def test_a_request_is_answered_between_its_stamps(echo: peers.Port) -> None:
    transport = SerialTransport(echo.path, CLOCK, 9600)
    started = CLOCK.now()
    reply = collect(transport.exchange, b"volts\n", lambda data: data.endswith(b"\n"))
    assert reply.data == b"VOLTS\n"
    assert started <= reply.before < reply.after <= CLOCK.now()
    transport.close()


def test_a_silent_port_is_a_fault_that_may_pass() -> None:
    transport = SerialTransport("loop://", CLOCK, 9600, timeout_s=0.02)
    with pytest.raises(InstrumentFault, match=r"loop://: silent for 0\.02 s") as fault:
        transport.exchange()
    assert fault.value.transient
    transport.close()


def test_what_came_before_a_request_is_no_reply_to_it() -> None:
    transport = SerialTransport("loop://", CLOCK, 9600)
    transport.exchange(b"stale")
    transport.exchange(b"fresh")
    assert transport.exchange().data == b"fresh"
    transport.close()


def test_a_reply_without_an_end_is_a_fault() -> None:
    with peers.served(peers.Scripted(lambda request: b"U" * 70_000)) as port:
        transport = SerialTransport(port.path, CLOCK, 9600)
        with pytest.raises(InstrumentFault, match="a reply does not end: b'U"):
            collect(transport.exchange, b"?", lambda data: False)
        transport.close()


def test_a_port_that_is_pulled_is_a_fault_for_reading_and_writing(echo: peers.Port) -> None:
    transport = SerialTransport(echo.path, CLOCK, 9600, timeout_s=0.2)
    echo.hang_up()
    for request in (b"", b"ask"):
        with pytest.raises(InstrumentFault, match="disconnected") as fault:
            transport.exchange(request)
        assert fault.value.transient
    transport.close()


def test_a_port_over_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = SerialTransport(f"socket://127.0.0.1:{server.getsockname()[1]}", CLOCK, 9600)
        peer, _ = server.accept()
        with peer:
            timer = threading.Timer(0.02, peer.sendall, [b"12.5 W\n"])
            timer.start()
            assert collect(transport.exchange, b"?", lambda data: data.endswith(b"\n")).data == b"12.5 W\n"
            timer.join()
            transport.close()


def test_a_busy_port_says_how_to_find_who_has_it(echo: peers.Port) -> None:
    first = SerialTransport(echo.path, CLOCK, 9600)
    with pytest.raises(HardwareMissing, match=f"`fuser -v {echo.path}` names it"):
        SerialTransport(echo.path, CLOCK, 9600)
    first.close()


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("/dev/ttyNONE", HardwareMissing, "no such port; plugged in now: "),
        ("wires://here", UserError, "invalid URL, protocol 'wires' not known"),
        ("socket://127.0.0.1:1", HardwareMissing, "Connection refused"),
    ],
)
def test_a_port_that_cannot_be_opened(url: str, kind: type[UserError], says: str) -> None:
    with pytest.raises(kind, match=f"{url}: .*{says}"):
        SerialTransport(url, CLOCK, 9600)


def test_no_permission_says_which_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise serial.SerialException(13, "could not open port")

    monkeypatch.setattr(serial, "serial_for_url", refuse)  # tests run as root, too, whom no port refuses
    with pytest.raises(HardwareMissing, match=r"no permission; `sudo usermod -aG dialout \$USER`, then log in again"):
        SerialTransport("/dev/ttyUSB0", CLOCK, 9600)


# --- PZEM-004T ---


def test_pzem_over_modbus() -> None:
    with peers.pzem() as port:
        meter = make_pzem(port.path)
        meter.open()
        block = meter.read()
        meter.close()
    assert values(meter, block) == {
        "power": 24.4,
        "energy": 38 * 3600.0,
        "voltage": 225.7,
        "current": 0.108,
        "frequency": 50.0,
        "power_factor": 1.0,
    }
    assert block.before[0] < block.after[0]
    assert meter.identity["model"] == "PZEM-004T v3"


def test_pzem_at_another_address_does_not_answer() -> None:
    with (
        peers.pzem(address=7) as port,
        pytest.raises(HardwareMissing, match=r"no PZEM-004T v3 answers: .*(refusal|silent)"),
    ):
        make_pzem(port.path, address=9).open()


def test_pzem_tells_its_alarm_once() -> None:
    reply = pzem_reply([*peers.PZEM_REGISTERS[:9], 0xFFFF])
    with peers.served(peers.Scripted(lambda request: reply)) as port:
        meter = make_pzem(port.path, address=1)
        meter.open()
        meter.read()
        meter.close()
    assert [fields["message"][:11] for _, fields in meter.told] == ["power alarm"]


def pzem_reply(registers: list[int]) -> bytes:
    body = struct.pack(">BBB10H", 1, 4, 20, *registers)
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


def test_pzem_has_two_words_for_large_numbers() -> None:
    found, _ = pzem.parse(pzem_reply([2300, 0x86A0, 1, 0x9C40, 0, 0xFFFF, 0x98, 500, 99, 0]), 1)
    assert (found["current"], found["power"], found["energy"]) == (100.0, 4000.0, 0x98FFFF * 3600.0)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (PZEM_REPLY[:-1] + b"\x35", "garbled"),
        (PZEM_REPLY[:12], "garbled"),
        (b"\x01\x84\x02\xc2\xc1", "a refusal: 018402"),
        (b"\x07" + PZEM_REPLY[1:], "garbled"),
        (pzem_reply([2257, 108, 0, 0xFFFF, 0xFFFF, 38, 0, 500, 100, 0]), "a power of 4.29497e.08 is none"),
        (pzem_reply([0] * 10), "a voltage of 0 is none that a PZEM-004T measures"),
        (b"", "garbled"),
    ],
)
def test_pzem_refuses(reply: bytes, says: str) -> None:
    with pytest.raises(DataInvalid, match=says):
        pzem.parse(reply, 1)


@given(st.binary(max_size=64) | st.binary(max_size=8).map(lambda tail: PZEM_REPLY[: 25 - len(tail)] + tail))
def test_pzem_parses_or_refuses_any_bytes(reply: bytes) -> None:
    try:
        found, _ = pzem.parse(reply, 1)
    except DataInvalid:
        return
    assert 80 <= found["voltage"] <= 260


# --- UM34C ---


def test_um34c_over_a_port() -> None:
    with peers.served(peers.Scripted(lambda request: peers.UM34C_FRAME)) as port:
        meter = make_um34c(port.path)
        meter.open()
        block = meter.read()
        meter.close()
    assert values(meter, block) == pytest.approx(
        {"power": 0.121, "energy": 36.0, "voltage": 4.84, "current": 0.025, "temperature": 23.0}
    )
    assert meter.identity == {"model": "UM34C"}


def test_um25c_has_finer_steps() -> None:
    frame = struct.pack(">HHHIHHH", 0x09C9, 5012, 12345, 6187, 25, 77, 1) + peers.UM34C_FRAME[16:]
    model, found = um34c.parse(frame)
    assert model.name == "UM25C"
    assert (found["voltage"], found["current"], found["power"]) == pytest.approx((5.012, 1.2345, 6.187))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (peers.UM34C_FRAME[:-1], "129 bytes, not 130"),
        (b"\x0d\x4d" + peers.UM34C_FRAME[2:], "0x0d4d stands for none of UM24C, UM25C, UM34C"),
        (
            peers.UM34C_FRAME[:6] + b"\xff\xff\xff\xff" + peers.UM34C_FRAME[10:],
            "4.29497e.06 W is not 4.84 V times 0.025 A",
        ),
        (peers.UM34C_FRAME[:14] + b"\x00\x0b" + peers.UM34C_FRAME[16:], "group 11"),
    ],
)
def test_um34c_refuses(frame: bytes, says: str) -> None:
    with pytest.raises(DataInvalid, match=says):
        um34c.parse(frame)


@given(st.binary(max_size=200) | st.binary(min_size=128, max_size=128).map(lambda rest: b"\x0d\x4c" + rest))
def test_um34c_parses_or_refuses_any_bytes(frame: bytes) -> None:
    try:
        model, found = um34c.parse(frame)
    except DataInvalid:
        return
    assert found["power"] == pytest.approx(found["voltage"] * found["current"], abs=2 * 655.35 * model.amp * 12)


# --- both ---

MAKERS: list[Callable[[str], Meter]] = [make_pzem, make_um34c]


def replies_of(make: Callable[[str], Meter]) -> bytes:
    return peers.UM34C_FRAME if make is make_um34c else pzem_reply(peers.PZEM_REGISTERS)


def address_of_any(make: Callable[[str], Meter], port: str) -> Meter:
    return make_um34c(port) if make is make_um34c else make_pzem(port, address=1)


@pytest.mark.parametrize("make", MAKERS)
def test_a_meter_that_breaks_off_falls_silent_or_raves_is_a_fault(make: Callable[[str], Meter]) -> None:
    good = replies_of(make)
    manners = iter([good, good[:20], b"", bytes(200), good])
    with peers.served(peers.Scripted(lambda request: next(manners))) as port:
        meter = address_of_any(make, port.path)
        meter.open()
        for says in ("after 20 bytes of a reply", "after 0 bytes of a reply", f"{meter.name}: "):
            with pytest.raises(InstrumentFault, match=says) as fault:
                meter.read()
            assert fault.value.transient
        assert len(meter.read().before) == 1
        port.hang_up()
        with pytest.raises(InstrumentFault, match="disconnected"):
            meter.read()
        meter.close()


@pytest.mark.parametrize("make", MAKERS)
def test_another_device_behind_the_port_is_refused(make: Callable[[str], Meter]) -> None:
    modem = peers.Scripted(lambda request: b"hello, I am a modem\r\n" * 8)
    with peers.served(modem) as port, pytest.raises(HardwareMissing, match="answers"):
        address_of_any(make, port.path).open()


@pytest.mark.parametrize("make", MAKERS)
def test_a_cassette_gives_the_same_readings(make: Callable[[str], Meter]) -> None:
    tape: list[Line] = []
    with peers.served(peers.Scripted(lambda request: replies_of(make))) as port:
        meter = address_of_any(make, port.path)
        meter.open()
        meter.record(lambda line: tape.append(json.loads(json.dumps(line))))
        blocks = [meter.read() for _ in range(3)]
        meter.tape.flush()
        meter.close()
    again = type(meter)("again", meter.Options.model_validate(meter.options), CLOCK, transport=Cassette(tape))
    again.open()
    assert [again.read() for _ in range(3)] == blocks
    assert (again.identity, again.channels) == (meter.identity, meter.channels)
    again.close()


def test_a_meter_opens_and_closes_twice() -> None:
    with peers.served(peers.Scripted(lambda request: peers.UM34C_FRAME)) as port:
        meter = make_um34c(port.path)
        for _ in range(2):
            meter.open()
            meter.read()
            meter.close()


# --- recorded frames ---

REFUSED = {
    "Atorch AC meter (type 01)": "has no serial port: it notifies over Bluetooth LE",
    "RDTech TC66C": "its frames are encrypted with a key that its maker did not publish",
    "J7-C / UC96 (type 03)": "has no serial port: it notifies over Bluetooth LE, and the record is cut",
    "FNIRSI FNB58": "is a USB HID device, and the record is the host's own request",
    "STM32 LPM01A (EnergyRunner)": "is archived energy, not the board's protocol",
}
ELSEWHERE = {"POWER-Z KM003C", "Elmor Labs PMD"}
"""Recordings of their own: see test_serial_pmd and test_km003c."""


def recorded() -> list[dict[str, object]]:
    return list(json.loads(FRAMES.read_text())) if FRAMES.exists() else []


@pytest.mark.skipif(not FRAMES.exists(), reason="no recorded frames here")
def test_every_recorded_frame_is_parsed_or_refused_for_a_reason() -> None:
    kinds = {str(frame["device"]) for frame in recorded()}
    assert kinds == {"PZEM-004T v3", "RDTech UM34C"} | REFUSED.keys() | ELSEWHERE


@pytest.mark.parametrize("frame", [f for f in recorded() if "hex" in f], ids=lambda f: f["device"])
def test_a_recorded_frame(frame: dict[str, object]) -> None:
    data, decoded = bytes.fromhex(str(frame["hex"])), frame.get("decoded", {})
    assert isinstance(decoded, dict)
    if frame["device"] == "RDTech UM34C":
        _, found = um34c.parse(data)
        names = {"voltage": "V", "current": "A", "power": "W", "temperature": "C"}
        assert {key: found[key] for key in names} == pytest.approx({key: decoded[name] for key, name in names.items()})
        assert found["energy"] == pytest.approx(decoded["mWh"] * 3.6)
    elif frame["direction"] == "request":
        assert pzem.request(1) == data
    elif frame["device"] == "PZEM-004T v3":
        found, alarm = pzem.parse(data, 1)
        names = {"voltage": "V", "current": "A", "power": "W", "frequency": "Hz", "power_factor": "PF"}
        assert {key: found[key] for key in names} == {key: decoded[name] for key, name in names.items()}
        assert (found["energy"], alarm) == (decoded["Wh"] * 3600, decoded["alarm"] != 0)
    else:
        for parse in (um34c.parse, lambda data: pzem.parse(data, 1)):
            with pytest.raises(DataInvalid):
                parse(data)


# --- discover and doctor ---

PEERS: dict[type[Meter], Callable[[], peers.Meter]] = {
    um34c.Driver: lambda: peers.Scripted(lambda request: peers.UM34C_FRAME if request == b"\xf0" else b""),
    ppk2.Driver: peers.Ppk2,
    pmd.Driver: lambda: peers.Pmd(peers.pmd_frames(10_000)),
}


@pytest.mark.parametrize("driver", PEERS)
def test_discover_finds_a_meter_whose_stanza_opens_unchanged(driver: type[Meter]) -> None:
    with peers.served(PEERS[driver]()) as port:
        (found,) = driver.discover(HERE, port.path)
        meter = driver(found.name, driver.Options.model_validate(found.stanza), CLOCK)
        meter.open()
        meter.close()
    assert meter.identity["model"] in {"UM34C", "PPK2", "PMD-USB"}


def test_discover_finds_a_pzem() -> None:
    with peers.pzem() as port:
        (found,) = pzem.Driver.discover(HERE, port.path)
        assert found.stanza == {"port": port.path}


@pytest.mark.parametrize("driver", [um34c.Driver, pzem.Driver, ppk2.Driver, pmd.Driver])
def test_discover_finds_nothing_where_something_else_answers(driver: type[Meter]) -> None:
    with peers.served(peers.Scripted(lambda request: b"ERROR\r\n" * 40)) as port:
        assert list(driver.discover(HERE, port.path)) == []
    assert list(driver.discover(HERE, "TCPIP0::192.0.2.1::INSTR")) == []


def test_doctor_names_the_group_of_a_port_that_may_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    listed = type("Port", (), {"device": str(port), "vid": 0x1A86, "pid": 0x7523, "serial_number": None})
    monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: [listed])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (check,) = um34c.Driver.doctor(HERE)
    assert not check.ok
    assert check.mend == "sudo usermod -aG dialout $USER"
    assert re.search(r"may not open it: it belongs to the group \w+; log in again", check.message)
