"""The simulated devices measured over the Mapper's box, on points that a lab could measure, and models fitted to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, product
from multiprocessing import get_context

from benchmarks.backbone.simulated import plans, recorded
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.phases import reduce
from joulelab.analysis.space.costs import DeviceCosts, device_costs
from joulelab.bench import Plan
from joulelab.timebase import SECOND

HISTORIES = (0, 512, 2048, 8192)
PROMPTS = (16, 48, 120, 136, 256, 400, 512, 768, 1024, 2048, 4096)
"""On the tiles of matrix kernels and off them; 4,096 is the end of the box."""
OUTPUTS = (16, 64, 256, 1024)
SHORT = 16
LONG = ((0, 6144), (0, 8192), (0, 12288), (2048, 8192))
"""History and prompt beyond the box: what a device has to prefill that does not hold the history yet."""
REPEATS = 5
SCOPE = "meter"


@dataclass(frozen=True)
class Measured:
    """The models of a device, and how long it was measured [s of the simulation]."""

    models: list[Model]
    seconds: float


def points() -> list[tuple[int, int, int]]:
    """History, prompt, output: every prompt with every history, every output with some of both."""
    prefills = [(h, p, SHORT) for h, p in chain(product(HISTORIES, PROMPTS), LONG)]
    decodes = [(h, p, o) for h, p, o in product(HISTORIES, (64, 1024), OUTPUTS) if o > SHORT]
    return [*prefills, *decodes]


def box_plans() -> Iterator[Plan]:
    """The points on every simulated device."""
    arguments = {"configurations": points(), "anchor": points()[0], "repeats": REPEATS, "seed": 1, "gap": 0.1}
    for plan in plans():
        shared = {name: plan.arguments[name] for name in ("idle", "warmup", "signature")}
        yield replace(plan, protocol="points", arguments=shared | arguments)


def measured() -> list[Measured]:
    """Every device, measured and fitted."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(_measure, box_plans()))


def _measure(plan: Plan) -> Measured:
    with recorded(plan) as run:
        return Measured(fit(reduce(run)), run.journal[-1]["t"] / SECOND)


def costs(found: list[Measured]) -> list[DeviceCosts]:
    """What the devices' models say, of time and of energy at the meter in the supply line."""
    return device_costs([model for each in found for model in each.models], SCOPE)
