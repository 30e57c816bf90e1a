"""VISA sessions: SCPI meters over TCP sockets, VXI-11, HiSLIP, USBTMC, GPIB and serial ports, by pyvisa."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from contextlib import suppress
from typing import Any

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.timebase import Clock
from joulelab.transports.base import Reply

PYVISA_PY = "@py"
"""The backend that comes with joulelab; `@ivi` is the VISA of a vendor (NI, Keysight, Rohde & Schwarz)."""
TERMINATORS = {"LF": "\n", "CR": "\r", "CRLF": "\r\n"}
MOST_STALE = 100
"""Replies thrown away before a line that never falls silent is given up."""


class VisaTransport:
    """One meter. A request with `?` is a query; another is written and has an empty reply.

    Whatever fails, the session is closed, and the next request begins with a new one and a device clear: a reply that
    comes late is never taken for the answer to a later query.
    """

    def __init__(
        self,
        resource: str,
        clock: Clock,
        timeout_s: float = 2.0,
        backend: str = PYVISA_PY,
        terminator: str = "LF",
        baud: int = 9600,
    ) -> None:
        self._resource = resource
        self._clock = clock
        self._timeout_ms = round(timeout_s * 1000)
        self._backend = backend
        self._terminator = terminator
        self._baud = baud
        self._session: Any = None
        self._lock: int | None = None
        self._open()

    def exchange(self, request: bytes = b"") -> Reply:
        try:
            if self._session is None:
                self._reopen()
            before = self._clock.now()
            self._session.write_raw(request + TERMINATORS[self._terminator].encode())
            data = self._session.read_raw() if b"?" in request else b""
            return Reply(data, before, self._clock.now())
        except Exception as error:
            self.close()
            raise InstrumentFault(f"{self._resource}: {self._why(error)}", transient=True) from error

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):  # the far side may be gone, and says so in its own way
                session.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        try:
            self._lock = _lock(_port(self._resource))
            self._session = manager(self._backend).open_resource(self._resource, open_timeout=self._timeout_ms)
        except HardwareMissing:
            raise
        except Exception as error:
            self.close()
            raise HardwareMissing(f"{self._resource} cannot be opened: {_mend(self._resource, error)}") from error
        self._session.timeout = self._timeout_ms
        if self._by_terminator:
            self._session.read_termination = TERMINATORS[self._terminator]
        if self._resource.upper().startswith("ASRL"):
            self._session.baud_rate = self._baud

    def _reopen(self) -> None:
        self._open()
        with suppress(Exception):  # some kinds of session have no device clear
            self._session.clear()
        if self._resource.upper().startswith(("ASRL", "USB")):  # these reach the same output queue as before
            self._drain()

    def _drain(self) -> None:
        """Read until the line has been silent for as long as a reply may take."""
        with suppress(Exception):
            for _ in range(MOST_STALE):
                self._session.read_raw()

    @property
    def _by_terminator(self) -> bool:
        """Whether messages end with a character; the others have an end mark of their own."""
        return self._resource.upper().startswith("ASRL") or self._resource.upper().endswith("SOCKET")

    def _why(self, error: Exception) -> str:
        import pyvisa

        timed_out = isinstance(error, TimeoutError) or (
            isinstance(error, pyvisa.VisaIOError) and error.error_code == pyvisa.constants.StatusCode.error_timeout
        )
        if not timed_out:
            return " ".join(str(error).split()) or type(error).__name__
        cause = f"; likely causes: the meter ends its replies with another `terminator` than {self._terminator}"
        baud = f", or `baud` is not {self._baud}" if self._resource.upper().startswith("ASRL") else ""
        return f"no reply within {self._timeout_ms / 1000:g} s" + (cause + baud if self._by_terminator else "")


def manager(backend: str) -> Any:
    """Pyvisa's resource manager, shared by all sessions of a backend; HardwareMissing where there is no such VISA."""
    import pyvisa

    try:
        return pyvisa.ResourceManager(backend)
    except (OSError, ValueError) as error:
        raise HardwareMissing(
            f"there is no VISA for backend {backend!r}: install the vendor's, or leave `backend` out to use pyvisa-py"
        ) from error


def list_resources(backend: str = PYVISA_PY) -> list[str]:
    """What the backend finds by itself. Serial ports are left out: asking would disturb whatever is behind them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each library that would let it find more is missed with a warning
        found = manager(backend).list_resources("?*")
    return [resource for resource in found if resource.upper().startswith(("USB", "GPIB", "TCPIP"))]


def _port(resource: str) -> str:
    """The device node of a serial port; empty for other resources."""
    return resource[len("ASRL") :].partition("::")[0] if resource.upper().startswith("ASRL/DEV/") else ""


def _lock(port: str) -> int | None:
    """Hold a serial port for this session: two programs on one port would share out the replies between them."""
    if not port:
        return None
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
    return descriptor


def _mend(resource: str, error: Exception) -> str:
    """Why a session cannot be opened, and what to do about it."""
    reason, code = " ".join(str(error).split()), getattr(error, "errno", None)
    if code == errno.EACCES and resource.upper().startswith("USB"):
        return f"{reason}; `joulelab doctor` prints the udev rule that allows it"
    if code == errno.EACCES:
        return f"{reason}; `sudo usermod -aG dialout $USER`, then log in again"
    if code == errno.EBUSY:
        return f"another program holds it; `fuser -v {_port(resource)}` says which"
    if "creating link: 11" in reason or "LOCKED" in reason:
        return "another program has locked the meter: close it"
    return f"{reason}; is the meter switched on and connected?"
