"""Work counts that explain what a phase costs, each with a coefficient; what is not linear stands in parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from joulelab.analysis.modelling import work
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid


class Work(NamedTuple):
    """What n inferences ask for: tokens of history, prompt and output; and for energies that are chained to them the
    `seconds` [n] that the time model of the phase predicts, and those of the phase `before` it.
    """

    h: Floats
    p: Floats
    o: Floats
    seconds: Floats | None = None
    before: Floats | None = None


class _Kind(NamedTuple):
    symbol: str
    unit: str
    of: Callable[..., Floats]


def _seconds(w: Work) -> Floats:
    assert w.seconds is not None, "a chained energy needs the seconds that its time model predicts"
    return w.seconds


def _risen(w: Work, constant: float) -> Floats:
    assert w.before is not None, "what the prefill has done to the power needs the seconds that it is predicted to take"
    return np.where(w.o > 1, -np.expm1(-w.before / constant), 0.0)


_KINDS = {
    "start": _Kind("", "", lambda w: np.ones_like(w.p)),
    "load": _Kind("", "", lambda w: np.ones_like(w.p)),
    "held": _Kind("h", "token", lambda w: w.h),
    "token": _Kind("p", "token", lambda w: w.p),
    "tile": _Kind("ceil{0:g}(p)", "token", lambda w, tile: work.padded(w.p, tile)),
    "roofline": _Kind("roof{0:g},{1:g},{2:g}(p)", "token", lambda w, *at: work.roofline(w.p, *at)),
    "microbatch": _Kind("ceil(p/{0:g})", "pass", lambda w, size: np.ceil(w.p / size)),
    "pair": _Kind("A_p", "pair", lambda w: work.prefill_pairs(w.h, w.p)),
    "tiled_pair": _Kind("A_ceil{0:g}(p)", "pair", lambda w, tile: work.prefill_pairs(w.h, work.padded(w.p, tile))),
    "cache": _Kind("h ceil(p/{0:g})", "token", lambda w, size: work.cache_reads(w.h, w.p, size)),
    "tokens": _Kind("p[{0:g}-{1:g}]", "token", lambda w, low, high: np.clip(w.p - low, 0, high - low)),
    "step": _Kind("[p>{0:g}]", "", lambda w, knot: (w.p > knot).astype(np.float64)),
    "onset": _Kind("[o>1]", "", lambda w: (w.o > 1).astype(np.float64)),
    "onset_token": _Kind("p[o>1]", "token", lambda w: np.where(w.o > 1, w.p, 0.0)),
    "risen": _Kind("r[{0:g}s]", "", _risen),
    "pass": _Kind("(o-1)", "pass", lambda w: work.passes(w.o)),
    "context": _Kind("A_d", "pair", lambda w: work.decode_pairs(w.h, w.p, w.o)),
    "within": _Kind("A_d[c<={0:g}]", "pair", lambda w, knot: work.pairs_within(w.h, w.p, w.o, knot)),
    "beyond": _Kind(
        "A_d[c>{0:g}]",
        "pair",
        lambda w, knot: work.decode_pairs(w.h, w.p, w.o) - work.pairs_within(w.h, w.p, w.o, knot),
    ),
    "contexts": _Kind(
        "A_d[{0:g}-{1:g}]",
        "pair",
        lambda w, low, high: work.pairs_beyond(w.h, w.p, w.o, low) - work.pairs_beyond(w.h, w.p, w.o, high),
    ),
    "seconds": _Kind("t", "s", _seconds),
    "ramped": _Kind("t[{0:g}s]", "s", lambda w, constant: work.ramped(_seconds(w), constant)),
}
CHAINED = {"seconds": "seconds", "ramped": "seconds", "risen": "before"}
"""Counts of predicted time, and which time that is."""
SEVERAL = {"tokens", "step", "contexts"}
"""Kinds that a form may have more than once."""
ONSETS = {"start", "onset", "onset_token", "risen"}
"""What an energy has more or less where power follows a load late, or a slow sensor shows it late: of either sign."""


@dataclass(frozen=True)
class Term:
    """A work count of a `kind`, with the parameters `at` which it takes: a tile, a knot, a micro-batch [token]."""

    kind: str
    at: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        ends = [f"{x:g}" for x in self.at if math.isfinite(x)]
        return "_".join([self.kind, *ends]) if self.kind in SEVERAL else self.kind

    @property
    def symbol(self) -> str:
        """As it stands in a form; all of a prompt in one micro-batch needs no mention."""
        return _KINDS[self.kind].symbol.format(*self.at).replace(" ceil(p/inf)", "").replace("inf", "∞")

    @property
    def unit(self) -> str:
        return _KINDS[self.kind].unit

    def count(self, work: Work) -> Floats:
        return np.asarray(_KINDS[self.kind].of(work, *self.at), np.float64)

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{x:g}' for x in self.at)})" if self.at else self.kind


def parse(text: str) -> Term:
    """The term that `str` wrote. DataInvalid where it is none."""
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", text)
    if not found or found[1] not in _KINDS:
        raise DataInvalid(f"{text!r} is no term that this joulelab knows: update joulelab")
    return Term(found[1], tuple(float(x) for x in found[2].split(", ")) if found[2] else ())
