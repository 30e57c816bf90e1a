"""What every engine offers: one inference in, its phase edges and token times out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from joulelab.timebase import BenchNs


@dataclass(frozen=True)
class Request:
    """One inference: `prompt` new tokens on top of `history` tokens in the KV cache, exactly `output` tokens out.

    `number` is that of the inference in the run; prompts are drawn from it and `seed`, so none comes from a cache.
    `batch` sequences run at once, each of so many tokens.
    """

    number: int
    history: int
    prompt: int
    output: int
    seed: int
    batch: int = 1


@dataclass(frozen=True)
class Phase:
    """One phase: edges on the bench clock [ns], standard uncertainty of its inner edge [s], CPU time [s]."""

    name: str
    start: BenchNs
    stop: BenchNs
    boundary_u_s: float | None = None
    cpu_s: float | None = None


@dataclass(frozen=True)
class Inference:
    """What one request cost in time. `tokens` are the arrival times of the output tokens [ns], one a pass.

    The prefill ends with the first output token; the decode is the remaining output - 1 passes, absent for output 1.
    """

    phases: tuple[Phase, ...]
    tokens: tuple[BenchNs, ...] = ()
    temperature_c: float | None = None
    throttled: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Engine(Protocol):
    """What runs the model. `describe` goes into the manifest: model, quantisation, settings, versions.

    A class that takes requests with a `batch` over 1 says so: `batches: ClassVar[bool] = True`. Where a configuration
    does not fit into memory `infer` raises ConfigurationFault.
    """

    def open(self) -> None: ...

    def describe(self) -> dict[str, Any]: ...

    def infer(self, request: Request) -> Inference: ...

    def close(self) -> None: ...


@runtime_checkable
class Mover(Engine, Protocol):
    """An engine that says what it can move, `moves: ClassVar[tuple[str, ...]]`: `load` and `transfer`, or one of them.

    `move` is one phase of that name, of no prompt and no output. ConfigurationFault where it cannot be done after all.
    """

    def move(self, phase: str, request: Request) -> Inference: ...
