"""The model forms: which work counts may explain a phase, and the few candidates that the data choose among.

Prefill is compute-bound and its matrix multiplications come in tiles; decode is memory-bound, so a pass costs the
reading of the weights and of the cache. Time and energy share the counts: no observed time explains an energy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joulelab.analysis.work import decode_pairs, padded, passes, prefill_pairs
from joulelab.calibration.integrals import Floats

TILES = (32, 64, 128, 256, 512)
"""GPU kernels tile by 32 to 256 tokens; llama.cpp's micro-batch, which reads the weights once, is 512 by default."""
UNITS = {"time": "s", "energy": "J"}


@dataclass(frozen=True)
class Term:
    """A work count: the coefficient's `name`, the count's `symbol` and unit, and the count from h, p, o."""

    name: str
    symbol: str
    unit: str
    count: Callable[[Floats, Floats, Floats], Floats]


START = Term("start", "1", "", lambda h, p, o: np.ones_like(p))
TOKEN = Term("token", "p", "token", lambda h, p, o: p)
PAIR = Term("pair", "A_p", "pair", lambda h, p, o: prefill_pairs(h, p))
ONSET = Term("onset", "[o>1]", "", lambda h, p, o: (o > 1).astype(np.float64))
PASS = Term("pass", "(o-1)", "pass", lambda h, p, o: passes(o))
CONTEXT = Term("context", "A_d", "pair", decode_pairs)


def _tile(size: int) -> Term:
    return Term("tile", f"ceil{size}(p)", "token", lambda h, p, o: padded(p, size))


@dataclass(frozen=True)
class Form:
    """A sum of terms, each times its coefficient."""

    target: str
    terms: tuple[Term, ...]

    @property
    def names(self) -> list[str]:
        return [f"{self.target[0]}_{term.name}" for term in self.terms]

    @property
    def units(self) -> list[str]:
        return [f"{UNITS[self.target]}/{term.unit}".rstrip("/") for term in self.terms]

    def __str__(self) -> str:
        return " + ".join(
            name if term.symbol == "1" else f"{name} {term.symbol}"
            for name, term in zip(self.names, self.terms, strict=True)
        )

    def design(self, points: pd.DataFrame) -> Floats:
        """The work counts [points, terms] of points with columns `history`, `prompt`, `output`."""
        h, p, o = (points[name].to_numpy(np.float64) for name in ("history", "prompt", "output"))
        return np.stack([term.count(h, p, o) for term in self.terms], axis=1)


_PREFILL = (
    (START, TOKEN),
    (START, TOKEN, PAIR),
    *((START, _tile(size), PAIR) for size in TILES),
    *((START, TOKEN, _tile(size), PAIR) for size in TILES),
)
_DECODE = {"time": (PASS, CONTEXT), "energy": (ONSET, PASS, CONTEXT)}


def candidates(target: str, phase: str) -> list[Form]:
    """The forms that may explain a phase; for `total` those of prefill and decode together.

    Where every inference decodes, its onset cannot be told from the start, and forms without it serve.
    """
    if phase == "decode":
        return [Form(target, _DECODE[target])]
    if phase == "prefill":
        return [Form(target, terms) for terms in _PREFILL]
    decodes = dict.fromkeys([_DECODE["time"], _DECODE[target]])
    return [Form(target, terms + decode) for decode in decodes for terms in _PREFILL]
