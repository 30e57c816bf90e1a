"""Meters on pseudo-terminals: `with served(Ppk2()) as port:` serves one until the block ends, at `port.path`."""

from __future__ import annotations

import asyncio
import os
import select
import struct
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

TICK_S = 0.002
SPEEDS = {termios.B115200: 115_200, termios.B2000000: 2_000_000}
PZEM_REGISTERS = [2257, 108, 0, 244, 0, 38, 0, 500, 100, 0]
UM34C_FRAME = struct.pack(">HHHIHHH80s34x", 0x0D4C, 484, 25, 121, 23, 74, 0, struct.pack(">II", 2, 10))


class Meter:
    """Answers requests; while `streaming`, `chunk` is what it has to say after `elapsed` seconds.

    Requests that come at once are told apart by `lengths`, of those that begin with a byte. `speed` is what the other
    end is set to, in baud.
    """

    streaming = False
    lengths: ClassVar[dict[int, int]] = {}
    speed: int | None = None

    def requests(self, data: bytes) -> Iterator[bytes]:
        while data:
            length = self.lengths.get(data[0], len(data))
            yield data[:length]
            data = data[length:]

    def answer(self, request: bytes) -> bytes:
        return b""

    def chunk(self, elapsed: float) -> bytes:
        return b""


class Scripted(Meter):
    """Answers a request by a rule."""

    def __init__(self, rule: Callable[[bytes], bytes]) -> None:
        self._rule = rule

    def answer(self, request: bytes) -> bytes:
        return self._rule(request)


class Talker(Meter):
    """Says a line again and again, with the time in microseconds in place of `{t}`."""

    streaming = True

    def __init__(self, line: str, rate_hz: float = 100.0) -> None:
        self._line, self._rate_hz = line, rate_hz
        self._said = 0

    def chunk(self, elapsed: float) -> bytes:
        lines = range(self._said, int(elapsed * self._rate_hz))
        self._said += len(lines)
        return "".join(self._line.format(t=round(k * 1e6 / self._rate_hz)) + "\r\n" for k in lines).encode()


class Ppk2(Meter):
    """100,000 samples a second of one reading; `log` has the commands but for start and stop."""

    lengths: ClassVar[dict[int, int]] = {0x06: 1, 0x07: 1, 0x19: 1, 0x11: 2, 0x0C: 2, 0x0D: 3}

    def __init__(self, reading: int = 2000, scale: int = 4) -> None:
        self._word = reading | scale << 14
        self._sent = 0
        self.log: list[bytes] = []

    def answer(self, request: bytes) -> bytes:
        if request == b"\x19":
            return ppk2_metadata().encode()
        if request in {b"\x06", b"\x07"}:
            self.streaming = request == b"\x06"
            self._sent = 0
        else:
            self.log.append(request)
        return b""

    def chunk(self, elapsed: float) -> bytes:
        counts = np.arange(self._sent, int(elapsed * 100_000))
        self._sent += len(counts)
        return ppk2_samples(counts, self._word)


def ppk2_metadata() -> str:
    ohms = [1003.3506, 101.5865, 10.3027, 0.9636, 0.0564]
    rows = ["Calibrated: 0", *(f"R{k}: {r}" for k, r in enumerate(ohms))]
    rows += [f"{name}{k}: {value}" for name, value in PPK2_FACTORS.items() for k in range(5)]
    return "\n".join([*rows, "VDD: 3700", "HW: 9173", "mode: 2", "IA: 56", "END\n"])


PPK2_FACTORS = {"GS": 0.0, "GI": 1.0, "O": 112.5, "S": 0.0, "I": -0.000001, "UG": 1.0}


def ppk2_samples(counts: NDArray[np.int64], word: int) -> bytes:
    return (word | (counts & 63) << 18).astype("<u4").tobytes()


class Pmd(Meter):
    """An Elmor PMD that replays frames in real time; `baud` is what its port was last set to."""

    FRAMES_HZ = 4890
    lengths: ClassVar[dict[int, int]] = {0x00: 1, 0x01: 1, 0x04: 1, 0x07: 4, 0x08: 17}

    def __init__(self, frames: bytes) -> None:
        self._frames = frames
        self._sent = 0
        self.baud = 115_200

    def answer(self, request: bytes) -> bytes:
        if self.speed not in {None, self.baud}:
            return b""
        if request[:1] == b"\x07":
            self.streaming = request[1] == 1
        if request[:1] == b"\x08":
            self.baud = int.from_bytes(request[1:5], "little")
        replies = {b"\x00": b"ElmorLabs PMD-USB\x00", b"\x01": b"\xee\x0a\x06", b"\x04": bytes(34)}
        return replies.get(request, b"")

    def chunk(self, elapsed: float) -> bytes:
        stop = int(elapsed * self.FRAMES_HZ) * 18
        piece, self._sent = self._frames[self._sent : stop], max(stop, self._sent)
        return piece


def pmd_frames(n: int, first_tick: int = 60_000) -> bytes:
    """12.12 V on all connectors, 1 A on all but the last, which reads one step below nothing."""
    frames = np.zeros(n, [("tick", "<u2"), ("raw", "<i2", (4, 2))])
    frames["tick"] = first_tick + 613 * np.arange(n)
    frames["raw"][:, :, 0] = 1602 << 4
    frames["raw"][:, :3, 1] = 20 << 4
    frames["raw"][:, 3, 1] = -1 << 4
    return frames.tobytes()


class Port:
    """One end of a pseudo-terminal, `path` being the other."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self.pending = b""

    def receive(self) -> bytes:
        ready, _, _ = select.select([self._master], [], [], TICK_S)
        return os.read(self._master, 4096) if ready else b""

    def send(self) -> None:
        with suppress(BlockingIOError):
            while self.pending:
                self.pending = self.pending[os.write(self._master, self.pending) :]

    def speed(self) -> int | None:
        return SPEEDS.get(termios.tcgetattr(self._slave)[5])

    def hang_up(self) -> None:
        """As if the plug was pulled."""
        for end in (self._master, self._slave):
            with suppress(OSError):
                os.close(end)


@contextmanager
def served(meter: Meter) -> Iterator[Port]:
    port = Port()
    done = threading.Event()
    thread = threading.Thread(target=_serve, args=(meter, port, done))
    thread.start()
    try:
        yield port
    finally:
        done.set()
        thread.join()
        port.hang_up()


def _serve(meter: Meter, port: Port, done: threading.Event) -> None:
    since: float | None = None
    with suppress(OSError, ValueError, termios.error):  # hung up
        while not done.is_set():
            data = port.receive()
            meter.speed = port.speed()
            for request in meter.requests(data):
                port.pending += meter.answer(request)
            since = (since or time.monotonic()) if meter.streaming else None
            if since is not None:
                port.pending += meter.chunk(time.monotonic() - since)
            port.send()


@contextmanager
def pzem(address: int = 248, registers: list[int] | None = None) -> Iterator[Port]:
    """A PZEM-004T: pymodbus' own RTU server, on a port that is wired to `path`."""
    near, far = Port(), Port()
    done = threading.Event()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    values = PZEM_REGISTERS if registers is None else registers
    device = SimDevice(address, [SimData(0, values=list(values), datatype=DataType.REGISTERS)])
    threads = [
        threading.Thread(target=_wire, args=(near, far, done)),
        threading.Thread(target=loop.run_until_complete, args=(_modbus(device, far.path, ready, done),)),
    ]
    for thread in threads:
        thread.start()
    ready.wait(5)
    try:
        yield near
    finally:
        done.set()
        for thread in threads:
            thread.join()
        loop.close()
        near.hang_up()
        far.hang_up()


async def _modbus(device: SimDevice, path: str, ready: threading.Event, done: threading.Event) -> None:
    server = ModbusSerialServer(device, port=path, baudrate=9600)
    await server.serve_forever(background=True)
    ready.set()
    while not done.is_set():
        await asyncio.sleep(TICK_S)
    await server.shutdown()  # type: ignore[no-untyped-call]
    await asyncio.sleep(TICK_S)  # what its callbacks were yet to start
    left = asyncio.all_tasks() - {asyncio.current_task()}  # a request that it was in the middle of
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _wire(one: Port, other: Port, done: threading.Event) -> None:
    with suppress(OSError, ValueError):
        while not done.is_set():
            for a, b in ((one, other), (other, one)):
                b.pending += a.receive()
                b.send()
