"""The run directory survives what happens to it, and says so."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulelab.errors import DataInvalid, UserError
from joulelab.instruments.base import Block
from joulelab.quantities import Channel, Scope, SensorModel, parse_quantity
from joulelab.recording import Manifest, RunDir, find_runs
from joulelab.recording.journal import Journal, read_journal
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import Wire, create_run, seal_run
from joulelab.recording.samples import SampleWriter, read_samples
from joulelab.recording.seal import lost_gaps, verify
from joulelab.timebase import SECOND, Anchor, BenchNs, VirtualClock, WallNs, jumps

MS = SECOND // 1000
POWER = Channel("power", "W", scope=Scope.INPUT, sensor=SensorModel(period_s=0.01))


def manifest() -> Manifest:
    return Manifest(
        session="s",
        run="r",
        device="host",
        protocol="sweep",
        arguments={},
        seed=1,
        created="2026-11-21T00:00:00+00:00",
        clock="virtual",
        clock_offset_ns=0,
        simulated=True,
        stanza={},
        engine={},
        instruments=(Instrument("meter", "fake", {}, 10_000_000, (POWER,)),),
        power=("meter.power",),
        host={},
        versions={},
        certificates={},
    )


def readings(times_ns: list[int]) -> Block:
    t = np.array(times_ns)
    return Block(t - 10, t, None, np.ones((1, len(t))))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A sealed run with a second of readings every 10 ms."""
    path = tmp_path / "s" / "r"
    journal = create_run(path, manifest())
    Wire(path, "engine")({"request": "a", "reply": "b"})
    writer = SampleWriter(path / "samples" / "meter.arrows", ["power"])
    writer.append(readings(list(range(0, SECOND, 10_000_000))))
    writer.close()
    journal.append(BenchNs(SECOND), "stop", outcome="done")
    seal_run(path, journal, "done")
    return path


def test_a_seal_that_was_interrupted_keeps_what_it_had_compressed(run: Path) -> None:
    (run / "seal.json").unlink()
    Wire(run, "engine")({"request": "c", "reply": "d"})
    seal_run(run, Journal(run / "journal.jsonl"), "done")
    lines = gzip.decompress((run / "wire" / "engine.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["request"] for line in lines] == ["a", "c"]
    assert bad(run) == set()


def bad(path: Path) -> set[str]:
    return {finding.what for finding in verify(RunDir(path)) if finding.bad}


def test_a_sealed_run_verifies_and_reads_back(run: Path) -> None:
    found = RunDir(run)
    assert bad(run) == set()
    assert found.state == "done"
    assert found.manifest == manifest()
    assert found.manifest.channels == {"meter.power": POWER}
    assert found.samples("meter").num_rows == 100
    assert json.loads(gzip.decompress((run / "wire" / "engine.jsonl.gz").read_bytes())) == {
        "request": "a",
        "reply": "b",
    }
    assert [r.path for r in find_runs(run.parent.parent)] == [run]


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl", "samples/meter.arrows", "wire/engine.jsonl.gz"])
def test_any_flipped_bit_is_found(run: Path, name: str) -> None:
    data = bytearray((run / name).read_bytes())
    for position in range(0, len(data), max(1, len(data) // 7)):
        data[position] ^= 4
        (run / name).write_bytes(data)
        assert "changed" in bad(run)
        data[position] ^= 4


def test_a_missing_file_an_extra_file_and_a_missing_seal_are_found(run: Path) -> None:
    (run / "extra").touch()
    assert bad(run) == {"extra"}
    (run / "samples" / "meter.arrows").unlink()
    assert bad(run) == {"extra", "missing"}
    (run / "seal.json").unlink()
    assert bad(run) == {"unsealed", "damaged"}
    assert RunDir(run).state == "interrupted"


def write_gapped(path: Path, *, tell: bool) -> None:
    journal = create_run(path, manifest())
    writer = SampleWriter(path / "samples" / "meter.arrows", ["power"])
    writer.append(readings([0, 10_000_000, 60_000_000, 70_000_000]))
    writer.close()
    if tell:
        journal.append(BenchNs(1), "gap", instrument="meter", start=10_000_000, stop=60_000_000, missed=4)
    journal.append(BenchNs(1), "stop", outcome="done")
    seal_run(path, journal, "done")


def test_a_gap_that_nobody_told_of_is_bad_and_a_journalled_one_is_not(tmp_path: Path) -> None:
    write_gapped(tmp_path / "silent", tell=False)
    write_gapped(tmp_path / "told", tell=True)
    assert bad(tmp_path / "silent") == {"silent gap"}
    assert bad(tmp_path / "told") == set()
    assert [f.what for f in verify(RunDir(tmp_path / "told"))] == ["gap"]


def test_a_kill_takes_the_records_of_the_last_gaps_only(tmp_path: Path) -> None:
    journal = create_run(tmp_path, manifest())
    for begun in (0, 100, 150, 200):
        journal.append(BenchNs(begun * MS), "step", step=begun, what={})
    writer = SampleWriter(tmp_path / "samples" / "meter.arrows", ["power"])
    writer.append(readings([0, 70 * MS, 80 * MS, 160 * MS, 170 * MS, 210 * MS]))
    writer.close()
    found = verify(RunDir(tmp_path))
    assert [finding.what for finding in found if finding.bad] == ["unsealed", "silent gap"]
    lost = lost_gaps(RunDir(tmp_path))
    assert [(gap["start"] + 10, gap["stop"] + 10) for gap in lost] == [(80 * MS, 160 * MS), (170 * MS, 210 * MS)]
    for gap in lost:
        journal.append(BenchNs(210 * MS), **gap)
    journal.close()
    assert bad(tmp_path) == {"unsealed", "silent gap"}
    assert lost_gaps(RunDir(tmp_path)) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(cut=st.integers(0, 2500), batches=st.integers(1, 5))
def test_a_stream_cut_anywhere_loses_at_most_its_last_batch_and_goes_on(tmp_path: Path, cut: int, batches: int) -> None:
    path = tmp_path / "m.arrows"
    path.unlink(missing_ok=True)
    writer = SampleWriter(path, ["power"])
    sizes = [path.stat().st_size]
    for k in range(batches):
        writer.append(readings([2 * k + 1, 2 * k + 2]))
        writer.flush()
        sizes.append(path.stat().st_size)
    writer.close()
    cut = min(cut, sizes[-1])
    os.truncate(path, cut)
    whole = sum(size <= cut for size in sizes) - 1
    if whole >= 0:
        assert read_samples(path).num_rows == 2 * whole
    again = SampleWriter(path, ["power"])
    assert again.rows == 2 * max(whole, 0)
    assert again.last_ns == (2 * whole if whole > 0 else -1)
    again.append(readings([100]))
    again.close()
    assert read_samples(path)["after_ns"].to_pylist() == [*range(1, 2 * max(whole, 0) + 1), 100]


def test_no_reading_is_null_never_a_number(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path / "m.arrows", ["a", "b"])
    writer.append(Block((1,), (2,), (9,), ((float("nan"),), (3.0,))))
    writer.append(Block((3,), (4,), (10,), ((5.0,), (float("nan"),))))
    writer.close()
    table = read_samples(tmp_path / "m.arrows")
    assert table["a"].to_pylist() == [None, 5.0]
    assert table["b"].to_pylist() == [3.0, None]
    assert table["device_ns"].to_pylist() == [9, 10]


def test_a_torn_journal_line_is_passed_over_and_cut_before_going_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(BenchNs(1), "start")
    journal.close()
    with path.open("a") as file:
        file.write('{"t":2,"ki')
    assert [r["t"] for r in read_journal(path)] == [1]
    journal = Journal(path)
    journal.append(BenchNs(3), "stop")
    journal.close()
    assert [r["t"] for r in read_journal(path)] == [1, 3]


def test_a_damaged_line_within_the_journal_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"t":1,"kind":"start"}\n{garbage}\n{"t":3,"kind":"stop"}\n')
    with pytest.raises(DataInvalid, match="line 2"):
        list(read_journal(path))


def test_a_newer_format_is_refused_by_name(run: Path) -> None:
    path = run / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DataInvalid, match="r has format 2, this joulelab reads up to 1: update joulelab"):
        RunDir(run).manifest  # noqa: B018


def test_a_runs_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose a writable folder with --runs"):
        create_run(tmp_path / "file" / "run", manifest())


def anchor(bench: int, boot: int, wall: int) -> Anchor:
    return Anchor(BenchNs(bench), boot, WallNs(wall), "x")


def test_clock_steps_and_suspends_are_told_apart_from_slewing() -> None:
    minute = 60 * SECOND
    start = anchor(0, 0, 0)
    assert jumps(start, anchor(minute, minute, minute + 20_000_000)) == {}
    assert jumps(start, anchor(minute, minute, minute + SECOND)) == {"wall_step": SECOND}
    assert jumps(start, anchor(minute, minute + SECOND, minute + SECOND)) == {"suspend": SECOND}
    assert jumps(anchor(0, 0, 0), Anchor.read(VirtualClock(5))) == {}


def test_quantities_need_a_unit_of_their_dimension() -> None:
    assert parse_quantity("100 ms", "s") == pytest.approx(0.1)
    assert parse_quantity("1.5Wh", "J") == pytest.approx(5400)
    for wrong in ["100", "100 W", "ms", "1 parsec", ""]:
        with pytest.raises(UserError):
            parse_quantity(wrong, "s")
