"""What an inference waits for: the kind of work that takes most of it, over the space and over a session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.terms import Term
from joulelab.analysis.modelling.work import padded
from joulelab.analysis.space.box import seen
from joulelab.analysis.space.surface import Grid
from joulelab.calibration.integrals import Floats

KINDS = {
    "compute": "arithmetic of the prefill, attention included",
    "weights": "reading the weights, with what it takes to launch a pass",
    "cache": "reading the KV cache",
    "overhead": "what a request takes whatever its length",
}
_KIND_OF = {
    **dict.fromkeys(("token", "tile", "pair", "tiled_pair", "tokens", "step"), "compute"),
    **dict.fromkeys(("pass", "microbatch"), "weights"),
    **dict.fromkeys(("cache", "context", "within", "beyond", "contexts"), "cache"),
    **dict.fromkeys(("start", "onset", "onset_token"), "overhead"),
}
Turns = Iterable[tuple[int, int]]
"""Prompt and output tokens of each turn of a session."""


@dataclass(frozen=True)
class Bottlenecks:
    """The kind of work that takes most, `dominant` [H, P, O], a number into KINDS, and its `share` of the whole; `seen`
    says which points lie within the model's range.
    """

    model: Model
    grid: Grid
    dominant: NDArray[np.int8]
    share: Floats
    seen: NDArray[np.bool_]


def bottlenecks(model: Model, grid: Grid) -> Bottlenecks:
    """What dominates over the whole grid, within the model's range or not."""
    h, p, o = (x.ravel() for x in np.meshgrid(grid.history, grid.prompt, grid.output, indexing="ij"))
    each = np.stack([*kinds(model, pd.DataFrame({"history": h, "prompt": p, "output": o})).values()])
    share = each.max(axis=0) / np.maximum(each, 0.0).sum(axis=0)
    dominant = each.argmax(axis=0).astype(np.int8)
    return Bottlenecks(model, grid, dominant.reshape(grid.shape), share.reshape(grid.shape), seen([model], grid))


def over_session(model: Model, turns: Turns) -> pd.DataFrame:
    """A row a turn: `history`, `prompt`, `output`, and what each kind of work costs [s or J].

    The cache is kept: the history of a turn is all of the turns before it but the last token of the last one.
    """
    rows, history = [], 0
    for prompt, output in turns:
        rows.append((history, prompt, output))
        history += prompt + output - 1
    points = pd.DataFrame(rows, columns=["history", "prompt", "output"])
    return points.assign(**kinds(model, points))


def kinds(model: Model, points: pd.DataFrame) -> dict[str, Floats]:
    """What each kind of work costs [points] in s or J; together what the model predicts.

    DataInvalid where the model has no total.
    """
    found = {kind: np.zeros(len(points)) for kind in KINDS}
    for part in model.parts("total"):
        for kind, cost in _of_part(part, points):
            found[kind] = found[kind] + cost
    return found


def _of_part(part: PhaseModel, points: pd.DataFrame) -> Iterable[tuple[str, Floats]]:
    for term, cost in zip(part.form.terms, part.components(points).values(), strict=True):
        yield from _of_term(part, term, cost, points)


def _of_term(part: PhaseModel, term: Term, cost: Floats, points: pd.DataFrame) -> Iterable[tuple[str, Floats]]:
    """A smooth roofline is two kinds at once, in the shares of their squares; power times time is what the time is."""
    if term.kind == "roofline":
        tile, even, batch = term.at
        prompts = points["prompt"].to_numpy(np.float64)
        arithmetic = padded(np.minimum(prompts, batch), tile) ** 2
        share = arithmetic / (arithmetic + even**2)
        yield from (("compute", cost * share), ("weights", cost * (1 - share)))
    elif term.kind == "seconds":
        assert part.timed is not None
        seconds = np.maximum(part.timed.predict(points), np.finfo(np.float64).tiny)
        yield from ((kind, cost * took / seconds) for kind, took in _of_part(part.timed, points))
    else:
        yield _KIND_OF[term.kind], cost
