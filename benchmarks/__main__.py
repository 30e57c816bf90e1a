"""`python -m benchmarks` measures the topics and prints a table for each; `make bench` runs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.backbone import figures as backbone
from benchmarks.gpu import figures as gpu
from benchmarks.instruments import figures as instruments
from benchmarks.models import figures as models
from benchmarks.row import Benchmark, Row
from benchmarks.trust import figures as trust
from joulelab.errors import HardwareMissing

PIPED_COLUMNS = 160


class Topic(NamedTuple):
    """What `make bench` measures, and what `make long` measures besides."""

    short: Sequence[Benchmark]
    long: Sequence[Benchmark]


TOPICS = {
    "backbone": Topic(backbone.SHORT, backbone.LONG),
    "instruments": Topic(instruments.SHORT, ()),
    "trust": Topic(trust.SHORT, trust.LONG),
    "models": Topic(models.SHORT, models.LONG),
    "gpu": Topic(gpu.SHORT, ()),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=TOPICS, help="measure this topic")
    parser.add_argument("--long", action="store_true", help="the slow ones, too")
    parser.add_argument("--json", action="store_true", help="print each row as a JSON object")
    asked = parser.parse_args(arguments)
    for name in [asked.only] if asked.only else TOPICS:
        rows = measure(name, long=asked.long)
        if asked.json:
            for row in rows:
                print(json.dumps(row.to_json(name)), flush=True)
        else:
            Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table(name, list(rows)))


def measure(topic: str, *, long: bool) -> Iterator[Row]:
    """The rows of a topic as they come, with word on standard error of what is being measured."""
    short, slow = TOPICS[topic]
    for benchmark in [*short, *(slow if long else ())]:
        title = (benchmark.__doc__ or "").partition("\n")[0].rstrip(".")
        print(f"{topic}: {title}", file=sys.stderr, flush=True)
        try:
            yield from benchmark()
        except HardwareMissing as missing:
            yield Row(title, None, "", None, "lower", reason=str(missing))


def table(topic: str, rows: Sequence[Row]) -> Table:
    found = Table(title=topic)
    found.add_column("what")
    for name in ("value", "limit"):
        found.add_column(name, justify="right")
    for name in ("unit", "alternative", "ok"):
        found.add_column(name)
    for row in rows:
        found.add_row(row.what, *_figures(row), row.unit, _alternatives(row), _judgement(row))
    return found


def _figures(row: Row) -> tuple[str, str]:
    bound = "≤" if row.better == "lower" else "≥"
    value = "-" if row.value is None else _number(row.value)
    return value, "" if row.limit is None else f"{bound} {_number(row.limit)}"


def _alternatives(row: Row) -> str:
    return row.reason or "\n".join(f"{name} {_number(value)}" for name, value in row.alternative.items())


def _judgement(row: Row) -> str:
    return {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.ok]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
