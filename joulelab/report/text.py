"""Models and verdicts on the terminal; 100 columns hold all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from joulelab.analysis.modelling.efficiency import Efficiency, efficiencies
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.physical import Physical
from joulelab.report.layout import firsts, note, subject, table
from joulelab.report.numbers import bounded, rate
from joulelab.report.physical_text import as_text as physical_text
from joulelab.report.section import Section, restless, uncertified
from joulelab.report.side_by_side import ABOUT, SideBySide, side_by_side
from joulelab.report.verdict_text import LEGEND, judged
from joulelab.report.words import ENDS, UNCERTIFIED


def results(sections: Sequence[Section]) -> Group:
    """What a session found: how runs ended, models, how well they predict, and engines side by side."""
    own = (part for section in sections for part in _section(section))
    return Group(*own, *map(_engines, side_by_side(sections)), LEGEND)


def _section(section: Section) -> Iterator[RenderableType]:
    if section.run and section.run.state != "done":
        yield Text(f"\n{section.title}: {section.run.state}: {ENDS[section.run.state]}", style="bold red")
    yield coefficients(section.models)
    yield judged(section.verdicts)
    if channels := uncertified(section.phases):
        yield note(f"{', '.join(channels)}: {UNCERTIFIED}, so compare no devices by them")
    yield from map(note, restless(section.phases))


def _engines(found: SideBySide) -> Group:
    names = list(found.rows[0])
    rows = table(names[:3], names[3:-1], names[-1:])
    for row in found.rows:
        rows.add_row(*row.values())
    return Group(Text(f"\n{found.title}: engines side by side", style="bold"), rows, note(ABOUT))


def coefficients(models: Sequence[Model], energies: Sequence[Physical] = ()) -> Group:
    """The coefficients of models with their 95 % intervals, a table a device, and the physical form of its energies."""
    tables = (_models(device, list(its)) for device, its in groupby(models, lambda m: m.device))
    return Group(*tables, *([physical_text(energies)] if energies else []))


def _models(device: str, models: Sequence[Model]) -> Group:
    rows_of = table(["", "phase", "coefficient"], ["value", "95 % interval"], ["unit"])
    notes = []
    for model in models:
        rows = [(part.phase, c) for part in model.phases for c in part.coefficients]
        for first, (phase, c) in zip(firsts(model, len(rows)), rows, strict=False):
            rows_of.add_row(first, phase, c.name, *bounded(c.value, (c.low, c.high), c.unit))
        notes += [note(f"{subject(model)}: {'; '.join(said)}") for said in _remarks(model) if said]
    days = dict.fromkeys(" to ".join(dict.fromkeys(model.measured)) for model in models if model.measured)
    notes += [note(f"measured {', '.join(days)}")] if days else []
    return Group(Text(f"\n{device}: models", style="bold"), rows_of, *notes)


def _remarks(model: Model) -> Iterator[list[str]]:
    """The forms, what they imply, what holds a coefficient at its bound, and what the model does not know."""
    yield [f"{part.phase} = {part.form}" for part in model.phases]
    yield [_implied(found) for found in efficiencies(model)]
    yield [f"{part.phase} would have {', '.join(part.bounds)} below 0" for part in model.phases if part.bounds]
    yield [f"the {part.phase} model {part.caveat}" for part in model.phases if part.caveat]
    yield [f"no {phase} model: {reason}" for phase, reason in model.refused.items()]


def _implied(found: Efficiency) -> str:
    share = "" if found.share is None else f", {found.share * 100:.0f} % of the peak"
    return f"{found.terms} imply {rate(found.rate, found.unit)}{share}{', which is impossible' * found.impossible}"
