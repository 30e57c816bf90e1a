"""The shapes of models that are run with random weights, whichever engine runs them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, field_validator

from joulelab.errors import UserError
from joulelab.registry import nearest


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a Llama; all of them multiples of 32, which is the block of q8_0.

    `tied`: the embedding table is the output head, too.
    """

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    tied: bool = False
    rope_theta: float = 10_000.0

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name, as in a GGUF file, and shape of every tensor of the model."""
        d, d_kv = self.d_model, self.d_model // self.heads * self.kv_heads
        yield "token_embd", (self.vocabulary, d)
        if not self.tied:
            yield "output", (self.vocabulary, d)
        yield "output_norm", (d,)
        layer = {
            "attn_norm": (d,),
            "attn_q": (d, d),
            "attn_k": (d_kv, d),
            "attn_v": (d_kv, d),
            "attn_output": (d, d),
            "ffn_norm": (d,),
            "ffn_gate": (self.feed_forward, d),
            "ffn_up": (self.feed_forward, d),
            "ffn_down": (d, self.feed_forward),
        }
        for i in range(self.layers):
            yield from ((f"blk.{i}.{name}", shape) for name, shape in layer.items())

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors())


ARCHITECTURES = {
    "llama-100m": Architecture(768, 14, 12, 4, 2048, 8192, 8192),
    "llama-15m": Architecture(384, 8, 6, 2, 1024, 4096, 4096),
    "llama-3.2-1b": Architecture(2048, 16, 32, 8, 8192, 128_256, 131_072, tied=True, rope_theta=500_000.0),
    "llama-3.1-8b": Architecture(4096, 32, 32, 8, 14_336, 128_256, 131_072, rope_theta=500_000.0),
}
"""Two small ones of our own, and two of Meta's: the config.json of meta-llama/Llama-3.2-1B and Llama-3.1-8B on Hugging
Face (the latter also Table 3 of arXiv 2407.21783). Their scaling of rotary frequencies is left out: it takes no time.
"""


def architecture(name: str) -> Architecture:
    """The architecture called `name`; UserError with the nearest one where there is none."""
    if name not in ARCHITECTURES:
        raise UserError(f"no random model is called {name!r}{nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


class RandomModel(BaseModel):
    """A model of random weights, by the name of its architecture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    random: str

    @field_validator("random")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            architecture(name)
        except UserError as error:
            raise ValueError(str(error)) from error
        return name
