"""How much work an inference is: h tokens of history in the KV cache, p new prompt tokens, o output tokens.

The prefill ends with the first output token, so that the decode is the remaining o - 1 passes. It evaluates a prompt in
micro-batches, each of which reads the weights once.
"""

from __future__ import annotations

import numpy as np

from joulelab.calibration.integrals import Floats


def padded(prompt: Floats, tile: float) -> Floats:
    """Prompt tokens rounded up to whole tiles of the matrix multiplication."""
    return np.asarray(np.ceil(prompt / tile) * tile)


def roofline(prompt: Floats, tile: float, even: float, batch: float) -> Floats:
    """Tokens that a smooth roofline takes as long for: the root of the sum of squares of the padded tokens and of the
    `even` tokens whose arithmetic takes as long as reading the weights, summed over micro-batches of `batch` tokens.
    """
    whole = np.ceil(prompt / batch) - 1
    rest = prompt - whole * batch if np.isfinite(batch) else prompt
    each = np.hypot(padded(np.array(batch), tile), even) if np.isfinite(batch) else 0.0
    return np.asarray(np.maximum(whole, 0) * each + np.hypot(padded(rest, tile), even))


def prefill_pairs(history: Floats, prompt: Floats) -> Floats:
    """Pairs of tokens attended in the prefill: each new token attends the history, the ones before it and itself."""
    return prompt * history + prompt * (prompt + 1) / 2


def cache_reads(history: Floats, prompt: Floats, batch: float) -> Floats:
    """Tokens of history whose keys and values the prefill reads: all of them for each micro-batch of `batch` tokens."""
    return np.asarray(np.maximum(np.ceil(prompt / batch), 1) * history)


def passes(output: Floats) -> Floats:
    """Decode passes; one output token needs none."""
    return output - 1


def decode_pairs(history: Floats, prompt: Floats, output: Floats) -> Floats:
    """Pairs of tokens attended in the decode: pass k attends h + p + k tokens."""
    return (output - 1) * (history + prompt) + (output - 1) * output / 2


def pairs_beyond(history: Floats, prompt: Floats, output: Floats, knot: float) -> Floats:
    """Of the decode's pairs those with the tokens after the first `knot` of the context."""
    first, last = history + prompt - knot, history + prompt + output - 1 - knot
    return _triangle(np.maximum(last, 0)) - _triangle(np.maximum(first, 0))


def pairs_within(history: Floats, prompt: Floats, output: Floats, knot: float) -> Floats:
    """The decode's pairs in passes that attend at most `knot` tokens."""
    first, last = history + prompt, history + prompt + output - 1
    return _triangle(np.minimum(last, knot)) - _triangle(np.minimum(first, knot))


def _triangle(n: Floats) -> Floats:
    return np.asarray(n * (n + 1) / 2)


def ramped(seconds: Floats, constant: float) -> Floats:
    """The seconds of full power that a phase draws whose power rises with a time constant [s]."""
    return np.asarray(seconds + constant * np.expm1(-seconds / constant))
