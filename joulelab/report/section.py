"""A section of the report: one run or dataset, what was concluded from it, and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import sem

from joulelab.analysis.dataset import SUBJECT, Phases
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.validation import Verdict
from joulelab.quantities import Kind
from joulelab.recording import RunDir
from joulelab.recording.manifest import Instrument
from joulelab.report.numbers import DASH, number, quantity
from joulelab.report.words import ENDS, IMPORTED, UNCERTIFIED
from joulelab.timebase import SECOND

SOON, SURE = 0.25, 4
"""The share of inferences that begin soonest after another, and by how many standard uncertainties they draw more."""
ENOUGH = 10
"""Fewer inferences tell nothing of what they draw more."""


@dataclass(frozen=True)
class Section:
    """One run with its recording, or a dataset without one (`run` is None); `across` are verdicts on what the targets
    are about, held out in every way.
    """

    phases: Phases
    models: Sequence[Model]
    verdicts: Sequence[Verdict]
    run: RunDir | None = None
    across: Sequence[Verdict] = ()

    @property
    def title(self) -> str:
        if self.run:
            return self.run.manifest.device
        return ", ".join(sorted(self.phases.table["device"].dropna().unique())) or "no device"

    @property
    def origins(self) -> list[str]:
        """Where the figures come from."""
        return sorted({verdict.origin for verdict in self.verdicts})

    @property
    def totals(self) -> list[Verdict]:
        """The verdicts that the targets are about: the totals, or where there are none all of them."""
        return [v for v in self.verdicts if v.phase == "total"] or list(self.verdicts)


def facts(section: Section) -> dict[str, str | dict[str, str]]:
    """What the manifest says, or for a dataset its table; and what is known of each power channel."""
    about = _of_run(section.run) if section.run else _of_table(section.phases.table)
    return about | {"Power channels": {name: _channel(section.phases, name) for name in section.phases.channels}}


def _channel(phases: Phases, name: str) -> str:
    channel = phases.channels[name]
    period, window = channel.sensor.period_s, channel.sensor.window_s
    said = [f"{channel.scope} {'power' if channel.kind is Kind.GAUGE else 'energy counter'}", channel.origin]
    said += [f"renewed every {quantity(period, 's')}"] if period else []
    said += [f"averaged over {quantity(window, 's')}"] if window else []
    return ", ".join([*said, UNCERTIFIED if name in uncertified(phases) else "gain certified"])


def uncertified(phases: Phases) -> list[str]:
    """The channels that no valid gain certificate was applied to."""
    certified = {row["channel"] for row in phases.certificates if (row["kind"], row["state"]) == ("gain", "valid")}
    return [name for name in phases.channels if name not in certified]


def restless(phases: Phases) -> list[str]:
    """The channels on which inferences that begin soon after the one before draw more than others of their kind."""
    totals = phases.table[phases.table["phase"] == "total"].dropna(subset=["start_ns", "stop_ns", "energy_j"])
    said = []
    for channel, rows in totals.sort_values(["run", "start_ns"]).groupby("channel"):
        wait_s = (rows["start_ns"] - rows.groupby("run")["stop_ns"].shift()).astype(float) / SECOND
        alike = rows.groupby([*SUBJECT, "history", "prompt", "output"], dropna=False)["energy_j"]
        more, soon = rows["energy_j"] - alike.transform("mean"), wait_s <= wait_s.quantile(SOON)
        these, others = (more[which].to_numpy(np.float64) for which in (soon, ~soon))
        if min(len(these), len(others)) < ENOUGH:
            continue
        difference, u = these.mean() - others.mean(), np.hypot(sem(these), sem(others))
        if difference > SURE * u:
            said.append(
                f"{channel}: inferences that begin within {quantity(wait_s[soon].max(), 's')} of the one before draw "
                f"{quantity(difference, 'J')} ± {quantity(u, 'J')} more than others of their configuration: the device "
                "needs longer to come to rest (`settle` in lab.yaml, docs/meters.md)"
            )
    return said


def _of_run(run: RunDir) -> dict[str, str | dict[str, str]]:
    m, inferences = run.manifest, run.records("inference")
    warmups = sum(inference["warmup"] for inference in inferences)
    last_settings = {record["instrument"]: record["settings"] for record in run.records("settings")}
    instruments = {i.name: _instrument(i, last_settings.get(i.name, i.settings)) for i in m.instruments}
    return {
        "Run": f"{m.session}/{m.run}, started {m.created}",
        "Outcome": IMPORTED if m.protocol == "import" else f"{run.state}: {ENDS[run.state]}",
        "Inferences": f"{len(inferences) - warmups}, and {warmups} to warm up{_skipped(run)}",
        "Engine": plain(m.engine),
        "Protocol": f"{m.protocol}, seed {m.seed}; {plain(m.arguments)}",
        "Instruments": instruments,
        "Clock": m.clock,
        "Host": plain(m.host),
        "Versions": plain(m.versions),
    }


def _skipped(run: RunDir) -> str:
    skipped = sum(not record["warmup"] for record in run.records("skipped"))
    return f"; {skipped} skipped, which cannot run" if skipped else ""


def _instrument(meter: Instrument, settings: Mapping[str, Any]) -> str:
    pace = "it streams" if meter.interval_ns is None else f"polled every {quantity(meter.interval_ns / 1e9, 's')}"
    told = [plain(part) for part in (meter.identity, settings) if part]
    return "; ".join([f"{meter.driver}, {pace}", *told])


def _of_table(table: pd.DataFrame) -> dict[str, str | dict[str, str]]:
    names = ("session", "run", *SUBJECT)
    return {
        "Source": "a dataset: imported, or reduced earlier; there is no recording beside it",
        "Rows": str(len(table)),
        **{name.capitalize(): plain(table[name].dropna().unique().tolist()) for name in names},
    }


def plain(value: Any) -> str:
    """A value of a manifest as text that people read."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_within(item)}" for key, item in value.items()) or DASH
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_within, value)) or DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return DASH if value in {None, ""} else str(value)


def _within(value: Any) -> str:
    return f"({plain(value)})" if isinstance(value, Mapping) and value else plain(value)
