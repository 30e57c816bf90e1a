"""The sweep: idle, warm-up, every configuration in random order with interleaved repeats, idle again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.patterns import BIT_S, pseudo_random
from joulelab.protocols.steps import Idle, Infer, Range, Signature, Step

Count = Annotated[int, Gt(0)]


class Sweep:
    """History x prompt x decode. Prompts off the hardware's tiles (120, 136) are what makes its steps visible.

    One repeat of all configurations follows another, each in a fresh order, so that drift hits all alike. Within a
    repeat the configurations of one history follow each other, so that the cache is filled once for each. Before each
    inference comes a gap drawn uniformly from 0 to `gap`, so that a sensor's updates fall anywhere in a phase. Meters
    that have ranges choose them during the warm-up, which is the heaviest configuration, and keep them. A signature
    before and after tells how late each meter is.
    """

    class Options(BaseModel):
        """`decode` is the number of output tokens o; the decode phase has o - 1 passes.

        `signature` is how long each of the two signatures takes (0: none), in bits that no meter's period divides.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        history: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)] = [0]
        prompt: Annotated[list[Count], MinLen(1)]
        decode: Annotated[list[Count], MinLen(1)]
        batch: list[Annotated[int, Ge(1), Le(1)]] = [1]
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
        rng = np.random.default_rng(o.seed)
        signature = [Signature(pseudo_random(BIT_S, o.signature))] if o.signature else []
        yield Idle(o.idle)
        yield Range("auto")
        for _ in range(o.warmup):
            yield Infer(max(o.history), max(o.prompt), max(o.decode), repeat=0, warmup=True)
        yield Range("fixed")
        yield from signature
        for repeat in range(o.repeats):
            for history in rng.permutation(o.history):
                for prompt, decode in rng.permutation(list(product(o.prompt, o.decode))):
                    yield Infer(int(history), int(prompt), int(decode), repeat, gap_s=rng.uniform(0, o.gap))
        yield from signature
        yield Idle(o.idle)
