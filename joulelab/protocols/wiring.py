"""The wiring check's load: on and off in a pattern that nothing else on a bench follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Gt
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.steps import Idle, Load, Range, Step

PATTERN = (1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 1)
"""A maximum-length sequence of 4 bits (x^4 + x + 1): it looks like none of its own shifts."""


class Wiring:
    """Load where the pattern has a one, rest where it has a zero, each `bit` long, and rest on both ends."""

    class Options(BaseModel):
        """`bit`: twice the averaging window of the slowest meter, or more."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        bit: Annotated[Seconds, Gt(0)] = 1.0
        seed: int = 1

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        bit = self._options.bit
        yield Range("auto")
        yield Load(bit)
        yield Range("fixed")
        yield Idle(bit)
        for one in PATTERN:
            yield Load(bit) if one else Idle(bit)
        yield Idle(2 * bit)
