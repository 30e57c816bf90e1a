"""How well another clock's stamps are put on the bench clock, and whether the stated bound holds."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.row import Row
from benchmarks.trust import clock_peer
from joulelab.calibration.clock import ClockMap
from joulelab.calibration.integrals import Floats, Ints
from joulelab.timebase import SECOND

LOOPBACK_S, PAUSE_S, BURST = 10.0, 0.25, 20
WIFI_S, PROBES_A_MINUTE, SEEDS = 600.0, 200, 50
LEAST_S, JITTER_S = 2e-3, 4e-3
SLEW = 500e-6
STAMPS = 2000

Far = Callable[[Floats], Floats]


class Probes(NamedTuple):
    """Probes [n] in the order in which they were made, all in ns."""

    far: Ints
    before: Ints
    after: Ints


def loopback() -> Iterator[Row]:
    """A clock 100 ms ahead and 50 ppm fast, probed over loopback TCP."""
    probes = _probed()
    truth = np.linspace(probes.before[0], probes.after[-1], STAMPS).astype(np.int64)
    far = np.array([clock_peer.far_ns(int(t)) for t in truth])
    off_us = {way: 1e-3 * np.abs(bench - truth) for way, bench in _ways(probes, far).items()}
    within = {way: float(np.percentile(off, 95)) for way, off in off_us.items()}
    yield Row("clock over loopback, 95 % of stamps within", within.pop("map"), "us", 2, "lower", within)


def wifi() -> Iterator[Row]:
    """A clock 100 ms ahead and 50 ppm fast, probed through 2 ms and 4 ms of exponential jitter each way."""
    truth = np.linspace(0, WIFI_S, STAMPS) * SECOND
    found: dict[str, list[Floats]] = {}
    for seed in range(SEEDS):
        far = np.rint(_steady(truth)).astype(np.int64)
        for way, bench in _ways(simulated(_steady, WIFI_S, seed), far).items():
            found.setdefault(way, []).append(1e-6 * np.abs(bench - truth))
    within = {way: float(np.percentile(off, 95)) for way, off in found.items()}
    worst = {way: float(np.max(off)) for way, off in found.items()}
    yield Row("clock over Wi-Fi, 95 % of stamps within", within.pop("map"), "ms", 0.2, "lower", within)
    yield Row("clock over Wi-Fi, worst stamp", worst.pop("map"), "ms", None, "lower", worst)


def bounds() -> Iterator[Row]:
    """Stamps farther off than their bound: even clocks, clocks that are slewed, set, or asleep, over many seeds."""
    broken, half_ms = 0, []
    truth = np.linspace(0, WIFI_S / 2, STAMPS) * SECOND
    for seed in range(SEEDS):
        for shape in (_steady, *(_disturbed(kind, seed) for kind in ("slew", "step", "suspend"))):
            clock_map = ClockMap.fit(*simulated(shape, WIFI_S / 2, seed))
            bench, half = clock_map.to_bench(np.rint(shape(truth)).astype(np.int64))
            broken += int((np.abs(bench - truth) > half).sum())
            half_ms.append(1e-6 * float(np.median(half)))
    yield Row(f"clock bounds broken, of {4 * SEEDS * STAMPS:,} stamps", float(broken), "", 0, "lower")
    yield Row("clock bound over Wi-Fi, median", float(np.median(half_ms)), "ms", None, "lower")


def simulated(far: Far, seconds: float, seed: int) -> Probes:
    """Probes at `PROBES_A_MINUTE`, each way taking `LEAST_S` and an exponential jitter."""
    rng = np.random.default_rng(seed)
    n = round(seconds * PROBES_A_MINUTE / 60)
    sent = (np.arange(n) + 0.5 * rng.random(n)) * (seconds * SECOND / n)
    there, back = (LEAST_S + rng.exponential(JITTER_S, (2, n))) * SECOND
    stamps = far(sent + there)
    return Probes(
        np.floor(stamps).astype(np.int64),
        np.floor(sent).astype(np.int64),
        np.ceil(sent + there + back).astype(np.int64),
    )


def _steady(bench: Floats) -> Floats:
    return bench * (1 + clock_peer.DRIFT_PPM * 1e-6) + clock_peer.AHEAD_NS


def _disturbed(kind: str, seed: int) -> Far:
    """The same clock, slewed by 500 ppm for a while, or ahead by more from some time on."""
    rng = np.random.default_rng((seed, 1))
    at, lasting = rng.uniform(60, 200) * SECOND, rng.uniform(20, 90) * SECOND
    by = {"slew": 0.0, "step": rng.uniform(5e-3, 5e-2) * SECOND, "suspend": rng.uniform(1, 3600) * SECOND}[kind]
    rate = rng.choice((-SLEW, SLEW)) if kind == "slew" else 0.0
    return lambda bench: _steady(bench) + rate * np.clip(bench - at, 0, lasting) + by * (bench > at)


def _ways(probes: Probes, far: Ints) -> dict[str, Ints]:
    """The bench times of far stamps by our map, and by an offset as others take it."""
    offsets = probes.far - (probes.before + (probes.after - probes.before) // 2)
    return {
        "map": ClockMap.fit(*probes).to_bench(far)[0],
        "mean of the probes": far - int(offsets.mean()),
        "first probe": far - int(offsets[0]),
    }


def _probed() -> Probes:
    """Probes of `clock_peer`, in bursts: only the first of each waits for a sleeping machine."""
    command = [sys.executable, "-m", clock_peer.__name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        with socket.create_connection(("127.0.0.1", int(peer.stdout.readline()))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stamps = []
            for _ in range(round(LOOPBACK_S / PAUSE_S)):
                stamps += [_probe(connection) for _ in range(BURST)]
                time.sleep(PAUSE_S)
    return Probes(*np.array(stamps, np.int64).T)


def _probe(connection: socket.socket) -> tuple[int, int, int]:
    answer = bytearray(8)
    before = time.monotonic_ns()
    connection.send(b"?")
    connection.recv_into(answer)
    after = time.monotonic_ns()
    return int.from_bytes(answer), before, after
