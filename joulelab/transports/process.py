"""A program's lines, as they come."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.timebase import BenchNs, Clock
from joulelab.transports.base import Reply

GRACE_S = 1.0
"""What a program gets to end by itself."""
CHUNK = 65536


class ProcessTransport:
    """A program in a process group of its own; `name` is what its faults call it.

    Each piece is a whole line, between the time when the wait for it began and the time when it was there. A request
    is a line for the program. Transient InstrumentFault where it has ended, or is silent for `timeout_s`; `complaint`
    is the end of what it wrote to its standard error.
    """

    TIMEOUT_S = 5.0

    def __init__(self, argv: Sequence[str], clock: Clock, name: str, timeout_s: float = TIMEOUT_S) -> None:
        self._name, self._clock = name, clock
        self.timeout_s = timeout_s
        self.complaint = b""
        self._lines: deque[Reply] = deque()
        self._torn = b""
        self._process = _started(argv, name)
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._streams = stdin, stdout, stderr
        self._stdin, self._stdout, self._stderr = (stream.fileno() for stream in self._streams)
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._stderr, select.POLLIN)

    def exchange(self, request: bytes = b"") -> Reply:
        before = self._clock.now()
        if request:
            self._write(request + b"\n")
            return Reply(b"", before, self._clock.now())
        while not self._lines:
            self._wait(before)
        return self._lines.popleft()

    def close(self) -> None:
        """End the program and all that it started."""
        if self._streams[0].closed:
            return
        for stream in self._streams:
            stream.close()
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, ending)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)

    def _write(self, line: bytes) -> None:
        try:
            os.write(self._stdin, line)
        except BrokenPipeError:
            raise self._ended() from None

    def _wait(self, before: BenchNs) -> None:
        """Take what the program has said, or says within the timeout."""
        ready = self._poll.poll(self.timeout_s * 1e3)
        if not ready:
            raise InstrumentFault(f"{self._name}: silent for {self.timeout_s:g} s", transient=True)
        after = self._clock.now()
        for stream, _ in ready:
            data = os.read(stream, CHUNK)
            if stream == self._stderr:
                self._hear(data)
            elif data:
                *lines, self._torn = (self._torn + data).split(b"\n")
                self._lines.extend(Reply(line, before, after) for line in lines)
            else:
                raise self._ended()

    def _hear(self, data: bytes) -> None:
        self.complaint = (self.complaint + data)[-CHUNK:]
        if not data:
            self._poll.unregister(self._stderr)

    def _ended(self) -> InstrumentFault:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        os.set_blocking(self._stderr, False)
        with suppress(BlockingIOError):  # something that it started may still hold its standard error open
            while data := os.read(self._stderr, CHUNK):
                self.complaint = (self.complaint + data)[-CHUNK:]
        reason = self.complaint.decode(errors="replace").strip().rpartition("\n")[2]
        status = self._process.returncode
        return InstrumentFault(f"{self._name} has ended: {reason or f'status {status}'}", transient=True)


def _started(argv: Sequence[str], name: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},  # decimal points, and messages that can be recognised
            start_new_session=True,
        )
    except OSError as error:
        raise HardwareMissing(f"{name}: {argv[0]} cannot be started: {error.strerror}") from None
