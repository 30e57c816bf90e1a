"""Files of a machine as a transport: those of this one are read in this process, others through the agent there."""

from __future__ import annotations

from joulelab.errors import InstrumentFault
from joulelab.timebase import Clock
from joulelab.transports.agent import MARK, Files
from joulelab.transports.base import Reply, Transport


class LocalFiles:
    """This machine's; the record for the far clock stays empty."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files = Files()

    def exchange(self, request: bytes = b"") -> Reply:
        before = self._clock.now()
        records = self._files.answer(request)
        return Reply(MARK + records, before, self._clock.now())

    def close(self) -> None:
        self._files.close()


class AgentFiles:
    """Those behind `lines`, a stream of lines to and from the agent."""

    def __init__(self, lines: Transport) -> None:
        self._lines = lines

    def exchange(self, request: bytes = b"") -> Reply:
        before = self._lines.exchange(request).before
        pieces = [self._lines.exchange() for _ in range(self._count())]
        return Reply(b"\n".join(piece.data for piece in pieces), before, pieces[-1].after)

    def close(self) -> None:
        self._lines.close()

    def _count(self) -> int:
        head = self._lines.exchange().data
        if not (head.isdigit() and int(head)):
            raise InstrumentFault(f"the agent answers {head[:60]!r} where a number of lines was due", transient=True)
        return int(head)


def split(data: bytes) -> tuple[int | None, list[bytes]]:
    """The far clock [ns], None on this machine, and the records of a reply of `files`; ValueError for anything else."""
    records = data.split(MARK)
    if records.pop() or not records:
        raise ValueError(f"torn reply {data[-60:]!r}")
    stamp = records.pop(0)
    return int(stamp) if stamp else None, records
