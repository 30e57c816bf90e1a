"""One run in words and figures: what `joulelab show` prints."""

from __future__ import annotations

from typing import Any

from joulelab.analysis.dataset import Phases
from joulelab.analysis.means import means
from joulelab.recording import RunDir
from joulelab.report.budget import COMBINED, ONE, Budget, budgets
from joulelab.report.certificates import certificates
from joulelab.report.energies import idle_power
from joulelab.report.health import events, sampling
from joulelab.report.numbers import DASH, number, percent
from joulelab.report.section import Section, facts


def describe(run: RunDir, phases: Phases) -> dict[str, Any]:
    """The manifest's facts, how recording went, idle power, and the budget of the joules, largest term first.

    The budget is in standard uncertainties (coverage factor 1), medians over the inferences or configurations; that of
    means has the coverage factor for 95 % beside it.
    """
    return {
        **facts(Section(phases, (), (), run)),
        "Sampling": [_told(row) for row in sampling(run)],
        "Events": [" ".join(event.values()) for event in events(run)],
        "Idle power": [_told(row) for row in idle_power(phases)],
        "Certificates": [_told(row) for row in certificates(phases)],
        "Uncertainty": [line for budget in budgets(phases, means(phases)) for line in _lines(budget)],
        "Notes": phases.notes,
    }


def _told(row: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in row.items() if text not in {"", DASH})


def _lines(budget: Budget) -> list[str]:
    lines = []
    for of, phase in budget.columns:
        column = budget.terms[of, phase]
        causes = column.drop(COMBINED).sort_values(ascending=False)
        said = ", ".join(f"{cause} {percent(u)}" for cause, u in causes.items() if u > 0)
        factor = "" if of == ONE else f"; k = {number(budget.coverage[of, phase])} for 95 %"
        lines.append(f"{budget.channel}, {phase}, {of}: {percent(column[COMBINED])} (k = 1{factor}), from {said}")
    return lines
