"""Connections to machines: this one, a Linux host over SSH, a phone over ADB. Instruments and devices share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from joulelab.errors import UserError
from joulelab.timebase import Clock
from joulelab.transports.base import Transport

FORMS = "expected local, ssh://[user@]host[:port] or adb://serial"


class Connection(Protocol):
    """A way to a machine; `url` names it as `lab.yaml` does."""

    url: str

    def open(self, argv: Sequence[str]) -> Transport:
        """Start a program there. Each piece of its stream is a line that it wrote, without the newline.

        HardwareMissing where it cannot be started. A transient InstrumentFault where it has ended, for whatever reason,
        or says nothing for seconds. Closing ends it, with all that it started.

        On another machine a piece is `<stamp> <line>`, the stamp being that machine's clock [ns] as the line came.
        The request `clock` asks for that clock; it is answered by the piece `<stamp>`, among the lines. Any other
        request is a line for the program, and has an empty reply.
        """

    def files(self) -> Transport:
        """Read files there.

        The request `cat PATH...` is answered with a record for the far clock [ns] (empty on this machine, whose clock
        is the bench's), and one for each file: what it holds, 4 KiB at most, or `!` and why it cannot be read. `ls
        PATTERN...` is answered with the clock and a record for each path that exists, `clock` with the clock alone.
        Records end with `agent.MARK`. Paths hold no spaces. A phone also takes `run COMMAND` and answers with the clock
        and a record of what it printed.
        """


def connect(url: str, clock: Clock) -> Connection:
    """The connection that a URL names; UserError where it is none."""
    scheme = urlsplit(url).scheme or url
    if scheme == "local":
        from joulelab.transports.local import Local

        return Local(clock)
    if scheme == "ssh":
        from joulelab.transports.ssh import Ssh

        return Ssh(url, clock)
    if scheme == "adb":
        from joulelab.transports.adb import Adb

        return Adb(url, clock)
    raise UserError(f"{url!r} names no connection: {FORMS}")
