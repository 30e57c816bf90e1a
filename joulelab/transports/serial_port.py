"""Serial ports, local or over the network, as bytes out and pieces of a stream back."""

from __future__ import annotations

import errno
import re
import termios
import time
from collections.abc import Callable, Iterator

import serial
from serial.tools import list_ports

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.timebase import BenchNs, Clock
from joulelab.transports.base import Reply

CHUNK = 65536
"""The longest piece of a stream, and the longest reply [bytes]."""
GROUP = "sudo usermod -aG dialout $USER"
"""Lets a user open serial ports, after logging in again."""

_NETWORK = re.compile(r"(socket|rfc2217|loop|spy|alt|hwgrep)://")


class SerialTransport:
    """One port, by its path or a URL of pyserial (`socket://host:port`, `rfc2217://host:port`, `loop://`).

    A request is written, and what had come before it is dropped: it answers nothing that is asked now. The empty
    request is answered with what has come, or with what comes next; for `gather_s` after its first byte more of it is
    waited for, so that a fast stream has few pieces. HardwareMissing where the port cannot be opened; transient
    InstrumentFault where it is silent for `timeout_s`, or gone.
    """

    def __init__(self, url: str, clock: Clock, baud: int, timeout_s: float = 1.0, gather_s: float = 0.0) -> None:
        self._url, self._clock = url, clock
        self._timeout_s, self._gather_s = timeout_s, gather_s
        self._port = _opened(url, baud, timeout_s)

    def exchange(self, request: bytes = b"") -> Reply:
        before = self._clock.now()
        try:
            data = self._write(request) if request else self._read()
        except (OSError, termios.error) as error:
            raise InstrumentFault(f"{self._url}: disconnected: {error.args[-1]}", transient=True) from None
        if not data and not request:
            raise InstrumentFault(f"{self._url}: silent for {self._timeout_s:g} s", transient=True)
        return Reply(data, before, self._clock.now())

    def close(self) -> None:
        self._port.close()

    def _write(self, request: bytes) -> bytes:
        self._port.reset_input_buffer()
        self._port.write(request)
        self._port.flush()
        return b""

    def _read(self) -> bytes:
        data = bytes(self._port.read(1))
        if data and self._gather_s:
            time.sleep(self._gather_s)
        while data and len(data) < CHUNK and (waiting := self._port.in_waiting):
            data += self._port.read(min(waiting, CHUNK - len(data)))
        return data


def collect(exchange: Callable[[bytes], Reply], request: bytes, complete: Callable[[bytes], bool]) -> Reply:
    """A reply that comes in pieces, between the stamps before the request and after the piece that completes it.

    Transient InstrumentFault where it breaks off, or does not end.
    """
    before: BenchNs = exchange(request).before
    data = b""
    while len(data) < CHUNK:
        try:
            piece = exchange(b"")
        except InstrumentFault as fault:
            raise InstrumentFault(f"{fault} after {len(data)} bytes of a reply", transient=fault.transient) from None
        data += piece.data
        if complete(data):
            return Reply(data, before, piece.after)
    raise InstrumentFault(f"a reply does not end: {data[:20]!r}...", transient=True)


def is_port(address: str) -> bool:
    """Whether an address names a serial port, rather than a VISA resource."""
    return bool(_NETWORK.match(address)) or address in {port for port, _, _ in ports()} or address.startswith("/dev/")


def ports() -> Iterator[tuple[str, tuple[int | None, int | None], str]]:
    """The serial ports of this machine: path, (USB vendor, product), and serial number, where there are any."""
    for port in list_ports.comports():
        yield port.device, (port.vid, port.pid), port.serial_number or ""


def _opened(url: str, baud: int, timeout_s: float) -> serial.Serial:
    try:
        return serial.serial_for_url(url, baud, timeout=timeout_s, write_timeout=timeout_s, exclusive=True)
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    except OSError as error:
        raise HardwareMissing(f"{url}: {_why(url, error)}") from None


def _why(url: str, error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"no permission; `{GROUP}`, then log in again"
    if error.errno in {errno.EBUSY, errno.EAGAIN}:
        return f"another program has it open; `fuser -v {url}` names it"
    if error.errno == errno.ENOENT:
        there = ", ".join(port for port, _, _ in ports()) or "there is none"
        return f"no such port; plugged in now: {there}"
    return str(error)
