"""Writing a run: its folder, its journal, and the cassettes of what engines and instruments said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from joulelab.errors import UserError
from joulelab.recording.journal import Journal
from joulelab.recording.manifest import Manifest
from joulelab.recording.seal import write_seal

PREFLIGHT_BYTES = 64_000_000
"""Free space below which a run is not started: an hour of one 1 kHz channel is 115 MB, most runs are minutes."""


class Wire:
    """Appends taped exchanges to a cassette, wire/<name>.jsonl; the file appears with the first of them."""

    def __init__(self, run: Path, name: str) -> None:
        self._path = run / "wire" / f"{name}.jsonl"

    def __call__(self, exchange: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(exchange, separators=(",", ":")) + "\n")


def create_run(path: Path, manifest: Manifest) -> Journal:
    """Make the folder of a run; its manifest is put in place last, so that no half run is ever seen."""
    try:
        for room in ("samples", "wire"):
            (path / room).mkdir(parents=True)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}; choose a writable folder with --runs") from None
    if free < PREFLIGHT_BYTES:
        shutil.rmtree(path)
        raise UserError(
            f"{path.parent} has {free // 1_000_000} MB free, a run needs {PREFLIGHT_BYTES // 1_000_000}: make room"
        )
    journal = Journal(path / "journal.jsonl")
    draft = path / ".manifest.json"
    manifest.write(draft)
    draft.rename(path / "manifest.json")
    return journal


def seal_run(path: Path, journal: Journal, outcome: str) -> None:
    """Close the journal and seal the run as `done`, `aborted` or `failed`."""
    journal.sync()
    journal.close()
    write_seal(path, outcome)
