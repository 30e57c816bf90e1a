"""Certificates as people read of them: which stand behind each channel, and whether they hold."""

from __future__ import annotations

from typing import Any

from joulelab.analysis.dataset import Phases
from joulelab.quantities import Origin
from joulelab.report.numbers import DASH
from joulelab.report.words import STATES, UNCERTIFIED

NONE = {
    **dict.fromkeys(("hash", "made", "valid_until", "simulated")),
    "kind": "gain",
    "state": "none",
    "note": f"{UNCERTIFIED}: 'joulelab calibrate gain' compares it with another meter",
}


def certificates(phases: Phases) -> list[dict[str, str]]:
    """A row for each certificate that a channel was read with, or should have been, and for each gain without one."""
    checked = {row["channel"] for row in phases.certificates if row["kind"] == "gain"}
    none = [NONE | {"channel": name} for name in phases.channels if name not in checked]
    return [_row(row) for row in (*phases.certificates, *none)]


def _row(row: dict[str, Any]) -> dict[str, str]:
    simulated = row["simulated"]
    return {
        "channel": row["channel"],
        "kind": row["kind"],
        "certificate": (row["hash"] or DASH)[:12],
        "made": _day(row["made"]),
        "valid until": _day(row["valid_until"]),
        "from": DASH if simulated is None else (Origin.SIMULATED if simulated else Origin.MEASURED),
        "state": STATES[row["state"]],
        "why": row["note"],
    }


def _day(time: str | None) -> str:
    return (time or DASH)[:10]
