"""What a protocol will take on a device, judged by the device's last finished run."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.bench import Plan
from joulelab.protocols.steps import Configuration, Idle, Infer, Load, Move, Signature, Step, configuration
from joulelab.recording import RunDir, find_runs
from joulelab.timebase import SECOND


def outlook(plan: Plan, folder: Path) -> dict[str, Any]:
    """Steps and tokens, and from the last finished run of the device what they will take.

    `expected_s` is bench time [s]; `precision_percent` is the standard uncertainty of a configuration's mean time. Both
    are None where the device has no finished run in `folder` yet; steps that all last so long need none.
    """
    steps = plan.steps()
    inferences = [step for step in steps if isinstance(step, Infer)]
    cells = [configuration(vars(step)) for step in inferences]
    batches = sorted({step.batch for step in inferences})
    waiting = sum(_seconds(step) for step in steps)
    row: dict[str, Any] = {
        "device": plan.device + (" (simulated)" if plan.simulated else ""),
        "protocol": plan.protocol,
        "steps": len(steps),
        "inferences": len(inferences),
        "configurations": len(set(cells)),
        **({"batch": batches} if max(batches, default=1) > 1 else {}),
        "prompt_tokens": sum(step.prompt * step.batch for step in inferences),
        "output_tokens": sum(step.output * step.batch for step in inferences),
        "expected_s": None,
        "precision_percent": None,
        "judged_by": "no finished run of it yet",
    }
    if not inferences:
        return row | {"expected_s": round(waiting, 1), "judged_by": "its steps"}
    if last := _last_run(plan.device, folder):
        times = _times(last)
        longest = _longest_moves(last)
        moves = [step.phase for step in steps if isinstance(step, Move)]
        known = sum(longest.get(phase, 0.0) for phase in moves)
        row["expected_s"] = round(waiting + float(_predict(times, cells).sum()) + known, 1)
        row["precision_percent"] = _precision_percent(times, plan.arguments["repeats"])
        unknown = "".join(f", which has no {phase}" for phase in dict.fromkeys(moves) if phase not in longest)
        row["judged_by"] = last.path.name + unknown
    return row


def _longest_moves(run: RunDir) -> dict[str, float]:
    """How long the longest load and transfer of a run took [s]."""
    longest: dict[str, float] = {}
    for phase in (phase for record in run.records("move") for phase in record["phases"]):
        seconds = (phase["stop"] - phase["start"]) / SECOND
        longest[phase["name"]] = max(seconds, longest.get(phase["name"], 0.0))
    return longest


def _seconds(step: Step) -> float:
    """What a step takes by itself, besides single inferences."""
    if isinstance(step, Signature):
        return sum(step.pattern)
    if isinstance(step, Infer | Move):
        return step.gap_s
    return step.seconds if isinstance(step, Idle | Load) else 0.0


def _last_run(device: str, folder: Path) -> RunDir | None:
    """The last finished run of a device that has single inferences."""
    runs = [run for run in find_runs(folder) if run.manifest.device == device and run.state == "done"]
    return next((run for run in reversed(runs) if run.records("inference")), None)


def _times(run: RunDir) -> dict[Configuration, list[float]]:
    """The durations [s] of a run's inferences by configuration."""
    times = defaultdict(list)
    for record in run.records("inference"):
        times[configuration(record)].append((record["phases"][-1]["stop"] - record["phases"][0]["start"]) / SECOND)
    return times


def _predict(times: dict[Configuration, list[float]], cells: list[Configuration]) -> NDArray[np.float64]:
    """Seconds for each of `cells`: good enough to plan by, so linear in all tokens, passes and history x prompt."""
    measured = np.array([np.mean(t) for t in times.values()])
    coefficients, *_ = np.linalg.lstsq(_terms(list(times)) / measured[:, None], np.ones(len(measured)))
    predicted: NDArray[np.float64] = np.maximum(_terms(cells) @ coefficients, 0.0)
    return predicted


def _terms(cells: list[Configuration]) -> NDArray[np.float64]:
    h, p, o, batch = np.array(cells, float).T
    return np.column_stack([np.ones_like(p), batch * p, o, batch * o, batch * h * p])


def _precision_percent(times: dict[Configuration, list[float]], repeats: int) -> float | None:
    spreads = [np.std(t, ddof=1) / np.mean(t) for t in times.values() if len(t) > 1]
    return round(100 * float(np.median(spreads)) / np.sqrt(repeats), 2) if spreads else None
