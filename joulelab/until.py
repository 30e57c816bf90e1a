"""Measure until it is good enough: batches of a design in one session, each fitted and judged before the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from joulelab.analysis.dataset import Phases, merge
from joulelab.analysis.modelling.validation import NO_METER, Verdict, validate
from joulelab.analysis.phases import load_phases
from joulelab.bench import Plan, Progress, Stop, record
from joulelab.errors import DataInvalid, UserError
from joulelab.proposal import Point, Proposal, propose
from joulelab.quantities import Scope
from joulelab.recording import RunDir, find_runs
from joulelab.timebase import SECOND

PATIENCE = 3
"""Batches without a gain after which nothing is left to gain."""
GAIN = 0.02
"""Upper ends that fall by less than this share stay where they are."""
BATCH = 0.5
"""A batch's measuring time over that of the first one."""


class End(NamedTuple):
    """Why there are no more batches, and whether it is because the targets are reached."""

    reached: bool
    why: str


@dataclass(frozen=True)
class Batch:
    """What is known after so many batches: the verdicts on the totals, by target, and how far the last run shifted."""

    number: int
    configurations: int
    seconds: float
    verdicts: dict[str, Verdict]
    shift_percent: float | None

    def uppers(self) -> dict[str, float]:
        """The upper ends of the held-out errors' intervals [%]; infinite where there is none yet."""
        return {name: v.ci95_percent[1] if v.ci95_percent else np.inf for name, v in self.verdicts.items()}

    def __str__(self) -> str:
        shown = [
            f"{name} {_interval(verdict)}, target {verdict.limit_percent:g}" for name, verdict in self.verdicts.items()
        ]
        shift = [] if self.shift_percent is None else [f"the anchor shifted by {self.shift_percent:+.1f} %"]
        done = f"batch {self.number}: {self.configurations} configurations, {self.seconds:.0f} s of inferences"
        return "; ".join([done, *shown, *shift])


def _interval(verdict: Verdict) -> str:
    if not verdict.ci95_percent:
        return f"not judged yet ({verdict.reason})"
    low, high = verdict.ci95_percent
    return f"{verdict.mape_percent:.2f} % ({low:.2f} to {high:.2f})"


def targets(text: str) -> dict[str, float]:
    """`2.7%,5.2%`, or the time's alone, as limits in percent by target."""
    try:
        limits = [float(part.strip().removesuffix("%")) for part in text.split(",")]
    except ValueError:
        limits = []
    if not 1 <= len(limits) <= 2 or not all(0 < limit < np.inf for limit in limits):
        raise UserError(f"--until {text!r}: expected the targets of time and energy like 2.7%,5.2%, or time's alone")
    return dict(zip(("time", "energy"), limits, strict=False))


def measure(
    plan: Plan,
    session: Path,
    limits: Mapping[str, float],
    stop: Stop,
    progress: Callable[[str, int], AbstractContextManager[Progress]],
) -> Iterator[Batch | End]:
    """Batches, and at last why there are no more. What a session holds already of the device counts, so that one
    that was killed goes on where it was.
    """
    history: list[Batch] = []
    reduced: dict[Path, Phases] = {}
    while True:
        if runs := finished(session, plan.device):
            reduced |= {run.path: load_phases(run.path) for run in runs if run.path not in reduced}
            history.append(judged(merge([*reduced.values()]), runs, limits))
            yield history[-1]
            if end := ended(history, limits, plan.arguments["repeats"]):
                yield end
                return
        proposal = _next(plan, runs, [*reduced.values()], limits)
        batch = replace(plan, protocol="points", arguments=proposal.arguments(plan) | {"seed": plan.seed + len(runs)})
        with progress(f"{plan.device}, batch {len(runs) + 1}", len(batch.steps())) as advance:
            _second_of_its_own(session, plan.device)
            record(batch, session, stop, advance)


def finished(session: Path, device: str) -> list[RunDir]:
    """The runs of a device in a session that have ended, in whatever way: what they measured counts."""
    runs = [run for run in find_runs(session.parent) if run.path.parent == session and run.manifest.device == device]
    return [
        run for run in runs if run.state != "interrupted" and any(not r["warmup"] for r in run.records("inference"))
    ]


def _next(plan: Plan, runs: Sequence[RunDir], phases: Sequence[Phases], limits: Mapping[str, float]) -> Proposal:
    """A space-filling batch first, then designs of a part of its measuring time, with its anchor in all of them."""
    if not runs:
        return propose(plan, None, None)
    found = propose(plan, merge(phases), BATCH * _seconds(runs[:1]), limits)
    h, p, o = runs[0].manifest.arguments["anchor"]
    return replace(
        found, anchor=(h, p, o), points=[point for point in [found.anchor, *found.points] if point != (h, p, o)]
    )


def _second_of_its_own(session: Path, device: str) -> None:
    """A run is named after the second in which it begins; a simulated one may take less."""
    while (session / f"{device}-points-{time.strftime('%H%M%S', time.gmtime())}").exists():
        time.sleep(0.05)


def judged(phases: Phases, runs: Sequence[RunDir], limits: Mapping[str, float]) -> Batch:
    """The verdicts on the total time, and on the total energy at the widest scope that a meter has."""
    totals = [v for v in validate(phases, limits={"energy": np.inf, **limits}) if v.phase == "total"]
    found = {verdict.target: verdict for verdict in sorted(totals, key=_scope, reverse=True)}
    if "energy" in limits and ("energy" not in found or NO_METER in (found["energy"].reason or "")):
        raise DataInvalid(f"{runs[0].manifest.device} has no meter: --until {limits['time']:g}% judges its time alone")
    configurations = max(verdict.configurations for verdict in totals)
    mine = {target: found[target] for target in limits}
    return Batch(len(runs), configurations, _seconds(runs), mine, _shift(runs))


def _scope(verdict: Verdict) -> int:
    return [*Scope].index(Scope(verdict.scope)) if verdict.scope else 0


def ended(history: Sequence[Batch], limits: Mapping[str, float], repeats: int) -> End | None:
    """Why to stop after these batches, or None."""
    last = history[-1]
    if all(verdict.verdict == "pass" for verdict in last.verdicts.values()):
        return End(True, f"reached after batch {last.number}: the held-out errors' upper ends are under their targets")
    for target, verdict in last.verdicts.items():
        floor = verdict.noise_floor_ci95_percent
        if floor and floor[0] > limits[target]:
            return End(False, _never(target, floor[0], limits[target], repeats))
    return End(False, _STALLED) if _stalled(history) else None


_STALLED = (
    f"nothing left to gain: in {PATIENCE} batches no upper end came down by {GAIN:.0%}; the report shows what forms "
    "miss"
)


def _never(target: str, floor: float, limit: float, repeats: int) -> str:
    enough = int(np.ceil(repeats * (floor / limit) ** 2))
    return (
        f"never: {target} repeats so badly that even a perfect model would err by {floor:.2f} % or more; to be under "
        f"{limit:g} % it takes {enough} repeats or more, or a quieter device"
    )


def _stalled(history: Sequence[Batch]) -> bool:
    """Whether no upper end has come down for `PATIENCE` batches."""
    if len(history) <= PATIENCE:
        return False
    before, since = history[-PATIENCE - 1].uppers(), [batch.uppers() for batch in history[-PATIENCE:]]
    return not any(batch[name] < upper * (1 - GAIN) for batch in since for name, upper in before.items())


def _seconds(runs: Sequence[RunDir]) -> float:
    """The measuring time of runs [s]."""
    return sum(sum(_durations(run)) for run in runs)


def _durations(run: RunDir, point: Point | None = None) -> list[float]:
    """What the inferences of a run took [s], those of one configuration or all."""
    return [
        (record["phases"][-1]["stop"] - record["phases"][0]["start"]) / SECOND
        for record in run.records("inference")
        if not record["warmup"] and point in {None, (record["history"], record["prompt"], record["output"])}
    ]


def _shift(runs: Sequence[RunDir]) -> float | None:
    """How much longer [%] the anchor took in the last run than in the first."""
    arguments: Any = runs[0].manifest.arguments
    h, p, o = arguments["anchor"]
    first, last = (_durations(run, (h, p, o)) for run in (runs[0], runs[-1]))
    return float(np.mean(last) / np.mean(first) - 1) * 100 if len(runs) > 1 and first and last else None
