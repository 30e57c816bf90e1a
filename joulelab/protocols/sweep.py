"""The sweep: idle, warm-up, every configuration in random order with interleaved repeats, idle again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated

from annotated_types import Ge, MinLen

from joulelab.protocols.rounds import Count, RoundOptions, framed
from joulelab.protocols.steps import Step


class Sweep:
    """History x prompt x decode x batch. Prompts off the hardware's tiles (120, 136) are what makes its steps seen."""

    class Options(RoundOptions):
        """`decode` is the number of output tokens o; the decode phase has o - 1 passes."""

        history: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
        prompt: Annotated[list[Count], MinLen(1)]
        decode: Annotated[list[Count], MinLen(1)]

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        """The steps, the same ones for the same options."""
        o = self._options
        return framed(list(product(o.history, o.prompt, o.decode)), o)
