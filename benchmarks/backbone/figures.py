"""What `make bench` measures of the backbone, and what `make long` measures besides."""

from __future__ import annotations

from benchmarks.backbone import coverage, held_out, integral, recorder, reduction, sampling, startup, workload

SHORT = (
    startup.start,
    integral.exactness,
    recorder.rates,
    reduction.cost,
    sampling.punctuality,
    workload.cost,
    held_out.errors,
    coverage.few_seeds,
)
LONG = (coverage.many_seeds,)
