"""One run in words and figures: what `joulelab show` prints."""

from __future__ import annotations

from typing import Any

from joulelab.analysis.dataset import Phases
from joulelab.recording import RunDir
from joulelab.report.budget import COMBINED, Budget, budgets, idle_power
from joulelab.report.health import events, sampling
from joulelab.report.numbers import percent
from joulelab.report.section import Section, facts


def describe(run: RunDir, phases: Phases) -> dict[str, Any]:
    """The manifest's facts, how recording went, idle power, and the budget of the joules, largest term first.

    The budget is in standard uncertainties (coverage factor 1), medians over the inferences.
    """
    return {
        **facts(Section(phases, (), (), run)),
        "Sampling": [", ".join(f"{name} {text}" for name, text in row.items()) for row in sampling(run)],
        "Events": [" ".join(event.values()) for event in events(run)],
        "Idle power": [", ".join(f"{name} {text}" for name, text in row.items()) for row in idle_power(phases)],
        "Uncertainty": [line for budget in budgets(phases) for line in _lines(budget)],
        "Notes": phases.notes,
    }


def _lines(budget: Budget) -> list[str]:
    lines = []
    for phase, column in budget.terms.items():
        causes = column.drop(COMBINED).sort_values(ascending=False)
        said = ", ".join(f"{cause} {percent(u)}" for cause, u in causes.items() if u > 0)
        lines.append(f"{budget.channel}, {phase}: {percent(column[COMBINED])} (k = 1), from {said}")
    return lines
