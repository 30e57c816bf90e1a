"""Verdicts on the terminal: held-out errors beside limits and noise floors, and what else tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from joulelab.analysis.modelling.validation import Verdict
from joulelab.report.errors import ACROSS, BESIDE, beside, by_split, shifts
from joulelab.report.layout import firsts, note, subject, table
from joulelab.report.numbers import DASH, error, interval
from joulelab.report.words import doubts, dropped, listed, target

SHOWN = 6
"""Configurations that are named."""
COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow"}
LEGEND = Text(
    "\nMAPE: mean error of predictions of configurations that the model has not seen, each against the mean of its "
    "repeats. floor: what even a perfect model would show, because repeats differ. pass: the whole 95 % interval is at "
    "or under the limit.",
    style="dim",
)


def verdicts(sources: Sequence[tuple[Sequence[Verdict], Sequence[Verdict]]]) -> Group:
    """Errors in percent, a block a device: the verdicts of a source, what else their errors show, and beside them what
    the targets are about held out in every way, the second of each pair.
    """
    blocks = [
        (_verdicts(device, its), _beside(its), _across([v for v in splits if v.device == device]))
        for found, splits in sources
        for device, its in _by_device(found)
    ]
    return Group(
        *(part for block in blocks for part in block), LEGEND, *(Text(said, style="dim") for said in (BESIDE, ACROSS))
    )


def judged(found: Sequence[Verdict]) -> Group:
    """The verdicts alone, a table a device, and what stands against them."""
    return Group(*(_verdicts(device, its) for device, its in _by_device(found)))


def _by_device(found: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    return [(device, list(its)) for device, its in groupby(found, lambda v: v.device)]


def _verdicts(device: str, found: Sequence[Verdict]) -> Group:
    made = table(["", "phase"], ["MAPE", "95 %", "floor", "95 %", "limit"], ["verdict"])
    for first, v in _with_firsts(found):
        floor = error(v.noise_floor_percent), interval(v.noise_floor_ci95_percent)
        figures = [v.phase, error(v.mape_percent), interval(v.ci95_percent), *floor, f"{v.limit_percent:g}"]
        made.add_row(first, *figures, Text(v.verdict, style=COLOURS[v.verdict]))
    within = f", within {' and '.join(found[0].valid)}" if found[0].valid else ""
    title = f"\n{device}: errors in %, held out by {found[0].split}{within}"
    return Group(Text(title, style="bold"), made, *map(note, _remarks(found)))


def _beside(found: Sequence[Verdict]) -> RenderableType:
    """What else the errors show; nothing where nothing was predicted."""
    if not (shown := beside(found)):
        return Group()
    made = table(["", "phase"], [*shown], [])
    for (first, v), *figures in zip(_with_firsts(found), *shown.values(), strict=True):
        made.add_row(first, v.phase, *map(error, figures))
    return Group(Text("\nbeside it", style="bold"), made)


def _across(found: Sequence[Verdict]) -> RenderableType:
    """The MAPE of the targets' phases by what was held out, and why where there is none."""
    splits, rows, silent = by_split(found)
    made = table(["", "phase"], ["in-sample", *splits], [])
    for (first, v), (_, figures) in zip(_with_firsts([v for v, _ in rows]), rows, strict=True):
        made.add_row(first, v.phase, *map(error, figures))
    return Group(Text("\nby what was held out", style="bold"), made, *map(note, silent)) if splits else Group()


def _with_firsts(found: Sequence[Verdict]) -> Iterator[tuple[str, Verdict]]:
    """Each verdict with the first column of its row."""
    for _, group in groupby(found, target):
        its = list(group)
        yield from zip(firsts(its[0], len(its)), its, strict=False)


def _remarks(found: Sequence[Verdict]) -> Iterator[str]:
    """What stands against verdicts and which rows were left out; each remark once, with all that it is about."""
    about: dict[str, dict[str, list[str]]] = {}
    for verdict in found:
        for text in (*doubts(verdict), *_shifts(verdict), *_dropped(verdict), *_outside(verdict)):
            about.setdefault(text, {}).setdefault(subject(verdict), []).append(verdict.phase)
    for text, subjects in about.items():
        everything = sum(map(len, subjects.values())) == len(found)
        which = "; ".join(f"{name} {', '.join(phases)}" for name, phases in subjects.items())
        yield f"{'all' if everything else which}: {text}"


def _dropped(verdict: Verdict) -> Iterator[str]:
    for cause, rows, which in dropped(verdict):
        yield f"{rows} rows left out, {cause}: {_named(which)}"


def _outside(verdict: Verdict) -> Iterator[str]:
    points = verdict.points[verdict.points["outside"].astype(bool)].sort_values(["history", "prompt", "output"])
    if len(points):
        yield f"{len(points)} configurations outside, predicted and not judged: {_named(listed(points))}"


def _shifts(verdict: Verdict) -> Iterator[str]:
    """How far each session, day or run was from their mean."""
    if gains := verdict.gains:
        shifted = _named([" ".join(parts) for parts in shifts(gains)])
        yield f"a gain a {gains.by} taken out, by {gains.anchors} configurations in common: {shifted}"


def _named(which: Sequence[str]) -> str:
    more = len(which) - SHOWN
    return ", ".join([*which[:SHOWN], *[f"and {more} more"] * (more > 0)]) or DASH
