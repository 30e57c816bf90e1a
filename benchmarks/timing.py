"""Fair comparisons on a machine that is never quite quiet: candidates take turns, and the median counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Figure = TypeVar("Figure")


def seconds(work: Callable[[], Any]) -> float:
    """How long `work()` takes [s]."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def taking_turns(rounds: int, candidates: Mapping[str, Callable[[], Figure]]) -> dict[str, list[Figure]]:
    """What each candidate returned in each round; every other round goes through them backwards.

    A first round to warm up is not counted.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in candidates}
    for round_ in range(-1, rounds):
        for name in list(candidates)[:: -1 if round_ % 2 else 1]:
            figure = candidates[name]()
            if round_ >= 0:
                figures[name].append(figure)
    return figures


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}
