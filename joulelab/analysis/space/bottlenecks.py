"""What an inference waits for: the kind of work that takes most of it, over the space and over a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.terms import CHAINED, Term
from joulelab.analysis.modelling.work import padded
from joulelab.analysis.space.box import seen
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.link import Link, cache_bytes
from joulelab.analysis.space.surface import Grid
from joulelab.calibration.integrals import Floats, Ints

KINDS = {
    "compute": "arithmetic of the prefill, attention included",
    "weights": "reading the weights, with what it takes to launch a pass",
    "cache": "reading the KV cache",
    "overhead": "what a request takes whatever its length",
    "transfer": "moving the cache from another device",
}
_KIND_OF = {
    **dict.fromkeys(("token", "tile", "pair", "tiled_pair", "tokens", "step"), "compute"),
    **dict.fromkeys(("pass", "microbatch"), "weights"),
    **dict.fromkeys(("cache", "context", "within", "beyond", "contexts"), "cache"),
    **dict.fromkeys(("start", "onset", "onset_token", "risen"), "overhead"),
}
Turns = Iterable[tuple[int, int]]
"""Prompt and output tokens of each turn of a session."""


@dataclass(frozen=True)
class Bottlenecks:
    """The kind of work that takes most of the time of a device, `dominant` [H, P, O], a number into KINDS, and its
    `share` of the whole; `seen` says which points lie within the model's range. The history is there, or comes over the
    `link`.
    """

    device: str
    model: Model
    grid: Grid
    dominant: NDArray[np.int8]
    share: Floats
    seen: NDArray[np.bool_]
    link: Link | None


def bottlenecks(costs: Sequence[DeviceCosts], grid: Grid, link: Link | None = None) -> list[Bottlenecks]:
    """What dominates the time of each device over the whole grid, within the model's range or not.

    With a `link` the history comes over it: DataInvalid where the size of a cache is unknown.
    """
    return [_of_device(each, grid, link) for each in costs]


def _of_device(costs: DeviceCosts, grid: Grid, link: Link | None) -> Bottlenecks:
    h, p, o = (x.ravel() for x in np.meshgrid(grid.history, grid.prompt, grid.output, indexing="ij"))
    found = kinds(costs.time, pd.DataFrame({"history": h, "prompt": p, "output": o}))
    if link:
        found["transfer"] = _arriving(costs, grid.history, link).repeat(len(h) // len(grid.history))
    dominant, share = largest(found)
    dominant, share, within = dominant.reshape(grid.shape), share.reshape(grid.shape), seen([costs.time], grid)
    return Bottlenecks(costs.device, costs.time, grid, dominant, share, within, link)


def _arriving(costs: DeviceCosts, tokens: Ints, link: Link) -> Floats:
    """Seconds until so many tokens of a cache [n] have come over the link and are on the device."""
    moved = tokens.astype(np.float64) * cache_bytes(costs.device, costs.kv_bytes_per_token)
    return np.where(tokens > 0, link.seconds(moved) + costs.moving_seconds(tokens), 0.0)


def largest(found: Mapping[str, Floats]) -> tuple[NDArray[np.int8], Floats]:
    """Of what each of KINDS costs [points], the number of the one that costs most, and its share of the whole."""
    each = np.stack([found[kind] for kind in KINDS])
    return each.argmax(axis=0).astype(np.int8), each.max(axis=0) / np.maximum(each, 0.0).sum(axis=0)


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
    """What each kind of work costs [points] in s or J; together what the model predicts. Nothing is transferred.

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
    elif CHAINED.get(term.kind) == "seconds":
        timed = part.timed["seconds"]
        seconds = np.maximum(timed.predict(points), np.finfo(np.float64).tiny)
        yield from ((kind, cost * took / seconds) for kind, took in _of_part(timed, points))
    else:
        yield _KIND_OF[term.kind], cost
