"""The turns of sessions, and how much the cache holds before each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from joulelab.errors import UserError

COLUMNS = ("session", "prompt", "output")


class Turn(NamedTuple):
    """New prompt tokens and output tokens. The history follows from the turns before."""

    prompt: int
    output: int


def histories(turns: Sequence[Turn]) -> list[int]:
    """Tokens in the cache before each turn and after the last one [turns + 1]; the last output token is not in it."""
    return list(accumulate((turn.prompt + turn.output - 1 for turn in turns), initial=0))


def read_sessions(path: Path) -> dict[str, list[Turn]]:
    """The sessions of a CSV file with the columns `session`, `prompt` and `output`, a row a turn in its order.

    UserError, with the line, where the file is not like that.
    """
    found: dict[str, list[Turn]] = {}
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise UserError(f"{path} has no column {missing[0]!r}; a row a turn needs {', '.join(COLUMNS)}")
        for row in rows:
            found.setdefault(row["session"], []).append(_turn(row, f"{path}, line {rows.line_num}"))
    if not found:
        raise UserError(f"{path} has no turns")
    return found


def _turn(row: dict[str, str], where: str) -> Turn:
    texts = [row[name] or "" for name in ("prompt", "output")]
    if not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise UserError(f"{where}: prompt and output are numbers of tokens, at least 1, not {' and '.join(texts)!r}")
    return Turn(*map(int, texts))
