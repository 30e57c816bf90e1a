"""The range that a model is declared valid in, such as output>=64."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from joulelab.errors import UserError

_FORM = re.compile(r"\s*(history|prompt|output)\s*(>=|<=)\s*(\d+)\s*")
_HOLDS = {">=": operator.ge, "<=": operator.le}


class Bound(NamedTuple):
    """One end of the range, in tokens."""

    column: str
    sign: str
    tokens: int

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.tokens}"


def parse(text: str) -> Bound:
    """UserError where the text is no bound."""
    if not (found := _FORM.fullmatch(text)):
        raise UserError(f"--valid {text}: expected history, prompt or output, >= or <=, and tokens, such as output>=64")
    column, sign, tokens = found.groups()
    return Bound(column, sign, int(tokens))


def outside(rows: pd.DataFrame, bounds: Sequence[Bound]) -> pd.Series[bool]:
    """Which of the rows keep not to all the bounds."""
    found = pd.Series(False, rows.index)
    for bound in bounds:
        found |= ~_HOLDS[bound.sign](rows[bound.column], bound.tokens).astype(bool)
    return found
