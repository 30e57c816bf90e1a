"""Models and verdicts on tables of a device whose costs are known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.estimation import phase_model
from joulelab.analysis.modelling.forms import CONTEXT, ONSET, PASS, Form
from joulelab.analysis.modelling.losses import scale, solve
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.terms import Term
from joulelab.analysis.modelling.work import decode_pairs, padded, passes, prefill_pairs
from joulelab.analysis.phases import merge
from joulelab.errors import DataInvalid
from joulelab.quantities import SensorModel
from tests.synthetic import GRID, METER, TRUE_TIME, only, synthetic, true_seconds


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_pairs_are_what_a_loop_over_tokens_counts(h: int, p: int, o: int) -> None:
    history, prompt, output = (np.array([float(x)]) for x in (h, p, o))
    assert prefill_pairs(history, prompt)[0] == sum(h + k for k in range(1, p + 1))
    assert decode_pairs(history, prompt, output)[0] == sum(h + p + k for k in range(1, o))
    assert passes(output)[0] == len(range(1, o))
    assert padded(prompt, 16)[0] == len(range(0, p, 16)) * 16


def model_of(phases: Phases, target: str) -> Model:
    return next(model for model in fit(phases) if model.target == target)


def coefficients(model: Model) -> dict[str, float]:
    return {c.name.partition("_")[2]: c.value for phase in model.phases for c in phase.coefficients}


def test_a_fit_without_noise_finds_the_truth() -> None:
    time, energy = (model_of(synthetic(), target) for target in ("time", "energy"))
    assert coefficients(time) == pytest.approx(TRUE_TIME)
    assert coefficients(energy) == pytest.approx({"start": 1.0, "seconds": 10.0, "onset": 1.0})
    assert str(time.phases[0].form) == "t_start + t_tile ceil64(p) + t_pair A_p"
    assert [c.unit for c in energy.phases[1].coefficients] == ["J", "W"]
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


@pytest.mark.parametrize(("resolved", "points"), [(3, 12), (2, 11)])
def test_a_configuration_that_a_slow_sensor_mostly_cannot_resolve_is_left_out_whole(resolved: int, points: int) -> None:
    """Of five repeats, those that it does resolve are those that came out high."""
    phases = only(synthetic(0.05, grid=[(h, p, 1) for h, p, o in GRID if o == 1], method="deconvolve"), "prefill")
    own = phases.table["prompt"].eq(64) & phases.table["history"].eq(0)
    low = phases.table.loc[own, "energy_j"].nsmallest(5 - resolved).index
    phases.table.loc[low, ["energy_j", "status"]] = np.nan, "too slow a sensor"
    energy = list(cases(phases, 5))[1]
    assert len(energy.points("prefill")) == points
    lost = energy.lost("prefill")["cause"].str.startswith("most repeats of this configuration")
    assert lost.sum() == (0 if points == 12 else resolved)


DECODES = {"time": Form("time", (PASS, CONTEXT)), "energy": Form("energy", (ONSET, Term("seconds")))}


def test_intervals_cover_the_truth_at_their_rate() -> None:
    """Over 50 experiments, each with a gain error of its own; 84 % is 3.5 standard deviations below 95 %."""
    rng = np.random.default_rng(5)
    grid = [(h, 128, o) for h in (0, 128, 512) for o in (8, 16, 32, 64)]
    truth = {"t_pass": 0.02, "t_context": 3e-7, "e_onset": 1.0, "e_seconds": 10.0}
    hits = dict.fromkeys(truth, 0)
    for seed in range(50):
        phases = synthetic(0.02, seed, grid=grid, gain=1 + 0.01 * rng.standard_normal())
        for case in cases(only(phases, "decode"), 5):
            for c in phase_model(case, "decode", DECODES[case.target]).coefficients:
                hits[c.name] += c.low <= truth[c.name] <= c.high
    assert all(hit / 50 >= 0.84 for hit in hits.values()), hits


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ([(0, 64, 16)], "all rows repeat one configuration (history 0, prompt 64, output 16): vary it"),
        ([(0, 64, 16), (0, 64, 32), (0, 64, 64)], "3 configurations cannot support 2"),
        ([(h, 64, 2) for h in (0, 0, 0, 0, 0)], "all rows repeat one configuration"),
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


def test_totals_are_fitted_by_themselves_where_phases_are_too_short() -> None:
    slow = {"meter.power": replace(METER, sensor=SensorModel(period_s=0.01))}
    found = model_of(replace(synthetic(0.01), channels=slow), "energy")
    assert [phase.phase for phase in found.phases] == ["decode", "total"]
    assert found.predict(256, 128, 64) == pytest.approx(10 * seconds_of(256, 128, 64) + 2, rel=0.05)


def seconds_of(*asked: int) -> float:
    return float(sum(true_seconds(phase, [asked])[0] for phase in ("prefill", "decode")))
