"""What it costs to read a card."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.row import Row
from joulelab.instruments.nvml import Driver
from joulelab.timebase import MonotonicClock

READINGS = 500


def cost() -> Iterator[Row]:
    """What a reading of all that NVML tells of the cards here takes."""
    meter = Driver("gpu", Driver.Options(), MonotonicClock())
    meter.open()
    try:
        blocks = [meter.read() for _ in range(READINGS)]
    finally:
        meter.close()
    took_ms = np.array([block.after[0] - block.before[0] for block in blocks]) / 1e6
    median, most = np.percentile(took_ms, [50, 99])
    limit_ms = meter.options["interval"] * 1e3 / 5
    yield Row(
        "a reading through NVML, 99 % are shorter", float(most), "ms", limit_ms, "lower", {"median": float(median)}
    )
