"""What was learned of phones, kept by phone in the user's state folder."""

from __future__ import annotations

import os

from joulelab.instruments.undo import state_folder
from joulelab.timebase import Clock
from joulelab.transports.base import Reply, Transport


class Rules:
    """A transport that also answers `rule PHONE` with what was learned of a phone, and keeps it at `keep PHONE JSON`.

    These are requests so that a recording holds the answers: played again, it needs nothing that this machine keeps.
    """

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def exchange(self, request: bytes = b"") -> Reply:
        verb, _, words = request.partition(b" ")
        if verb not in {b"rule", b"keep"}:
            return self._inner.exchange(request)
        phone, _, text = words.partition(b" ")
        path = state_folder().with_name("android") / f"{phone.decode()}.json"
        before = self._clock.now()
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(text)
            draft.rename(path)
        found = path.read_bytes() if path.exists() else b""
        return Reply(found, before, self._clock.now())

    def close(self) -> None:
        self._inner.close()
