"""Designs of experiments, the protocol that plays them, and measuring until it is good enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from joulelab import cli
from joulelab.analysis.modelling.design import Criterion, Part, Problem, choose, space_filling
from joulelab.errors import UserError
from joulelab.protocols.points import Points
from joulelab.protocols.steps import Infer, Signature
from joulelab.recording import find_runs
from joulelab.until import PATIENCE, Batch, End, ended, targets

LAB = """
version: 1
devices:
  puck: {driver: simulated, profile: compute-puck}
protocols:
  sweep: {history: [0, 128], prompt: [16, 48, 72, 130, 250], decode: [1, 16, 40], repeats: 5, idle: 5 s, signature: 0 s}
  ladder: {}
"""
GRID = pd.DataFrame(
    list(product((0, 128), (16, 64, 256), (2, 16))), columns=["history", "prompt", "output"], dtype=float
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    (tmp_path / "lab.yaml").write_text(LAB)
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(end.value.code or 0), said.out, said.err

    return called


def line(x: NDArray[np.float64], seconds: NDArray[np.float64], potential: float = 0.0) -> Problem:
    """A cost of 1 everywhere that a straight line in x explains, and perhaps what a square has beyond it."""
    square = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    rows = np.column_stack([np.ones_like(x), x, potential * square])
    n = len(x)
    part = Part(
        target="time",
        rows=rows,
        terms=2,
        prior=np.array([1e-8, 1e-8, 1.0]),
        share=np.ones(n),
        key=np.arange(n),
        runs=np.zeros(n, np.int64),
        misfit=0.01,
        noise=np.full(n, 0.01),
    )
    candidates = pd.DataFrame({"history": 0.0, "prompt": x, "output": 1.0})
    return Problem(candidates, seconds, 5, (part,), {"time": 2.7})


@pytest.mark.parametrize("criterion", ["I", "D", "G"])
def test_a_line_is_measured_at_its_ends(criterion: Criterion) -> None:
    x = np.linspace(-1, 1, 21)
    assert min(abs(x[choose(line(x, np.ones(21)), 4.0, criterion)])) > 0.85


def test_what_the_form_may_lack_draws_points_to_the_middle() -> None:
    x = np.linspace(-1, 1, 21)
    chosen = choose(line(x, np.ones(21), potential=1.0), 6.0)
    assert min(abs(x[chosen])) < 0.5


def test_a_design_keeps_its_budget_and_narrows_the_intervals() -> None:
    x, rng = np.linspace(-1, 1, 40), np.random.default_rng(1)
    problem = line(x, rng.uniform(0.5, 3, 40), potential=0.5)
    chosen = choose(problem, 12.0)
    assert len(chosen) == len(set(chosen))
    assert problem.seconds[chosen].sum() <= 12.0
    assert (problem.half_widths("time", chosen) < problem.half_widths("time", chosen[:3])).all()
    assert choose(problem, 0.1) == []


def test_the_gain_of_each_addition_is_what_adding_it_gives() -> None:
    problem = line(np.linspace(-1, 1, 9), np.ones(9), potential=0.5)
    for criterion in (problem.mean, problem.determinant, problem.widest):
        _, after = criterion([0, 8])
        assert after == pytest.approx([criterion([0, 8, number])[0] for number in range(9)])


def test_more_of_what_the_form_misses_does_not_average_out() -> None:
    [part] = line(np.linspace(-1, 1, 9), np.ones(9)).parts
    assert part.information(np.full(9, 10**9)) == pytest.approx(np.full(9, 1e4))
    assert part.information(np.full(9, 1)) == pytest.approx(np.full(9, 5e3))


def test_a_space_filling_start_has_the_middle_and_the_corners() -> None:
    chosen = GRID.iloc[space_filling(GRID, 9)]
    assert {16.0, 64.0, 256.0} == set(chosen["prompt"])
    assert len(chosen.drop_duplicates()) == 9
    assert len(space_filling(GRID, 99)) == len(GRID)


def test_points_are_played_as_a_sweep_is_with_the_anchor_in_each_repeat() -> None:
    options = Points.Options(
        configurations=[[0, 8, 2], [64, 8, 2], [0, 16, 1], [0, 8, 2]], anchor=[64, 4, 4], repeats=3
    )
    steps = list(Points(options).steps())
    assert steps == list(Points(options).steps())
    inferences = [step for step in steps if isinstance(step, Infer) and not step.warmup]
    assert len([step for step in steps if isinstance(step, Signature)]) == 2
    for repeat in range(3):
        own = [step for step in inferences if step.repeat == repeat]
        assert sorted((s.history, s.prompt, s.output) for s in own) == [(0, 8, 2), (0, 16, 1), (64, 4, 4), (64, 8, 2)]
        assert np.count_nonzero(np.diff([s.history for s in own])) == 1
    assert len({step.gap_s for step in inferences}) == len(inferences)


@pytest.mark.parametrize("point", [[0, 0, 1], [-1, 8, 1], [0, 8, 0], [0, 8]])
def test_points_are_checked(point: list[int]) -> None:
    with pytest.raises(ValueError, match=r"history|3 items"):
        Points.Options(configurations=[point], anchor=[0, 8, 1])


def test_targets_are_percent_of_time_and_energy() -> None:
    assert targets("2.7%,5.2%") == {"time": 2.7, "energy": 5.2}
    assert targets("3") == {"time": 3.0}
    for wrong in ("", "fast", "0%", "1,2,3", "nan", "-1%"):
        with pytest.raises(UserError, match="--until"):
            targets(wrong)


def batch(number: int, low: float, high: float, floor: float = 0.1, verdict: str = "undecided") -> Batch:
    judged: Any = SimpleNamespace(
        verdict=verdict, ci95_percent=(low, high), noise_floor_ci95_percent=(floor, floor + 1), limit_percent=2.7
    )
    return Batch(number, 40, 60.0, {"time": judged}, None)


def test_it_ends_when_the_target_is_reached_or_cannot_be() -> None:
    limits = {"time": 2.7}
    assert ended([batch(1, 1.0, 4.0)], limits, 5) is None
    assert ended([batch(1, 1.0, 2.0, verdict="pass")], limits, 5) == End(True, ended_why := _why(1))
    assert ended_why.startswith("reached")
    never = ended([batch(1, 6.0, 9.0, floor=5.4)], limits, 5)
    assert never is not None
    assert not never.reached
    assert "20 repeats" in never.why


def _why(number: int) -> str:
    end = ended([batch(number, 1.0, 2.0, verdict="pass")], {"time": 2.7}, 5)
    assert end is not None
    return end.why


def test_it_ends_when_nothing_is_left_to_gain() -> None:
    history = [batch(number, 3.0, 4.0) for number in range(1, PATIENCE + 2)]
    assert ended(history[:-1], {"time": 2.7}, 5) is None
    end = ended(history, {"time": 2.7}, 5)
    assert end is not None
    assert end.why.startswith("nothing left to gain")
    falling = [batch(number, 3.0, 5.0 - number / 2) for number in range(1, PATIENCE + 2)]
    assert ended(falling, {"time": 2.7}, 5) is None


def test_without_a_model_a_design_is_a_space_filling_start(call: Call) -> None:
    code, out, _ = call("plan", "sweep", "--design")
    assert code == 0
    assert "no model yet: a space-filling start" in out
    stanza = yaml.safe_load(out[out.index("protocols:") :])["protocols"]["points"]
    assert len(stanza["configurations"]) == 15


def test_measuring_ends_at_the_target_and_goes_on_where_it_was(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", "sweep", "--until", "2.7%,5.2%", "--json")
    assert code == 0
    assert "batch 1: 16 configurations" in err
    assert "the anchor shifted by" in err
    told = json.loads(out)
    assert told["until"]["puck"]["reached"]
    runs = list(find_runs(tmp_path / "runs"))
    anchors = {tuple(run.manifest.arguments["anchor"]) for run in runs}
    assert len(runs) > 1
    assert len(anchors) == 1
    assert {run.state for run in runs} == {"done"}
    code, _, err = call("run", "sweep", "--until", "2.7%,5.2%", "--resume", runs[0].path.name)
    assert code == 0
    assert "reached" in err
    assert len(list(find_runs(tmp_path / "runs"))) == len(runs)
    _designed(call)


def _designed(call: Call) -> None:
    """A design on top of what was measured: for people a stanza that a lab file takes, for programs JSON."""
    code, out, _ = call("plan", "sweep", "--design", "--budget", "30 s", "--json")
    assert code == 0
    [design] = json.loads(out)
    assert design["seconds"] <= 30
    assert design["half_widths"].keys() == {"time", "energy"}
    assert all(each["after"] <= each["before"] for each in design["half_widths"].values())
    Points.Options.model_validate(design["points_stanza"])
    code, _, err = call("plan", "sweep", "--design", "--budget", "1 ms")
    assert code == 1
    assert "too small for any design" in err


def test_what_has_no_box_and_what_is_no_target_is_told(call: Call) -> None:
    assert call("plan", "ladder", "--design")[::2] == (
        1,
        "joulelab: 'ladder' has no history: a design chooses from the box of a protocol like sweep\n",
    )
    assert "expected the targets" in call("run", "sweep", "--until", "soon")[2]


def test_candidates_that_a_device_cannot_hold_are_left_out(call: Call, tmp_path: Path) -> None:
    small = "{driver: llama-server, model: {random: llama-100m}, context: 100}"
    (tmp_path / "lab.yaml").write_text(
        LAB.replace("{driver: simulated, profile: compute-puck}", f"{{engine: {small}}}")
    )
    code, out, _ = call("plan", "sweep", "--design")
    assert code == 0
    assert "puck holds 100 tokens" in out
    (tmp_path / "lab.yaml").write_text((tmp_path / "lab.yaml").read_text().replace("context: 100", "context: 8"))
    code, _, err = call("plan", "sweep", "--design")
    assert code == 1
    assert "none of the candidates of sweep fits" in err
