"""What sweeps of single inferences have in common: their options, and the order in which they play configurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, MinLen
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.patterns import BIT_S, pseudo_random
from joulelab.protocols.steps import Idle, Infer, Move, Range, Signature, Step

Count = Annotated[int, Gt(0)]
Points = Sequence[tuple[int, int, int]]
"""History, prompt and output tokens of each."""


class RoundOptions(BaseModel):
    """`batch` lists how many sequences run at once, `signature` is how long each of the two signatures takes (0: none),
    in bits that no meter's period divides. `transfer` lists histories whose KV cache is moved, and `load` says whether
    the model is loaded anew, each `repeats` times at the end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Annotated[tuple[Count, ...], MinLen(1)] = (1,)
    repeats: Count = 5
    seed: int = 1
    idle: Annotated[Seconds, Gt(0)] = 5.0
    warmup: Annotated[int, Ge(0)] = 3
    gap: Annotated[Seconds, Ge(0)] = 0.1
    signature: Annotated[Seconds, Ge(0)] = 8.0
    transfer: tuple[Count, ...] = ()
    load: bool = False


def framed(points: Points, options: RoundOptions) -> Iterator[Step]:
    """Idle, warm-up, a signature, all points in all batches repeatedly, a signature, the moves, idle.

    Meters that have ranges choose them during the warm-up, which is the heaviest configuration, and keep them. A
    signature before and after tells how late each meter is.
    """
    signature = [Signature(pseudo_random(BIT_S, options.signature))] if options.signature else []
    yield Idle(options.idle)
    yield Range("auto")
    for _ in range(options.warmup):
        yield Infer(*max(points, key=sum), repeat=0, warmup=True, batch=max(options.batch))
    yield Range("fixed")
    yield from signature
    yield from rounds(points, options.repeats, options.gap, options.seed, options.batch)
    yield from signature
    yield from moves(options)
    yield Idle(options.idle)


def moves(options: RoundOptions) -> Iterator[Move]:
    """The transfers in a fresh order each time, then the loads, which leave nothing warm."""
    rng = np.random.default_rng((options.seed, 1))
    for repeat in range(options.repeats):
        for history in rng.permutation(options.transfer).tolist():
            yield Move("transfer", history, repeat, gap_s=rng.uniform(0, options.gap))
    for repeat in range(options.repeats if options.load else 0):
        yield Move("load", 0, repeat, gap_s=rng.uniform(0, options.gap))


def rounds(points: Points, repeats: int, gap_s: float, seed: int, batches: Sequence[int] = (1,)) -> Iterator[Infer]:
    """One repeat of all points in all batches follows another, each in a fresh order, so that drift hits all alike.

    Within a repeat those of one history and batch follow each other, so that the cache is filled once for each. Before
    each comes a gap drawn uniformly from 0 to `gap_s`, so that a sensor's updates fall anywhere in a phase.
    """
    rng = np.random.default_rng(seed)
    caches = list(product(dict.fromkeys(history for history, _, _ in points), batches))
    for repeat in range(repeats):
        for history, batch in rng.permutation(caches).tolist():
            for _, prompt, output in rng.permutation([point for point in points if point[0] == history]).tolist():
                yield Infer(history, prompt, output, repeat, gap_s=rng.uniform(0, gap_s), batch=batch)
