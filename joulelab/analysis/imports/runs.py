"""`joulelab import`: recordings of other tools as sealed run directories."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from joulelab.analysis.imports.daemon import read_ptd
from joulelab.analysis.imports.given import CsvGiven, Given
from joulelab.analysis.imports.jetson import read_tegrastats
from joulelab.analysis.imports.nvidia import read_nvidia_smi
from joulelab.analysis.imports.phone import PhoneGiven, read_android
from joulelab.analysis.imports.pmd import read_pmd
from joulelab.analysis.imports.source import Advance, Recording
from joulelab.analysis.imports.spans import Spans, place, read_spans
from joulelab.analysis.imports.table import read_csv
from joulelab.analysis.imports.usb import read_km003c
from joulelab.analysis.imports.writer import Written, write_samples
from joulelab.analysis.table_map import read_map
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel, Scope
from joulelab.recording.journal import Journal, Record
from joulelab.recording.manifest import Instrument, Manifest
from joulelab.recording.recorder import seal_run
from joulelab.recording.seal import sha256
from joulelab.registry import nearest
from joulelab.timebase import SECOND, BenchNs

Reader = Callable[[Path, Any, Advance], Iterator[Recording]]
READERS: dict[str, tuple[Reader, type[Given]]] = {
    "android-log": (read_android, PhoneGiven),
    "csv": (read_csv, CsvGiven),
    "elmor-pmd": (read_pmd, Given),
    "km003c": (read_km003c, Given),
    "nvidia-smi": (read_nvidia_smi, Given),
    "ptd": (read_ptd, Given),
    "tegrastats": (read_tegrastats, Given),
}
KINDS = (*READERS, "table")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Import(NamedTuple):
    """What is imported: files of one kind, and what is known of them beside."""

    kind: str
    given: Given
    device: str
    spans: Spans | None


def import_runs(
    kind: str,
    files: Sequence[Path],
    out: Path,
    *,
    device: str = "unknown",
    mapping: Path | None = None,
    timezone: str | None = None,
    phases: Path | None = None,
    advance: Advance = lambda _bytes: None,
) -> list[Path]:
    """Make run directories from files of a kind, in one new session below `out`; one run a recording.

    UserError for what was asked wrongly, DataInvalid, naming the line, for a file that is not of its kind. After an
    error nothing is left of any of the files. `advance` takes how many bytes of all files are read.
    """
    if kind not in READERS:
        raise UserError(f"cannot import {kind!r}{nearest(kind, KINDS)}")
    model = READERS[kind][1]
    if mapping is None and model is CsvGiven:
        raise UserError("a CSV file needs a map: say with --map which column is what, in which unit")
    given = read_map(mapping, model) if mapping else model()
    if timezone:
        given = given.model_copy(update={"timezone": timezone})
    wanted = Import(kind, given, device, read_spans(phases, given.timezone) if phases else None)
    session = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".import-", dir=out) as draft:
            made = [
                run
                for file, ahead in _sized(files, advance)
                for run in _runs(Path(draft) / session, wanted, file, ahead)
            ]
            (out / session).mkdir(exist_ok=True)
            return [path.rename(out / session / path.name) for path in made]
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}") from None


def _sized(files: Sequence[Path], advance: Advance) -> Iterator[tuple[Path, Advance]]:
    """Each file with what takes how much of it is read."""
    done = 0
    for file in files:
        yield file, lambda read, before=done: advance(before + read)  # type: ignore[misc]
        done += file.stat().st_size


def _runs(session: Path, wanted: Import, file: Path, advance: Advance) -> Iterator[Path]:
    reader = READERS[wanted.kind][0]
    for recording in reader(file, wanted.given, advance):
        named = "-".join(filter(None, (wanted.device, wanted.kind, file.stem, recording.part)))
        run = _free(session / re.sub(r"[^\w.+-]+", "_", named))
        try:
            _write(run, wanted, file, recording)
        except DataInvalid as reason:
            raise reason if str(file) in str(reason) else DataInvalid(f"{file}: {reason}") from None
        yield run


def _free(run: Path) -> Path:
    """The path, with a number behind it where an earlier file has the same name."""
    others = (run.with_name(f"{run.name}-{number}") for number in count(2))
    return next(path for path in chain([run], others) if not path.exists())


def _write(run: Path, wanted: Import, file: Path, recording: Recording) -> None:
    """A whole run: samples, journal, manifest, seal."""
    (run / "samples").mkdir(parents=True)
    spacing = wanted.given.interval
    written = write_samples(run, wanted.kind, recording, None if spacing is None else round(spacing * SECOND))
    spans, outside = place(wanted.spans, written, recording.clock) if wanted.spans else ([], 0)
    said = wanted.given.model_dump(mode="json", exclude_unset=True)
    arguments: dict[str, Any] = {"kind": wanted.kind, "file": file.name, "sha256": sha256(file), "given": said}
    if wanted.spans:
        arguments["phases"] = {"file": wanted.spans.file.name, "outside the readings": outside}
    _manifest(run, wanted, recording, written, arguments).write(run / "manifest.json")
    _seal(run, recording, written, spans)


def _seal(run: Path, recording: Recording, written: Written, spans: Sequence[Record]) -> None:
    journal = Journal(run / "journal.jsonl")
    wall = written.time.zero if recording.clock.kind == "epoch" else None
    journal.append(BenchNs(0), "start", anchor={"bench": 0, "boot": 0, "wall": wall, "boot_id": "import"})
    for record in sorted([*written.records, *spans], key=lambda record: record["t"]):
        journal.append(**record)
    journal.append(BenchNs(written.stop_ns), "stop", outcome="done")
    seal_run(run, journal, "done")


def _manifest(run: Path, wanted: Import, recording: Recording, written: Written, arguments: dict[str, Any]) -> Manifest:
    """What is known of a run that others made: nothing of its host and engine."""
    options: dict[str, Any] = {"coarse_ns": recording.clock.coarse_ns}
    instrument = Instrument(
        wanted.kind, wanted.kind, options, written.interval_ns, recording.channels, identity=recording.identity
    )
    return Manifest(
        session=run.parent.name,
        run=run.name,
        device=wanted.device,
        protocol="import",
        arguments=arguments,
        seed=0,
        created=_created(recording, written),
        clock=f"imported: {recording.clock.about}, the first reading at 0",
        clock_offset_ns=0,
        simulated=False,
        stanza={},
        engine={},
        instruments=(instrument,),
        power=_power(wanted.kind, recording.channels),
        host={},
        versions={name: version(name) for name in ("joulelab", "numpy", "pyarrow")},
        certificates={},
    )


def _created(recording: Recording, written: Written) -> str:
    """When the log begins: in UTC, without an offset where it is local time, "" where nobody knows."""
    if recording.clock.kind == "own":
        return ""
    begin = EPOCH + timedelta(microseconds=(written.time.zero or 0) // 1000)
    return (begin if recording.clock.kind == "epoch" else begin.replace(tzinfo=None)).isoformat(timespec="milliseconds")


def _power(name: str, channels: Sequence[Channel]) -> tuple[str, ...]:
    """The channels that give energy, widest scope first; a power without a scope, such as a limit, flows nowhere."""
    widest = list(Scope)
    found = [channel for channel in channels if channel.gives_energy and channel.scope]
    ordered = sorted(found, key=lambda channel: widest.index(channel.scope or Scope.ESTIMATE))
    return tuple(f"{name}.{channel.name}" for channel in ordered)
