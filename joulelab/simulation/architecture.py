"""The simulated language model: how much arithmetic and how many bytes a token costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Architecture:
    """A dense decoder-only transformer with grouped-query attention and a gated feed-forward block.

    `bits_per_weight` includes the quantisation's scales; `kv_element_bytes` is the width of a cached key or value.
    """

    model: str
    quant: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    bits_per_weight: float
    kv_element_bytes: int
    source: str

    @property
    def body_weights(self) -> int:
        """Weights that every token passes: all but the embedding and the output head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def head_weights(self) -> int:
        """Weights of the output head, passed only where a token is produced."""
        return self.vocabulary * self.hidden

    def bytes_of(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.multiply(weights, self.bits_per_weight / 8, dtype=np.float64)

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_element_bytes

    @property
    def attention_flops_per_pair(self) -> int:
        """Scores and weighted sum for one pair of a token and a token that it attends to, over all layers."""
        return 4 * self.layers * self.heads * self.head_dim


LLAMA_3_2_1B_Q8_0 = Architecture(
    model="llama-3.2-1b",
    quant="q8_0",
    layers=16,
    hidden=2048,
    heads=32,
    kv_heads=8,
    head_dim=64,
    feed_forward=8192,
    vocabulary=128_256,
    bits_per_weight=8.5,
    kv_element_bytes=2,
    source="config.json of meta-llama/Llama-3.2-1B; q8_0 is 34 bytes per 32 weights (llama.cpp), the cache is f16",
)
