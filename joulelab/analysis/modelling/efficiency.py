"""What rates a time model's coefficients imply, beside the device's peak: a check that they can be physical at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.terms import Work
from joulelab.analysis.modelling.work import decode_pairs, passes, prefill_pairs
from joulelab.analysis.shapes import Peak, Shape
from joulelab.calibration.integrals import Floats

TOKENS = {"token", "tile", "roofline", "tokens", "step"}
CONTEXTS = {"cache", "context", "within", "beyond", "contexts"}


@dataclass(frozen=True)
class Efficiency:
    """The rate [FLOP/s or B/s] that terms of a phase imply at the largest inference that was seen, and its share of the
    peak, None where none is known.

    `impossible` where even the slow end of their 95 % interval is over the peak.
    """

    phase: str
    terms: str
    what: str
    rate: float
    unit: str
    share: float | None
    impossible: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Work(NamedTuple):
    what: str
    kinds: set[str]
    amount: float
    unit: str
    peak: float | None


def efficiencies(model: Model) -> list[Efficiency]:
    """What a time model's terms imply; nothing for energies, and where nothing tells the language model's shape."""
    if model.target != "time" or model.shape is None:
        return []
    batch = model.subject["batch"] or 1
    return [row for part in model.phases for row in _of_phase(part, model.shape, model.peak, batch)]


def _of_phase(part: PhaseModel, shape: Shape, peak: Peak | None, batch: int) -> Iterator[Efficiency]:
    largest = {name: np.array([part.valid.get(name, (0.0, 1.0))[1]]) for name in ("history", "prompt", "output")}
    counts = part.design(pd.DataFrame(largest))[0]
    slow = np.array([coefficient.high for coefficient in part.coefficients])
    for work in _works(part, shape, peak, batch, *largest.values()):
        own = np.array([term.kind in work.kinds for term in part.form.terms])
        if (seconds := counts[own] @ part.beta[own]) > 0:
            rate, slowest = work.amount / seconds, work.amount / (counts[own] @ slow[own])
            named = " + ".join(name for name, mine in zip(part.form.names, own, strict=True) if mine)
            share = work.peak and float(rate / work.peak)
            impossible = bool(work.peak and slowest > work.peak)
            yield Efficiency(part.phase, named, work.what, float(rate), work.unit, share, impossible)


def _works(
    part: PhaseModel, shape: Shape, peak: Peak | None, batch: int, h: Floats, p: Floats, o: Floats
) -> Iterator[_Work]:
    """What each kind of term stands for, of an inference of `batch` sequences of `h`, `p` and `o` tokens [1]."""
    compute, bandwidth = (peak.compute, peak.bandwidth) if peak else (None, None)
    # What comes before the first step is in the start.
    before = min((term.at[0] for term in part.form.terms if term.kind == "step"), default=0.0)
    matrices, attention = 2 * shape.body_weights * (p - before), shape.attention_flops_per_pair * prefill_pairs(h, p)
    reads = [term.count(Work(h, p, o)) for term in part.form.terms if term.kind == "cache"]
    weights = shape.weight_bytes * passes(o)
    cache = shape.kv_bytes_per_token * sum(reads, decode_pairs(h, p, o))
    yield _Work("matrix arithmetic", TOKENS, batch * float(matrices[0]), "FLOP/s", compute)
    yield _Work("attention arithmetic", {"pair", "tiled_pair"}, batch * float(attention[0]), "FLOP/s", compute)
    yield _Work("reading the weights", {"pass"}, float(weights[0]), "B/s", bandwidth)
    yield _Work("reading the cache", CONTEXTS, batch * float(cache[0]), "B/s", bandwidth)
    yield _Work("moving the cache, out and in", {"held"}, shape.kv_bytes_per_token * float(h[0]), "B/s", None)
    yield _Work("loading the weights", {"load"}, shape.weight_bytes, "B/s", None)
