"""Points: configurations one by one, as a design of experiments chose them, with an anchor among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Len, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.patterns import BIT_S, pseudo_random
from joulelab.protocols.steps import Idle, Infer, Range, Signature, Step

Count = Annotated[int, Gt(0)]


def _configuration(point: list[int]) -> list[int]:
    history, prompt, output = point
    if history < 0 or prompt < 1 or output < 1:
        raise ValueError(f"{point} is no [history, prompt, output]: prompt and output are at least 1 token")
    return point


Point = Annotated[list[int], Len(3, 3), AfterValidator(_configuration)]
"""[history, prompt, output] in tokens."""


class Points:
    """Like the sweep, but of listed configurations: each repeat plays all of them once, in a fresh order.

    The anchor is one configuration that every run of a series plays: by it a shift from one run to the next is seen.
    """

    class Options(BaseModel):
        """`anchor` is played in each repeat, besides `configurations` or as one of them; the rest is the sweep's."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        configurations: Annotated[list[Point], MinLen(1)]
        anchor: Point
        repeats: Count = 5
        seed: int = 1
        idle: Annotated[Seconds, Gt(0)] = 5.0
        warmup: Annotated[int, Ge(0)] = 3
        gap: Annotated[Seconds, Ge(0)] = 0.1
        signature: Annotated[Seconds, Ge(0)] = 8.0

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        """The steps, the same ones for the same options."""
        o = self._options
        points = list(dict.fromkeys((h, p, d) for h, p, d in [o.anchor, *o.configurations]))
        heaviest = max(points, key=sum)
        signature = [Signature(pseudo_random(BIT_S, o.signature))] if o.signature else []
        yield Idle(o.idle)
        yield Range("auto")
        for _ in range(o.warmup):
            yield Infer(*heaviest, 0, warmup=True)
        yield Range("fixed")
        yield from signature
        yield from rounds(points, o.repeats, o.gap, o.seed)
        yield from signature
        yield Idle(o.idle)


def rounds(points: Sequence[tuple[int, int, int]], repeats: int, gap_s: float, seed: int) -> Iterator[Infer]:
    """Every point once a repeat, in random order, with those of one history together: the cache is filled once."""
    rng = np.random.default_rng(seed)
    histories = list(dict.fromkeys(history for history, _, _ in points))
    for repeat in range(repeats):
        for history in rng.permutation(histories):
            for _, prompt, output in rng.permutation([point for point in points if point[0] == history]):
                yield Infer(int(history), int(prompt), int(output), repeat, gap_s=rng.uniform(0, gap_s))
