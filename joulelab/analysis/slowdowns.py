"""Which inferences ran while an instrument told that power, heat or hardware slowed the device down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from joulelab.recording import RunDir

WATCHES = "clocks_event_reasons"
"""How the channel of an instrument ends that tells of slowdowns."""


class Slowdown(NamedTuple):
    """Which card, from when to when [ns], and for which reasons."""

    card: str
    start: int
    stop: int
    reasons: tuple[str, ...]


def slowdowns(run: RunDir) -> list[Slowdown]:
    """The slowdowns of all cards that a run's instruments watched."""
    since: dict[str, tuple[int, tuple[str, ...]]] = {}
    found = []
    for record in run.records("throttle"):
        card = f"{record['instrument']} {record['gpu']}"
        start, reasons = since.get(card, (record["at"], ()))
        found.append(Slowdown(card, start, record["at"], reasons))
        since[card] = record["at"], tuple(record["reasons"])
    end = int(run.journal[-1]["t"]) if run.journal else 0
    found += [Slowdown(card, start, end, reasons) for card, (start, reasons) in since.items()]
    return [slowdown for slowdown in found if slowdown.reasons]


def with_slowdowns(run: RunDir, inferences: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of inferences; `throttled` is told where the engine does not and an instrument watched."""
    if not any(name.endswith(WATCHES) for name in run.channels):
        return list(inferences)
    found = slowdowns(run)
    return [
        record | {"throttled": bool(record.get("throttled")) or any(_meet(record, slowdown) for slowdown in found)}
        for record in inferences
    ]


def slowed(run: RunDir, inferences: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How many inferences were slowed down, and why."""
    found = slowdowns(run)
    met = [[slowdown for slowdown in found if _meet(record, slowdown)] for record in inferences]
    if many := sum(map(bool, met)):
        reasons = dict.fromkeys(reason for several in met for slowdown in several for reason in slowdown.reasons)
        yield f"{run.manifest.run}: {many} of {len(met)} inferences ran slowed down by {', '.join(reasons)}"


def _meet(record: dict[str, Any], slowdown: Slowdown) -> bool:
    phases = record["phases"]
    return bool(phases[0]["start"] <= slowdown.stop and slowdown.start <= phases[-1]["stop"])
