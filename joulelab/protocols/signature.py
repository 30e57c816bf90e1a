"""The signature: a pseudo-random load, by which the lag of every meter behind the workload is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.patterns import BIT_S, pseudo_random
from joulelab.protocols.steps import Idle, Load, Range, Signature, Step


class SignatureOnly:
    """A rest, the pseudo-random load, and a rest. A meter that follows the load shows the pattern, late by its lag."""

    class Options(BaseModel):
        """`bit` is the shortest load or rest; it must be no multiple of a meter's period, or that sees the same of all.

        `prompt` and `output` are the size of the inferences that make the load: the shorter, the nearer to the pattern.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        seconds: Annotated[Seconds, Gt(0)] = 80.0
        bit: Annotated[Seconds, Gt(0)] = BIT_S
        prompt: Annotated[int, Gt(0)] = 16
        output: Annotated[int, Gt(0)] = 1
        idle: Annotated[Seconds, Gt(0)] = 5.0
        warmup: Annotated[Seconds, Ge(0)] = 3.0
        seed: int = 1

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        o = self._options
        yield Range("auto")
        yield Load(o.warmup, o.prompt, o.output)
        yield Range("fixed")
        yield Idle(o.idle)
        yield Signature(pseudo_random(o.bit, o.seconds), o.prompt, o.output)
        yield Idle(o.idle)
