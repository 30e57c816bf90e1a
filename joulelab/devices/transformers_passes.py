"""Passes of a causal language model, and the KV caches of histories."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from joulelab.errors import UserError

if TYPE_CHECKING:
    import torch

TURN = 512
"""The most tokens of a history that are handed over at once."""


def forward(model: Any, cache: Any, ids: torch.Tensor) -> Any:
    """A pass over `ids` (batch x tokens) on top of `cache`, which grows; the likeliest next tokens (batch x 1)."""
    return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(-1)


def decode(model: Any, cache: Any, token: torch.Tensor, passes: int, mark: Callable[[], None]) -> list[torch.Tensor]:
    """So many passes, each over the token of the one before; `mark` is called when each has been handed over."""
    tokens = []
    for _ in range(passes):
        token = forward(model, cache, token)
        mark()
        tokens.append(token)
    return tokens


def filled(cache: Any, tokens: int) -> list[torch.Tensor]:
    """The keys and the values of each layer (batch x heads x tokens x head size), without a static cache's free room.

    A sliding window has no more than its own length.
    """
    return [kept[:, :, :tokens] for layer in cache.layers for kept in (layer.keys, layer.values)]


def room(tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Tensors for a copy in the host's memory, which a card reaches directly (pinned), and for one on the same device.

    They are full of ones: the kernel gives memory only when it is written to, which takes longer than a copy.
    """
    import torch

    host = [torch.ones_like(tensor, device="cpu", pin_memory=tensor.is_cuda) for tensor in tensors]
    return host, [torch.ones_like(tensor) for tensor in tensors]


def move(tensors: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    """Copy tensors into others, one after the other; a card is not waited for."""
    for tensor, target in zip(tensors, targets, strict=True):
        target.copy_(tensor, non_blocking=True)


class Histories:
    """Two KV caches: one for inferences without history, one for the last history that was asked for.

    `static` ones have `context` tokens.
    """

    def __init__(self, model: Any, *, static: bool, context: int) -> None:
        self._model = model
        self._static = static
        self._context = context
        self._kept: dict[bool, tuple[list[list[int]], Any]] = {}

    def fill(self, history: list[list[int]]) -> bool:
        """Prefill a history, one row a sequence; False where that is kept already."""
        slot = bool(history[0])
        if slot in self._kept and self._kept[slot][0] == history:
            return False
        self._kept.pop(slot, None)  # before the next one needs the memory
        self._kept[slot] = history, self._filled(history)
        return True

    def cache(self, history: list[list[int]]) -> Any:
        """A cache of just this history, which has been filled."""
        kept = self._kept[bool(history[0])][1]
        if not self._static:  # it replaces its tensors when it grows: a copy of it leaves the kept one as it is
            cache = copy(kept)
            cache.layers = [copy(layer) for layer in kept.layers]
            return cache
        for layer in kept.layers:
            layer.cumulative_length.fill_(len(history[0]))
        return kept

    def clear(self) -> None:
        self._kept.clear()

    def _filled(self, history: list[list[int]]) -> Any:
        import torch

        cache = self._empty()
        if self._static and not history[0]:
            history = [[0]] * len(history)  # a first pass allocates it
        if history[0]:
            for turn in torch.tensor(history, device=self._model.device).split(TURN, dim=1):
                forward(self._model, cache, turn)
        return cache

    def _empty(self) -> Any:
        """UserError where a cache of this model could not be taken back to its history."""
        from transformers import cache_utils as kinds

        config = self._model.config
        if self._static:
            cache, usable = kinds.StaticCache(config=config, max_cache_len=self._context), {kinds.StaticLayer}
        else:
            cache, usable = kinds.DynamicCache(config=config), {kinds.DynamicLayer, kinds.DynamicSlidingWindowLayer}
        if other := {type(layer) for layer in cache.layers} - usable:
            name = "static" if self._static else "dynamic"
            raise UserError(f"a {name} cache with {other.pop().__name__}s cannot be taken back to its history")
        return cache
