"""What tables on the terminal have in common; 100 columns hold all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class Item(Protocol):
    """What a model and a verdict are about."""

    @property
    def target(self) -> str: ...
    @property
    def channel(self) -> str | None: ...
    @property
    def origin(self) -> str: ...


def table(texts: Sequence[str], figures: Sequence[str], ends: Sequence[str]) -> Table:
    """A table without rows: columns of text, of figures and of text."""
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in texts:
        made.add_column(name, overflow="fold")
    for name in figures:
        made.add_column(name, justify="right", overflow="fold")
    for name in ends:
        made.add_column(name, overflow="fold")
    return made


def note(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2))


def subject(item: Item) -> str:
    return item.channel or item.target


def firsts(item: Item, rows: int) -> list[str]:
    """The first column of `rows` rows that are about one thing: it is said once."""
    lines = [f"{item.target}, {item.origin}", item.channel or ""]
    return lines + [""] * (rows - 2) if rows > 1 else ["\n".join(lines).strip()]
