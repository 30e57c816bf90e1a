"""The batch axis and configurations that cannot run, from the protocol's steps to the models and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from joulelab import bench as benches
from joulelab.analysis.dataset import SCHEMA, SKIPPED, Phases, of_subject
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.efficiency import efficiencies
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.physical import physical
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.phases import reduce
from joulelab.analysis.shapes import label
from joulelab.analysis.space.costs import device_costs
from joulelab.bench import Bench, Plan, record, resume
from joulelab.calibration.activity import timeline
from joulelab.devices.base import Engine, Inference, Request
from joulelab.devices.simulated import Simulated
from joulelab.errors import ConfigurationFault, DataInvalid, InstrumentFault, JoulelabError, UserError
from joulelab.lab import load_lab
from joulelab.planning import outlook
from joulelab.proposal import propose
from joulelab.protocols.points import Points
from joulelab.protocols.steps import Infer, configuration
from joulelab.protocols.sweep import Sweep
from joulelab.quantities import Channel, Scope, SensorModel
from joulelab.recording import RunDir, find_runs
from joulelab.recording.seal import verify
from joulelab.report.html import write_report
from joulelab.report.section import Section, facts
from tests.synthetic import SHAPE, synthetic, untapped

LAB = """
version: 1
devices:
  phone: {driver: simulated, profile: phone}
  host: {engine: {driver: llama-server, model: nowhere.gguf}}
protocols:
  sweep: {prompt: [8, 16, 24, 32], decode: [1, 8, 16], batch: [1, 4], repeats: 2, idle: 2 s, warmup: 1, signature: 0 s}
"""
MEMORY = 100
"""Prompt tokens of all sequences that the engine of these tests holds."""


class Small:
    """An engine that holds `MEMORY` prompt tokens; it may break down at an inference."""

    def __init__(self, inner: Engine, held: int, broken_at: int | None) -> None:
        self._inner, self._held, self._broken_at = inner, held, broken_at
        self.asked: list[int] = []
        self.open, self.describe, self.close = inner.open, inner.describe, inner.close

    def infer(self, request: Request) -> Inference:
        self.asked.append(request.number)
        if request.number == self._broken_at:
            raise OSError(28, "No space left on device")
        if (needed := request.prompt * request.batch) > self._held:
            raise ConfigurationFault(f"{needed} tokens are over {self._held}")
        return self._inner.infer(request)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Small]]:
    """Make the simulated device take batches, so many prompt tokens together; the engines that are made of it."""
    make = benches._simulated
    monkeypatch.setattr(Simulated, "batches", True, raising=False)

    def small(held: int = MEMORY, broken_at: int | None = None) -> list[Small]:
        made: list[Small] = []

        def simulated(plan: Plan) -> Bench:
            bench = make(plan)
            made.append(Small(bench.engine, held, broken_at))
            bench.engine = made[-1]
            return bench

        monkeypatch.setattr(benches, "_simulated", simulated)
        return made

    return small


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, "phone")


def planned(folder: Path, device: str, **arguments: Any) -> Plan:
    (folder / "lab.yaml").write_text(LAB)
    plan = Plan.from_lab(load_lab(folder / "lab.yaml"), device, "sweep")
    return replace(plan, arguments=plan.arguments | arguments)


def play(plan: Plan, session: Path) -> RunDir:
    return record(plan, session, lambda: False, lambda _: None)


def test_batches_are_a_factor_and_follow_each_other_with_one_cache() -> None:
    options = Sweep.Options(history=(0, 9), prompt=[3, 4], decode=[1, 2], batch=(1, 4), repeats=3, warmup=1)
    steps = [step for step in Sweep(options).steps() if isinstance(step, Infer)]
    cells = [configuration(vars(step)) for step in steps[1:]]
    assert configuration(vars(steps[0])) == (9, 4, 2, 4)
    assert {cells.count(cell) for cell in product((0, 9), (3, 4), (1, 2), (1, 4))} == {3}
    caches = [(history, batch) for history, _, _, batch in cells]
    assert sum(one != other for one, other in pairwise(caches[:16])) == 3


def test_points_are_played_in_each_batch() -> None:
    options = Points.Options(configurations=[[0, 8, 2]], anchor=[0, 16, 2], batch=(2, 3), repeats=1)
    cells = [
        configuration(vars(step)) for step in Points(options).steps() if isinstance(step, Infer) and not step.warmup
    ]
    assert sorted(cells) == [(0, 8, 2, 2), (0, 8, 2, 3), (0, 16, 2, 2), (0, 16, 2, 3)]


@pytest.mark.parametrize(("device", "driver"), [("phone", "simulated"), ("host", "llama-server")])
def test_an_engine_of_single_sequences_refuses_a_batch_before_it_is_opened(
    tmp_path: Path, device: str, driver: str
) -> None:
    plan = planned(tmp_path, device)
    said = f"{device}: {driver} runs one sequence at a time, sweep asks for a batch of 4"
    for asked in (lambda: play(plan, tmp_path / "s"), lambda: outlook(plan, tmp_path)):
        with pytest.raises(UserError, match=said):
            asked()
    assert not (tmp_path / "s").exists()


def test_a_plan_shows_batches_and_counts_the_tokens_of_all(plan: Plan, tmp_path: Path, engine: Any) -> None:
    found = outlook(plan, tmp_path)
    assert (found["batch"], found["configurations"]) == ([1, 4], 24)
    single = outlook(planned(tmp_path, "phone", batch=[1]), tmp_path)
    assert "batch" not in single
    assert found["prompt_tokens"] - 4 * 32 == 5 * (single["prompt_tokens"] - 32)
    engine()
    play(plan, tmp_path / "s")
    assert outlook(plan, tmp_path)["expected_s"] > 0


def test_a_design_is_of_the_one_batch_of_its_plan(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a design is of one batch: sweep has 1, 4"):
        propose(plan, None, None)
    four = planned(tmp_path, "phone", batch=[4])
    assert propose(four, None, None).arguments(four)["batch"] == [4]


def test_a_design_does_not_learn_from_another_batch(tmp_path: Path, engine: Any) -> None:
    engine()
    phases = reduce(play(planned(tmp_path, "phone", batch=[1], repeats=5), tmp_path / "s"))
    same, other = (propose(planned(tmp_path, "phone", batch=[batch]), phases, None).because for batch in (1, 4))
    assert same[0].startswith("time: ")
    assert "nothing was measured at batch 4" in other[0]


@pytest.fixture
def run(plan: Plan, tmp_path: Path, engine: Any) -> RunDir:
    """A run in which batches of 32 tokens a sequence could not run."""
    engine()
    return play(plan, tmp_path / "s")


def test_each_batch_is_a_subject_of_its_own(run: RunDir) -> None:
    phases = reduce(run)
    assert {record["batch"] for record in run.records("inference")} == {1, 4}
    assert set(phases.table["batch"]) == {1, 4}
    models = fit(phases)
    assert {model.device for model in models} == {"phone/batch 1", "phone/batch 4"}
    assert set(of_subject(phases.table, models[0].subject)["batch"]) == {1}
    assert {label[3] for label in timeline(run.journal).labels if label[0] == "prefill"} == {1, 4}
    assert [costs.device for costs in device_costs(models)] == ["phone"]


def test_a_batch_does_the_arithmetic_of_all_and_reads_the_weights_once() -> None:
    one, four = ({found.what: found.rate for found in efficiencies(timed(batch))} for batch in (1, 4))
    assert {what: rate / one[what] for what, rate in four.items()} == pytest.approx(
        {"matrix arithmetic": 4, "attention arithmetic": 4, "reading the weights": 1, "reading the cache": 4}
    )


def timed(batch: int) -> Model:
    model = fit(synthetic(batch=batch))[0]
    return replace(model, shape=SHAPE)


def test_records_without_a_batch_have_the_engine_s(run: RunDir) -> None:
    journal = run.path / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "skipped" and line.get("batch", 1) == 1]
    journal.write_text("".join(json.dumps(line) + "\n" for line in kept))
    new = reduce(RunDir(run.path)).table
    old = [{name: x for name, x in line.items() if name != "batch"} for line in kept]
    journal.write_text("".join(json.dumps(line) + "\n" for line in old))
    pd.testing.assert_frame_equal(reduce(RunDir(run.path)).table, new)
    assert set(new["batch"]) == {1}


def test_what_cannot_run_is_skipped_and_the_rest_goes_on(run: RunDir) -> None:
    skipped, faults = run.records("skipped"), run.records("fault")
    assert run.state == "done"
    assert not [finding for finding in verify(run) if finding.bad]
    assert {(r["prompt"], r["batch"]) for r in skipped} == {(32, 4)}
    assert len(skipped) == 3 * 2 + 1
    assert [fault["message"] for fault in faults] == ["128 tokens are over 100"] * 3
    assert len(run.records("inference")) == 24 * 2 - 6
    assert "6 skipped, which cannot run" in facts(Section(reduce(run), (), (), run))["Inferences"]


def test_what_cannot_run_has_rows_without_time_and_energy(run: RunDir) -> None:
    phases = reduce(run)
    rows = phases.table[phases.table["status"].str.startswith(SKIPPED)]
    assert set(rows["status"]) == {SKIPPED + "128 tokens are over 100"}
    assert rows[["duration_s", "energy_j", "start_ns"]].isna().all(axis=None)
    channels = len(run.manifest.power)
    assert rows["phase"].value_counts().to_dict() == {
        "prefill": 6 * channels,
        "decode": 4 * channels,
        "total": 6 * channels,
    }
    assert phases.budget is not None
    assert len(phases.budget) == len(phases.table)


def test_verdicts_list_what_cannot_run_and_do_not_hold_it_against_a_model(run: RunDir, tmp_path: Path) -> None:
    phases = untapped(reduce(run))
    phases = replace(phases, table=phases.table.drop_duplicates(["inference", "phase"]), budget=None, shared=None)
    verdicts = [verdict for verdict in validate(phases) if verdict.device == "phone/batch 4"]
    assert {row["cause"] for verdict in verdicts for row in verdict.dropped} == {SKIPPED + "128 tokens are over 100"}
    assert not any("dropped" in str(verdict.reason) for verdict in verdicts)
    page = write_report(tmp_path / "report.html", [Section(reduce(run), (), verdicts, run)]).read_text()
    assert "skipped: 128 tokens are over 100" in page


def test_a_resumed_run_knows_what_cannot_run(plan: Plan, tmp_path: Path, engine: Any) -> None:
    engine(broken_at=40)
    with pytest.raises(JoulelabError, match="cannot be written on"):
        play(plan, tmp_path / "s")
    cut = next(find_runs(tmp_path))
    known = {configuration(record) for record in cut.records("skipped")}
    (resumed,) = (engine(),)
    run = resume(cut, lambda: False, lambda _: None)
    assert run.state == "done"
    steps = [record["step"] for kind in ("inference", "skipped") for record in run.records(kind)]
    assert len(steps) == len(set(steps)) == 49
    tried = [fault["message"] for fault in run.records("fault") if "over" in fault["message"]]
    assert len(tried) == len(known | {configuration(record) for record in run.records("skipped")}) == 3
    assert len(resumed[0].asked) == 49 - 7


def test_a_run_of_which_nothing_can_run_fails_with_the_reason(plan: Plan, tmp_path: Path, engine: Any) -> None:
    engine(held=4)
    with pytest.raises(InstrumentFault, match="tokens are over 4"):
        play(plan, tmp_path / "s")
    run = next(find_runs(tmp_path))
    assert run.state == "failed"
    assert len(run.records("skipped")) == 49
    phases = reduce(run)
    with pytest.raises(DataInvalid, match="every row was dropped, most of them as skipped: "):
        next(cases(phases, 5.0)).check("total")
    assert write_report(tmp_path / "report.html", [Section(phases, fit(phases), validate(phases), run)]).exists()


E_FLOP, E_BYTE, P_STATIC, IDLE = 6e-13, 4e-11, 60.0, 70.0
FLOPS, BANDWIDTH, LAUNCH = 4e14, 2.5e12, 8e-3


def made_up(*batches: int) -> Phases:
    """A GPU that hides arithmetic behind reading, or the other way round, and takes its time for launches."""
    rng = np.random.default_rng(0)
    asked = pd.DataFrame(
        list(product((0, 512), (16, 64, 256, 512), (1, 16, 64))) * 3, columns=["history", "prompt", "output"]
    )
    asked["inference"] = range(len(asked))
    frames = []
    h, p, o = (asked[name].to_numpy(float) for name in ("history", "prompt", "output"))
    for batch in batches:
        costs = {}
        for phase in ("prefill", "decode"):
            flops, read = SHAPE.flops(phase, h, p, o, batch), SHAPE.bytes(phase, h, p, o, batch)
            launches = 1.0 if phase == "prefill" else o - 1
            seconds = np.maximum(flops / FLOPS, read / BANDWIDTH) + LAUNCH * launches
            joules = E_FLOP * flops + E_BYTE * read + (IDLE + P_STATIC) * seconds
            costs[phase] = np.stack([seconds, joules]) * (1 + 0.002 * rng.standard_normal((2, len(asked))))
        costs["total"] = costs["prefill"] + costs["decode"]
        frames += [
            asked.assign(phase=phase, duration_s=s, energy_j=j, batch=batch)[s > 0] for phase, (s, j) in costs.items()
        ]
    about: dict[str, Any] = {"session": "s", "run": "r", "device": "box", "model": "small", "gain_u_rel": 0.0}
    about |= {"origin": "measured", "channel": "m.power", "status": "ok"}
    idle = pd.DataFrame([{"run": "r", "channel": "m.power", "idle_w": IDLE, "idle_u_w": 0.01, "steps": 2}])
    channels = {"m.power": Channel("m.power", "W", scope=Scope.INPUT, sensor=SensorModel(period_s=1e-4))}
    table = pd.concat(frames, ignore_index=True).assign(**about).reindex(columns=SCHEMA.names)
    return Phases(table, channels, idle=idle, shapes={label("small", None): SHAPE})


def test_batches_of_one_device_tell_arithmetic_bytes_and_time_apart() -> None:
    phases = made_up(1, 16, 64)
    (found,) = physical([(phases, fit(phases))])
    assert found.subjects == ("box/batch 1", "box/batch 16", "box/batch 64")
    assert found.refused is None
    for c, true in zip(found.coefficients, (E_FLOP, E_BYTE, P_STATIC), strict=True):
        assert c.low <= true <= c.high
        assert c.value == pytest.approx(true, rel=0.1)


def test_one_batch_alone_does_not_tell_them_apart() -> None:
    phases = made_up(1)
    (found,) = physical([(phases, fit(phases))])
    assert "or the batch" in str(found.refused)
