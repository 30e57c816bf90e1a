"""How long the passes of an inference take: a smooth roofline of arithmetic against memory traffic, pass by pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab.simulation.architecture import Architecture
from joulelab.simulation.profile import Profile, Timing

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Passes(NamedTuple):
    """n passes through the model: how long each takes, and for how much of it memory and arithmetic are busy [s]."""

    seconds: Floats
    memory: Floats
    compute: Floats


def prefill(timing: Timing, model: Architecture, history: int, prompt: int) -> Passes:
    """One pass a micro-batch; each streams the weights anew, and only the last has the output head."""
    done = np.arange(0, prompt, timing.ubatch)
    new = np.minimum(timing.ubatch, prompt - done)
    pairs = (new * (history + done) + new * (new + 1) / 2).astype(np.float64)
    last = done == done[-1]
    flops = 2.0 * (model.body_weights * padded(new, timing.tile) + model.head_weights * last)
    weight_bytes = model.bytes_of(model.body_weights + model.head_weights * last)
    return _roofline(timing, model, flops, pairs, weight_bytes, history + done + new)


def decode(timing: Timing, model: Architecture, context: int, output: int) -> Passes:
    """The output - 1 passes after the first token; each attends to itself and to all before it."""
    contexts = context + np.arange(1, output)
    weights = np.full(len(contexts), model.body_weights + model.head_weights)
    return _roofline(timing, model, 2.0 * weights, contexts.astype(np.float64), model.bytes_of(weights), contexts)


def padded(tokens: Ints, tile: int) -> Ints:
    """Tokens rounded up to whole tiles, which is what the arithmetic units work on."""
    return -(-tokens // tile) * tile


def cache_seconds(timing: Timing, model: Architecture, context: Ints) -> Floats:
    """Reading the keys and values of `context` tokens; which kernel reads them depends on how many they are."""
    bandwidth = np.where(context > timing.switch_tokens, timing.kv_bandwidth_long, timing.kv_bandwidth)
    return context * model.kv_bytes_per_token / bandwidth


def _roofline(
    timing: Timing, model: Architecture, flops: Floats, pairs: Floats, weight_bytes: Floats, context: Ints
) -> Passes:
    """Overlapped arithmetic and traffic: the root of the sum of squares, the smooth maximum that fits best (q = 2)."""
    compute = (flops + model.attention_flops_per_pair * pairs) / timing.flops
    memory = weight_bytes / timing.weight_bandwidth + cache_seconds(timing, model, context)
    return Passes(timing.pass_launch_s + np.hypot(compute, memory), memory, compute)


def expected_seconds(profile: Profile, history: int, prompt: int, output: int) -> tuple[float, float]:
    """Mean durations of prefill and decode over all runs [s]; the decode of a single output token takes 0."""
    timing, noise = profile.timing, profile.noise
    stalls = noise.stall_probability * noise.stall_mean_s
    first = timing.request_launch_s + stalls + prefill(timing, profile.model, history, prompt).seconds.sum()
    return float(first), float(decode(timing, profile.model, history + prompt, output).seconds.sum())
