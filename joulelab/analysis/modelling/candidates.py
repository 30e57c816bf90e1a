"""The candidates among which the data choose: for each phase the forms that its physics allows.

Nothing but a few parameters differs between many of them (tile, break-even tokens, micro-batch, knot); each stands for
a number that a non-linear fit would seek.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.forms import CONTEXT, ONSET, PAIR, PASS, SECONDS, START, TOKEN, Form
from joulelab.analysis.modelling.terms import Term
from joulelab.calibration.integrals import Floats

TILES = (4, 8, 16, 32, 64, 128, 256, 512)
"""Tokens that matrix kernels take at once: rows of a CPU's micro-kernel up to tiles of a GPU's."""
QUERIES = (16, 32, 64, 128)
"""Prompt tokens that attention kernels take at once."""
EVEN = (8, 16, 32, 64, 128, 256, 512)
"""Tokens whose arithmetic takes as long as reading the weights: a device's FLOP/s over its bytes/s, about."""
BATCHES = (256, 512, 1024, 2048)
"""Micro-batches in use; llama.cpp's default is 512 tokens."""
STEPS = (64, 128, 256)
"""A staircase's: tokens between two measured steps."""
RAMPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Time constants [s] that power follows a load with, or a sensor the power; no phase that is shorter shows one."""
MAX_HINGES = 2
ONSET_TOKEN = Term("onset_token")
LOAD, HELD = Term("load"), Term("held")

_Terms = tuple[Term, ...]


def candidates(target: str, phase: str, points: pd.DataFrame) -> list[Form]:
    """The forms that may explain `phase` of points with columns `history`, `prompt`, `output`; the first is the
    simplest. Chained ones are among them where the points have the predicted times. Knots lie in the interior of what
    the points have seen.
    """
    forms = (Form(target, terms) for terms in dict.fromkeys(_CANDIDATES[phase](target, points)))
    return [form for form in forms if {*form.chained} <= {*points.columns}]


def _prefill(target: str, points: pd.DataFrame) -> Iterator[_Terms]:
    yield (START, TOKEN)
    yield (START, TOKEN, PAIR)
    batches = [size for size in BATCHES if size < points["prompt"].max()]
    if target == "energy":
        longest_s = points["seconds"].max() if "seconds" in points else 0.0
        yield from _chained_prefill(batches, [constant for constant in RAMPS if constant <= longest_s])
        return
    tiles = [Term("tile", (size,)) for size in TILES]
    yield from ((START, *counts, PAIR) for tile in tiles for counts in ((tile,), (TOKEN, tile)))
    yield from ((START, count, Term("tiled_pair", (size,))) for size in QUERIES for count in (TOKEN, *tiles))
    caches = [Term("cache", (size,)) for size in (math.inf, *batches)]
    yield from ((START, count, PAIR, cache) for cache in caches for count in (TOKEN, *tiles))
    for at in product((1, *TILES), EVEN, (math.inf, *batches)):
        roofline, batch = Term("roofline", at), at[-1]
        cache = Term("cache", (batch,))
        yield START, roofline
        yield START, roofline, PAIR
        yield roofline, PAIR, cache
        yield START, roofline, PAIR, cache
        if math.isfinite(batch):
            yield START, Term("microbatch", (batch,)), roofline, PAIR
    for batch, tile in product(batches, (TOKEN, *tiles)):
        yield START, Term("microbatch", (batch,)), tile, PAIR
    yield from ((START, *counts, PAIR) for counts in _piecewise("tokens", points["prompt"].to_numpy()))
    yield from _staircases(points["prompt"].to_numpy())


def _chained_prefill(batches: Iterable[float], constants: Iterable[float]) -> Iterator[_Terms]:
    """Where the power is that of a phase, whatever it does, time is enough; counts tell its parts apart."""
    tiles = [Term("tile", (size,)) for size in TILES]
    passes = [Term("microbatch", (size,)) for size in batches]
    yield (SECONDS,)
    yield START, SECONDS
    yield START, SECONDS, PAIR
    for tile in (TOKEN, *tiles):
        yield START, tile, PAIR
        yield START, SECONDS, tile
        yield START, SECONDS, tile, PAIR
    yield from ((START, TOKEN, tile, PAIR) for tile in tiles)
    for constant, count in product(constants, (None, TOKEN, PAIR, *tiles)):
        yield SECONDS, Term("ramped", (constant,)), *([count] if count else [])
    yield from ((START, micro, tile, PAIR) for micro, tile in product(passes, (SECONDS, TOKEN, *tiles)))


def _decode(target: str, points: pd.DataFrame) -> Iterator[_Terms]:
    contexts = (points["history"] + points["prompt"] + points["output"] / 2).to_numpy()
    if target == "time":
        yield PASS, CONTEXT
        yield ONSET, PASS, CONTEXT
        for knot in _knots(contexts):
            yield PASS, Term("within", (knot,)), Term("beyond", (knot,))
        yield from ((PASS, *counts) for counts in _piecewise("contexts", contexts))
        return
    yield ONSET, PASS, CONTEXT
    yield ONSET, ONSET_TOKEN, PASS, CONTEXT
    yield (SECONDS,)
    yield ONSET, SECONDS
    yield ONSET, SECONDS, CONTEXT
    yield ONSET, SECONDS, PASS
    yield ONSET, ONSET_TOKEN, SECONDS
    for risen in (Term("risen", (constant,)) for constant in RAMPS):
        yield ONSET, risen, SECONDS
        yield ONSET, risen, SECONDS, PASS
        yield ONSET, risen, PASS, CONTEXT


def _total(target: str, points: pd.DataFrame) -> Iterator[_Terms]:
    """Prefill and decode together; where every inference decodes, its onset cannot be told from the start."""
    prefills = [(START, TOKEN), (START, TOKEN, PAIR)]
    prefills += [(START, *counts, PAIR) for size in TILES for counts in _tiled(size)]
    decodes = [(PASS, CONTEXT), *([(ONSET, PASS, CONTEXT)] if target == "energy" else [])]
    yield from (prefill + decode for decode in decodes for prefill in prefills)
    if target == "energy":
        yield START, SECONDS
        yield START, ONSET, SECONDS
        yield START, SECONDS, PASS


def _tiled(size: float) -> tuple[_Terms, _Terms]:
    tile = Term("tile", (size,))
    return (tile,), (TOKEN, tile)


def _knots(values: Floats) -> list[float]:
    """Powers of two, and what lies half-way between them, within the inner two thirds of the values."""
    low, high = np.quantile(np.unique(values), (1 / 6, 5 / 6))
    grid = [x for k in range(4, 20) for x in (2.0**k, 1.5 * 2.0**k)]
    return [knot for knot in grid if low < knot < high]


def _piecewise(kind: str, values: Floats) -> Iterator[_Terms]:
    """Sums of slopes between knots; each slope is physical by itself."""
    for n in range(1, MAX_HINGES + 1):
        for knots in combinations(_knots(values), n):
            yield tuple(Term(kind, ends) for ends in pairwise((0.0, *knots, math.inf)))


def _staircases(prompts: Floats) -> Iterator[_Terms]:
    """A cost of its own for each multiple of so many tokens (a measured table): by ceiling, or linear in between."""
    for width in STEPS:
        levels = np.unique(np.ceil(prompts / width)) * width
        knots = [float(level) for level in levels[:-1]]
        if len(knots) > MAX_HINGES:
            yield (START, *(Term("step", (knot,)) for knot in knots), PAIR)
            yield (START, *(Term("tokens", ends) for ends in pairwise((0.0, *knots, math.inf))), PAIR)


def _load(_target: str, _points: pd.DataFrame) -> Iterator[_Terms]:
    yield (LOAD,)


def _transfer(target: str, _points: pd.DataFrame) -> Iterator[_Terms]:
    yield (HELD,)
    yield START, HELD
    if target == "energy":
        yield (SECONDS,)


_CANDIDATES = {"prefill": _prefill, "decode": _decode, "total": _total, "load": _load, "transfer": _transfer}
