"""The step vocabulary. A protocol is an iterator of steps, so it can be listed and timed without hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Configuration = tuple[int, int, int, int]
"""History, prompt, output and batch."""


@dataclass(frozen=True)
class Idle:
    """Leave the device alone for so many seconds; its idle power is read from here."""

    seconds: float
    kind: str = "idle"


@dataclass(frozen=True)
class Infer:
    """Run one inference, of `batch` sequences at once, after a random gap [s].

    Warm-up inferences are recorded, but never analysed.
    """

    history: int
    prompt: int
    output: int
    repeat: int
    gap_s: float = 0.0
    warmup: bool = False
    batch: int = 1
    kind: str = "infer"


@dataclass(frozen=True)
class Move:
    """Bring the model onto the device with nothing cached (`load`), or the KV cache of a history out of the engine and
    back in (`transfer`), after a random gap [s].
    """

    phase: Literal["load", "transfer"]
    history: int
    repeat: int
    gap_s: float = 0.0
    kind: str = "move"


@dataclass(frozen=True)
class Load:
    """Keep the device busy for so many seconds, with inferences of so many tokens; nobody analyses them one by one."""

    seconds: float
    prompt: int = 64
    output: int = 16
    history: int = 0
    kind: str = "load"


@dataclass(frozen=True)
class Signature:
    """Load and rest in turns, beginning with load, each for so many seconds of `pattern`: by it a meter's lag is told.

    A load ends with the inference that is under way, so that the journal says what was really played.
    """

    pattern: tuple[float, ...]
    prompt: int = 16
    output: int = 1
    kind: str = "signature"


@dataclass(frozen=True)
class Range:
    """Let the meters choose their ranges (`auto`), or keep them from now on above the peak that they saw (`fixed`)."""

    mode: Literal["auto", "fixed"]
    kind: str = "range"


Step = Idle | Infer | Move | Load | Range | Signature


def to_json(step: Step) -> dict[str, Any]:
    return asdict(step)


def configuration(asked: Mapping[str, Any]) -> Configuration:
    """That of a step's or a record's fields; records of older runs have no batch."""
    return asked["history"], asked["prompt"], asked["output"], asked.get("batch", 1)
