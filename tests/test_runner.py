"""The runner retries what is transient, ends what is not, and seals what happened."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from joulelab import bench as benches
from joulelab import console
from joulelab.analysis.phases import reduce
from joulelab.bench import Bench, Plan, record, resume
from joulelab.devices.base import Engine, Inference, Request
from joulelab.errors import InstrumentFault, JoulelabError, RunAborted, UserError
from joulelab.lab import load_lab
from joulelab.protocols.steps import Idle, Infer
from joulelab.protocols.sweep import Sweep
from joulelab.recording import RunDir, find_runs
from joulelab.recording.seal import verify
from joulelab.report.section import restless
from joulelab.timebase import Anchor, MonotonicClock

LAB = """
version: 1
devices:
  phone: {driver: simulated, profile: phone}
protocols:
  sweep: {history: [0, 64], prompt: [8], decode: [1, 8], repeats: 3, idle: 2 s, warmup: 1, signature: 0 s}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "lab.yaml").write_text(LAB)
    return Plan.from_lab(load_lab(tmp_path / "lab.yaml"), "phone", "sweep")


class Faulty:
    """An engine that stumbles at the calls that `fault` names, and else does what `inner` does."""

    def __init__(self, inner: Engine, fault: Callable[[int], Exception | None]) -> None:
        self._inner, self._fault = inner, fault
        self._calls = itertools.count()
        self.open, self.describe, self.close = inner.open, inner.describe, inner.close

    def infer(self, request: Request) -> Inference:
        if fault := self._fault(next(self._calls)):
            raise fault
        return self._inner.infer(request)


@pytest.fixture
def stumble(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Exception | None]], None]:
    make = benches._simulated

    def with_faults(fault: Callable[[int], Exception | None]) -> None:
        def made(plan: Plan) -> Bench:
            bench = make(plan)
            bench.engine = Faulty(bench.engine, fault)
            return bench

        monkeypatch.setattr(benches, "_simulated", made)

    return with_faults


def never() -> bool:
    return False


def run_of(folder: Path) -> RunDir:
    return next(find_runs(folder))


def test_a_transient_fault_is_retried_and_journalled(plan: Plan, tmp_path: Path, stumble: Callable[..., None]) -> None:
    stumble(lambda call: InstrumentFault("hiccup", transient=True) if call == 4 else None)
    run = record(plan, tmp_path / "s", never, lambda _: None)
    (fault,) = run.records("fault")
    assert fault["message"] == "hiccup"
    assert run.state == "done"
    assert len(run.records("inference")) == 13


@pytest.mark.parametrize("transient", [True, False])
def test_a_fault_that_stays_ends_the_run_as_failed(
    plan: Plan, tmp_path: Path, stumble: Callable[..., None], transient: bool
) -> None:
    stumble(lambda call: InstrumentFault("gone", transient=transient) if call >= 4 else None)
    with pytest.raises(InstrumentFault, match="gone"):
        record(plan, tmp_path / "s", never, lambda _: None)
    run = run_of(tmp_path)
    assert run.state == "failed"
    assert len(run.records("inference")) == 4
    assert not [finding for finding in verify(run) if finding.bad]
    with pytest.raises(UserError, match="sealed as failed"):
        resume(run, never, lambda _: None)


def test_the_operator_ends_a_run_as_aborted(plan: Plan, tmp_path: Path) -> None:
    asked = itertools.count()
    with pytest.raises(RunAborted):
        record(plan, tmp_path / "s", lambda: next(asked) > 20, lambda _: None)
    assert run_of(tmp_path).state == "aborted"


def test_a_second_interrupt_does_not_wait_for_the_step(plan: Plan, tmp_path: Path) -> None:
    def interrupt_twice(done: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with console.interruptible() as stop, pytest.raises(RunAborted, match="in the middle of a step"):
        record(plan, tmp_path / "s", stop, interrupt_twice)
    assert run_of(tmp_path).state == "aborted"


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(
    plan: Plan, tmp_path: Path, stumble: Callable[..., None]
) -> None:
    stumble(lambda call: OSError(28, "No space left on device") if call == 6 else None)
    with pytest.raises(JoulelabError, match="cannot be written on: No space left on device"):
        record(plan, tmp_path / "s", never, lambda _: None)
    run = run_of(tmp_path)
    assert run.state == "interrupted"
    assert len(run.records("inference")) == 6


def test_a_resumed_run_has_each_load_and_signature_once(tmp_path: Path, stumble: Callable[..., None]) -> None:
    (tmp_path / "lab.yaml").write_text(LAB.replace("signature: 0 s", "signature: 2 s"))
    plan = Plan.from_lab(load_lab(tmp_path / "lab.yaml"), "phone", "sweep")
    whole = record(plan, tmp_path / "whole" / "s", never, lambda _: None)
    calls = len(whole.records("inference")) + sum(len(r["inferences"]) for r in whole.records("signature"))
    stumble(lambda call: OSError(28, "No space left on device") if call == calls // 2 else None)
    with pytest.raises(JoulelabError, match="cannot be written on"):
        record(plan, tmp_path / "cut" / "s", never, lambda _: None)
    stumble(lambda _call: None)
    run = resume(run_of(tmp_path / "cut"), never, lambda _: None)
    assert run.records("signature") == whole.records("signature")
    assert len(run.records("signature")) == 2


@pytest.mark.parametrize("boot_id", ["before", None])
def test_the_clock_of_a_resumed_run_goes_on_after_a_reboot(plan: Plan, tmp_path: Path, boot_id: str | None) -> None:
    run = record(plan, tmp_path / "s", never, lambda _: None)
    now = Anchor.read(MonotonicClock())
    bench = now.bench + 10**15
    last = {"bench": bench, "boot": 0, "wall": now.wall - 10**12, "boot_id": boot_id or now.boot_id}
    run.journal = [{"t": bench + 5, "kind": "anchor", "anchor": last}]
    run.manifest = replace(run.manifest, simulated=False)
    went_on = MonotonicClock(benches._resumed_offset(run)).now() - bench
    assert went_on == pytest.approx(10**12, abs=10**10) if boot_id else went_on < 0


def test_a_sweep_plays_each_configuration_as_often_as_asked_in_an_order_of_its_own() -> None:
    options = Sweep.Options(
        history=(
            0,
            9,
        ),
        prompt=[3, 4],
        decode=[1, 2],
        repeats=3,
        warmup=2,
        idle=1.0,
        seed=5,
    )
    steps = list(Sweep(options).steps())
    assert steps == list(Sweep(options).steps())
    assert isinstance(steps[0], Idle)
    assert isinstance(steps[-1], Idle)
    measured = [step for step in steps if isinstance(step, Infer) and not step.warmup]
    cells = [(step.history, step.prompt, step.output) for step in measured]
    assert len(set(cells)) == 8
    assert all(cells.count(cell) == 3 for cell in cells)
    assert [{step.repeat for step in measured[k : k + 8]} for k in (0, 8, 16)] == [{0}, {1}, {2}]
    assert cells[:8] != cells[8:16]


def test_a_few_inferences_do_not_tell_whether_the_power_had_settled(plan: Plan, tmp_path: Path) -> None:
    run = record(replace(plan, arguments=plan.arguments | {"repeats": 1}), tmp_path / "s", never, lambda _: None)
    assert restless(reduce(run)) == []


def test_each_inference_waits_until_the_power_has_settled(tmp_path: Path) -> None:
    """Energies of a configuration scatter by what the inference before has left of its power, which six time constants
    of the ramp take away; the report says so.
    """
    scatter, said = {}, {}
    for settle in ("0 ms", "300 ms"):
        (tmp_path / "lab.yaml").write_text(
            "version: 1\n"
            f"devices: {{edge: {{driver: simulated, profile: edge-gpu, settle: {settle}}}}}\n"
            "protocols: {sweep: {prompt: [8, 64], decode: [1, 4], repeats: 20}}\n"
        )
        plan = Plan.from_lab(load_lab(tmp_path / "lab.yaml"), "edge", "sweep")
        assert all(step.gap_s >= plan.settle_s for step in plan.steps() if isinstance(step, Infer))
        phases = reduce(record(plan, tmp_path / settle, never, lambda _: None))
        table, said[settle] = phases.table, restless(phases)
        asked = table[(table["phase"] == "total") & (table["channel"] == "meter.power")].groupby(["prompt", "output"])
        scatter[settle] = (asked["energy_j"].std() / asked["energy_j"].mean()).max()
    assert scatter["300 ms"] < scatter["0 ms"] / 5
    assert said["300 ms"] == []
    assert [note.partition(" of the one before")[0] for note in said["0 ms"] if note.startswith("meter.power")] == [
        "meter.power: inferences that begin within 26.0 ms"
    ]


def test_meters_choose_their_ranges_during_the_warm_up_and_again_when_a_run_is_resumed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stumble: Callable[..., None]
) -> None:
    ordered: list[str] = []
    monkeypatch.setattr("joulelab.instruments.sampling.InlineSampler.range", lambda _self, mode: ordered.append(mode))
    stumble(lambda call: RuntimeError("killed") if call == 5 else None)
    with pytest.raises(RuntimeError):
        record(plan, tmp_path / "s", never, lambda _: None)
    assert ordered == ["auto", "fixed"]
