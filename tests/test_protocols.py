"""The protocols' steps, the patterns that they play, and what playing them leaves in the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.bench import Plan, record
from joulelab.planning import outlook
from joulelab.protocols.ladder import RATIOS, Ladder
from joulelab.protocols.patterns import BIT_S, pseudo_random, square
from joulelab.protocols.signature import SignatureOnly
from joulelab.protocols.steady import Steady
from joulelab.protocols.steps import Idle, Infer, Load, Signature
from joulelab.protocols.sweep import Sweep
from joulelab.recording import RunDir
from joulelab.registry import PROTOCOLS, load_driver
from joulelab.timebase import SECOND


def plan(protocol: str, **options: Any) -> Plan:
    arguments = load_driver(PROTOCOLS, protocol).Options(**options).model_dump(mode="json")
    device = {"profile": "edge-gpu"}
    stanza = {"group": "joulelab.devices", "driver": "simulated", "options": device, "power": None, "connect": None}
    return Plan("edge-gpu", stanza, {}, protocol, arguments)


def play(folder: Path, protocol: str, **options: Any) -> RunDir:
    return record(plan(protocol, **options), folder, lambda: False, lambda _: None)


def test_a_pseudo_random_pattern_looks_like_none_of_its_own_shifts() -> None:
    bits = np.repeat(*_runs(pseudo_random(1.0, 511)))
    assert len(bits) == 511
    assert bits.sum() == 256
    signs = 2 * bits - 1
    assert {int(signs @ np.roll(signs, shift)) for shift in range(1, 511)} == {-1}


def _runs(pattern: tuple[float, ...]) -> tuple[Any, Any]:
    return (1 - np.arange(len(pattern)) % 2), np.rint(pattern).astype(int)


@given(st.floats(0.01, 2), st.floats(0.01, 60))
def test_a_pattern_is_as_long_as_asked_to_a_bit(bit: float, seconds: float) -> None:
    assert sum(pseudo_random(bit, seconds)) == pytest.approx(max(round(seconds / bit), 1) * bit)


def test_bits_are_no_multiple_of_the_periods_that_meters_have() -> None:
    assert all(round(BIT_S * 1e4) % round(period * 1e4) for period in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0))


def test_square_waves_have_whole_periods_and_their_duty() -> None:
    assert list(square(0.2, 0.25, 1.0)) == pytest.approx([0.05, 0.15] * 5)
    assert square(0.2, 1.0, 3.0) == (3.0,)


def test_a_ladder_has_each_level_and_a_square_wave_at_each_ratio() -> None:
    options = Ladder.Options(levels=[0.5, 1.0], cycle=0.2, hold=4.0, period=0.1, square=2.0)
    steps = list(Ladder(options).steps())
    assert steps == list(Ladder(options).steps())
    played = [step.pattern for step in steps if isinstance(step, Signature)]
    assert {sum(pattern[:1]) / sum(pattern[:2]) for pattern in played[:2]} == {0.5, 1.0}
    assert [sum(pattern[:2]) for pattern in played[2:]] == pytest.approx([0.1 * ratio for ratio in RATIOS])
    assert isinstance(steps[-1], Idle)


def test_steady_holds_prefills_alone_and_whole_inferences_with_rests_around() -> None:
    steps = list(Steady(Steady.Options(history=[0, 9], prompt=[8], decode=[4, 16], repeats=3)).steps())
    loads = [(k, step) for k, step in enumerate(steps) if isinstance(step, Load)][1:]
    sizes = {(load.history, load.prompt, load.output) for _, load in loads}
    assert sizes == {(history, 8, output) for history in (0, 9) for output in (1, 4, 16)}
    assert len(loads) == 18
    assert all(isinstance(steps[k + side], Idle) for k, _ in loads for side in (-1, 1))


def test_a_sweep_plays_a_signature_before_and_after() -> None:
    sweep: dict[str, Any] = {"prompt": [8], "decode": [2], "repeats": 2}
    kinds = [type(step) for step in Sweep(Sweep.Options(**sweep)).steps() if isinstance(step, Infer | Signature)]
    assert kinds[3] is kinds[-1] is Signature
    assert kinds.count(Signature) == 2
    assert not [step for step in Sweep(Sweep.Options(**sweep, signature=0)).steps() if isinstance(step, Signature)]


def test_loads_and_signatures_journal_what_was_really_played(tmp_path: Path) -> None:
    run = play(tmp_path, "signature", seconds=4.0, bit=0.2, warmup=1.0, idle=1.0, prompt=64, output=3)
    [load], [signature] = run.records("load"), run.records("signature")
    assert load["inferences"][0][0] == load["start"]
    assert load["inferences"][-1][2] == load["stop"] >= load["start"] + SECOND
    played = np.array(signature["inferences"])
    assert (np.diff(played, axis=1) > 0).all()
    assert (played[1:, 0] >= played[:-1, 2]).all()
    edges = signature["start"] + np.cumsum([0.0, *pseudo_random(0.2, 4.0)]) * SECOND
    part = np.searchsorted(edges, played[:, 0], "right") - 1
    assert set(part) == set(range(0, len(edges) - 1, 2))
    late = played[:, 0] - edges[part]
    assert [late[part == k].min() for k in set(part)] == pytest.approx([0.0] * len(set(part)), abs=2)


@pytest.mark.parametrize("protocol", ["signature", "ladder", "steady", "wiring"])
def test_a_protocol_without_single_inferences_is_planned(tmp_path: Path, protocol: str) -> None:
    found = outlook(plan(protocol), tmp_path)
    steps = list(load_driver(PROTOCOLS, protocol)(load_driver(PROTOCOLS, protocol).Options()).steps())
    assert found["steps"] == len(steps)
    assert found["inferences"] == 0
    assert found["expected_s"] == pytest.approx(sum(_seconds(step) for step in steps), abs=0.1)


def _seconds(step: Any) -> float:
    return sum(step.pattern) if isinstance(step, Signature) else getattr(step, "seconds", 0.0)


def test_each_protocol_can_be_asked_for_without_options() -> None:
    assert list(SignatureOnly(SignatureOnly.Options()).steps())
    assert list(Ladder(Ladder.Options()).steps())
    assert list(Steady(Steady.Options()).steps())
