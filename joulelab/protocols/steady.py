"""Steady state: each phase of each configuration back to back for so long that any meter sees its mean power."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, MinLen
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.steps import Idle, Load, Range, Step

Count = Annotated[int, Gt(0)]


class Steady:
    """Prefill: inferences of one output token in a row. Decode: whole inferences in a row, less as many prefills.

    It asks nothing of a meter but patience, so it checks what is told from sweeps. Rests come before, between and
    after; each repeat has an order of its own.
    """

    class Options(BaseModel):
        """`hold`: at least twenty averaging windows of the slowest meter. `decode` is the number of output tokens."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        history: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)] = [0]
        prompt: Annotated[list[Count], MinLen(1)] = [128]
        decode: Annotated[list[Count], MinLen(1)] = [16]
        hold: Annotated[Seconds, Gt(0)] = 20.0
        repeats: Count = 2
        idle: Annotated[Seconds, Gt(0)] = 5.0
        warmup: Annotated[Seconds, Ge(0)] = 5.0
        seed: int = 1

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        """The steps, the same ones for the same options."""
        o = self._options
        rng = np.random.default_rng(o.seed)
        yield Idle(o.idle)
        yield Range("auto")
        yield Load(o.warmup, max(o.prompt), max(o.decode), max(o.history))
        yield Range("fixed")
        yield Idle(o.idle)
        loads = list(product(o.history, o.prompt, sorted({1, *o.decode})))
        for _ in range(o.repeats):
            for history, prompt, output in rng.permutation(loads):
                yield Load(o.hold, int(prompt), int(output), int(history))
                yield Idle(o.idle)
