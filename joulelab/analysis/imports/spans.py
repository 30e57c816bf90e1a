"""What happened while a log was written, from another file: inferences, idle times, and marks of anything else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictStr, ValidationError, model_validator

from joulelab.analysis.imports.given import Strict
from joulelab.analysis.imports.source import Clock, ClockKind, at
from joulelab.analysis.imports.writer import Written
from joulelab.analysis.imports.zone import LocalClock
from joulelab.errors import DataInvalid, UserError
from joulelab.recording.formats.csv_log import numeric_stamp
from joulelab.recording.journal import Record
from joulelab.timebase import SECOND

EPOCH_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""Numbers from here on count this unit since 1970: years 1973 to 5138 in each."""
STEADY_NS = 5_000_000
"""Wall-clock time that ran away from monotonic time by more was set."""

Whole = Annotated[int, Field(ge=0)] | None
Text = Annotated[str, BeforeValidator(str)]


class Span(Strict):
    """A row of a phases file; of an inference, one of its phases. `start` and `stop` as `read_spans` says."""

    phase: StrictStr
    start: Text
    stop: Text
    inference: Whole = None
    history: Whole = None
    prompt: Whole = None
    output: Whole = None
    repeat: Annotated[int, Field(ge=0)] = 0
    warmup: bool = False

    @model_validator(mode="after")
    def _whole_inference(self) -> Self:
        asked = (self.inference, self.history, self.prompt, self.output)
        if self.phase in {"prefill", "decode"} and None in asked:
            raise ValueError("a prefill or decode needs inference, history, prompt and output")
        if self.phase not in {"prefill", "decode"} and any(value is not None for value in asked):
            raise ValueError(f"an inference has the phases prefill and decode, not {self.phase!r}")
        return self


@dataclass(frozen=True)
class Placed:
    """A span with its edges in ns."""

    span: Span
    start: int
    stop: int


@dataclass(frozen=True)
class Spans:
    """The spans of a file, in ns on a clock of this kind."""

    file: Path
    kind: ClockKind
    found: Sequence[Placed]


def read_spans(file: Path, timezone: str | None) -> Spans:
    """The spans of a CSV file with a header, of JSON lines, or of the server's log of MLPerf (`server.json`).

    Stamps are ISO 8601 dates, numbers since 1970 in s, ms, us or ns, as large as they are, or smaller numbers in
    seconds on the clock of the log. A CSV file with the one column `timestamp` has marks. DataInvalid where it is
    none of these.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataInvalid(f"{file} is not UTF-8 text") from None
    if text.lstrip().startswith("{") and file.suffix == ".json":
        return _of_mlperf(file, text)
    local, kinds = LocalClock(timezone), set[ClockKind]()
    found = []
    for number, row in _rows(file, text):
        with at(file, number):
            span = _span(row)
            edges = [_edge(edge, local, timezone) for edge in (span.start, span.stop)]
            if edges[1][0] < edges[0][0]:
                raise ValueError("it stops before it starts")
        kinds |= {kind for _, kind in edges}
        found.append(Placed(span, edges[0][0], edges[1][0]))
    if len(kinds) != 1:
        raise DataInvalid(f"{file} has {'stamps of different clocks' if kinds else 'no phases'}")
    return Spans(file, kinds.pop(), found)


def _rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if text.lstrip().startswith("{"):
        for number, line in lines:
            with at(file, number):
                yield number, json.loads(line)
        return
    table = csv.DictReader((line for _, line in lines), skipinitialspace=True, restkey="more cells than the header")
    for (number, _), row in zip(lines[1:], table, strict=False):
        yield number, {name: cell for name, cell in row.items() if cell}


def _span(row: dict[str, Any]) -> Span:
    if row.keys() == {"timestamp"}:
        row = {"phase": "mark", "start": row["timestamp"], "stop": row["timestamp"]}
    try:
        return Span.model_validate(row)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        raise ValueError(where) from None


def _edge(text: str, local: LocalClock, timezone: str | None) -> tuple[int, ClockKind]:
    try:
        size = abs(float(text))
    except ValueError:
        date = datetime.fromisoformat(text.strip())
        return local.ns(date), "epoch" if timezone or date.tzinfo else "local"
    unit = next((unit for least, unit in EPOCH_UNITS if size >= least), None)
    return numeric_stamp(text, unit or "s").ns, "epoch" if unit else "own"


def _of_mlperf(file: Path, text: str) -> Spans:
    """Each session of the power server, from when its start was done to when its stop was asked for.

    A session has four marks, each in seconds of wall-clock and of monotonic time. DataInvalid where wall-clock time was
    set between them.
    """
    try:
        sessions = {
            name: [tuple(map(_seconds, mark)) for mark in marks] for name, marks in json.loads(text)["phases"].items()
        }
        found = [
            Placed(Span(phase=name, start=str(marks[1][0]), stop=str(marks[2][0])), marks[1][0], marks[2][0])
            for name, marks in sessions.items()
        ]
        ahead = [wall - monotonic for marks in sessions.values() for wall, monotonic in marks]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataInvalid(f"{file} is no server log of MLPerf: it has no phases with marks on two clocks") from None
    if max(ahead) - min(ahead) > STEADY_NS:
        raise DataInvalid(f"{file}: wall-clock time was set by {(max(ahead) - min(ahead)) / SECOND:g} s in the session")
    return Spans(file, "epoch", found)


def _seconds(value: float) -> int:
    return numeric_stamp(repr(float(value)), "s").ns


def place(spans: Spans, written: Written, clock: Clock) -> tuple[list[Record], int]:
    """Journal records of the spans that meet the readings, and how many do not.

    UserError where the log's clock is not the spans', DataInvalid where it went back or no span meets a reading.
    """
    if clock.kind != spans.kind:
        raise UserError(
            f"{spans.file} has times that are {MEANS[spans.kind]}, the log's are {MEANS[clock.kind]}"
            + ("; say where it was written with --timezone" if "local" in {clock.kind, spans.kind} else "")
        )
    if written.time.jumps:
        raise DataInvalid("its clock was set back, so that no phase can be placed in it: cut it there")
    zero = written.time.zero or 0
    placed = [Placed(p.span, p.start - zero, p.stop - zero) for p in spans.found]
    inside = [p for p in placed if p.stop >= 0 and p.start <= written.stop_ns]
    if not inside:
        off = min((max(-p.stop, p.start - written.stop_ns) for p in placed), default=0)
        raise DataInvalid(
            f"no phase of {spans.file} is nearer than {off / SECOND:g} s to its readings: is the time zone right?"
        )
    return list(_records(inside)), len(placed) - len(inside)


MEANS = {"epoch": "since 1970", "local": "local in a zone that nobody stated", "own": "on a clock of its own"}


def _records(inside: Sequence[Placed]) -> Iterator[Record]:
    """Idle steps, inferences by their number, and the rest as marks; a mark that stands twice is one."""
    ordered = sorted(inside, key=lambda p: (p.span.inference is None, p.span.inference or 0, p.start))
    asked = [p for p in ordered if p.span.inference is not None]
    others = {(p.span.phase, p.start, p.stop): p for p in ordered if p.span.inference is None}
    groups = [list(its) for _, its in groupby(asked, lambda p: p.span.inference)]
    for step, group in enumerate(sorted([*groups, *([p] for p in others.values())], key=lambda its: its[0].start)):
        edges = {"start": group[0].start, "stop": group[-1].stop}
        kind = group[0].span.phase
        if kind in {"prefill", "decode"}:
            yield {"t": edges["stop"], "kind": "inference", "step": step, **_inference(group)}
        elif kind == "idle":
            yield {"t": edges["stop"], "kind": "idle", "step": step, **edges}
        else:
            yield {"t": edges["start"], "kind": "step", "step": step, "what": {"kind": "mark", "name": kind, **edges}}


def _inference(phases: Sequence[Placed]) -> Record:
    span = phases[0].span
    names = [p.span.phase for p in phases]
    expected = ["prefill", "decode"] if (span.output or 0) > 1 else ["prefill"]
    if names != expected:
        raise DataInvalid(f"inference {span.inference} has the phases {', '.join(names)}, not {', '.join(expected)}")
    asked = span.model_dump(include={"inference", "repeat", "history", "prompt", "output", "warmup"})
    unknown = {"boundary_u_s": None, "cpu_s": None}
    edges = [{"name": p.span.phase, "start": p.start, "stop": p.stop, **unknown} for p in phases]
    return asked | {"phases": edges, "tokens": [], "temperature_c": None, "throttled": None, "extra": {}}
