"""What to measure next on a device: a design for the protocol `points`, from what its last session told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from joulelab.analysis.dataset import Phases, merge
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.design import Criterion, Problem, choose, space_filling
from joulelab.analysis.modelling.models import Model, fit_model
from joulelab.analysis.modelling.potential import problem
from joulelab.analysis.modelling.validation import LIMITS
from joulelab.analysis.phases import load_phases
from joulelab.bench import Plan
from joulelab.errors import DataInvalid, UserError
from joulelab.protocols.points import Points
from joulelab.quantities import Scope
from joulelab.recording import RunDir, find_runs

COLUMNS = ["history", "prompt", "output"]
DRAWN = 300
"""Candidates drawn from the sweep's box besides its own configurations; the prompts fall anywhere between tiles."""
START = 16
"""Configurations of a space-filling start: enough for the forms to be chosen among."""
SHARED = ("batch", "repeats", "seed", "idle", "warmup", "gap", "signature")
"""Arguments that `points` takes over from the sweep."""
COLUMNS_SHOWN = 100

Point = tuple[int, int, int]


@dataclass(frozen=True)
class Proposal:
    """`points` to measure with the `anchor`, and in how many seconds, where that is known.

    `half_widths` has by target the largest and the mean half-width of the prediction interval over all candidates, in
    percent, `before` and `after`; it is empty where no model says. `because` is what it rests on.
    """

    points: list[Point]
    anchor: Point
    seconds: float | None
    half_widths: dict[str, dict[str, tuple[float, float]]]
    because: list[str]

    def arguments(self, plan: Plan) -> dict[str, Any]:
        """Of the protocol `points`, the rest as the plan's sweep has it."""
        shared = {name: plan.arguments[name] for name in SHARED}
        options = Points.Options(configurations=[*map(list, self.points)], anchor=list(self.anchor), **shared)
        return options.model_dump(mode="json")


def described(plan: Plan, proposal: Proposal) -> str:
    """A proposal for people, with a stanza ready for lab.yaml."""
    inferences = plan.arguments["repeats"] * (len(proposal.points) + 1)
    seconds = "an unknown time" if proposal.seconds is None else f"{proposal.seconds:.0f} s"
    widths = [
        f"{target}: half-width of the 95 % prediction interval, largest and mean over the box: "
        + ", ".join(f"{when} {largest:.2f} and {mean:.2f} %" for when, (largest, mean) in each.items())
        for target, each in proposal.half_widths.items()
    ]
    return "\n".join(
        [
            f"{plan.device}: {len(proposal.points)} configurations and the anchor, {inferences} inferences, {seconds}",
            *proposal.because,
            *widths,
            _stanza(proposal.arguments(plan)),
        ]
    )


def _stanza(arguments: Mapping[str, Any]) -> str:
    """The protocol as lab.yaml has it; durations carry their unit there."""
    durations = ("idle", "gap", "signature")
    lines = [f"{name}: {f'{x:g} s' if name in durations else x}" for name, x in arguments.items()]
    wrapped = [fill(line, COLUMNS_SHOWN, initial_indent=" " * 4, subsequent_indent=" " * 6) for line in lines]
    return "\n".join(["protocols:", "  points:", *wrapped])


def encoded(plan: Plan, proposal: Proposal) -> dict[str, Any]:
    """A proposal for JSON."""
    return {"device": plan.device, **vars(proposal), "points_stanza": proposal.arguments(plan)}


def known(device: str, folder: Path) -> Phases | None:
    """What the finished runs of the device's last session with single inferences tell, or None."""
    runs = [run for run in find_runs(folder) if run.manifest.device == device and run.state == "done"]
    measured = [run for run in runs if run.records("inference")]
    session = [run for run in measured if run.manifest.session == measured[-1].manifest.session]
    return pooled(session) if session else None


def pooled(runs: Sequence[RunDir]) -> Phases:
    """The phases of several runs of a session."""
    return merge([load_phases(run.path) for run in runs])


def propose(
    plan: Plan,
    phases: Phases | None,
    budget_s: float | None,
    limits: Mapping[str, float] = LIMITS,
    criterion: Criterion = "I",
) -> Proposal:
    """The configurations from the box of the plan's sweep that make predictions surest within the budget; None: as
    much measuring time as the sweep's own configurations take. A space-filling start where nothing supports a model.

    UserError where the budget or the device's context is too small for any design, or the protocol has no box or
    several batches.
    """
    batch = _batch(plan)
    candidates, own, notes = _candidates(plan)
    if phases is None:
        return _start(candidates, [*notes, "no model yet: a space-filling start"])
    try:
        fitted = [(case, model) for case, model in _fitted(phases, batch) if case.target in limits]
        wait_s = plan.settle_s + plan.arguments["gap"] / 2
        found = problem(fitted, candidates, plan.arguments["repeats"], wait_s, limits)
    except DataInvalid as refusal:
        return _start(candidates, [*notes, f"no model yet ({refusal}): a space-filling start"], phases)
    budget_s = float(found.seconds[:own].sum()) if budget_s is None else budget_s
    return _designed(found, fitted, budget_s, criterion, notes)


def _designed(
    found: Problem,
    fitted: Sequence[tuple[Case, Model]],
    budget_s: float,
    criterion: Criterion,
    notes: list[str],
) -> Proposal:
    anchor = _anchor(found.candidates, fitted[0][0])
    left = budget_s - float(found.seconds[anchor])
    if not (chosen := choose(found, left, criterion)):
        needed = found.seconds[anchor] + found.seconds.min()
        raise UserError(
            f"a budget of {budget_s:.3g} s is too small for any design: the anchor and the cheapest configuration take "
            f"{needed:.3g} s with {found.repeats} repeats"
        )
    played = [anchor, *(number for number in chosen if number != anchor)]
    points = _tuples(found.candidates.iloc[played])
    return Proposal(
        points=points[1:],
        anchor=points[0],
        seconds=float(found.seconds[played].sum()),
        half_widths={case.target: _widths(found, case.target, played) for case, _ in fitted},
        because=[*notes, *(f"{case.channel or case.target}: {_forms(model)}" for case, model in fitted)],
    )


def _widths(found: Problem, target: str, chosen: Sequence[int]) -> dict[str, tuple[float, float]]:
    each = {"before": found.half_widths(target), "after": found.half_widths(target, chosen)}
    return {when: (float(width.max()) * 100, float(width.mean()) * 100) for when, width in each.items()}


def _forms(model: Model) -> str:
    return "; ".join(f"{part.phase} = {part.form}" for part in model.parts("total"))


def _batch(plan: Plan) -> int:
    """The sequences at once that all of a design has."""
    batches = plan.arguments.get("batch", [1])
    if len(batches) > 1:
        listed = ", ".join(map(str, batches))
        raise UserError(f"a design is of one batch: {plan.protocol} has {listed}, each of them a model of its own")
    return int(batches[0])


def _fitted(phases: Phases, batch: int) -> list[tuple[Case, Model]]:
    """The time model and the energy model of the widest scope. DataInvalid where there is no time model of totals."""
    found = [case for case in cases(phases, min_periods=5.0) if case.subject["batch"] in {None, batch}]
    if not found:
        raise DataInvalid(f"nothing was measured at batch {batch}")
    metered = [case for case in found if case.target == "energy" and case.scope != Scope.ESTIMATE]
    widest = sorted(metered, key=lambda case: [*Scope].index(Scope(case.scope or Scope.RAIL)))
    models = [(case, fit_model(case, phases)) for case in [found[0], *widest[:1]]]
    models[0][1].parts("total")
    return [(case, model) for case, model in models if case.target == "time" or not model.refused]


def _anchor(candidates: pd.DataFrame, case: Case) -> int:
    """The measured configuration of middle cost: its repeats stand for neither end."""
    totals = case.points("total").sort_values("y", ignore_index=True)
    return int((candidates[COLUMNS] == totals[COLUMNS].iloc[len(totals) // 2]).all(axis=1).to_numpy().argmax())


def _start(candidates: pd.DataFrame, because: list[str], phases: Phases | None = None) -> Proposal:
    """The anchor is the middle, or what was measured in any case; a model needs more than that."""
    points = _tuples(candidates.iloc[space_filling(candidates, START)])
    anchor = points[0] if phases is None else _tuples(phases.table[COLUMNS].head(1))[0]
    return Proposal([point for point in points if point != anchor], anchor, None, {}, because)


def _candidates(plan: Plan) -> tuple[pd.DataFrame, int, list[str]]:
    """The sweep's configurations and others from its box, as far as the device's context holds them; how many of them
    are the sweep's own; and what was left out.
    """
    grid = _grid(plan)
    rng = np.random.default_rng(0)
    low, high = np.log(grid[:, 1:].min(axis=0)), np.log(grid[:, 1:].max(axis=0))
    drawn = np.rint(np.exp(rng.uniform(low, high, (DRAWN, 2))))
    histories = rng.choice(np.unique(grid[:, 0]), DRAWN)
    every = pd.DataFrame(np.vstack([grid, np.column_stack([histories, drawn])]), columns=COLUMNS)
    every = every.drop_duplicates(ignore_index=True)
    context = _context(plan)
    fits = every.sum(axis=1) <= context
    if not fits.any():
        raise UserError(f"{plan.device} holds {context:g} tokens: none of the candidates of {plan.protocol} fits")
    left_out = int((~fits).sum())
    notes = [f"{left_out} candidates left out: {plan.device} holds {context:g} tokens"] * (left_out > 0)
    return every[fits].reset_index(drop=True), int(fits[: len(np.unique(grid, axis=0))].sum()), notes


def _grid(plan: Plan) -> Any:
    """The configurations [n, 3] of the plan's sweep."""
    names = ("history", "prompt", "decode")
    if missing := [name for name in names if name not in plan.arguments]:
        raise UserError(
            f"{plan.protocol!r} has no {missing[0]}: a design chooses from the box of a protocol like sweep"
        )
    axes = np.meshgrid(*(plan.arguments[name] for name in names), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


def _context(plan: Plan) -> float:
    """The tokens that the device holds; infinite where only the engine knows, and refuses what is over it."""
    options = plan.stanza["options"]
    return np.inf if options.get("url") else float(options.get("context", np.inf))


def _tuples(points: pd.DataFrame) -> list[Point]:
    return [(int(h), int(p), int(o)) for h, p, o in points[COLUMNS].to_numpy()]
