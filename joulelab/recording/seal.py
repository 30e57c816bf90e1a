"""The seal: written last, with a hash of every file; and `verify`, which holds a run against it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joulelab.errors import JoulelabError
from joulelab.recording.journal import read_journal
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
        findings += _silent_gaps(run, [r for r in journalled if r["kind"] == "gap"])
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


def _describe(record: dict[str, Any]) -> str:
    if record["kind"] == "gap":
        length_s = (record["stop"] - record["start"]) / SECOND
        return f"{record['instrument']}: {length_s:.4f} s without a reading, {record['missed']} missed and journalled"
    return ", ".join(f"{key} {value}" for key, value in record.items() if key not in {"t", "kind"})


def _silent_gaps(run: RunDir, journalled: list[dict[str, Any]]) -> list[Finding]:
    """Where readings lie two polling intervals or more apart and no journal record says why."""
    findings = []
    for instrument in run.manifest.instruments:
        before = run.samples(instrument.name)["before_ns"].to_numpy()
        known = [(gap["start"], gap["stop"]) for gap in journalled if gap["instrument"] == instrument.name]
        if instrument.period_ns is None:
            continue
        for k in np.flatnonzero(np.diff(before) >= 2 * instrument.period_ns):
            if not any(start <= before[k + 1] and stop >= before[k] for start, stop in known):
                length_s = (before[k + 1] - before[k]) / SECOND
                findings.append(
                    Finding("silent gap", f"{instrument.name}: {length_s:.4f} s without a reading, and no record of it")
                )
    return findings
