"""What a person sees of long work, and how they stop it: progress on standard error, one interrupt to end well."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from joulelab.errors import RunAborted

T = TypeVar("T")

PIPED_COLUMNS = 100


def show(value: T, as_json: bool, render: Callable[[T], Any], encode: Callable[[T], Any] = lambda value: value) -> None:
    """Print JSON, or what `render` makes of the value for people: text or a rich renderable."""
    if as_json:
        print(json.dumps(encode(value), indent=1, allow_nan=False))
    else:
        Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(render(value))


def fields(values: Mapping[str, Any]) -> Table:
    """Names and values, one a line; a nested mapping or list has a line an item."""
    grid = Table.grid(padding=(0, 2))
    for name, value in values.items():
        grid.add_row(name.replace("_", " "), text(value))
    return grid


def sections(values: Mapping[str, Mapping[str, Any]]) -> Group:
    """Fields under a heading each."""
    return Group(*(Group(f"[bold]{name}[/bold]", fields(item)) for name, item in values.items()))


def table(rows: Sequence[Mapping[str, Any]]) -> Table | str:
    """Rows that have the same keys."""
    if not rows:
        return "none"
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in rows[0].items():
        made.add_column(name.replace("_", " "), justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        made.add_row(*map(text, row.values()))
    return made


def findings(rows: Sequence[Mapping[str, Any]]) -> Table | str:
    """Rows with `ok` and `message`: what is not well stands out, the other fields but `settings` follow."""
    if not rows:
        return "nothing to say"
    made = Table.grid(padding=(0, 2))
    for row in rows:
        rest = {key: value for key, value in row.items() if key not in {"ok", "message", "settings"} and value}
        named = [str(rest.pop(key)) for key in ("device", "instrument", "channel", "what") if key in rest]
        mark = "[green]ok[/green]" if row["ok"] else "[red]no[/red]"
        made.add_row(
            mark, escape(" ".join(named)), escape("\n".join([text(row["message"]), text(rest)]).removesuffix("\n-"))
        )
    return made


def text(value: Any) -> str:
    """A value as people read it; unknown is a dash."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_indented(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return "\n".join(map(text, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _indented(value: Any) -> str:
    shown = text(value)
    return "\n  " + shown.replace("\n", "\n  ") if "\n" in shown else shown


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first interrupt asks the work to stop at its next checkpoint, the second stops it now."""
    asked = False

    def on_interrupt(_number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise RunAborted("stopped by the operator in the middle of a step")
        asked = True
        print("\nstopping after this step; interrupt again to stop now", file=sys.stderr)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def progress(title: str, total: int, unit: str = "steps") -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left; the callable takes how much is done.

    It is drawn only then, between steps: a thread that draws by itself would take time from what is measured.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=True)
