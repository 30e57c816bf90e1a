"""The figures of the topic gpu."""

from __future__ import annotations

from benchmarks.gpu import bookkeeping, edges, readings, verdict
from benchmarks.row import Benchmark

SHORT: tuple[Benchmark, ...] = (
    bookkeeping.on_cpu,
    bookkeeping.on_card,
    edges.on_cpu,
    edges.on_card,
    readings.cost,
    verdict.cpu,
)
