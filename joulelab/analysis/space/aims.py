"""What is minimised, and what the command line asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from joulelab.analysis.space.costs import OBJECTIVES, Idle, Objective
from joulelab.errors import UserError
from joulelab.quantities import parse_quantity


@dataclass(frozen=True)
class Aim:
    """What is minimised: an objective, whether the other devices sleep meanwhile, and the longest latency [s]."""

    objective: Objective
    idle: Idle = "sleep"
    cap_s: float = math.inf

    def __post_init__(self) -> None:
        if self.objective == "energy-capped" and not self.cap_s < math.inf:
            raise UserError("energy-capped needs a longest latency: --cap 5s")

    @property
    def needs_energy(self) -> bool:
        return self.objective != "latency"

    @property
    def unit(self) -> str:
        return OBJECTIVES[self.objective]


def aims_of(names: Sequence[str] | None, idle: Idle, cap: str | None) -> list[Aim]:
    """What the command line asks for: objectives by name, else all; those under a `cap`, such as "5s", with one only.

    UserError where a name is none, or the cap is no time.
    """
    cap_s = parse_quantity(cap, "s") if cap else math.inf
    chosen = [name for name in OBJECTIVES if name in names] if names else [*OBJECTIVES][: None if cap else -1]
    if unknown := set(names or ()) - {*OBJECTIVES}:
        raise UserError(f"--objective {min(unknown)}: expected one of {', '.join(OBJECTIVES)}")
    return [Aim(name, idle, cap_s) for name in chosen]
