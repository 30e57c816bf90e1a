"""How sure the edges of phases are that the transformers engine tells."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.gpu.model import CARD, CPU, PROMPT, Loaded, loaded
from benchmarks.row import Row
from joulelab.calibration.integrals import Floats
from joulelab.devices.base import Request

INFERENCES, OUTPUT = 60, 9
MOST_MS = 0.2


def on_cpu() -> Iterator[Row]:
    """The phase edges on one core against hooks in the model, read from another clock of the kernel."""
    with loaded(CPU) as made:
        apart, limit_s = zip(*(_against_hooks(made, number) for number in range(INFERENCES)), strict=True)
    off_ms = np.abs(np.concatenate(apart)) / 1e6
    beside = {"median": float(np.median(off_ms)), "largest": float(off_ms.max()), "the engine says": max(limit_s) * 1e3}
    what = f"phase edges of {CPU}: 95 % lie this near to what hooks in the model saw"
    yield Row(what, float(np.percentile(off_ms, 95)), "ms", MOST_MS, "lower", beside)


def on_card() -> Iterator[Row]:
    """The phase edges on a CUDA card: the uncertainty of events on the bench clock, and the host's clock beside it."""
    with loaded(CARD) as made:
        told = [made.generator.infer(_request(number)) for number in range(INFERENCES)]
    edges_ms = [(each["host"][-1] - each["marks"][-1]) / 1e6 for each in told]
    stated_ms = max(each["limit_s"] for each in told) * 1e3
    beside = {"the host sees the end later by, median": statistics.median(edges_ms)}
    what = f"phase edges of {CARD}: the most that they may be off by, stated"
    yield Row(what, stated_ms, "ms", MOST_MS, "lower", beside)


def _request(number: int) -> Request:
    return Request(number, 0, PROMPT, OUTPUT, seed=1)


def _against_hooks(made: Loaded, number: int) -> tuple[Floats, float]:
    """How much later the model's hooks saw the start, the first and the last token than the engine says [ns]; and
    what the engine says its marks are off by at most [s].
    """
    seen: list[int] = []
    hooks = [
        made.model.register_forward_pre_hook(lambda *_: seen.append(_raw())),
        made.model.register_forward_hook(lambda *_: seen.append(_raw())),
    ]
    before = time.monotonic_ns() - _raw()
    told = made.generator.infer(_request(number))
    offset = (before + time.monotonic_ns() - _raw()) / 2
    for hook in hooks:
        hook.remove()
    marks = told["marks"]
    return np.array([seen[0], seen[1], seen[-1]]) + offset - [marks[0], marks[1], marks[-1]], told["limit_s"]


def _raw() -> int:
    """A clock that nobody sets or slews."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
