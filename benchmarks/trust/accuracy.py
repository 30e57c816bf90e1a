"""How far phase energies from slow sensors are off, deconvolved and clipped, on the workload of the sensor study."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.row import Row
from benchmarks.trust import hour
from benchmarks.trust.workload import Workload, edges_of, play
from joulelab.analysis.attribution import Source, attribute_source
from joulelab.calibration.integrals import Floats, integrate
from joulelab.calibration.readings import readings
from joulelab.quantities import Channel, SensorModel

SEEDS = 12
DELAY_S, NOISE_W = 0.037, 3.0
"""The noise is 1 % of the workload's mean power, 300 W."""
BOUNDARY_S = 0.004
AGE_U_S = 1.5e-3
"""What `benchmarks.trust.lag` reaches for a 10 Hz sensor."""
CHANCE = 0.01
"""How often intervals that are right may fail their row."""
PHASES = ("prefill", "decode")
TEN_HZ = SensorModel(period_s=0.1, window_s=0.1, delay_s=DELAY_S, noise_u=NOISE_W)
ONE_SECOND = replace(TEN_HZ, window_s=1.0)
UNKNOWN = SensorModel(period_s=0.1)


class Case(NamedTuple):
    """`told` is what the analysis knows of the `sensor`; with `certified` that it holds. `late_s`: how much too late
    the inner edge is said to be.
    """

    what: str
    sensor: SensorModel
    workload: Workload
    told: SensorModel = UNKNOWN
    certified: bool = False
    late_s: float = 0.0
    interval_s: float = 0.02


class Trial(NamedTuple):
    """Relative errors of the means [prefill, decode], clipped ones, whether 95 % intervals hold the truth, which term
    leads their budget, and errors of single inferences [n, 2].
    """

    error: Floats
    clipped: Floats
    covered: Sequence[bool]
    leading: Sequence[str]
    single: Floats


def _both(case: Case) -> list[Case]:
    """A case for the sensor of 100 ms, and for the one of 1 s with twice the inferences."""
    slow = replace(case.workload, inferences=32)
    return [
        case._replace(what=f"10 Hz, averages 100 ms, 16 inferences{case.what}"),
        case._replace(what=f"1 s average read at 10 Hz, 32 inferences{case.what}", sensor=ONE_SECOND, workload=slow),
    ]


PLAIN = Workload(16)
HARD = (
    Case("; decode rises by 15 %", TEN_HZ, replace(PLAIN, rise_rel=0.15)),
    Case("; +60 W for 150 ms at first", TEN_HZ, replace(PLAIN, onset_w=60.0)),
    Case("; inner edge 4 ms late", TEN_HZ, PLAIN, late_s=BOUNDARY_S),
    Case("; polled each 27 ms", TEN_HZ, PLAIN, interval_s=0.027),
)
KNOWN = (("10 Hz, averages 100 ms", TEN_HZ, 16), ("1 s average read at 10 Hz", ONE_SECOND, 32))


def means() -> Iterator[Row]:
    """Errors of a configuration's mean energy, lag and window not told (root mean square over seeds)."""
    for case in _both(Case("", TEN_HZ, PLAIN)):
        yield from _rows(case.what, [_trial(case, seed) for seed in range(SEEDS)], 0.5)


def hard_means() -> Iterator[Row]:
    """Errors of a configuration's mean energy where power, edges or polls are not as the fit takes them."""
    for hard in HARD:
        for case in _both(hard):
            yield from _rows(case.what, [_trial(case, seed) for seed in range(SEEDS)], 2.0)


def ramps() -> Iterator[Row]:
    """Errors where the power follows the load in a ramp of 50 ms, the sensor known from a certificate."""
    for name, sensor, inferences in (
        ("10 Hz, averages 100 ms", TEN_HZ, 16),
        ("1 s average read at 10 Hz", ONE_SECOND, 32),
    ):
        known = replace(sensor, delay_u_s=AGE_U_S, window_u_s=AGE_U_S)
        what = f"{name}, {inferences} inferences; 50 ms ramp, certified"
        case = Case(what, known, Workload(inferences, ramp_s=0.05), known, certified=True)
        trials = [_trial(case, seed) for seed in range(SEEDS)]
        yield from _rows(what, trials, 2.0)
        covered = np.ravel([trial.covered for trial in trials])
        least = float(stats.binom.ppf(CHANCE, len(covered), 0.95)) / len(covered)
        held = f"{what}: 95 % intervals that hold, of {len(covered)}, limit as wide as chance makes it"
        yield Row(held, float(covered.mean() * 100), "%", least * 100, "higher")
    for case in _both(Case("; 50 ms ramp, nothing certified", TEN_HZ, replace(PLAIN, ramp_s=0.05))):
        trials = [_trial(case, seed) for seed in range(SEEDS)]
        told = np.mean([trial.covered[0] and trial.leading[0] == "ramp" for trial in trials])
        others = {"error of the prefill [%]": _rms([float(trial.error[0]) for trial in trials])}
        what = f"{case.what}: budgets of prefills that name the ramp, and hold"
        yield Row(what, float(told * 100), "%", 90.0, "higher", others)


def single_inferences() -> Iterator[Row]:
    """Errors of single inferences whose powers differ by 3 %, the lag known."""
    for name, sensor, inferences in (
        ("10 Hz, averages 100 ms", TEN_HZ, 16),
        ("1 s average read at 10 Hz", ONE_SECOND, 32),
    ):
        known = replace(sensor, delay_u_s=1e-4)
        case = Case(name, known, Workload(inferences, spread_rel=0.03), known, certified=True)
        single = np.concatenate([_trial(case, seed).single for seed in range(SEEDS)])
        for k, phase in enumerate(PHASES):
            others = {"95 of 100 within": float(np.quantile(np.abs(single[:, k]), 0.95) * 100)}
            yield Row(f"{name}: {phase}, each by itself, rms", _rms(single[:, k]), "%", 2.0, "lower", others)


def one_hour() -> Iterator[Row]:
    """Time and memory to deconvolve an hour at 10 Hz with 2,000 inferences, the timing found as well."""
    found = json.loads(subprocess.check_output([sys.executable, "-m", hour.__name__]))
    yield Row(
        "1 hour at 10 Hz, 2,000 inferences: time", found["seconds"], "s", 2.0, "lower", {"clipped": found["clipped_s"]}
    )
    yield Row("1 hour at 10 Hz, 2,000 inferences: peak memory", found["peak_mb"], "MB", 500.0, "lower")
    yield Row(
        "1 hour at 10 Hz, 2,000 inferences: worst mean of 40 prefills", found["error_percent"], "%", None, "lower"
    )


def _rows(what: str, trials: Sequence[Trial], limit: float) -> Iterator[Row]:
    for k, phase in enumerate(PHASES):
        found = [float(trial.error[k]) for trial in trials]
        clipped = [float(trial.clipped[k]) for trial in trials]
        others = {"worst seed": _worst(found), "clip-and-integrate": _rms(clipped)}
        yield Row(f"{what}: {phase}, rms of {len(trials)} seeds", _rms(found), "%", limit, "lower", others)


def _trial(case: Case, seed: int) -> Trial:
    channel = Channel("power", "W", sensor=case.sensor)
    played = play(case.workload, channel, case.interval_s, seed)
    edges = edges_of(played, case.late_s)
    source = Source("meter.power", replace(channel, sensor=case.told), played.interval_ns, played.samples)
    found = attribute_source(replace(source, certified=case.certified), edges, "deconvolve")
    n = len(played.edges)
    energy = found.energy_j.reshape(2, n)
    true = played.joules.mean(axis=0)
    assert found.shared is not None
    noise = np.array([np.linalg.norm(part.toarray().mean(axis=0)) for part in (found.shared[:n], found.shared[n:])])
    terms = {name: np.abs(load.reshape(2, n).mean(axis=1)) for name, load in found.budget.items()} | {"noise": noise}
    u = np.sqrt(np.sum(np.square(list(terms.values())), axis=0))
    error = energy.mean(axis=1) / true - 1
    clean = readings(channel, played.interval_ns, played.samples)
    clipped = integrate(clean.t_ns, clean.values, edges.start_ns, edges.stop_ns).reshape(2, n).mean(axis=1) / true - 1
    leading = [max(terms, key=lambda name: terms[name][k]) for k in range(2)]
    return Trial(error, clipped, list(np.abs(error) * true < 1.96 * u), leading, (energy / played.joules.T - 1).T)


def _rms(errors: Sequence[float] | Floats) -> float:
    return float(np.sqrt(np.mean(np.square(errors))) * 100)


def _worst(errors: Sequence[float] | Floats) -> float:
    return float(np.abs(errors).max() * 100)
