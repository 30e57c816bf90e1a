"""Models and verdicts on the terminal; 100 columns hold all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from joulelab.analysis.models import Model
from joulelab.analysis.validation import Verdict
from joulelab.report.numbers import bounded, error, interval
from joulelab.report.section import Section, uncertified
from joulelab.report.words import ENDS, UNCERTIFIED, doubts, dropped, target

CONFIGURATIONS_SHOWN = 6
LEGEND = Text(
    "\nMAPE: mean error of predictions of configurations that the model has not seen, each against the mean of its "
    "repeats. 1 run: against single runs. + short: with phases that are too short for the sensor. floor: what even a "
    "perfect model would show, because repeats differ. pass: the whole 95 % interval is at or under the limit.",
    style="dim",
)
COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow"}


def results(sections: Sequence[Section]) -> Group:
    """What a session found: how each device's run ended, its models, and how well they predict."""
    return Group(*(part for section in sections for part in _section(section)), LEGEND)


def _section(section: Section) -> Iterator[RenderableType]:
    if section.run and section.run.state != "done":
        yield Text(f"\n{section.title}: {section.run.state}: {ENDS[section.run.state]}", style="bold red")
    yield coefficients(section.models)
    yield _judged(section.verdicts)
    if channels := uncertified(section.phases):
        yield _note(f"{', '.join(channels)}: {UNCERTIFIED}, so compare no devices by them")


def coefficients(models: Sequence[Model]) -> Group:
    """The coefficients of models with their 95 % intervals, a table a device."""
    return Group(*(_models(device, list(its)) for device, its in groupby(models, lambda m: m.device)))


def _models(device: str, models: Sequence[Model]) -> Group:
    table = _table(["", "phase", "coefficient"], ["value", "95 % interval"], ["unit"])
    notes = []
    for model in models:
        rows = [(part.phase, c) for part in model.phases for c in part.coefficients]
        for first, (phase, c) in zip(_firsts(model, len(rows)), rows, strict=False):
            table.add_row(first, phase, c.name, *bounded(c.value, (c.low, c.high), c.unit))
        forms = [f"{part.phase} = {part.form}" for part in model.phases]
        caveats = [f"the {part.phase} model {part.caveat}" for part in model.phases if part.caveat]
        refused = [f"no {phase} model: {reason}" for phase, reason in model.refused.items()]
        notes += [_note(f"{_subject(model)}: {'; '.join(said)}") for said in (forms, caveats, refused) if said]
    return Group(Text(f"\n{device}: models", style="bold"), table, *notes)


def verdicts(found: Sequence[Verdict]) -> Group:
    """Held-out errors in percent beside noise floor and limit, a table a device, and what stands against a verdict."""
    return Group(_judged(found), LEGEND)


def _judged(found: Sequence[Verdict]) -> Group:
    return Group(*(_verdicts(device, list(its)) for device, its in groupby(found, lambda v: v.device)))


def _verdicts(device: str, found: Sequence[Verdict]) -> Group:
    any_short = any(v.mape_all_percent != v.mape_percent for v in found)
    errors = ["MAPE", "95 %", "median", "1 run", *["+ short"] * any_short, "floor", "limit"]
    table = _table(["", "phase"], errors, ["verdict"])
    for _, group in groupby(found, target):
        its = list(group)
        for first, verdict in zip(_firsts(its[0], len(its)), its, strict=False):
            table.add_row(first, *_figures(verdict, any_short), Text(verdict.verdict, style=COLOURS[verdict.verdict]))
    title = f"\n{device}: errors in %, held out by {found[0].split}"
    return Group(Text(title, style="bold"), table, *map(_note, _remarks(found)))


def _figures(v: Verdict, with_short: bool) -> list[str]:
    short = [error(v.mape_all_percent)] * with_short
    beside = [error(v.median_ape_percent), error(v.single_run_mape_percent), *short, error(v.noise_floor_percent)]
    return [v.phase, error(v.mape_percent), interval(v.ci95_percent), *beside, f"{v.limit_percent:g}"]


def _remarks(found: Sequence[Verdict]) -> Iterator[str]:
    """What stands against verdicts and which rows were left out; each remark once, with all that it is about."""
    about: dict[str, dict[str, list[str]]] = {}
    for verdict in found:
        for text in (*doubts(verdict), *_dropped(verdict)):
            about.setdefault(text, {}).setdefault(_subject(verdict), []).append(verdict.phase)
    for text, subjects in about.items():
        everything = sum(map(len, subjects.values())) == len(found)
        which = "; ".join(f"{subject} {', '.join(phases)}" for subject, phases in subjects.items())
        yield f"{'all' if everything else which}: {text}"


def _dropped(verdict: Verdict) -> Iterator[str]:
    for cause, rows, which in dropped(verdict):
        more = len(which) - CONFIGURATIONS_SHOWN
        shown = which[:CONFIGURATIONS_SHOWN] + [f"and {more} configurations more"] * (more > 0)
        yield f"{rows} rows left out, {cause}: {', '.join(shown)}"


def _subject(item: Model | Verdict) -> str:
    return item.channel or item.target


def _firsts(item: Model | Verdict, rows: int) -> list[str]:
    """The first column of `rows` rows that are about one thing: it is said once."""
    lines = [f"{item.target}, {item.origin}", item.channel or ""]
    return lines + [""] * (rows - 2) if rows > 1 else ["\n".join(lines).strip()]


def _table(texts: Sequence[str], figures: Sequence[str], ends: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in (*texts, *figures, *ends):
        table.add_column(name, justify="right" if name in figures else "left", overflow="fold")
    return table


def _note(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2))
