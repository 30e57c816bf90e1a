"""What runs on a machine behind a connection: reads files there, or streams a program's lines, with its clock.

It is sent as text and started by that machine's own Python, so it needs nothing but Python 3.8. It ends when its
standard input does, and takes the program with it.
"""

from __future__ import annotations

import glob
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

HELLO = b"joulelab agent"
"""Begins the first line that is ours: a login script may have written some. Why it cannot start follows, if so."""
MARK = b"\x1e"
GRACE_S = 1.0
"""What a program gets to end by itself."""
PAGE = 4096
"""How much of a file is read [bytes]: sysfs has no more in one."""


class Files:
    """Answers `cat PATH...` and `ls PATTERN...`: a record for each file, ended by MARK; `clock` has none.

    Files stay open, since opening costs more than reading. One that fails is opened anew the next time: the device
    behind it may have come back.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}

    def answer(self, request: bytes) -> bytes:
        verb, *words = request.split()
        records = [self._cat(path) for path in words] if verb == b"cat" else _ls(words)
        return MARK.join([*records, b""])

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def _cat(self, path: bytes) -> bytes:
        try:
            held = self._held.get(path)
            if held is None:
                held = self._held[path] = os.open(path, os.O_RDONLY)
            return os.pread(held, PAGE, 0)
        except OSError as error:
            if path in self._held:
                os.close(self._held.pop(path))
            return f"!{error.strerror}".encode()


def _ls(patterns: Iterable[bytes]) -> list[bytes]:
    return [path for pattern in patterns for path in sorted(glob.glob(pattern))]  # noqa: PTH207 Path cannot


def now() -> int:
    """CLOCK_BOOTTIME [ns]: it goes on while the machine is suspended, and Android's sensors stamp with it too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def serve_files() -> None:
    """Answer each request on standard input with a line that says how many lines follow, and those."""
    files = Files()
    _write(HELLO + b"\n")
    for request in sys.stdin.buffer:
        before = now()
        records = files.answer(request)
        reply = b"%d%s%s" % ((before + now()) // 2, MARK, records)
        _write(b"%d\n%s\n" % (reply.count(b"\n") + 1, reply))


def stream(argv: Sequence[str]) -> int:
    """Run a program until either side ends, each of its lines after a stamp; its exit status.

    Of the lines on standard input `clock` is answered with a stamp, the rest is for the program.
    """
    try:
        program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        _write(f"{HELLO.decode()}: {argv[0]}: {error.strerror}\n".encode())
        return 127
    try:
        _write(HELLO + b"\n")
        _pump(program)
    finally:
        _end(program)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


def _pump(program: subprocess.Popen[bytes]) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    asked, said = 0, program.stdout.fileno()
    torn = {asked: b"", said: b""}
    poll = select.poll()
    for end in torn:
        poll.register(end, select.POLLIN)
    while True:
        for end, _ in poll.poll():
            data, stamp = os.read(end, 65536), now()
            if not data:
                return None if end == asked else _await(program)
            *lines, torn[end] = (torn[end] + data).split(b"\n")
            if end == said:
                _write(b"".join([b"%d %s\n" % (stamp, line) for line in lines]))
            else:
                _take(lines, stamp, program.stdin.fileno())


def _take(lines: Iterable[bytes], stamp: int, program: int) -> None:
    for line in lines:
        if line == b"clock":
            _write(b"%d\n" % stamp)
        else:
            os.write(program, line + b"\n")


def _end(program: subprocess.Popen[bytes]) -> None:
    """End it and whatever it started."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(program.pid, ending)
        _await(program)


def _await(program: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        program.wait(GRACE_S)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, lambda *_: sys.exit(1))  # unlike the default, this ends the program too
    if sys.argv[1] == "open":
        sys.exit(stream(sys.argv[2:]))
    serve_files()
