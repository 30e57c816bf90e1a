"""The step vocabulary. A protocol is an iterator of steps, so it can be listed and timed without hardware."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Idle:
    """Leave the device alone for so many seconds; its idle power is read from here."""

    seconds: float
    kind: str = "idle"


@dataclass(frozen=True)
class Infer:
    """Run one inference after a random gap [s]. Warm-up inferences are recorded, but never analysed."""

    history: int
    prompt: int
    output: int
    repeat: int
    gap_s: float = 0.0
    warmup: bool = False
    kind: str = "infer"


Step = Idle | Infer


def to_json(step: Step) -> dict[str, Any]:
    return asdict(step)
