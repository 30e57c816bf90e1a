"""A recording as one file: sealed runs without their wire, the certificates, and what was recorded on which machine."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Scope
from joulelab.recording import RunDir
from joulelab.recording.reader import SEAL, sessions
from joulelab.recording.seal import write_seal

MOST_BYTES = 5_000_000
LARGEST = 3
"""So many files are named where an archive is too large."""
AS_RECORDED = "recorded-seal.json"
"""The seal that was made on the machine, over the wire, too; certificates name the run by its hash."""
ABOUT, RUNS, CERTIFICATES = "recording.json", "runs", "certificates"


def about(runs: Sequence[RunDir], notes: Sequence[str]) -> dict[str, Any]:
    """The machine, the card if there is one, the versions, and what each run is of."""
    manifest = runs[0].manifest
    card, driver = _card(runs[-1])
    machine = f"{card} driver {driver}" if card else f"cpu {manifest.host['cpu']}"
    scopes = {name: run.manifest.channels[name].scope for run in runs for name in run.manifest.power}
    return {
        "name": _slug(f"{machine} {manifest.created[:10]}"),
        "created": manifest.created,
        "card": card or "none",
        "driver": driver or "none",
        "host": manifest.host,
        "power": {name: scope for name, scope in scopes.items() if scope != Scope.ESTIMATE} or "no power meter",
        "runs": [_described(run) for run in runs],
        "notes": list(notes),
    }


def _card(run: RunDir) -> tuple[str, str]:
    """The name of the first NVIDIA card that the run read and its driver's version; empty where there is none."""
    for instrument in run.manifest.instruments:
        for key, gpu in instrument.identity.items() if instrument.driver == "nvml" else ():
            if key.startswith("gpu"):
                return str(gpu["name"]), str(instrument.identity["driver"])
    return "", ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _described(run: RunDir) -> dict[str, Any]:
    manifest = run.manifest
    told = {name: manifest.engine.get(name) for name in ("model", "quant", "threads", "build")}
    return {
        "run": f"{manifest.session}/{manifest.run}",
        "state": run.state,
        "inferences": len(run.records("inference")),
        "engine": manifest.stanza["driver"],
        **told,
        "versions": manifest.versions,
    }


def pack(out: Path, session: Path, notes: Sequence[str]) -> Path:
    """Write a session as NAME.tar.xz into `out`.

    UserError where it is over `MOST_BYTES`, with what is large, and where it has no runs, with the notes why.
    """
    if not (runs := sessions(session.parent).get(session.name)):
        raise UserError(f"nothing was recorded: {'; '.join(notes)}")
    told = about(runs, notes)
    with tempfile.TemporaryDirectory(dir=out, prefix=".packing-") as scratch:
        root = Path(scratch) / told["name"]
        for run in runs:
            _copy(run, root / RUNS / run.manifest.session / run.path.name)
        if (session / CERTIFICATES).is_dir():
            shutil.copytree(session / CERTIFICATES, root / CERTIFICATES)
        (root / ABOUT).write_text(json.dumps(told, indent=1) + "\n")
        draft = Path(scratch) / "draft"
        with tarfile.open(draft, "w:xz") as archive:
            archive.add(root, root.name)
        _check_size(draft, root)
        return draft.rename(out / f"{root.name}.tar.xz")


def _copy(run: RunDir, to: Path) -> None:
    """A run without its wire, under a seal of its own; one that has no seal yet is sealed as failed."""
    shutil.copytree(run.path, to, ignore=shutil.ignore_patterns("wire"))
    if run.seal:
        (to / SEAL).rename(to / AS_RECORDED)
    write_seal(to, run.state if run.seal else "failed")


def _check_size(draft: Path, root: Path) -> None:
    if (size := draft.stat().st_size) <= MOST_BYTES:
        return
    files = sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    large = ", ".join(f"{path.relative_to(root)} {path.stat().st_size / 1e6:.1f} MB" for path in files[:LARGEST])
    raise UserError(f"{root.name} is {size / 1e6:.1f} MB packed, over {MOST_BYTES / 1e6:g} MB; unpacked: {large}")


def unpack(archive: Path, folder: Path) -> Path:
    """The folder that an archive holds, below `folder`."""
    try:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
            return folder / file.getnames()[0]
    except (OSError, EOFError, tarfile.TarError, IndexError) as error:
        raise DataInvalid(f"{archive} is no recording: {error}") from None
