"""Engines side by side: what a language model costs in time where several engines run it on one machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from joulelab.analysis.modelling.efficiency import efficiencies
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.validation import Verdict
from joulelab.analysis.shapes import Shape
from joulelab.errors import DataInvalid
from joulelab.recording import Manifest
from joulelab.report.curves import PANEL_IN, label, predicted
from joulelab.report.figures import LINES, WIDTH_IN, Picture, picture
from joulelab.report.numbers import DASH, number, percent
from joulelab.report.section import Section

LAYERS = ("layers", "heads", "head_dim", "hidden", "vocabulary")
ALIKE = 0.01
"""Relative: engines differ in which small tensors they count as weights."""
ALONG = {"prefill": "prompt", "decode": "output"}
CAPTION = "Lines: predicted times. Bands: in 95 % of cases a configuration's mean lies in them."
ABOUT = (
    "A pass and a prompt token as the time models have them at the longest inference that was seen; GB/s: weights read "
    "in the passes; GFLOP/s: the prompt's matrix arithmetic."
)


class Timed(NamedTuple):
    """The time model of a subject with its shape, the machine and engine that ran it, and the verdict on its totals."""

    machine: tuple[Any, ...]
    engine: str
    model: Model
    shape: Shape
    verdict: Verdict | None

    @property
    def name(self) -> str:
        return f"{self.model.device}: {self.engine}, {self.model.subject['quant'] or DASH}"

    def like(self, other: Timed) -> bool:
        """Whether only the engine is another, and how it stores numbers."""
        same = [(timed.machine, timed.model.subject["batch"] or 1) for timed in (self, other)]
        shapes = [[getattr(timed.shape, name) for name in LAYERS] for timed in (self, other)]
        weights = math.isclose(self.shape.weights, other.shape.weights, rel_tol=ALIKE)
        return same[0] == same[1] and shapes[0] == shapes[1] and weights


@dataclass(frozen=True)
class SideBySide:
    """Engines that ran a language model of one shape on one machine."""

    engines: list[Timed]

    @property
    def title(self) -> str:
        models = dict.fromkeys(str(timed.model.subject["model"]) for timed in self.engines)
        return f"{', '.join(models)} on {self.engines[0].machine[0]}"

    @property
    def rows(self) -> list[dict[str, str]]:
        """A row an engine."""
        return [_row(timed) for timed in self.engines]


def side_by_side(sections: Sequence[Section]) -> list[SideBySide]:
    """The engines that ran, by machine and shape, where there are several. Simulated ones have no machine."""
    groups: list[list[Timed]] = []
    for timed in (timed for section in sections for timed in _timed(section)):
        own = next((group for group in groups if group[0].like(timed)), [])
        if not own:
            groups.append(own)
        own.append(timed)
    return [SideBySide(group) for group in groups if len({timed.model.subject["engine"] for timed in group}) > 1]


def _timed(section: Section) -> Iterator[Timed]:
    if not section.run or not (machine := _machine(section.run.manifest)):
        return
    engine = _engine(section.run.manifest)
    totals = {v.device: v for v in section.verdicts if (v.target, v.phase) == ("time", "total")}
    for model in section.models:
        if model.target == "time" and model.shape:
            yield Timed(machine, engine, model, model.shape, totals.get(model.device))


def _machine(manifest: Manifest) -> tuple[Any, ...] | None:
    """What tells the machine from others, by name first; None where the run does not say."""
    host, stanza = manifest.host, manifest.stanza
    if manifest.simulated or "cpu" not in host:
        return None
    elsewhere = stanza.get("connect"), stanza.get("options", {}).get("url")
    return host["cpu"], host.get("cores"), host.get("system"), *elsewhere


def _engine(manifest: Manifest) -> str:
    """With the processor that it says it runs on, if it says so."""
    processor = manifest.engine.get("settings", {}).get("device")
    return " on ".join(filter(None, [manifest.stanza.get("driver"), processor]))


def _row(timed: Timed) -> dict[str, str]:
    model, shape, verdict = timed.model, timed.shape, timed.verdict
    rates = {found.what: found.rate for found in efficiencies(model)}
    read, done = rates.get("reading the weights", math.nan), rates.get("matrix arithmetic", math.nan)
    return {
        "device": model.device,
        "engine": timed.engine,
        "quant": str(model.subject["quant"] or DASH),
        "threads": str(model.subject["threads"] or DASH),
        "ms a pass": number(1e3 * shape.weight_bytes / read),
        "ms a prompt token": number(1e3 * 2 * shape.body_weights / done),
        "GB/s": number(read / 1e9),
        "GFLOP/s": number(done / 1e9),
        "total time": f"{verdict.verdict}, {percent(verdict.mape_percent)}" if verdict else DASH,
    }


def plot(found: SideBySide) -> Picture:
    """Predicted prefills over the prompt and decodes over the output, of empty caches if they were measured.

    DataInvalid where there is no such model, or nothing that all were measured at.
    """
    figure = Figure((WIDTH_IN, PANEL_IN + 0.4), layout="constrained")
    drawn = [_panel(axes, found.engines, *of) for axes, of in zip(figure.subplots(1, 2), ALONG.items(), strict=True)]
    if not any(drawn):
        raise DataInvalid("no engine's prefill and decode could be told apart")
    handles = {timed.name: Line2D([], [], color=c) for timed, c in zip(found.engines, cycle(LINES), strict=False)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return picture(figure, f"Predicted prefill and decode times of {found.title}, engines side by side.", CAPTION)


def _panel(axes: Axes, engines: Sequence[Timed], phase: str, along: str) -> bool:
    """Whether there is anything to draw."""
    coloured = zip(engines, cycle(LINES), strict=False)
    known = [(timed.model, colour, part) for timed, colour in coloured for part in _part(timed.model, phase)]
    axes.set_visible(bool(known))
    if not known:
        return False
    fixed = {name: _common([part for *_, part in known], name) for name in ("history", "prompt") if name != along}
    for model, colour, part in known:
        predicted(axes, model, phase, {"output": 1, **fixed}, along, part.valid[along], colour)
    at = ", ".join(f"{name} {tokens:g}" for name, tokens in fixed.items())
    axes.set_title(phase)
    label(axes, f"{along} [tokens], {at}", "time [s]")
    return True


def _part(model: Model, phase: str) -> list[PhaseModel]:
    with suppress(DataInvalid):
        return model.parts(phase)
    return []


def _common(parts: Sequence[PhaseModel], name: str) -> float:
    """The least length that all have seen."""
    low, high = max(part.valid[name][0] for part in parts), min(part.valid[name][1] for part in parts)
    if low > high:
        raise DataInvalid(f"they were measured at no {name} in common")
    return low
