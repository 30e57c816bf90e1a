"""What a model's architecture makes of tokens: arithmetic, bytes of weights and bytes of cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from joulelab.analysis.modelling.work import decode_pairs, passes, prefill_pairs
from joulelab.calibration.integrals import Floats
from joulelab.options import Peak

__all__ = ["Peak", "Shape", "label", "shape"]

MICRO_BATCH = 512
"""Tokens of a prefill that share one reading of the weights: llama.cpp's default."""


class Shape(BaseModel):
    """A dense decoder-only model: the `weights` that a pass which yields a token multiplies by, and their bytes.

    The embedding table is not among them, unless it is the output head as well; `hidden` is a token's width.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: int
    weight_bytes: float
    layers: int
    heads: int
    head_dim: int
    hidden: int
    kv_bytes_per_token: float
    vocabulary: int

    @property
    def body_weights(self) -> int:
        """Weights that every token passes: all but the output head, which is for tokens that are produced."""
        return self.weights - self.vocabulary * self.hidden

    @property
    def attention_flops_per_pair(self) -> int:
        """Scores and weighted sum for a token and one that it attends to, over all layers [FLOP]."""
        return 4 * self.layers * self.heads * self.head_dim

    def flops(self, phase: str, history: Floats, prompt: Floats, output: Floats, batch: int = 1) -> Floats:
        """The arithmetic of a phase [FLOP] of so many sequences; that of `total` is of prefill and decode together."""
        prefill = 2.0 * self.body_weights * prompt + 2.0 * (self.weights - self.body_weights)
        prefill = prefill + self.attention_flops_per_pair * prefill_pairs(history, prompt)
        decode = 2.0 * self.weights * passes(output)
        decode = decode + self.attention_flops_per_pair * decode_pairs(history, prompt, output)
        return batch * _of(phase, prefill, decode)

    def bytes(self, phase: str, history: Floats, prompt: Floats, output: Floats, batch: int = 1) -> Floats:
        """The bytes of weights and cache that a phase reads [B], a prefill's weights once a micro-batch; sequences that
        run at once share the weights.
        """
        cache = batch * self.kv_bytes_per_token
        prefill = self.weight_bytes * np.ceil(prompt / MICRO_BATCH) + cache * (history + prompt)
        decode = self.weight_bytes * passes(output) + cache * decode_pairs(history, prompt, output)
        return _of(phase, prefill, decode)


def _of(phase: str, prefill: Floats, decode: Floats) -> Floats:
    return {"prefill": prefill, "decode": decode, "total": prefill + decode}[phase]


def label(model: object, quant: object) -> str:
    """What a model is called among `Phases.shapes`; `quant` may be unknown."""
    return f"{model}/{quant}" if isinstance(quant, str) else str(model)


def shape(engine: Mapping[str, Any]) -> Shape | None:
    """The shape that a manifest's `engine` tells of; None where it says too little."""
    told = engine.get("architecture")
    try:
        return told and (_of_gguf(told) if "parameters" in told else _of_simulation(told))
    except KeyError:
        return None


def _of_gguf(told: Mapping[str, Any]) -> Shape:
    apart = told["vocabulary"] * told["d_model"] if told["embedding_bytes"] else 0
    return Shape(
        weights=told["parameters"] - apart,
        weight_bytes=told["weight_bytes"] - told["embedding_bytes"],
        hidden=told["d_model"],
        **{name: told[name] for name in ("layers", "heads", "head_dim", "vocabulary", "kv_bytes_per_token")},
    )


def _of_simulation(told: Mapping[str, Any]) -> Shape:
    attention = 2 * told["hidden"] * told["head_dim"] * (told["heads"] + told["kv_heads"])
    body = told["layers"] * (attention + 3 * told["hidden"] * told["feed_forward"])
    weights = body + told["vocabulary"] * told["hidden"]
    return Shape(
        weights=weights,
        weight_bytes=weights * told["bits_per_weight"] / 8,
        kv_bytes_per_token=2 * told["layers"] * told["kv_heads"] * told["head_dim"] * told["kv_element_bytes"],
        **{name: told[name] for name in ("layers", "heads", "head_dim", "hidden", "vocabulary")},
    )
