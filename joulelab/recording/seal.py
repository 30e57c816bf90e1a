"""The seal: written last, with a hash of every file; and `verify`, which holds a run against it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joulelab.errors import JoulelabError
from joulelab.recording.journal import Record, read_journal
from joulelab.recording.manifest import FORMAT
from joulelab.recording.reader import SEAL, RunDir, read_seal
from joulelab.recording.samples import read_samples
from joulelab.timebase import SECOND


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_seal(folder: Path, outcome: str) -> None:
    """Compress the cassettes, hash every file, and put the seal in place in one step."""
    for wire in folder.glob("wire/*.jsonl"):
        _pack(wire)
    records = list(read_journal(folder / "journal.jsonl"))
    seal = {
        "format": FORMAT,
        "outcome": outcome,
        "inferences": sum(record["kind"] == "inference" for record in records),
        "last_ns": records[-1]["t"],
        "samples": {path.stem: read_samples(path).num_rows for path in sorted(folder.glob("samples/*.arrows"))},
        "files": {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
    draft = folder / f".{SEAL}"
    with draft.open("w") as file:
        file.write(json.dumps(seal, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / SEAL)


def _pack(wire: Path) -> None:
    """Compress a cassette, behind what an earlier, interrupted seal compressed of it: gzip files may be joined."""
    packed, draft = wire.with_suffix(".jsonl.gz"), wire.with_suffix(".draft")
    with draft.open("wb") as joined, wire.open("rb") as plain:
        joined.write(packed.read_bytes() if packed.exists() else b"")
        with gzip.GzipFile("", "wb", fileobj=joined, mtime=0) as member:
            shutil.copyfileobj(plain, member)
    draft.rename(packed)
    wire.unlink()


@dataclass(frozen=True)
class Finding:
    """What `verify` found: `bad` ones mean that the run is not what was recorded, the others are worth knowing."""

    what: str
    message: str
    bad: bool = True


def verify(run: RunDir) -> list[Finding]:
    """Hold a run against its seal, its files against one another, and its readings against their period."""
    findings = _against_seal(run.path)
    if findings and run.seal:
        return findings
    try:
        journalled = [r for r in run.journal if r["kind"] in {"gap", "jump", "fault", "overrange"}]
        findings += [Finding(record["kind"], _describe(record), bad=False) for record in journalled]
        lost = lost_gaps(run)
        findings += [Finding("gap", f"{_describe(gap)} on resume", bad=False) for gap in lost]
        findings += [
            Finding("silent gap", f"{gap['instrument']}: {_length(gap)} without a reading, and no record of it")
            for gap in _silent_gaps(run)
            if gap not in lost
        ]
    except JoulelabError as error:
        findings.append(Finding("damaged", str(error)))
    return findings


def _against_seal(folder: Path) -> list[Finding]:
    seal = read_seal(folder)
    if seal is None:
        return [Finding("unsealed", "no seal: the run was interrupted; 'joulelab run --resume' finishes it")]
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file() and p.name != SEAL}
    missing = [Finding("missing", f"{name} is gone") for name in seal["files"] if name not in found]
    extra = [Finding("extra", f"{name} was not there at the seal") for name in found if name not in seal["files"]]
    changed = [
        Finding("changed", f"{name} is not what was sealed: its SHA-256 differs")
        for name, path in found.items()
        if name in seal["files"] and sha256(path) != seal["files"][name]
    ]
    return missing + extra + changed


def lost_gaps(run: RunDir) -> list[Record]:
    """The records that a kill took: of gaps at the end of an interrupted run that none tells of.

    What the sampler tells is journalled when a step ends, or with the next step, if it was still on its way.
    """
    if run.state != "interrupted":
        return []
    begun = [record["t"] for record in run.records("step")]
    return [gap for gap in _silent_gaps(run) if gap["stop"] >= min(begun[-2:], default=0)]


def _describe(record: Record) -> str:
    if record["kind"] == "gap":
        return f"{record['instrument']}: {_length(record)} without a reading, {record['missed']} missed and journalled"
    return ", ".join(f"{key} {value}" for key, value in record.items() if key not in {"t", "kind"})


def _length(gap: Record) -> str:
    return f"{(gap['stop'] - gap['start']) / SECOND:.4f} s"


def _silent_gaps(run: RunDir) -> Iterator[Record]:
    """Where readings lie two polling intervals or more apart and no journal record says why: the record that would."""
    for instrument in run.manifest.instruments:
        if instrument.period_ns is None:
            continue
        before = run.samples(instrument.name)["before_ns"].to_numpy()
        known = [(gap["start"], gap["stop"]) for gap in run.records("gap") if gap["instrument"] == instrument.name]
        for k in np.flatnonzero(np.diff(before) >= 2 * instrument.period_ns):
            start, stop = int(before[k]), int(before[k + 1])
            if not any(begin <= stop and end >= start for begin, end in known):
                missed = (stop - start) // instrument.period_ns - 1
                yield {"kind": "gap", "instrument": instrument.name, "start": start, "stop": stop, "missed": missed}
