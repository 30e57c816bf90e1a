"""What verdicts, dropped rows and the ends of runs mean, in words for somebody who sees them for the first time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from joulelab.analysis.modelling.validation import SIMULATED, Verdict
from joulelab.quantities import Origin, Scope
from joulelab.report.numbers import percent

NO_METER = (
    "No meter was found: the joules are computed from CPU time, so they only repeat the time model. "
    "Plug in a meter to get a verdict."
)
UNCERTIFIED = "absolute joules uncertified"
IMPORTED = "imported from what another tool recorded, and sealed"
ENDS = {
    "done": "every step was played, and the run is sealed",
    "aborted": "stopped by the operator; what was recorded until then is sealed and used",
    "failed": "a fault ended it; what was recorded until then is sealed and used",
    "interrupted": "it has no seal; all that was recorded until then is used, and 'joulelab run --resume' finishes it",
}


CAUSES = {
    "gain": "the meter reads too much or too little by a factor",
    "offset": "the meter reads so many watts too much or too little",
    "resolution": "the last digit of a reading",
    "noise": "readings scatter; of a slow sensor, with all that is fitted from them",
    "sampling": "what the power does between two readings",
    "clock": "when a reading was taken",
    "lag": "how old a reading is",
    "boundary": "when the prefill ended and the decode began",
    "ramp": "how slowly the power follows the load, which a slow sensor shows as lag",
    "start": "how long after the request the engine begins to work",
    "repetition": "repeats differ by more than the noise explains",
    "baseline": "the idle power that is taken off differs from one idle step to the next",
}
"""The terms of the budget."""
STATES = {
    "valid": "\N{CHECK MARK} valid",
    "expired": "\N{BALLOT X} expired",
    "missing": "\N{BALLOT X} missing",
    "refused": "\N{BALLOT X} refused",
    "none": "\N{BALLOT X} none",
}
"""The states of certificates."""


def tokens(history: float, prompt: float, output: float | None) -> str:
    """A configuration: (history +) prompt → output tokens; what they all have a prefill of has no output. Without a
    prompt it is a move, of the cache of a history or of the model.
    """
    if not prompt:
        return f"cache of {history:g}" if history else "the model"
    return f"{f'{history:g}+' if history else ''}{prompt:g}" + ("" if output is None else f"→{output:g}")


def target(verdict: Any) -> str:
    """What is predicted, of a verdict or a model: time, or energy on a channel."""
    return f"{verdict.target}, {verdict.channel}" if verdict.channel else str(verdict.target)


def why(verdict: Verdict) -> str:
    """The reason for a verdict, in sentences."""
    return " ".join([*_interval(verdict), *doubts(verdict)])


def doubts(verdict: Verdict) -> list[str]:
    """What keeps a verdict undecided, or from counting, in sentences."""
    if verdict.scope == Scope.ESTIMATE:
        return [NO_METER]
    doubt = (verdict.reason or "").removeprefix(SIMULATED).removeprefix("; ")
    said = [doubt, SIMULATED if verdict.origin == Origin.SIMULATED else ""]
    return [f"{text[0].upper()}{text[1:]}." for text in said if text]


def _interval(verdict: Verdict) -> list[str]:
    if verdict.verdict == "undecided" or verdict.ci95_percent is None:
        return []
    low, high = map(percent, verdict.ci95_percent)
    if verdict.verdict == "pass":
        return [f"Even the interval's upper end, {high}, is within the limit."]
    return [f"Even the interval's lower end, {low}, is over the limit."]


def dropped(verdict: Verdict) -> list[tuple[str, int, list[str]]]:
    """The rows that were left out: each cause, how many rows, and their configurations with the rows of each."""
    found: dict[str, Counter[str]] = {}
    for row in verdict.dropped:
        configuration = tokens(row["history"], row["prompt"], row["output"])
        found.setdefault(row["cause"], Counter())[configuration] += 1
    return [
        (cause, rows.total(), [f"{name} ({n})" if n > 1 else name for name, n in rows.items()])
        for cause, rows in found.items()
    ]


def listed(points: pd.DataFrame) -> list[str]:
    """The configurations of points."""
    return [tokens(*row) for row in points[["history", "prompt", "output"]].itertuples(index=False)]
