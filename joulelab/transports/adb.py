"""A phone over ADB: one shell there answers all requests of a transport, so that a reading starts no process."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.recording.formats.android import nanoseconds
from joulelab.timebase import BenchNs, Clock
from joulelab.transports.adb_server import find, library
from joulelab.transports.adb_shell import PROGRAM, SERVE
from joulelab.transports.agent import MARK
from joulelab.transports.base import Reply, Transport

TIMEOUT_S = 10.0
"""The longest silence: `dumpsys` on a busy phone takes seconds."""
PROBES = 24
"""Clock requests at the start. /proc/uptime counts 10 ms, so the best of them is some 0.4 ms off."""
TICK_NS = 10_000_000
SLACK_NS = 1_000_000
"""What the wall clock may run away from the time since boot before it is called set [ns]."""
END = b"\x1d"
"""Ends a reply of the shell loop, and a program's stream."""


class Adb:
    """A phone by its serial (`adb devices`), or by host and port over Wi-Fi; `adb://` is the only one there is.

    The adb server is that of the environment (ANDROID_ADB_SERVER_PORT), started where it does not run. Far clocks are
    CLOCK_BOOTTIME [ns] to about a millisecond, the clock that Android's own sensors stamp with.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock

    def open(self, argv: Sequence[str]) -> Transport:
        boot = BootClock(self.url)
        with _Shell(self.url, SERVE, self._clock) as files:
            files.set(boot)
        return AdbProgram(_Shell(self.url, PROGRAM.replace("PROGRAM", shlex.join(argv)), self._clock), boot, argv[0])

    def files(self) -> AdbFiles:
        return AdbFiles(_Shell(self.url, SERVE, self._clock), BootClock(self.url))


class AdbFiles:
    """Files of the phone, as `Connection.files` says, and commands.

    `run COMMAND` is answered with the clock and what a shell command wrote, after a `!` where it failed.
    """

    def __init__(self, shell: _Shell, boot: BootClock) -> None:
        self._shell, self._boot = shell, boot
        try:
            shell.set(boot)
        except BaseException:
            shell.close()
            raise

    def exchange(self, request: bytes = b"") -> Reply:
        before = self._shell.send(request)
        reply = self._shell.until(END)
        stamp, mark, records = reply.data.partition(MARK)
        if not mark or (records and not records.endswith(MARK)):
            raise self._shell.broken(f"answers {reply.data[-40:]!r}, which is no whole reply")
        return Reply(b"%d%s%s" % (self._boot.stamp(stamp), MARK, records), before, reply.after)

    def close(self) -> None:
        self._shell.close()


class AdbProgram:
    """A program's lines, as `Connection.open` says. Its standard error is among them: a phone keeps only one stream."""

    def __init__(self, shell: _Shell, boot: BootClock, name: str) -> None:
        self._shell, self._boot, self._name = shell, boot, name
        self._said = b""

    def exchange(self, request: bytes = b"") -> Reply:
        if request:
            before = self._shell.send(request)
            return Reply(b"", before, before)
        reply = self._shell.until(b"\n")
        if reply.data == END:
            reason = self._said.decode(errors="replace").strip()
            raise self._shell.broken(f"{self._name} has ended: {reason}")
        words = reply.data.split(b" ", 3)
        stamp, line = self._boot.stamp(b" ".join(words[:3])), words[3:]
        self._said = b"".join(line)
        return Reply(b" ".join([b"%d" % stamp, *line]), reply.before, reply.after)

    def close(self) -> None:
        self._shell.close()


class BootClock:
    """CLOCK_BOOTTIME of a phone, to better than its /proc/uptime tells, which counts 10 ms.

    The wall clock counts microseconds, and is ahead of the time since boot by a constant until somebody sets it. Each
    look at /proc/uptime just before and just after it gives this constant a highest and a lowest value.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._highest, self._lowest = math.inf, -math.inf

    def stamp(self, text: bytes) -> int:
        """The time since boot [ns] from `<wall> <uptime before> <uptime after>`, all in seconds.

        A transient InstrumentFault where the wall clock was set, or this is no time.
        """
        try:
            wall, before, after = (nanoseconds(word) for word in text.decode().split())
        except ValueError:
            raise InstrumentFault(f"{self._name}: tells its time as {text[:60]!r}", transient=True) from None
        was = self._highest
        self._highest, self._lowest = min(was, wall - before), max(self._lowest, wall - after - TICK_NS)
        if self._lowest > self._highest + SLACK_NS:
            self._highest, self._lowest = math.inf, -math.inf
            by = (wall - before - was) / 1e9
            raise InstrumentFault(f"{self._name}: its clock was set by {by:+.2f} s (or a restart)", transient=True)
        return wall - int(self._highest)


class _Shell:
    """A shell on the phone that runs `script`: lines to it, bytes from it; after a fault it stays closed."""

    def __init__(self, url: str, script: str, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self._torn = b""
        self._connection: Any = _start(url, script)
        try:
            self.until(END)
        except InstrumentFault as fault:
            raise HardwareMissing(f"{fault}: its shell does not start") from None

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set(self, boot: BootClock) -> None:
        """Set a clock by that of the phone."""
        for _ in range(PROBES):
            self.send(b"clock")
            boot.stamp(self.until(END).data.partition(MARK)[0])

    def send(self, line: bytes) -> BenchNs:
        """Send a line; the time before."""
        before = self._clock.now()
        try:
            self._open.conn.sendall(line + b"\n")
        except OSError as error:
            raise self.broken(f"is disconnected: {error.strerror}") from None
        return before

    def until(self, end: bytes) -> Reply:
        """What comes next, up to `end`, which is left out; between the start of the wait for it and its arrival."""
        if end not in self._torn:
            self._waited = self._clock.now()
        while end not in self._torn:
            try:
                data = self._open.conn.recv(65536)
            except TimeoutError:
                raise self.broken(f"has been silent for {TIMEOUT_S:g} s") from None
            except OSError as error:
                raise self.broken(f"is disconnected: {error.strerror}") from None
            self._arrived = self._clock.now()
            if not data:
                raise self.broken("is disconnected")
            self._torn += data
        data, _, self._torn = self._torn.partition(end)
        return Reply(data, self._waited, self._arrived)

    def broken(self, why: str) -> InstrumentFault:
        """Give the shell up: what comes late must answer no later request."""
        self.close()
        return InstrumentFault(f"{self._url}: {why}", transient=True)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _open(self) -> Any:
        if self._connection is None:
            raise InstrumentFault(f"{self._url}: is disconnected", transient=True)
        return self._connection


def _start(url: str, script: str) -> Any:
    serial, phone = find(url)
    adbutils = library()
    try:
        connection = phone.open_transport(timeout=TIMEOUT_S)
        connection.send_command(f"shell:{script}")
        connection.check_okay()
    except (adbutils.AdbError, OSError) as error:
        raise HardwareMissing(f"adb://{serial}: no shell is to be had: {error}") from None
    return connection
