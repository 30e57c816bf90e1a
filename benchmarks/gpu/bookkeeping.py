"""What the transformers engine adds to the passes that it times."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.model import CARD, CPU, PROMPT, Loaded, Place, loaded
from benchmarks.row import Row
from benchmarks.timing import seconds, taking_turns
from joulelab.devices.base import Request
from joulelab.devices.completion import draw
from joulelab.devices.transformers_passes import decode, forward

PASSES, ROUNDS = 16, 120

Loop = Callable[[Any, Any, Any], None]
"""Decodes with a model on top of a cache from a token on."""


def on_cpu() -> Iterator[Row]:
    """The engine's bookkeeping on decode against a bare loop, on one core."""
    yield _overhead(CPU)


def on_card() -> Iterator[Row]:
    """The engine's bookkeeping on decode against a bare loop, on a CUDA card."""
    yield _overhead(CARD)


def _overhead(place: Place) -> Row:
    with loaded(place) as made:
        loops: dict[str, Loop] = {"engine": partial(_engine, made), "bare": _bare, "again": _bare}
        found = taking_turns(ROUNDS, {name: partial(_timed, made, loop) for name, loop in loops.items()})
    over = {
        name: statistics.median(map(lambda a, b: a / b, found[name], found["bare"])) for name in ("engine", "again")
    }
    what = f"decode of {place} with the engine's bookkeeping over a bare loop, median"
    return Row(what, over["engine"], "x", 1.01, "lower", {"the bare loop again": over["again"]})


def _engine(made: Loaded, model: Any, cache: Any, token: Any) -> None:
    decode(model, cache, token, PASSES, made.generator.watch.mark)


def _bare(model: Any, cache: Any, token: Any) -> None:
    for _ in range(PASSES):
        passed = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = passed.logits.argmax(-1)


def _timed(made: Loaded, loop: Loop) -> float:
    """How long the decode of an inference takes [s], from the synchronised prefill to a synchronised end."""
    import torch

    model, watch, histories = made.model, made.generator.watch, made.generator.histories
    histories.fill([[]])
    cache = histories.cache([[]])
    prompt = draw(Request(0, 0, PROMPT, 1, seed=1), model.config.vocab_size)
    token = forward(model, cache, torch.tensor([prompt], device=model.device))
    watch.begin(PASSES)
    watch.synchronise()

    def synchronised() -> None:
        loop(model, cache, token)
        watch.synchronise()

    return seconds(synchronised)
