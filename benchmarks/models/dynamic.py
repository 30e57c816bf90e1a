"""The Mapper's exact plans: how fast they come, and whether they are the cheapest of all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns
from joulelab.analysis.placement.exact import with_copies, without_copies
from joulelab.calibration.integrals import Floats

TURNS, DEVICES, ROUNDS, WORKLOADS = 1000, 8, 9, 4
LIMIT_MS = 50.0
FEW_TURNS, FEW_DEVICES, SMALL_CASES = 6, 3, 200
CACHE_B_PER_TOKEN, LINK_B_PER_S = 32768, 25e6


def speed() -> Iterator[Row]:
    """The dynamic program of 1,000 turns on 8 devices."""
    cost = workload(TURNS, DEVICES, seed=0)
    turn = np.arange(TURNS)
    stay, move = cost[turn, turn], cost[:, 0]
    candidates = {
        "holder": partial(seconds, partial(without_copies, stay, move)),
        "every pair of devices in turn": partial(seconds, partial(all_pairs, stay, move)),
    }
    found = {name: 1e3 * value for name, value in medians(taking_turns(ROUNDS, candidates)).items()}
    ours = found.pop("holder")
    yield Row("1,000 turns on 8 devices, the last holder keeps the cache", ours, "ms", LIMIT_MS, "lower", found)
    took = [1e3 * seconds(partial(plan, workload(TURNS, DEVICES, seed), copies=True)) for seed in range(WORKLOADS)]
    what = f"1,000 turns on 8 devices, all keep their caches (label setting): slowest of {WORKLOADS} workloads"
    yield Row(what, max(took), "ms", LIMIT_MS, "lower", {"the fastest": min(took)})


def exactness() -> Iterator[Row]:
    """Exact plans against all plans there are, 6 turns on 3 devices, 200 sessions."""
    cases = [workload(FEW_TURNS, FEW_DEVICES, seed) for seed in range(SMALL_CASES)]
    for copies, what in ((False, "the last holder keeps the cache"), (True, "all keep their caches")):
        worst = max(paid(case, plan(case, copies), copies) / cheapest(case, copies) - 1 for case in cases)
        yield Row(f"cost over the cheapest of all plans, {what}", worst, "1", 1e-12, "lower")


def workload(turns: int, devices: int, seed: int) -> Floats:
    """Times [turns, prefixes, devices] of devices whose rates are log-uniform over one to two decades, over Wi-Fi."""
    rng = np.random.default_rng(seed)

    def drawn(low: float, high: float, n: int) -> Floats:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))

    prompt, output = np.rint(drawn(16, 512, turns)), np.rint(drawn(16, 256, turns))
    start, token, decode = drawn(5e-3, 5e-2, devices), drawn(5e-5, 5e-3, devices), drawn(1e-2, 8e-2, devices)
    held = np.cumsum(prompt + output - 1) - (prompt + output - 1)
    missing = (held[:, None] - held)[:, :, None]
    whole = start + token * prompt[:, None] + decode * (output[:, None] - 1)
    ways = whole[:, None] + np.minimum(token * missing, 5e-3 + missing * CACHE_B_PER_TOKEN / LINK_B_PER_S)
    return np.where(missing > 0, ways, np.where(missing == 0, whole[:, None], np.inf))


def all_pairs(stay: Floats, move: Floats) -> float:
    """The least cost, by the textbook's loops over where a turn and the next one run."""
    total = stay[0].tolist()
    for own, to in zip(stay[1:].tolist(), move[1:].tolist(), strict=True):
        devices = range(len(own))
        total = [min(total[i] + (own[j] if i == j else to[j]) for i in devices) for j in devices]
    return float(min(total))


def plan(cost: Floats, copies: bool) -> list[int]:
    turn = np.arange(len(cost))
    if copies:
        return with_copies(cost, np.zeros(cost.shape[2], np.int64))
    return without_copies(cost[turn, turn], cost[:, 0])


def cheapest(cost: Floats, copies: bool) -> float:
    return min(paid(cost, each, copies) for each in product(range(cost.shape[2]), repeat=len(cost)))


def paid(cost: Floats, devices: list[int] | tuple[int, ...], copies: bool) -> float:
    """What a sequence of devices costs."""
    held, total = [0] * cost.shape[2], 0.0
    for k, device in enumerate(devices):
        total += cost[k, held[device], device]
        held = held if copies else [0] * len(held)
        held[device] = k + 1
    return float(total)
