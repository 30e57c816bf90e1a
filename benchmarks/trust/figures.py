"""The figures of the topic trust."""

from __future__ import annotations

from benchmarks.row import Benchmark
from benchmarks.trust import accuracy, clocks, coverage, lag, recordings

SHORT: tuple[Benchmark, ...] = (
    accuracy.means,
    accuracy.hard_means,
    accuracy.ramps,
    accuracy.single_inferences,
    accuracy.one_hour,
    lag.signatures,
    lag.steadiness,
    clocks.loopback,
    clocks.wifi,
    clocks.bounds,
    coverage.few_fast,
    coverage.few_slow,
    recordings.published_energies,
    recordings.two_meters,
    lag.recordings,
)
LONG: tuple[Benchmark, ...] = (coverage.many_fast, coverage.many_slow)
