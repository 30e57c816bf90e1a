"""Points: configurations one by one, as a design of experiments chose them, with an anchor among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Len, MinLen
from pydantic import AfterValidator

from joulelab.protocols.rounds import RoundOptions, framed
from joulelab.protocols.steps import Step


def _configuration(point: list[int]) -> list[int]:
    history, prompt, output = point
    if history < 0 or prompt < 1 or output < 1:
        raise ValueError(f"{point} is no [history, prompt, output]: prompt and output are at least 1 token")
    return point


Point = Annotated[list[int], Len(3, 3), AfterValidator(_configuration)]
"""[history, prompt, output] in tokens."""


class Points:
    """Like the sweep, but of listed configurations.

    The anchor is one configuration that every run of a series plays: by it a shift from one run to the next is seen.
    """

    class Options(RoundOptions):
        """`anchor` is played in each repeat, besides `configurations` or as one of them."""

        configurations: Annotated[list[Point], MinLen(1)]
        anchor: Point

    def __init__(self, options: Options) -> None:
        self._options = options

    def steps(self) -> Iterator[Step]:
        """The steps, the same ones for the same options."""
        o = self._options
        listed = [(h, p, d) for h, p, d in [o.anchor, *o.configurations]]
        return framed(list(dict.fromkeys(listed)), o)
