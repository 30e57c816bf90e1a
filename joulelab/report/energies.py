"""Mean energies of configurations with their uncertainty, and idle power, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from joulelab.analysis.dataset import SUBJECT, Phases
from joulelab.analysis.means import Means
from joulelab.analysis.modelling.cases import PHASES
from joulelab.report.numbers import expanded, number, quantity
from joulelab.report.words import tokens


def mean_energies(found: Means) -> dict[str, dict[str, list[dict[str, str]]]]:
    """The mean energy of each configuration, with expanded uncertainties for 95 %, by phase.

    These by channel, and by what else differs where a dataset has several sessions, devices or models.
    """
    rows = found.table.sort_values(["history", "prompt", "output"])
    named = [*(name for name in ("session", *SUBJECT) if rows[name].nunique() > 1), "channel"]
    groups = rows.groupby(named, dropna=False)
    return {", ".join(map(str, name)): _by_phase(part) for name, part in groups}


def _by_phase(rows: pd.DataFrame) -> dict[str, list[dict[str, str]]]:
    its = {phase: rows[rows["phase"] == phase].to_dict("records") for phase in PHASES}
    return {phase: [_mean(row) for row in found] for phase, found in its.items() if found}


def _mean(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "tokens": tokens(row["history"], row["prompt"], None if pd.isna(row["output"]) else row["output"]),
        "repeats": str(row["runs"]),
        "energy": expanded(row["energy_j"], row["energy_k"] * row["energy_u_j"], "J"),
        "k": number(row["energy_k"]),
        "above idle": expanded(row["dynamic_j"], row["dynamic_k"] * row["dynamic_u_j"], "J"),
        "k of it": number(row["dynamic_k"]),
    }


def idle_power(phases: Phases) -> list[dict[str, str]]:
    """Idle power by channel; the spread is a standard deviation over the idle steps."""
    return [
        {
            "channel": str(row["channel"]),
            "origin": str(phases.channels[row["channel"]].origin),
            "power": quantity(row["idle_w"], "W"),
            "spread": quantity(row["idle_u_w"], "W"),
            "idle steps": str(row["steps"]),
        }
        for row in phases.idle.to_dict("records")
    ]
