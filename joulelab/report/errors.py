"""The errors of verdicts as rows: what stands beside the MAPE, and the MAPE by what was held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from joulelab.analysis.modelling.crossval import Split
from joulelab.analysis.modelling.sessions import Gains
from joulelab.analysis.modelling.validation import Verdict
from joulelab.report.numbers import interval
from joulelab.report.words import doubts, target

ERRORS = {
    "in-sample": "in_sample_percent",
    "median": "median_ape_percent",
    "P95": "p95_ape_percent",
    "bias": "bias_percent",
    "log": "log_ratio_percent",
    "weighted": "weighted_percent",
    "1 run": "single_run_mape_percent",
    "+ short": "mape_all_percent",
    "outside": "outside_mape_percent",
}
BESIDE = (
    "in-sample: of a model that has seen everything. bias: signed. log: mean |ln(predicted / measured)|. weighted: sum "
    "of the errors over the sum of the values. 1 run: against single runs. + short: with phases that are too short for "
    "the sensor. outside: of what lies outside the range declared valid, which counts for nothing."
)
ACROSS = (
    "decode, prompt: one length held out at a time. corner: learnt from at most half of the longest prompt, output and "
    "history, the rest predicted. day: a whole day or session that nobody has seen."
)


class BySplit(NamedTuple):
    """MAPE [%] of each verdict's subject in-sample and by `splits`; `silent` says where there is none, and why."""

    splits: list[str]
    rows: list[tuple[Verdict, list[float | None]]]
    silent: list[str]


def beside(found: Sequence[Verdict]) -> dict[str, list[float | None]]:
    """What else the errors show [%], a figure a verdict; nothing that no verdict has, or that repeats the MAPE."""
    shown = {name: [getattr(v, field) for v in found] for name, field in ERRORS.items()}
    plain = shown["+ short"] == [v.mape_percent for v in found]
    return {name: own for name, own in shown.items() if set(own) != {None} and not (plain and name == "+ short")}


def by_split(found: Sequence[Verdict]) -> BySplit:
    """Of verdicts on the same subjects, held out in several ways."""
    splits = [split for split in get_args(Split) if any(v.split == split and len(v.points) for v in found)]
    subjects = {(target(v), v.phase): v for v in reversed(found)}
    rows = []
    for v in reversed(subjects.values()):
        own = {other.split: other for other in found if (target(other), other.phase) == (target(v), v.phase)}
        rows.append((v, [v.in_sample_percent, *(own[split].mape_percent for split in splits)]))
    silent: dict[str, dict[str, None]] = {}
    for v in found:
        if v.mape_percent is None and (v.split != "day" or "day" in splits):
            silent.setdefault(doubts(v)[0], {})[v.split] = None
    return BySplit(splits, rows, [f"by {', '.join(its)}: {reason}" for reason, its in silent.items()])


def shifts(gains: Gains) -> list[tuple[str, str, str]]:
    """Each session, day or run, how far it was from their mean, and the interval of that in percent."""
    rows: Any = gains.table[["group", "gain", "low", "high"]].itertuples(index=False)
    in_percent = ((group, *(100 * (end - 1) for end in ends)) for group, *ends in rows)
    return [(group, f"{shift:+.2f} %", interval((low, high))) for group, shift, low, high in in_percent]
