"""The journal: one JSON object a line, appended and synced by its one writer, the runner."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulelab.errors import DataInvalid
from joulelab.timebase import BenchNs

Record = dict[str, Any]


class Journal:
    """Appends records to journal.jsonl. A torn last line, left by a kill, is cut off before appending goes on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        whole = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)

    def append(self, t: BenchNs, kind: str, **fields: Any) -> None:
        """Write one record in one call, so that a kill leaves it whole or torn, never mixed with another."""
        line = json.dumps({"t": t, "kind": kind, **fields}, separators=(",", ":")) + "\n"
        written = self._file.write(line.encode())
        if written != len(line):
            raise OSError(28, "no space left for the journal")

    def sync(self) -> None:
        """Force what was appended onto the disk; called between inferences, never inside one."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Record]:
    """Every whole record; a torn last line is passed over, any other bad line is DataInvalid."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            whole = {"t", "kind"} <= record.keys()
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            raise DataInvalid(f"{path.parent.name}/{path.name} line {number} is damaged: run 'joulelab verify'")
        yield record
