"""Settings that were changed on a meter or a device, kept on disk until they have been put back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from joulelab.errors import JoulelabError


def state_folder() -> Path:
    """Where what must outlive a crash is kept (XDG base directory specification: state)."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "joulelab" / "undo"


def left_over() -> Iterator[str]:
    """The resources whose settings a crashed run has left changed."""
    for path in sorted(state_folder().glob("*.json")):
        yield unquote(path.stem)


class Undo:
    """The requests that put one resource back as it was, in the order in which to send them.

    They are on disk before a setting is changed, so that the next `open` after a crash finds them. Of an instrument
    that is replayed they are not `kept`.
    """

    def __init__(self, resource: str, ask: Callable[[str], object], *, kept: bool = True) -> None:
        self._path = state_folder() / f"{quote(resource, safe='')}.json"
        self._ask = ask
        self._kept = kept
        self._requests: list[str] = self._read() if kept else []

    def remember(self, requests: Sequence[str]) -> None:
        """Keep requests to be sent before those that are kept already."""
        self._requests[:0] = requests
        if self._kept:
            self._write()

    def run(self) -> None:
        """Send what is kept and forget it; what a resource that does not answer would not take stays kept."""
        while self._requests:
            self._ask(self._requests[0])
            del self._requests[0]
        if self._kept:
            self._path.unlink(missing_ok=True)

    def _read(self) -> list[str]:
        try:
            return list(json.loads(self._path.read_text()))
        except FileNotFoundError:
            return []
        except ValueError:
            raise JoulelabError(f"{self._path} is damaged: set the meter by hand, then remove the file") from None

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump(self._requests, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path)
