"""Recordings of cards and other devices are replayed to 1e-9; and the command that makes them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.gpu import archive, recording
from benchmarks.gpu.archive import ABOUT, AS_RECORDED, CERTIFICATES, unpack
from benchmarks.gpu.limit import Ended, limited
from benchmarks.gpu.replay import results, runs_of
from joulelab.calibration.certificate import Store
from joulelab.errors import DataInvalid, RunAborted
from joulelab.recording.seal import sha256, verify

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*/recording.tar.xz"))
PHONE = "{driver: simulated, profile: phone}"
NO_MODEL = "{engine: {driver: llama-server, model: nowhere.gguf}}"
SWEEP = "sweep: {prompt: [16, 64, 120, 136], decode: [1, 16], repeats: 2}"
LADDER = "ladder: {levels: [1.0], hold: 2 s, warmup: 2 s, square: 1 s}"


def lab_of(folder: Path, devices: dict[str, str], *protocols: str) -> Path:
    path = folder / "lab.yaml"
    lines = ["version: 1", "devices:", *(f"  {name}: {stanza}" for name, stanza in devices.items())]
    path.write_text("\n".join([*lines, "protocols:", *(f"  {protocol}" for protocol in protocols)]))
    return path


def within(name: str, expected: float | str | None) -> Any:
    """What a value has to be equal to; a sensor's times, some of which are small differences, to the nanosecond."""
    if not isinstance(expected, int | float):
        return expected
    return pytest.approx(expected, rel=1e-9, abs=1e-9 if name.startswith("sensor ") else 0.0)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.parent.name)
def test_a_recording_gives_the_same_again(path: Path, tmp_path: Path) -> None:
    folder = unpack(path, tmp_path)
    assert [finding for run in runs_of(folder) for finding in verify(run) if finding.bad] == []
    expected, found = json.loads(path.with_name(recording.EXPECTED).read_text()), results(folder)
    assert found.keys() == expected.keys()
    assert {name: value for name, value in found.items() if value != within(name, expected[name])} == {}


class Made(NamedTuple):
    path: Path
    said: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The archive of a simulated device, and what was said while it was made."""
    folder = tmp_path_factory.mktemp("made")
    lab = lab_of(folder, {"phone": PHONE}, LADDER, SWEEP)
    with redirect_stderr(StringIO()) as said:
        recording.main([str(folder / "out"), "--lab", str(lab)])
    (path,) = (folder / "out").glob("*.tar.xz")
    return Made(path, said.getvalue())


def test_one_command_calibrates_measures_and_packs(made: Made, tmp_path: Path) -> None:
    folder = unpack(made.path, tmp_path)
    about = json.loads((folder / ABOUT).read_text())
    assert f"{about['name']}.tar.xz" == made.path.name
    assert (about["card"], about["power"]) == ("none", {"meter.power": "input", "gauge.battery": "battery"})
    assert [run["state"] for run in about["runs"]] == ["done", "done"]
    ladder, sweep = runs_of(folder)
    certificates = list(Store(folder / CERTIFICATES))
    assert certificates
    assert {c.run_sha256 for c in certificates} == {sha256(ladder.path / AS_RECORDED)}
    assert set(sweep.manifest.certificates.values()) == {c.hash for c in certificates}
    assert "phone: 25 of 25 steps" in made.said
    assert not (sweep.path / "wire").exists()


def test_what_the_replay_gives_is_written_beside_the_recording(made: Made, tmp_path: Path) -> None:
    (tmp_path / recording.ARCHIVE).write_bytes(made.path.read_bytes())
    recording.main(["expect", str(tmp_path)])
    expected = json.loads((tmp_path / recording.EXPECTED).read_text())
    (first, *_) = Store(unpack(made.path, tmp_path) / CERTIFICATES)
    assert expected[f"sensor {first.channel} delay_s"] == pytest.approx(first.result["delay_s"], rel=1e-9)
    assert expected["phone time decode verdict verdict"] == "undecided"
    assert len(expected["phone time decode t_pass 0"].hex()) > 8


def test_what_goes_wrong_with_one_device_does_not_keep_the_others_from_being_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = lab_of(tmp_path, {"here": NO_MODEL, "phone": PHONE}, SWEEP)
    recording.main([str(tmp_path), "--lab", str(lab)])
    said = capsys.readouterr()
    assert "here: there is no model file" in said.err
    (path,) = tmp_path.glob("*.tar.xz")
    assert said.out == f"{path}: {path.stat().st_size / 1e6:.2f} MB\n"
    folder = unpack(path, tmp_path)
    assert [run.manifest.device for run in runs_of(folder)] == ["phone"]
    assert "no calibration: the lab sets up no ladder" in json.loads((folder / ABOUT).read_text())["notes"]


def test_a_bug_in_one_part_does_not_keep_the_others_from_being_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("joulelab.calibrate.compute", lambda *_: [].pop())
    recording.main([str(tmp_path), "--lab", str(lab_of(tmp_path, {"phone": PHONE}, LADDER, SWEEP))])
    assert "calibration: IndexError('pop from empty list')" in capsys.readouterr().err
    (path,) = tmp_path.glob("*.tar.xz")
    assert [run.manifest.protocol for run in runs_of(unpack(path, tmp_path))] == ["ladder", "sweep"]


def test_without_a_meter_there_is_nothing_to_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        recording.main([str(tmp_path), "--lab", str(lab_of(tmp_path, {"here": NO_MODEL}, LADDER, SWEEP))])
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("recording: nothing was recorded: calibration: no meter feeds here: there is nothing to ")


def test_a_recording_that_is_too_large_is_refused_with_what_is_large(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 10_000)
    with pytest.raises(SystemExit):
        recording.main([str(tmp_path), "--lab", str(lab_of(tmp_path, {"phone": PHONE}, SWEEP))])
    assert "samples/meter.arrows" in capsys.readouterr().err.splitlines()[-1]
    assert len(list(tmp_path.glob("runs/*/*/seal.json"))) == 1
    assert not list(tmp_path.glob("*.tar.xz"))


def test_a_run_that_was_cut_off_is_packed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "PACKING_S", recording.MOST_S)
    recording.main([str(tmp_path), "--lab", str(lab_of(tmp_path, {"phone": PHONE}, SWEEP))])
    assert "phone: its time was up; what it has is kept" in capsys.readouterr().err
    (path,) = tmp_path.glob("*.tar.xz")
    (run,) = runs_of(unpack(path, tmp_path))
    assert (run.state, [finding for finding in verify(run) if finding.bad]) == ("aborted", [])


def test_a_signal_ends_the_recording_in_the_middle_of_a_step() -> None:
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Ended, match="SIGTERM"), limited(60.0):
        time.sleep(10)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_overstays_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.limit.GRACE_S", 0.05)
    with pytest.raises(RunAborted, match="in the middle of a step"), limited(0.0):
        time.sleep(10)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.xz").write_bytes(b"no archive")
    with pytest.raises(DataInvalid, match="is no recording"):
        unpack(tmp_path / "x.tar.xz", tmp_path)
