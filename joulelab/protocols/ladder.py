"""The ladder: steps of load, each held for a while, and square waves at ratios where a sampled sensor shows beats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict

from joulelab.options import Seconds
from joulelab.protocols.patterns import square
from joulelab.protocols.steps import Idle, Load, Range, Signature, Step

RATIOS = (1 / 2, 2 / 3, 3 / 4, 4 / 5, 1.0, 6 / 5, 5 / 4, 4 / 3)
"""Square-wave period over update period (Yang et al., SC24, doi 10.1109/SC41406.2024.00028): at 1 a sensor that looks
at a part of its period sees one phase of the wave, near it a slow beat; one that averages all of it sees neither."""

Duty = Annotated[float, Gt(0), Le(1)]


class Ladder:
    """Rest and load in turns, each load so busy for `hold`; then the square waves, each from a random phase on.

    The levels come in random order, so that warming up is not taken for a curved gain.
    """

    class Options(BaseModel):
        """`levels` are the parts of the time that the device is busy, in turns of `cycle` each.

        Hold a level for ten averaging windows of the slowest meter. `period` is the update period of the sensor that
        the square waves are for, `square` how long each of them lasts (0: none). `warmup` at full load comes first: the
        study that the ratios are from takes 200 s.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        levels: Annotated[list[Duty], MinLen(1)] = [0.25, 0.5, 0.75, 1.0]
        cycle: Annotated[Seconds, Gt(0)] = 0.0973
        hold: Annotated[Seconds, Gt(0)] = 10.0
        period: Annotated[Seconds, Gt(0)] = 0.1
        square: Annotated[Seconds, Ge(0)] = 4.0
        warmup: Annotated[Seconds, Ge(0)] = 10.0
        prompt: Annotated[int, Gt(0)] = 16
        output: Annotated[int, Gt(0)] = 1
        repeats: Annotated[int, Gt(0)] = 1
        seed: int = 1

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        """The steps, the same ones for the same options."""
        o = self._options
        rng = np.random.default_rng(o.seed)
        yield Idle(o.hold)
        yield Range("auto")
        yield Load(o.warmup, o.prompt, o.output)
        yield Range("fixed")
        yield Idle(o.hold)
        for _ in range(o.repeats):
            for level in rng.permutation(o.levels):
                yield Signature(square(o.cycle, float(level), o.hold), o.prompt, o.output)
                yield Idle(o.hold)
            for ratio in RATIOS if o.square else ():
                yield Idle(rng.uniform(0.5, 1.5) * o.period)
                yield Signature(square(ratio * o.period, 0.5, o.square), o.prompt, o.output)
        yield Idle(o.hold)
