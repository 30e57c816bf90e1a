"""SCPI meters to talk to, over real protocols: raw TCP, HiSLIP, VXI-11, and a serial line.

`with tcp(WT310E()) as resource:` (or `hislip`, `vxi11`, `serial_line`) serves a meter until the block ends; `resource`
is the VISA resource to open. The meter's attributes may be changed meanwhile, and `manner` makes it misbehave.
"""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import struct
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Manner = Callable[[str, str], bytes | None]
"""From a query and the right reply to what is sent; None: nothing is."""


def honest(query: str, reply: str) -> bytes | None:
    return reply.encode() + b"\n"


@dataclass
class Meter:
    """Settings by header, queries with fixed answers, and an error queue. Headers are matched in upper case."""

    identity: str
    settings: dict[str, str]
    answers: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    unknown: str = '113,"Undefined Header"'
    no_error: str = '0,"No error"'
    manner: Manner = honest
    log: list[str] = field(default_factory=list)
    locked: bool = False

    def handle(self, message: str) -> bytes | None:
        """A program message; its reply where it has queries."""
        self.log.append(message)
        replies = [reply for unit in message.split(";") if unit and (reply := self.unit(unit.strip())) is not None]
        return self.manner(message, ";".join(replies)) if replies else None

    def unit(self, unit: str) -> str | None:
        header, _, value = unit.partition(" ")
        header = header.upper()
        if header.endswith("?"):
            reply = self.query(unit.upper())
            if reply is None:
                self.errors.append(self.unknown)
            return reply
        if header == "*CLS":
            self.errors.clear()
        elif header in self.settings:
            self.set(header, value.strip().strip('"'))
        else:
            self.command(header)
        return None

    def query(self, unit: str) -> str | None:
        if unit == "*IDN?":
            return self.identity
        if unit in {"SYST:ERR?", ":STATUS:ERROR?"}:
            return self.errors.pop(0) if self.errors else self.no_error
        return self.settings.get(unit.removesuffix("?"), self.answers.get(unit))

    def set(self, header: str, value: str) -> None:
        self.settings[header] = value

    def command(self, header: str) -> None:
        self.errors.append(self.unknown)


_ITEMS = ["U", "I", "P", "S", "Q", "LAMBDA", "PHI", "FU", "FI", "NONE"]
_WT_SETTINGS = {
    ":COMMUNICATE:HEADER": "1",
    ":HOLD": "0",
    ":MEASURE:AVERAGING:STATE": "1",
    ":MEASURE:MHOLD": "0",
    ":INPUT:MODE": "RMS",
    ":INPUT:CFACTOR": "6",
    ":INPUT:FILTER:LINE": "1",
    ":INPUT:FILTER:FREQUENCY": "0",
    ":RATE": "250.0E-03",
    ":INTEGRATE:MODE": "CONTINUOUS",
    ":INTEGRATE:TIMER": "1,0,0",
    ":NUMERIC:FORMAT": "FLOAT",
    ":NUMERIC:NORMAL:NUMBER": "3",
    **{f":NUMERIC:NORMAL:ITEM{n}": f"{item},1" for n, item in enumerate(_ITEMS, start=1)},
    ":INPUT:VOLTAGE:RANGE": "300.0E+00",
    ":INPUT:VOLTAGE:AUTO": "1",
    ":INPUT:CURRENT:RANGE": "10.0E+00",
    ":INPUT:CURRENT:AUTO": "1",
}
_SIZES = {
    "VOLTAGE": [15.0, 30.0, 60.0, 150.0, 300.0, 600.0],
    "CURRENT": [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0],
}


class WT310E(Meter):
    """A Yokogawa WT310E with `volts`, `amps`, `power_factor` on its input; ranges and integrates as that one does."""

    def __init__(self, volts: float = 230.0, amps: float = 0.4, power_factor: float = 0.9) -> None:
        super().__init__("YOKOGAWA,WT310E,C3WA01001E,F1.02", dict(_WT_SETTINGS))
        self.answers = {":INPUT:WIRING?": "P1W2", ":INPUT:SYNC?": "VOLTAGE", ":INPUT:SCALING:STATE?": "0"}
        self.volts, self.amps, self.power_factor = volts, amps, power_factor
        self.crest = 1.42
        self.integrating: str = "RESET"
        self.energy_wh = 0.0

    def query(self, unit: str) -> str | None:
        if unit == ":INTEGRATE:STATE?":
            return self.integrating
        if unit == ":STATUS:CONDITION?":
            return str(0o100 if self._over() else 0)
        if unit == ":NUMERIC:NORMAL:VALUE?":
            self._range()
            return ",".join(self._item(n + 1) for n in range(int(self.settings[":NUMERIC:NORMAL:NUMBER"])))
        reply = super().query(unit)
        named = self.settings[":COMMUNICATE:HEADER"] == "1" and unit.startswith(":") and reply is not None
        return f"{unit[:-1]} {reply}" if named and not unit.startswith(":STATUS") else reply

    def set(self, header: str, value: str) -> None:
        if self.integrating == "START" and header != ":COMMUNICATE:HEADER":
            self.errors.append('813,"Cannot be set while integrating"')
            return
        super().set(header, value)
        if header == ":INPUT:CFACTOR":
            for name in _SIZES:
                self.settings[f":INPUT:{name}:RANGE"] = f"{self._sizes(name)[-1]:E}"
        elif header.endswith(":RANGE"):
            self.settings[header.replace("RANGE", "AUTO")] = "0"

    def command(self, header: str) -> None:
        state = {":INTEGRATE:START": "START", ":INTEGRATE:STOP": "STOP", ":INTEGRATE:RESET": "RESET"}.get(header)
        if state is None:
            super().command(header)
        elif state == "STOP" and self.integrating != "START":
            self.errors.append('844,"Attempted to stop integration that is not running"')
        else:
            self.integrating = state
            self.energy_wh *= state != "RESET"

    def _sizes(self, name: str) -> list[float]:
        return [size * (0.5 if self.settings[":INPUT:CFACTOR"] == "6" else 1.0) for size in _SIZES[name]]

    def _needs(self) -> dict[str, float]:
        return {"VOLTAGE": self.volts, "CURRENT": self.amps}

    def _range(self) -> None:
        for name, need in self._needs().items():
            if self.settings[f":INPUT:{name}:AUTO"] == "1":
                fitting = [size for size in self._sizes(name) if need <= 1.3 * size] or self._sizes(name)[-1:]
                self.settings[f":INPUT:{name}:RANGE"] = f"{fitting[0]:E}"

    def _over(self) -> bool:
        return any(need > 1.4 * float(self.settings[f":INPUT:{name}:RANGE"]) for name, need in self._needs().items())

    def _item(self, number: int) -> str:
        watts = self.volts * self.amps * self.power_factor
        if self.integrating == "START":
            self.energy_wh += watts * 0.1 / 3600 / 10
        apparent = self.volts * self.amps
        value = {
            "U": self.volts,
            "I": self.amps,
            "P": watts,
            "S": apparent,
            "Q": max(apparent**2 - watts**2, 0.0) ** 0.5,
            "LAMBDA": self.power_factor,
            "FU": 50.01,
            "IPPEAK": self.crest * self.amps,
            "IMPEAK": -self.crest * self.amps,
            "WH": self.energy_wh if self.integrating != "RESET" else None,
        }.get(self.settings[f":NUMERIC:NORMAL:ITEM{number}"].split(",")[0])
        if value is None:
            return "NAN"
        return "INF" if self._over() else f"{value:.5E}"


def spd1168x() -> Meter:
    """A Siglent SPD1168X that gives 5 V and 1.2 A."""
    answers = {"MEAS:POWE? CH1": "6.000", "MEAS:VOLT? CH1": "5.000", "MEAS:CURR? CH1": "1.200"}
    settings = {"CH1:VOLT": "5.000", "CH1:CURR": "2.000"}
    identity = "Siglent Technologies,SPD1168X,SPD1XIAD4R0123,2.1.1.8"
    return Meter(identity, settings, answers, no_error="0  No Error")


def dmm6500() -> Meter:
    """A Keithley DMM6500, set to volts, that reads 0.25."""
    settings = {
        ":SENS:FUNC": "VOLT:DC",
        "CURR:DC:APER": "0.0166667",
        "CURR:DC:REL:STAT": "1",
        "CURR:DC:AZER": "1",
        "CURR:DC:RANG": "1",
        "CURR:DC:RANG:AUTO": "1",
    }
    answers = {":READ?": "2.500000E-01", "*LANG?": "SCPI"}
    identity = "KEITHLEY INSTRUMENTS,MODEL DMM6500,04592448,1.7.12b"
    return Meter(identity, settings, answers, no_error='0,"No error;0;0 0"')


Serve = Callable[[socket.socket], None]


@contextmanager
def _listening(serve: Serve) -> Iterator[int]:
    """Call `serve` with each connection, in a thread of its own; the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def connected(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections.append(connection)
                threads.append(threading.Thread(target=connected, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        _end(listener)
        acceptor.join()
        for connection in connections:
            _end(connection)
        for thread in threads:
            thread.join()


def _end(one: socket.socket) -> None:
    """Wake whoever waits for it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def tcp(meter: Meter) -> Iterator[str]:
    """Lines over a TCP socket. A reply of no bytes closes the connection."""

    def serve(connection: socket.socket) -> None:
        pending = b""
        while piece := connection.recv(4096):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # pyvisa-py waits for it: Nagle
            *lines, pending = re.split(rb"[\r\n]", pending + piece)
            for reply in map(meter.handle, (line.decode().strip() for line in lines)):
                if reply == b"":
                    return
                if reply is not None:
                    connection.sendall(reply)

    with _listening(serve) as port:
        yield f"TCPIP0::127.0.0.1::{port}::SOCKET"


@contextmanager
def serial_line(meter: Meter) -> Iterator[str]:
    """Lines over a pseudo-terminal."""
    near, far = pty.openpty()
    tty.setraw(far)
    stop, stopped = os.pipe()

    def serve() -> None:
        pending = b""
        while stop not in select.select([near, stop], [], [])[0]:
            *lines, pending = (pending + os.read(near, 4096)).split(b"\n")
            for line in lines:
                reply = meter.handle(line.decode(errors="replace").strip())
                if reply:
                    os.write(near, reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ASRL{os.ttyname(far)}::INSTR"
    finally:
        os.write(stopped, b"x")
        thread.join()
        for end in (near, far, stop, stopped):
            os.close(end)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


# HiSLIP (IVI-6.1): a synchronous and an asynchronous channel, messages with a header of 16 bytes.
_HISLIP = struct.Struct("!2sBBIQ")
_INITIALIZE, _INITIALIZED, _DATA, _DATA_END, _CLEARED, _CLEAR_ACK = 0, 1, 6, 7, 8, 9
_SIZE, _SIZE_RESPONSE, _ASYNC_INITIALIZE, _ASYNC_INITIALIZED, _CLEAR, _ASYNC_CLEAR_ACK = 15, 16, 17, 18, 19, 23
_ANSWERS = {_SIZE: _SIZE_RESPONSE, _ASYNC_INITIALIZE: _ASYNC_INITIALIZED, _CLEAR: _ASYNC_CLEAR_ACK}


@contextmanager
def hislip(meter: Meter) -> Iterator[str]:
    """HiSLIP 1.0, synchronised mode."""

    def send(connection: socket.socket, kind: int, parameter: int = 0, payload: bytes = b"") -> None:
        connection.sendall(_HISLIP.pack(b"HS", kind, 0, parameter, len(payload)) + payload)

    def serve(connection: socket.socket) -> None:
        message = b""
        while True:
            _, kind, _, parameter, length = _HISLIP.unpack(_exactly(connection, _HISLIP.size))
            payload = _exactly(connection, length)
            if kind == _INITIALIZE:
                send(connection, _INITIALIZED, 0x01000001)
            elif kind == _CLEARED:
                send(connection, _CLEAR_ACK)
            elif kind in _ANSWERS:
                send(connection, _ANSWERS[kind], 0, struct.pack("!Q", 1 << 20) if kind == _SIZE else b"")
            elif kind in {_DATA, _DATA_END}:
                message += payload
                if kind == _DATA_END:
                    reply, message = meter.handle(message.decode().strip()), b""
                    if reply is not None:
                        send(connection, _DATA_END, parameter, reply)

    with _listening(serve) as port:
        yield f"TCPIP0::127.0.0.1::hislip0,{port}::INSTR"


# VXI-11 (TCP/IP Instrument Protocol 1.0) over ONC RPC (RFC 5531), its port in the address, so without a portmapper.
_CREATE_LINK, _DEVICE_WRITE, _DEVICE_READ = 10, 11, 12
_LOCKED, _IO_TIMEOUT, _LAST_FRAGMENT, _END = 11, 15, 0x80000000, 4


@contextmanager
def vxi11(meter: Meter) -> Iterator[str]:
    """The core channel of VXI-11."""

    def opaque(data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)

    def answer(call: bytes, pool: ThreadPoolExecutor) -> bytes:
        """The results of a call; a meter that is slow to answer does so behind the client's back."""
        procedure = struct.unpack("!6I", call[:24])[5]
        if procedure == _CREATE_LINK:
            return struct.pack("!4I", _LOCKED if meter.locked else 0, 1, 0, 1 << 16)
        if procedure == _DEVICE_WRITE:
            (length,) = struct.unpack("!I", call[56:60])
            output.append(pool.submit(meter.handle, call[60 : 60 + length].decode().strip()))
            return struct.pack("!2I", 0, length)
        if procedure == _DEVICE_READ:
            with suppress(TimeoutError):
                if (reply := output[-1].result(struct.unpack("!I", call[48:52])[0] / 1000)) is not None:
                    return struct.pack("!2I", 0, _END) + opaque(reply)
            return struct.pack("!2I", _IO_TIMEOUT, 0) + opaque(b"")
        return struct.pack("!I", 0)

    output: list[Future[bytes | None]] = []

    def serve(connection: socket.socket) -> None:
        with ThreadPoolExecutor(1) as pool:
            while True:
                (size,) = struct.unpack("!I", _exactly(connection, 4))
                call = _exactly(connection, size & ~_LAST_FRAGMENT)
                reply = call[:4] + struct.pack("!5I", 1, 0, 0, 0, 0) + answer(call, pool)
                connection.sendall(struct.pack("!I", _LAST_FRAGMENT | len(reply)) + reply)

    with _listening(serve) as port:
        yield f"TCPIP0::127.0.0.1,{port}::inst0::INSTR"
