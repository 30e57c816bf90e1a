"""How much work an inference is: h tokens of history in the KV cache, p new prompt tokens, o output tokens.

The prefill ends with the first output token, so that the decode is the remaining o - 1 passes.
"""

from __future__ import annotations

import numpy as np

from joulelab.calibration.integrals import Floats


def padded(prompt: Floats, tile: int) -> Floats:
    """Prompt tokens rounded up to whole tiles of the matrix multiplication."""
    return np.asarray(np.ceil(prompt / tile) * tile)


def prefill_pairs(history: Floats, prompt: Floats) -> Floats:
    """Pairs of tokens attended in the prefill: each new token attends the history, the ones before it and itself."""
    return prompt * history + prompt * (prompt + 1) / 2


def passes(output: Floats) -> Floats:
    """Decode passes; one output token needs none."""
    return output - 1


def decode_pairs(history: Floats, prompt: Floats, output: Floats) -> Floats:
    """Pairs of tokens attended in the decode: pass k attends h + p + k tokens."""
    return (output - 1) * (history + prompt) + (output - 1) * output / 2
