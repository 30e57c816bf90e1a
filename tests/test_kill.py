"""A run that is killed at a random moment keeps what it had, says that it was interrupted, and can be finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

from joulelab.bench import ENDED
from joulelab.cli import main
from joulelab.recording import RunDir, find_runs
from joulelab.recording.seal import verify
from joulelab.timebase import SECOND

JOULELAB = str(Path(sys.executable).parent / "joulelab")

needs_llama_cpp = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="llama.cpp is not installed: uv sync --extra host"
)

SIMULATED = """
version: 1
devices:
  phone: {driver: simulated, profile: phone}
protocols:
  sweep: {history: [0, 64], prompt: [8, 32], decode: [1, 8], repeats: 40, idle: 2 s, warmup: 1}
"""

HOST = """
version: 1
instruments:
  here: {driver: cpu-time, interval: 5 ms, feeds: [host]}
devices:
  host:
    engine: {driver: llama-server, model: {random: llama-15m}, context: 256}
protocols:
  sweep: {history: [0, 64], prompt: [8, 32], decode: [1, 8], repeats: 12, idle: 500 ms, warmup: 1, gap: 20 ms,
          signature: 1 s}
"""


def lab(folder: Path, text: str) -> list[str]:
    path = folder / "lab.yaml"
    path.write_text(text)
    return ["--lab", str(path), "--runs", str(folder / "runs")]


def run_and_kill(arguments: Sequence[str], folder: Path, up_to_s: float, *, stall: bool = False) -> RunDir:
    """Kill a run at a random moment of its first `up_to_s` seconds after its manifest was written; with `stall` while
    its sampler stands still, so that nobody is there to be told of the gap.
    """
    process = subprocess.Popen([JOULELAB, "run", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (runs := list(find_runs(folder / "runs"))) and process.poll() is None:
        time.sleep(0.001)
    moment = random.uniform(0, up_to_s)
    time.sleep(moment)
    with stalled(process.pid) if stall else nullcontext():
        process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    print(f"killed after {moment:.4f} s")
    assert runs, said
    return RunDir(runs[0].path)


@contextmanager
def stalled(runner: int) -> Iterator[None]:
    children = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    (sampler,) = (int(pid) for pid in children if b"instruments.sampler" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(sampler, signal.SIGSTOP)
    time.sleep(0.05)
    yield
    os.kill(sampler, signal.SIGCONT)


def check_interrupted(run: RunDir) -> None:
    """It opens, says so, and holds every inference that had ended and all but the last second of samples."""
    assert run.state == "interrupted"
    assert {finding.what for finding in verify(run) if finding.bad} <= {"unsealed", "damaged"}
    ended = {record["step"] for record in run.journal if record["kind"] in ENDED}
    begun = {record["step"] for record in run.records("step")}
    assert len(begun - ended) <= 1
    for instrument in run.manifest.instruments if ended else ():
        samples = run.samples(instrument.name)
        assert samples["after_ns"][-1].as_py() > run.journal[-1]["t"] - SECOND


def check_finished(run: RunDir, inferences: int) -> None:
    assert run.state == "done"
    assert [finding for finding in verify(run) if finding.bad] == []
    measured = [record for record in run.records("inference") if not record["warmup"]]
    assert len(measured) == len({record["step"] for record in measured}) == inferences


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The simulated run as it is when nothing interrupts it."""
    folder = tmp_path_factory.mktemp("whole")
    main_ok(["run", *lab(folder, SIMULATED)])
    return next(find_runs(folder / "runs"))


def main_ok(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0


@pytest.mark.parametrize("attempt", range(4))
def test_a_simulated_run_ends_as_if_nothing_had_happened(tmp_path: Path, whole: RunDir, attempt: int) -> None:
    arguments = lab(tmp_path, SIMULATED)
    run = run_and_kill(arguments, tmp_path, 0.3)
    if run.state == "interrupted":
        check_interrupted(run)
        main_ok(["run", "--resume", "last", *arguments])
    run = RunDir(run.path)
    check_finished(run, 320)
    assert run.records("inference") == whole.records("inference")
    for instrument in run.manifest.instruments:
        assert run.samples(instrument.name).equals(whole.samples(instrument.name))


@needs_llama_cpp
@pytest.mark.parametrize("stall", [False, True])
def test_the_hosts_run_is_finished_from_where_it_was(tmp_path: Path, stall: bool) -> None:
    arguments = lab(tmp_path, HOST)
    run = run_and_kill(arguments, tmp_path, 3.0, stall=stall)
    before = [record for record in run.records("inference") if not record["warmup"]]
    if run.state == "interrupted":
        check_interrupted(run)
        main_ok(["run", "--resume", run.path.name, *arguments])
    run = RunDir(run.path)
    check_finished(run, 96)
    assert [r for r in run.records("inference") if not r["warmup"]][: len(before)] == before


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(40))
def test_many_kills(tmp_path: Path, whole: RunDir, attempt: int) -> None:
    test_a_simulated_run_ends_as_if_nothing_had_happened(tmp_path, whole, attempt)
