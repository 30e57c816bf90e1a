"""A model of random weights in this very process, run as the transformers engine runs it in its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from joulelab.devices.transformers_generator import Generator
from joulelab.devices.transformers_model import Spec, load
from joulelab.errors import HardwareMissing

PROMPT = 16


class Place(NamedTuple):
    """A shape, and where and how it is run."""

    random: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.random} on {'the card' if self.device == 'cuda' else 'one core'}"


CPU = Place("llama-15m", "cpu", "float32")
CARD = Place("llama-3.2-1b", "cuda", "bfloat16")


class Loaded(NamedTuple):
    """A model, and what answers requests with it."""

    model: Any
    generator: Generator


def need_torch() -> None:
    """HardwareMissing where the engine's libraries are not there."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise HardwareMissing("PyTorch and transformers are not installed: run 'make torch'")


@contextmanager
def loaded(place: Place) -> Iterator[Loaded]:
    """Meanwhile PyTorch infers only, on one thread. HardwareMissing where it or the card is not there."""
    need_torch()
    import torch

    if place.device == "cuda" and not torch.cuda.is_available():
        raise HardwareMissing("there is no CUDA card that this PyTorch can use")
    torch.set_num_threads(1)
    spec = Spec(
        random=place.random,
        checkpoint=None,
        device=place.device,
        dtype=place.dtype,
        attention="sdpa",
        cache="dynamic",
        threads=1,
        context=1024,
        cores=tuple(os.sched_getaffinity(0)),
        clock_offset_ns=0,
    )
    with torch.inference_mode():
        model = load(spec)
        yield Loaded(model, Generator(model, spec))
