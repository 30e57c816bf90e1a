"""Models and verdicts on tables of a device whose costs are known."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulelab.analysis.cases import cases
from joulelab.analysis.crossval import hold_out
from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.fitting import scale, solve
from joulelab.analysis.models import Model, fit
from joulelab.analysis.phases import merge
from joulelab.analysis.validation import Verdict, noise_floor, validate
from joulelab.analysis.work import decode_pairs, padded, passes, prefill_pairs
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel, Origin, Scope, SensorModel

GRID = list(product((0, 256), (16, 64, 120, 128, 136, 256), (1, 16, 64)))
TRUE_TIME = {"start": 0.01, "tile": 1e-4, "pair": 2e-8, "pass": 0.02, "context": 3e-7}
METER = Channel("meter.power", "W", scope=Scope.INPUT, sensor=SensorModel(period_s=1e-3, gain_u_rel=0.01))


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_pairs_are_what_a_loop_over_tokens_counts(h: int, p: int, o: int) -> None:
    history, prompt, output = (np.array([float(x)]) for x in (h, p, o))
    assert prefill_pairs(history, prompt)[0] == sum(h + k for k in range(1, p + 1))
    assert decode_pairs(history, prompt, output)[0] == sum(h + p + k for k in range(1, o))
    assert passes(output)[0] == len(range(1, o))
    assert padded(prompt, 16)[0] == len(range(0, p, 16)) * 16


def true_seconds(phase: str, grid: Any) -> NDArray[np.float64]:
    """Seconds of a device whose matrix kernels take 64 tokens at a time."""
    h, p, o = np.array(grid, float).T
    c = TRUE_TIME
    if phase == "prefill":
        return np.asarray(c["start"] + c["tile"] * np.ceil(p / 64) * 64 + c["pair"] * (p * h + p * (p + 1) / 2))
    return np.asarray(c["pass"] * (o - 1) + c["context"] * ((o - 1) * (h + p) + (o - 1) * o / 2))


def synthetic(
    noise: float = 0.0, seed: int = 0, repeats: int = 5, gain: float = 1.0, grid: Any = GRID, **columns: Any
) -> Phases:
    """A table of inferences of that device, which draws 10 W and 1 J more a phase; the noise is relative."""
    rng = np.random.default_rng(seed)
    asked = pd.DataFrame(list(grid) * repeats, columns=["history", "prompt", "output"])
    asked["inference"], asked["repeat"] = range(len(asked)), np.repeat(range(repeats), len(grid))
    parts = {}
    for phase in ("prefill", "decode"):
        seconds = true_seconds(phase, asked[["history", "prompt", "output"]].to_numpy())
        costs = np.stack([seconds, gain * (10 * seconds + 1)], axis=1)
        parts[phase] = costs * (1 + noise * rng.standard_normal(costs.shape))
    parts["decode"][asked["output"] == 1] = 0
    parts["total"] = parts["prefill"] + parts["decode"]
    frames = [
        asked.assign(phase=phase, duration_s=costs[:, 0], energy_j=costs[:, 1])[costs[:, 0] > 0]
        for phase, costs in parts.items()
    ]
    common = {"session": "s", "run": "r", "device": "d", "origin": "measured", "channel": "meter.power", "status": "ok"}
    table = pd.concat(frames, ignore_index=True).assign(**{**common, "gain_u_rel": 0.01, **columns})
    idle = pd.DataFrame([{"run": "r", "channel": "meter.power", "idle_w": 3.0, "idle_u_w": 0.1, "steps": 2}])
    return Phases(table.reindex(columns=SCHEMA.names), {"meter.power": METER}, idle=idle)


def only(phases: Phases, *names: str) -> Phases:
    """The rows of some phases."""
    return replace(phases, table=phases.table[phases.table["phase"].isin(names)])


def untapped(phases: Phases) -> Phases:
    """The same without its power channel."""
    return replace(phases, table=phases.table.assign(channel=np.nan, energy_j=np.nan))


def model_of(phases: Phases, target: str) -> Model:
    return next(model for model in fit(phases) if model.target == target)


def coefficients(model: Model) -> dict[str, float]:
    return {c.name.partition("_")[2]: c.value for phase in model.phases for c in phase.coefficients}


def test_a_fit_without_noise_finds_the_truth() -> None:
    time, energy = (model_of(synthetic(), target) for target in ("time", "energy"))
    assert coefficients(time) == pytest.approx(TRUE_TIME)
    expected = {name: 10 * value for name, value in TRUE_TIME.items()} | {"onset": 1.0}
    assert coefficients(energy) == pytest.approx(expected | {"start": 1.1})
    assert str(time.phases[0].form) == "t_start + t_tile ceil64(p) + t_pair A_p"
    assert [c.unit for c in energy.phases[1].coefficients] == ["J", "J/pass", "J/pair"]
    h, p, o = np.array(GRID).T
    prefill, decode = (true_seconds(phase, GRID) for phase in ("prefill", "decode"))
    assert time.predict(h, p, o) == pytest.approx(prefill + decode)
    assert energy.predict(h, p, o) == pytest.approx(10 * (prefill + decode) + 1 + (o > 1))
    assert energy.predict(0, 64, 16, "decode") == pytest.approx(10 * true_seconds("decode", [(0, 64, 16)]) + 1)
    assert (energy.idle_w, energy.idle_u_w) == (3.0, 0.1)


def test_a_model_is_json_with_all_that_it_takes_to_use_it() -> None:
    found = json.loads(json.dumps(model_of(synthetic(0.01), "energy").to_json(), allow_nan=False))
    assert found["unit"] == "J"
    assert found["channel"] == "meter.power"
    prefill = found["phases"][0]
    assert prefill["valid"] == {"history": [0, 256], "prompt": [16, 256]}
    assert prefill["configurations"] == 12
    assert np.shape(prefill["covariance"]) == (len(prefill["coefficients"]),) * 2
    assert len(found["data_sha256"]) == 64


def test_a_fit_that_has_seen_no_history_says_so() -> None:
    grid = [(0, p, o) for _, p, o in GRID if p < 256] + [(0, 512, 64), (0, 384, 16)]
    assert "history 0" in str(model_of(synthetic(grid=grid), "time").phases[0].caveat)
    assert model_of(synthetic(), "time").phases[0].caveat is None


def test_the_final_fit_is_weighted_least_squares() -> None:
    points = next(iter(cases(synthetic(0.05), 5))).points("decode")
    X, y = points[["prompt", "output"]].to_numpy(), points["y"].to_numpy()
    assert solve(X, y) == pytest.approx(sm.WLS(y, X, weights=scale(X, y) ** -2.0).fit().params)


def test_intervals_cover_the_truth_at_their_rate() -> None:
    """Over 50 experiments, each with a gain error of its own; 84 % is 3.5 standard deviations below 95 %."""
    rng = np.random.default_rng(5)
    grid = [(h, 128, o) for h in (0, 128, 512) for o in (8, 16, 32, 64)]
    truth = {"t_pass": 0.02, "t_context": 3e-7, "e_onset": 1.0, "e_pass": 0.2, "e_context": 3e-6}
    hits = dict.fromkeys(truth, 0)
    for seed in range(50):
        phases = synthetic(0.02, seed, grid=grid, gain=1 + 0.01 * rng.standard_normal())
        for c in (c for model in fit(only(phases, "decode")) for phase in model.phases for c in phase.coefficients):
            hits[c.name] += c.low <= truth[c.name] <= c.high
    assert all(hit / 50 >= 0.84 for hit in hits.values()), hits


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ([(0, 64, 16)], "1 configurations cannot support 2 coefficients: 4 are needed"),
        ([(0, 64, 16), (0, 64, 32), (0, 64, 64)], "3 configurations cannot support 2"),
        ([(h, 64, 2) for h in (0, 0, 0, 0, 0)], "1 configurations cannot support 2"),
        ([(h, 100 - h, 16) for h in range(0, 50, 10)], "cannot tell t_pass, t_context apart"),
    ],
)
def test_a_design_that_cannot_support_the_model_is_refused(grid: Any, reason: str) -> None:
    assert reason in model_of(synthetic(grid=grid), "time").refused["decode"]


def test_a_refusal_of_one_device_leaves_the_others() -> None:
    good, bad = synthetic(), synthetic(grid=[(0, 64, 16)])
    both = merge([good, replace(bad, table=bad.table.assign(device="other"))])
    found = fit(both)
    assert [(m.device, bool(m.phases)) for m in found] == [
        ("d", True),
        ("d", True),
        ("other", False),
        ("other", False),
    ]
    with pytest.raises(DataInvalid, match="the time model of other has no total"):
        found[2].predict(0, 64, 16)


FIELDS = """
    device target phase mape_percent ci95_percent limit_percent split noise_floor_percent configurations dropped_rows
    verdict reason channel scope origin
"""
DECODES = list(product((0, 256), (16, 64, 120, 128, 136, 256), (8, 16, 64)))


def decodes(noise: float = 0.01, **options: Any) -> Phases:
    """Decode phases alone, which are judged fastest."""
    return only(synthetic(noise, **{"grid": DECODES, **options}), "decode")


def verdict(phases: Phases, target: str = "time", phase: str = "decode", **options: Any) -> Verdict:
    asked = phases if target == "energy" else untapped(phases)
    return next(v for v in validate(asked, **options) if (v.target, v.phase) == (target, phase))


def test_a_good_model_passes_and_says_what_was_promised() -> None:
    found = verdict(synthetic(0.01), phase="total")
    assert list(found.to_json()) == FIELDS.split()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["verdict"] == "pass"
    assert (found.configurations, found.dropped_rows, found.channel, found.reason) == (36, 0, None, None)
    assert found.method == "chained"
    assert found.mape_percent is not None
    assert found.ci95_percent is not None
    assert found.ci95_percent[0] < found.mape_percent < found.ci95_percent[1] < 2.7
    assert found.direct_mape_percent == pytest.approx(found.mape_percent, rel=0.5)
    assert len(found.points) == 36
    assert (found.single_run_mape_percent or 0) > found.mape_percent
    assert found.noise_floor_percent == pytest.approx(found.mape_percent, rel=0.2)


def test_the_interval_decides() -> None:
    phases = decodes(0.02)
    mape = verdict(phases).mape_percent or np.nan
    found = [verdict(phases, limits={"time": mape * factor}) for factor in (3, 1, 1 / 3)]
    assert [(v.verdict, v.reason) for v in found] == [
        ("pass", None),
        ("undecided", "the interval spans the limit"),
        ("fail", None),
    ]


def test_doubts_keep_a_verdict_undecided() -> None:
    estimate = {"meter.power": replace(METER, scope=Scope.ESTIMATE, origin=Origin.ESTIMATED)}
    holed = decodes()
    holed.table.loc[holed.table["repeat"] == 0, "duration_s"] = np.nan
    found = {
        "one run a configuration, 5 needed": verdict(decodes(repeats=1)),
        "30 configurations, 32 needed; 3 runs a configuration, 5 needed": verdict(
            decodes(repeats=3, grid=DECODES[:30])
        ),
        "4 runs a configuration, 5 needed; 20.0 % of the rows dropped, 5 % allowed": verdict(holed),
        "no meter: the energy is estimated, it only repeats the time": verdict(
            replace(decodes(), channels=estimate), "energy"
        ),
    }
    assert {reason: (v.reason, v.verdict) for reason, v in found.items()} == {r: (r, "undecided") for r in found}


def test_rows_without_a_positive_value_are_dropped_and_listed() -> None:
    phases = decodes()
    decode = phases.table.index
    phases.table.loc[decode[0], "duration_s"] = 0.0
    phases.table.loc[decode[0], "energy_j"] = -1.0
    phases.table.loc[decode[1], "energy_j"] = np.nan
    phases.table.loc[decode[1], "status"] = "a gap in the readings"
    found = validate(phases)
    assert [v.dropped_rows for v in found] == [1, 2]
    assert [d["cause"] for v in found for d in v.dropped] == [
        "time is not positive",
        "energy is not positive",
        "a gap in the readings",
    ]


def test_a_simulated_verdict_says_that_it_never_counts() -> None:
    found = verdict(decodes(origin="simulated"))
    assert (found.verdict, found.origin) == ("pass", "simulated")
    assert found.reason == "simulated: never counts towards the targets"


def test_sessions_are_never_pooled() -> None:
    both = merge([decodes(), decodes(seed=1, session="t")])
    assert {v.reason for v in validate(both)} == {"s and t are never pooled: name the runs of one session"}
    assert {v.mape_percent for v in validate(both)} == {None}
    assert "never pooled" in fit(both)[0].refused["decode"]


def test_only_known_ways_to_hold_out_are_taken() -> None:
    with pytest.raises(UserError, match="cannot hold out by 'promt'; did you mean 'prompt'"):
        verdict(decodes(), split="promt")


def test_models_of_one_device_are_told_apart() -> None:
    both = merge([decodes(model="1b", quant="q8"), decodes(model="8b", quant="q8")])
    assert {v.device for v in validate(both)} == {"d/1b", "d/8b"}


@pytest.mark.parametrize("split", ["configuration", "prompt"])
def test_no_fold_has_seen_what_it_predicts(split: Any) -> None:
    """A configuration, or prompt length, that costs ten times as much is predicted as if it did not."""
    phases = synthetic()
    odd = (phases.table["prompt"] == 120) & ((phases.table["history"] == 0) | (split == "prompt"))
    phases.table.loc[odd, "duration_s"] *= 10
    case = next(iter(cases(phases, 5)))
    points = hold_out(case, "prefill", ("prefill",), split, seed=1).points
    hit = points[(points["prompt"] == 120) & ((points["history"] == 0) | (split == "prompt"))]
    assert (hit["predicted"] < hit["observed"] / 4).all()
    assert points.groupby("prompt")["fold"].nunique().max() == (1 if split == "prompt" else 2)


def test_short_phases_are_left_out_of_the_fit_but_not_of_the_report() -> None:
    slow = {"meter.power": replace(METER, sensor=SensorModel(period_s=0.04))}
    found = verdict(replace(decodes(), channels=slow), "energy")
    assert {d["cause"] for d in found.dropped} == {"shorter than 5 sensor periods (0.2 s)"}
    assert (found.configurations, len(found.points), found.dropped_rows) == (24, 36, 60)
    assert found.mape_all_percent != found.mape_percent


def test_totals_are_fitted_by_themselves_where_phases_are_too_short() -> None:
    slow = {"meter.power": replace(METER, sensor=SensorModel(period_s=0.01))}
    found = model_of(replace(synthetic(0.01), channels=slow), "energy")
    assert [phase.phase for phase in found.phases] == ["decode", "total"]
    assert found.predict(256, 128, 64) == pytest.approx(10 * seconds_of(256, 128, 64) + 2, rel=0.05)


def seconds_of(*asked: int) -> float:
    return float(sum(true_seconds(phase, [asked])[0] for phase in ("prefill", "decode")))


def test_the_noise_floor_is_what_a_perfect_model_would_show() -> None:
    rng = np.random.default_rng(1)
    runs = rng.normal(1, 0.1, (4000, 5))
    points = pd.DataFrame({"cv": runs.std(axis=1, ddof=1) / runs.mean(axis=1), "runs": 5})
    assert noise_floor(points) == pytest.approx(100 * np.abs(runs.mean(axis=1) - 1).mean(), rel=0.1)
    assert noise_floor(pd.DataFrame({"cv": [np.nan], "runs": [1]})) is None
