"""The figures of the topic models."""

from __future__ import annotations

from benchmarks.models import design, dynamic, edge_llm, fit, mapper, maps, orin, verdicts
from benchmarks.row import Benchmark

SHORT: tuple[Benchmark, ...] = (
    orin.decode_time,
    orin.energy,
    orin.first_token,
    verdicts.simulated,
    fit.hundred_thousand,
    fit.losses,
    edge_llm.throttled,
    edge_llm.prompts,
    edge_llm.fastest,
    design.designed,
    maps.maps,
    dynamic.speed,
    dynamic.exactness,
    mapper.placement,
)
LONG: tuple[Benchmark, ...] = (edge_llm.held_out, design.designed_elsewhere, design.same_error)
