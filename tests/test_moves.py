"""Loads and transfers: llama.cpp's own, from the step to the model; and models of made-up ones."""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.modelling.efficiency import efficiencies
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.phases import reduce
from joulelab.bench import Plan, record
from joulelab.cli import main
from joulelab.devices.base import Request
from joulelab.devices.llama_server import LlamaServer
from joulelab.devices.page_cache import evict
from joulelab.errors import ConfigurationFault, UserError
from joulelab.lab import load_lab
from joulelab.planning import outlook
from joulelab.protocols.steps import Move
from joulelab.protocols.sweep import Sweep
from joulelab.recording import RunDir
from joulelab.recording.seal import verify
from joulelab.timebase import MonotonicClock
from tests.synthetic import METER, synthetic

LAB = """
version: 1
instruments:
  cpu: {driver: cpu-time, interval: 5 ms, feeds: [box]}
devices:
  box: {engine: {driver: llama-server, model: {random: llama-15m}, threads: 1, context: 1100}}
  phone: {driver: simulated, profile: phone}
protocols:
  sweep:
    {history: [64], prompt: [8, 16, 24, 32], decode: [1, 4, 8], repeats: 3, idle: 0.2 s, warmup: 1, gap: 5 ms,
     signature: 0 s, transfer: [64, 256, 512, 1024], load: true}
"""
HISTORIES = (64, 256, 512, 1024)
needs_llama = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp is not installed")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("moves")
    (folder / "lab.yaml").write_text(LAB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def planned(lab: Path, device: str) -> Plan:
    return Plan.from_lab(load_lab(lab / "lab.yaml"), device, "sweep")


@pytest.fixture(scope="module")
def run(lab: Path) -> RunDir:
    return record(planned(lab, "box"), lab / "runs" / "session", lambda: False, lambda _: None)


@pytest.fixture
def engine(lab: Path) -> Iterator[LlamaServer]:
    options = {"model": {"random": "llama-15m"}, "context": 600}
    with closing(LlamaServer("box", LlamaServer.Options.model_validate(options), MonotonicClock())) as engine:
        engine.open()
        yield engine


def test_moves_come_last_in_a_fresh_order_each_time() -> None:
    options = Sweep.Options(prompt=[3], decode=[2], repeats=3, transfer=(10, 20, 30, 40), load=True)
    *others, last = Sweep(options).steps()
    moves = [step for step in others if isinstance(step, Move)]
    assert others[-len(moves) :] == moves
    assert last.kind == "idle"
    assert [(step.phase, step.history) for step in moves[12:]] == [("load", 0)] * 3
    rounds = [[step.history for step in moves[k : k + 4]] for k in (0, 4, 8)]
    assert all(sorted(each) == [10, 20, 30, 40] for each in rounds)
    assert len(set(map(tuple, rounds))) > 1
    assert not [step for step in Sweep(Sweep.Options(prompt=[3], decode=[2])).steps() if isinstance(step, Move)]


def test_an_engine_that_cannot_move_refuses_before_it_is_opened(lab: Path) -> None:
    with pytest.raises(UserError, match=r"^phone: simulated cannot time a load, which sweep asks for$"):
        planned(lab, "phone").steps()


@needs_llama
def test_a_transfer_moves_just_the_history(engine: LlamaServer) -> None:
    per_token = engine.describe()["architecture"]["kv_bytes_per_token"]
    for number, history in enumerate((64, 512, 64)):
        moved = engine.move("transfer", Request(number, history, 0, 0, seed=1))
        [phase] = moved.phases
        assert phase.name == "transfer"
        assert phase.start < phase.stop
        assert moved.extra["bytes"] == pytest.approx(history * per_token, rel=0.01)
    # What came back is the cache that it was: the history need not be computed again.
    assert engine.infer(Request(9, 64, 8, 2, seed=1)).extra["timings"]["cache_n"] == 64


@needs_llama
def test_a_transfer_over_the_context_is_refused(engine: LlamaServer) -> None:
    with pytest.raises(UserError, match=r"^box: an inference of 1300 tokens is over the context of \d+$"):
        engine.move("transfer", Request(1, 1300, 0, 0, seed=1))


@needs_llama
def test_a_load_is_of_a_new_process(engine: LlamaServer) -> None:
    before = engine.describe()["pid"]
    loaded = engine.move("load", Request(1, 0, 0, 0, seed=1))
    [phase] = loaded.phases
    assert phase.name == "load"
    assert phase.cpu_s is not None
    assert phase.cpu_s > 0
    assert loaded.extra["bytes"] > engine.describe()["architecture"]["weight_bytes"]
    assert engine.describe()["pid"] != before
    assert len(engine.infer(Request(2, 16, 8, 2, seed=1)).tokens) == 2


@needs_llama
def test_a_server_that_is_not_ours_is_not_moved(engine: LlamaServer) -> None:
    assert engine._child is not None
    options = LlamaServer.Options.model_validate({"url": engine._child.url, "model": "nowhere.gguf"})
    with closing(LlamaServer("other", options, MonotonicClock())) as other:
        other.open()
        for phase in LlamaServer.moves:
            with pytest.raises(
                ConfigurationFault, match=rf"^other: http.* is not ours: no {phase} of it can be timed$"
            ):
                other.move(phase, Request(1, 16, 0, 0, seed=1))


def test_evicted_pages_are_gone_and_the_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 4096)
    before = resident(path)
    evict([path])
    assert resident(path) == 0 or before == resident(path), "a file system in memory has nothing to drop"
    assert path.read_bytes() == bytes(range(256)) * 4096


def resident(path: Path) -> int:
    """How many pages of a file are in memory, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = ctypes.create_string_buffer(-(-len(mapped) // mmap.PAGESIZE))
        start = ctypes.addressof(held := ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), pages) == 0
        del held
        return sum(page & 1 for page in pages.raw)


@needs_llama
def test_moves_are_rows_of_one_phase_with_energies(run: RunDir) -> None:
    assert not [finding for finding in verify(run) if finding.bad]
    phases = reduce(run)
    rows = dict(iter(phases.table.groupby("phase")))
    assert sorted(rows["transfer"]["history"]) == sorted([*HISTORIES] * 3)
    assert (rows["transfer"]["prompt"] == 0).all()
    assert len(rows["load"]) == 3
    assert ((rows["load"]["energy_j"] > 0) == (rows["load"]["status"] == "ok")).all()
    assert len(rows["total"]) == 36
    assert phases.table["inference"].nunique() == 36 + 12 + 3


@needs_llama
def test_a_run_with_moves_has_their_models(run: RunDir, lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = next(model for model in fit(reduce(run)) if model.target == "time")
    assert {"prefill", "decode", "load", "transfer"} <= {part.phase for part in time.phases}
    assert Model.from_json(json.loads(json.dumps(time.to_json()))) == time
    assert time.predict(1024, 0, 0, "transfer") > time.predict(64, 0, 0, "transfer")
    assert {"moving the cache, out and in", "loading the weights"} <= {row.what for row in efficiencies(time)}
    assert time.outside(0, 16, 4).refusal is None
    assert [verdict.phase for verdict in validate(reduce(run)) if verdict.target == "time"][-1] == "transfer"
    with pytest.raises(SystemExit) as end:
        main(["report", str(run.path)])
    assert end.value.code == 0
    assert "cache of 1024" in (run.path.parent / "report.html").read_text()
    capsys.readouterr()


@needs_llama
def test_a_plan_counts_moves_that_it_knows(run: RunDir, lab: Path) -> None:
    plan = planned(lab, "box")
    told = outlook(plan, lab / "runs")
    assert told["judged_by"] == run.path.name
    loads = [record["phases"][0] for record in run.records("move") if record["phase"] == "load"]
    assert told["expected_s"] > 3 * max(phase["stop"] - phase["start"] for phase in loads) / 1e9
    assert told["inferences"] == 37


def made_up(repeats: int, noise: float = 0.0) -> Phases:
    """The synthetic device's inferences, with transfers of 4 ms and 20 us a token at 5 W, and loads of 2 s and 9 J."""
    rng = np.random.default_rng(3)
    inferences = synthetic(noise)
    rows = [("transfer", h, 4e-3 + 2e-5 * h, 5 * (4e-3 + 2e-5 * h)) for h in (0, *HISTORIES, 4096)][1:]
    rows += [("load", 0, 2.0, 9.0)]
    moves = pd.DataFrame(
        [(*row, repeat) for row, repeat in product(rows, range(repeats))],
        columns=["phase", "history", "duration_s", "energy_j", "repeat"],
    )
    moves[["duration_s", "energy_j"]] *= 1 + noise * rng.standard_normal((len(moves), 1))
    same: dict[str, Any] = {"session": "s", "run": "r", "device": "d", "origin": "measured", "status": "ok"}
    same |= {"channel": "meter.power", "gain_u_rel": 0.01, "prompt": 0, "output": 0}
    moves = moves.assign(inference=1000 + np.arange(len(moves)), **same)
    table = pd.concat([inferences.table, moves.reindex(columns=SCHEMA.names)], ignore_index=True)
    return Phases(table, {"meter.power": METER}, idle=inferences.idle)


@pytest.mark.parametrize(("repeats", "noise", "rel"), [(5, 0.01, 0.05), (3, 0.0, 1e-6)])
def test_models_find_what_moves_cost(repeats: int, noise: float, rel: float) -> None:
    time, energy = fit(made_up(repeats, noise))
    assert time.predict(2000, 0, 0, "transfer") == pytest.approx(4e-3 + 2e-5 * 2000, rel=rel)
    assert time.predict(0, 0, 0, "load") == pytest.approx(2.0, rel=rel)
    assert energy.predict(2000, 0, 0, "transfer") == pytest.approx(5 * (4e-3 + 2e-5 * 2000), rel=rel)
    assert energy.predict(0, 0, 0, "load") == pytest.approx(9.0, rel=rel)
    assert [model.refused for model in (time, energy)] == [{}, {}]
    assert time.predict(0, 64, 16) == pytest.approx(fit(synthetic(noise))[0].predict(0, 64, 16))


def test_a_load_s_interval_is_that_of_one_more_load() -> None:
    time, _ = fit(made_up(5, 0.05))
    [low, high] = (2.0 + sign * time.half_width(0, 0, 0, "load") for sign in (-1, 1))
    assert low < 2.0 < high
    assert 0.05 < (high - low) / 2.0 < 0.6


def test_two_loads_are_too_few_and_say_so() -> None:
    time, _ = fit(made_up(2))
    assert time.refused == {"load": "2 configurations cannot support 1 coefficients: 3 are needed"}
