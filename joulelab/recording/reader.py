"""Reading a run directory, whatever state it is in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel
from joulelab.recording.journal import Record, read_journal
from joulelab.recording.manifest import Manifest

SEAL = "seal.json"


def read_seal(folder: Path) -> dict[str, Any] | None:
    """The seal of a run, or None where it has none."""
    path = folder / SEAL
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except ValueError:
        raise DataInvalid(f"the seal of {folder.name} is damaged") from None


class RunDir:
    """One run on disk. `state` is the seal's outcome (done, aborted, failed), or interrupted where there is no seal."""

    def __init__(self, path: Path) -> None:
        if not (path / "manifest.json").is_file():
            raise DataInvalid(f"{path} is not a run: it has no manifest.json")
        self.path = path

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.read(self.path / "manifest.json")

    @cached_property
    def seal(self) -> dict[str, Any] | None:
        return read_seal(self.path)

    @property
    def state(self) -> str:
        return self.seal["outcome"] if self.seal else "interrupted"

    @cached_property
    def journal(self) -> list[Record]:
        """Every whole record of the journal, in order."""
        try:
            return list(read_journal(self.path / "journal.jsonl"))
        except FileNotFoundError:
            raise DataInvalid(f"journal.jsonl of {self.path.name} is gone") from None

    def records(self, kind: str) -> list[Record]:
        return [record for record in self.journal if record["kind"] == kind]

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """Every channel by "instrument.channel", as it was once the meters had fixed their ranges."""
        changed = {
            f"{record['instrument']}.{channel['name']}": Channel.from_json(channel)
            for record in self.records("settings")
            for channel in record["channels"]
        }
        return self.manifest.channels | changed

    def samples(self, instrument: str) -> Any:
        """The readings of one instrument: a `pyarrow.Table`, its columns those of `samples.schema`."""
        from joulelab.recording.samples import read_samples

        path = self.path / "samples" / f"{instrument}.arrows"
        if not path.is_file():
            raise DataInvalid(f"samples/{instrument}.arrows of {self.path.name} is gone")
        return read_samples(path)


def find_runs(folder: Path) -> Iterator[RunDir]:
    """Every run below a runs folder, oldest session first."""
    for manifest in sorted(folder.glob("*/*/manifest.json")):
        yield RunDir(manifest.parent)


def sessions(folder: Path) -> dict[str, list[RunDir]]:
    """The runs of each session below a runs folder, oldest first."""
    found: dict[str, list[RunDir]] = {}
    for run in find_runs(folder):
        found.setdefault(run.path.parent.name, []).append(run)
    return found


def find_run(folder: Path, name: str) -> RunDir:
    """A run by its path, by a unique part of "session/run", or `last`; UserError with what there is otherwise."""
    if (Path(name) / "manifest.json").is_file():
        return RunDir(Path(name))
    known = sorted(find_runs(folder), key=lambda run: (run.path / "manifest.json").stat().st_mtime_ns)
    if not known:
        raise UserError(f"there are no runs in {folder}: 'joulelab run' makes one")
    if name == "last":
        return known[-1]
    exact = [run for run in known if run.path.name == name]
    matches = exact or [run for run in known if name in f"{run.path.parent.name}/{run.path.name}"]
    if len(matches) != 1:
        names = ", ".join(f"{run.path.parent.name}/{run.path.name}" for run in (matches or known)[-5:])
        raise UserError(f"{name!r} names {len(matches)} runs; {'they are' if matches else 'there are'}: {names}")
    return matches[0]
