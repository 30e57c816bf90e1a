"""How the recording of a run went: what sampling cost, and the clock jumps, gaps and faults of its journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from joulelab.analysis.slowdowns import Slowdown, slowdowns
from joulelab.recording import RunDir
from joulelab.report.numbers import percent, quantity
from joulelab.timebase import SECOND


def sampling(run: RunDir) -> list[dict[str, str]]:
    """What sampling cost, an entry a sampler record: a resumed run has several of one instrument."""
    return [
        {
            "instrument": record["instrument"],
            "readings": str(record["readings"]),
            "missed": str(record["missed"]),
            "lateness p50": _microseconds(record["lateness_p50_us"]),
            "lateness p99": _microseconds(record["lateness_p99_us"]),
            "CPU time": quantity(record["cpu_s"], "s"),
            "of one core": percent(100 * record["cpu_s"] / record["wall_s"]),
        }
        for record in run.records("sampler")
    ]


def _microseconds(value: float | None) -> str:
    return quantity(None if value is None else value / 1e6, "s")


def events(run: RunDir) -> list[dict[str, str]]:
    """Clock jumps, gaps, faults and the like in their order, with the time after the start; slowdowns are summed up."""
    zero = run.journal[0]["t"] if run.journal else 0
    told = [(r["t"], r["kind"], TELL[r["kind"]](r)) for r in run.journal if r["kind"] in TELL]
    return [
        {"at": f"{(t - zero) / SECOND:.1f} s", "kind": kind, "what happened": what}
        for t, kind, what in sorted([*told, *_slowdowns(run)])
    ]


def _slowdowns(run: RunDir) -> Iterator[tuple[int, str, str]]:
    """When each card was first slowed down for the same reasons, and how often and for how long in all."""
    alike: dict[tuple[str, tuple[str, ...]], list[Slowdown]] = {}
    for slowdown in slowdowns(run):
        alike.setdefault((slowdown.card, slowdown.reasons), []).append(slowdown)
    for (card, reasons), each in alike.items():
        length = quantity(sum(one.stop - one.start for one in each) / SECOND, "s")
        yield (
            each[0].start,
            "throttle",
            f"{card}: slowed down by {', '.join(reasons)} {len(each)}x, {length} in all",
        )


def _jump(record: Mapping[str, Any]) -> str:
    says = {"suspend": "the host slept for", "wall_step": "wall-clock time was stepped by"}
    return "; ".join(f"{text} {quantity(record[key] / SECOND, 's')}" for key, text in says.items() if key in record)


def _gap(record: Mapping[str, Any]) -> str:
    length = quantity((record["stop"] - record["start"]) / SECOND, "s")
    return f"{record['instrument']}: no readings for {length}, {record['missed']} missed"


def _fault(record: Mapping[str, Any]) -> str:
    often = f" ({record['readings']} readings)" if record.get("readings", 1) > 1 else ""
    return f"{record['source']}: {record['message']}{often}"


TELL: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "jump": _jump,
    "gap": _gap,
    "fault": _fault,
    "overrange": lambda record: record["message"],
    "reconnect": lambda record: f"{record['instrument']}: connected again",
}
