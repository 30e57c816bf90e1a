"""The HTML report: one file that holds everything, for people who were not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from joulelab import __version__
from joulelab.analysis import deconvolution
from joulelab.analysis.dataset import Phases, of_subject
from joulelab.analysis.means import means
from joulelab.analysis.modelling.cases import INFERENCE
from joulelab.analysis.modelling.phase_model import Coefficient
from joulelab.errors import DataInvalid
from joulelab.quantities import Origin
from joulelab.recording import RunDir
from joulelab.recording.whole import write_whole
from joulelab.report import errors, models, numbers, side_by_side, words
from joulelab.report.budget import COMBINED, budgets
from joulelab.report.certificates import certificates
from joulelab.report.curves import curves
from joulelab.report.energies import idle_power, mean_energies
from joulelab.report.figures import Picture, style
from joulelab.report.health import events, sampling
from joulelab.report.plots import agreement, residuals
from joulelab.report.section import Section, facts, restless
from joulelab.report.slow import slow_channels, unfolded
from joulelab.report.space import spaces
from joulelab.report.trace import trace

EVENTS_SHOWN = 20


def write_report(path: Path, sections: Sequence[Section], notes: Sequence[str] = ()) -> Path:
    """Write the report of `sections` to `path`, with `notes` on top of it; UserError where it cannot be written."""
    title = f"joulelab report: {', '.join(dict.fromkeys(section.title for section in sections))}"
    with style():
        views = [_view(number, section) for number, section in enumerate(sections, start=1)]
        mapped = spaces([model for section in sections for model in section.models])
        engines = [(found, _plot(partial(side_by_side.plot, found))) for found in side_by_side.side_by_side(sections)]
    known = {
        "spaces": mapped,
        "engines": engines,
        "about_engines": side_by_side.ABOUT,
        "beside": errors.BESIDE,
        "across": errors.ACROSS,
    } | {
        "version": __version__,
        "origins": [*Origin],
        "shown": EVENTS_SHOWN,
        "combined": COMBINED,
    }
    page = _environment().get_template("report.html.j2").render(title=title, notes=notes, sections=views, **known)
    write_whole(path, page)
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("joulelab.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "bounded": _bounded,
        "error": numbers.error,
        "implied": models.implied,
        "interval": numbers.interval,
        "percent": numbers.percent,
        "remarks": partial(models.remarks, today=datetime.now(UTC).date()),
        "shifts": errors.shifts,
        "target": words.target,
        "why": words.why,
    }
    return environment


def _bounded(coefficient: Coefficient) -> tuple[str, str, str]:
    return numbers.bounded(coefficient.value, (coefficient.low, coefficient.high), coefficient.unit)


def _view(number: int, section: Section) -> dict[str, Any]:
    run, phases = section.run, section.phases
    found = means(phases)
    return {
        "number": number,
        "title": section.title,
        "origins": section.origins,
        "totals": section.totals,
        "facts": facts(section),
        "trace": _plot(lambda: trace(run)),
        "subjects": [_subject(section, device) for device in dict.fromkeys(v.device for v in section.verdicts)],
        "slow": [_plot(partial(_unfolded, run, name, phases)) for name in slow_channels(phases)] if run else [],
        "means": mean_energies(found),
        "budgets": budgets(phases, found),
        "certificates": certificates(phases),
        "idle": idle_power(phases),
        "notes": [*phases.notes, *restless(phases)],
        "run": run,
        "sampling": sampling(run) if run else [],
        "events": events(run) if run else [],
    }


def _unfolded(run: RunDir, name: str, phases: Phases) -> Picture:
    return unfolded(run, name, deconvolution.deconvolved(run, name, phases.channels))


def _subject(section: Section, device: str) -> dict[str, Any]:
    """What was concluded of one device, or of one model on it where a dataset has several."""
    verdicts = [verdict for verdict in section.verdicts if verdict.device == device]
    own = [model for model in section.models if model.device == device]
    table = of_subject(section.phases.table, own[0].subject) if section.run and own else None
    drawn = [verdict for verdict in verdicts if verdict.phase in INFERENCE]
    return {
        "device": device,
        "verdicts": verdicts,
        "across": errors.by_split([verdict for verdict in section.across if verdict.device == device]),
        "gains": {words.target(verdict): verdict for verdict in verdicts if verdict.gains},
        "agreement": _plot(lambda: agreement(drawn)),
        "residuals": _plot(lambda: residuals(drawn, table)),
        "errors": errors.beside(verdicts),
        "dropped": [(verdict, *group) for verdict in verdicts for group in words.dropped(verdict)],
        "curves": _plot(lambda: curves(own, drawn)),
        "symbols": models.symbols(own),
        "models": own,
    }


def _plot(draw: Callable[[], Picture]) -> Picture | str:
    """A plot, or why there is none."""
    try:
        return draw()
    except DataInvalid as reason:
        return f"There is none: {reason}."
