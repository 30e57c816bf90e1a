"""Forms, the choice among them, losses, and what a model answers."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from statsmodels.regression.linear_model import OLS

from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.choice import MAX_CONDITION, Bench, choose, refusal, supported
from joulelab.analysis.modelling.estimation import phase_model
from joulelab.analysis.modelling.fitting import fit_case
from joulelab.analysis.modelling.forms import CONTEXT, ONSET, PAIR, PASS, SECONDS, START, TOKEN, Form
from joulelab.analysis.modelling.intervals import clustered
from joulelab.analysis.modelling.losses import Fit
from joulelab.analysis.modelling.models import Model, fit, read_models
from joulelab.analysis.modelling.terms import Term, Work, parse
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError
from tests.synthetic import only, synthetic, untapped

BOX = list(product((0, 512, 2048), (16, 48, 64, 96, 128, 136, 200, 256, 512, 768), (16, 64, 256)))
CACHE = Term("cache", (float("inf"),))
TERMS = [
    Term("roofline", (64.0, 32.0, float("inf"))),
    Term("tokens", (128.0, 256.0)),
    Term("within", (1024.0,)),
    CACHE,
    PAIR,
]


def grid(points: Any = BOX) -> pd.DataFrame:
    return pd.DataFrame(list(points), columns=["history", "prompt", "output"]).astype(float)


def costing(points: pd.DataFrame, truth: dict[Term, float], noise: float = 0.0) -> pd.DataFrame:
    """The points with the sum of these terms as `y`."""
    form = Form("time", tuple(truth))
    scatter = 1 + noise * np.random.default_rng(1).standard_normal(len(points))
    return points.assign(y=form.design(points) @ np.array(list(truth.values())) * scatter)


def prefills() -> pd.DataFrame:
    return grid().assign(output=1.0).drop_duplicates(ignore_index=True)


def found(phase: str, points: pd.DataFrame) -> Form:
    return choose(supported(candidates("time", phase, points), points), points)


def of(target: str, phases: Any = None) -> Model:
    return next(model for model in fit(phases or synthetic(0.01)) if model.target == target)


@given(st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 60), st.sampled_from([1.0, 700.0, 2500.0, 9000.0]))
def test_the_parts_of_a_decode_are_what_a_loop_over_passes_counts(h: int, p: int, o: int, knot: float) -> None:
    contexts = np.arange(h + p + 1, h + p + o)
    work = Work(*(np.array([float(x)]) for x in (h, p, o)))
    assert Term("within", (knot,)).count(work)[0] == contexts[contexts <= knot].sum()
    assert Term("beyond", (knot,)).count(work)[0] == contexts[contexts > knot].sum()
    low, high = (Term("contexts", ends).count(work)[0] for ends in ((0.0, knot), (knot, float("inf"))))
    assert (low, high) == (np.minimum(contexts, knot).sum(), np.maximum(contexts - knot, 0).sum())


@given(st.integers(1, 3000), st.sampled_from([1, 64, 128]), st.sampled_from([256, 512, 1000]))
def test_a_roofline_is_what_a_loop_over_micro_batches_counts(p: int, tile: int, batch: int) -> None:
    passes = [min(batch, p - done) for done in range(0, p, batch)]
    counted = sum(np.hypot(np.ceil(n / tile) * tile, 100.0) for n in passes)
    work = Work(np.zeros(1), np.array([float(p)]), np.ones(1))
    assert Term("roofline", (tile, 100.0, batch)).count(work)[0] == pytest.approx(counted)
    assert Term("microbatch", (batch,)).count(work)[0] == len(passes)


@given(st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([256, 512, 1000]))
def test_every_micro_batch_reads_the_cache(h: int, p: int, batch: int) -> None:
    work = Work(*(np.array([float(x)]) for x in (h, p, 1)))
    assert Term("cache", (batch,)).count(work)[0] == sum(h for _ in range(0, p, batch))
    assert Term("cache", (float("inf"),)).count(work)[0] == h


def test_a_prompt_in_one_micro_batch_needs_no_mention_of_it() -> None:
    assert [Term("cache", (size,)).symbol for size in (512.0, float("inf"))] == ["h ceil(p/512)", "h"]


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_a_term_is_read_as_it_was_written(term: Term) -> None:
    assert parse(str(term)) == term


def test_an_unknown_term_is_refused() -> None:
    with pytest.raises(DataInvalid, match="'warp\\(3\\)' is no term"):
        parse("warp(3)")


@pytest.mark.parametrize(
    ("phase", "truth"),
    [
        ("prefill", {START: 0.01, TOKEN: 1e-4, PAIR: 2e-8}),
        ("prefill", {START: 0.01, Term("tile", (128,)): 1e-4, PAIR: 2e-8}),
        ("prefill", {START: 0.002, Term("roofline", (64, 128, float("inf"))): 1e-4}),
        ("prefill", {Term("roofline", (1, 16, float("inf"))): 2e-3, PAIR: 5e-7, CACHE: 5e-5}),
        ("prefill", {START: 0.01, TOKEN: 1e-4, PAIR: 2e-8, Term("cache", (256,)): 5e-6}),
        ("decode", {PASS: 0.02, CONTEXT: 3e-7}),
        ("decode", {PASS: 0.02, Term("within", (512.0,)): 6e-6, Term("beyond", (512.0,)): 3e-6}),
        ("decode", {PASS: 0.02, Term("contexts", (0.0, 768.0)): 1e-6, Term("contexts", (768.0, float("inf"))): 5e-6}),
    ],
    ids=lambda value: str(Form("time", tuple(value))) if isinstance(value, dict) else value,
)
def test_the_points_choose_the_form_that_made_them(phase: str, truth: dict[Term, float]) -> None:
    points = costing(prefills() if phase == "prefill" else grid(), truth)
    assert set(found(phase, points).terms) == set(truth)


def test_a_device_that_no_closed_form_describes_gets_a_staircase() -> None:
    points = grid(product((0, 512), range(16, 513, 16), (1,)))
    steps = np.cumsum([0.01, 0.004, 0.001, 0.009, 0.001, 0.002, 0.008, 0.003])
    points["y"] = (
        steps[(np.ceil(points["prompt"] / 64) - 1).to_numpy(int)] + 1e-8 * points["prompt"] * points["history"]
    )
    form = found("prefill", points)
    assert [term.at[0] for term in form.terms if term.kind == "step"] == [64.0 * k for k in range(1, 8)]


def test_all_forms_at_once_are_each_by_itself() -> None:
    """Support, coefficients and held-out errors of candidates laid out together are those of single fits."""
    points = costing(prefills(), {START: 0.01, Term("tile", (64,)): 1e-4, PAIR: 2e-8}, 0.02)
    forms = candidates("time", "prefill", points)
    good = supported(forms, points)
    assert set(good) == {form for form in forms if refusal(form, points) is None}
    fold = np.arange(len(points)) % 5
    bench = Bench(good, points)
    for form, together in list(zip(bench.forms, bench.errors(fold), strict=True))[::7]:
        for k in range(5):
            X, y = _weighted(form, points[fold != k])
            beta = np.linalg.lstsq(X, y, rcond=None)[0]
            if (beta > 0).all() and np.linalg.cond(X / np.linalg.norm(X, axis=0)) < MAX_CONDITION:
                alone = np.abs(_weighted(form, points[fold == k])[0] @ beta - 1)
                assert together[fold == k] == pytest.approx(alone, abs=1e-6)


def _weighted(form: Form, points: pd.DataFrame) -> tuple[Floats, Floats]:
    y = points["y"].to_numpy(np.float64)
    return form.design(points) / y[:, None], np.ones(len(y))


def contaminated() -> tuple[Floats, Floats, Floats]:
    """A design, its true values, and what was observed: 2 % of scatter, and a tenth three times too large."""
    points = costing(grid(), {PASS: 0.02, CONTEXT: 3e-6})
    rng, y = np.random.default_rng(2), points["y"].to_numpy()
    seen = y * (1 + 0.02 * rng.standard_normal(len(y)))
    seen[rng.permutation(len(y))[: len(y) // 10]] *= 3
    return Form("time", (PASS, CONTEXT)).design(points), y, seen


def test_outliers_move_the_robust_losses_less() -> None:
    X, y, seen = contaminated()
    free = np.zeros(2, np.bool_)
    errors = {loss: np.abs(X @ Fit(free, loss)(X, seen) / y - 1).mean() for loss in ("wls", "huber", "quantile")}
    assert errors["wls"] > 0.1
    assert max(errors["huber"], errors["quantile"]) < 0.02


def test_the_quantile_loss_minimises_the_mape() -> None:
    X, _, seen = contaminated()
    best = Fit(np.zeros(2, np.bool_), "quantile")(X, seen)

    def mape(beta: Floats) -> float:
        return float(np.abs(X @ beta / seen - 1).mean())

    start = best * [1.05, 0.9]
    searched = optimize.minimize(mape, start, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-12})
    assert mape(best) <= searched.fun * (1 + 1e-9)


def test_a_coefficient_that_would_be_negative_is_at_its_bound_and_says_so() -> None:
    phases = only(synthetic(0.01), "prefill")
    phases.table["duration_s"] -= 0.0105
    case = next(iter(cases(phases, 5)))
    model = phase_model(case, "prefill", Form("time", (START, Term("tile", (64,)), PAIR)))
    start = model.coefficients[0]
    assert (model.bounds, start.value, start.low) == (("t_start",), 0.0, 0.0)
    assert np.isfinite(model.half_width(case.points("prefill"))).all()


def test_intervals_cover_a_truth_near_its_bound() -> None:
    """Over 40 experiments with a start of 10 us; 85 % is 3 standard deviations below 95 %."""
    form, true = Form("time", (START, Term("tile", (64,)), PAIR)), 1e-5
    bound = hits = 0
    for seed in range(40):
        phases = only(untapped(synthetic(0.01, seed)), "prefill")
        phases.table["duration_s"] -= 0.01 - true
        model = phase_model(next(iter(cases(phases, 5))), "prefill", form)
        start = model.coefficients[0]
        bound += model.bounds == ("t_start",) and start.value == start.low == 0.0
        hits += start.low <= true <= start.high
    assert bound > 10
    assert hits / 40 >= 0.85


def test_tables_that_tell_no_uncertainty_get_clustered_intervals() -> None:
    case = next(iter(cases(only(synthetic(0.02, origin="imported"), "decode"), 5)))
    model = phase_model(case, "decode", Form("time", (PASS, CONTEXT)))
    points = case.points("decode")
    size = model.predict(points)
    robust = OLS(points["y"] / size, model.design(points) / size[:, None]).fit(cov_type="HC1")
    assert np.sqrt(np.diag(model.covariance)) == pytest.approx(robust.bse, rel=0.05)
    assert clustered(np.ones((4, 1)), np.arange(4.0), np.zeros((4, 1))) == pytest.approx(1.25 / 3)


def test_an_energy_is_chained_to_predicted_times_and_never_to_observed_ones() -> None:
    energy = list(cases(only(synthetic(), "decode"), 5))[1]
    fitted = fit_case(energy, "decode")
    assert "seconds" in {term.kind for term in fitted.form.terms}
    asked = grid([(0, 64, 16), (256, 100, 40)])
    assert fitted.predict(asked) == pytest.approx(1 + 10 * fitted.timed["seconds"].predict(asked))
    assert list(asked) == ["history", "prompt", "output"]


def test_where_power_takes_time_to_rise_an_energy_is_that_of_ramped_seconds() -> None:
    phases = only(synthetic(grid=[(h, p, 1) for h in (0, 256) for p in range(16, 500, 32)]), "prefill")
    t = phases.table["duration_s"]
    phases.table["energy_j"] = 5 * t + 20 * (t + 0.05 * np.expm1(-t / 0.05))
    form = of("energy", phases).phases[0].form
    assert str(form) == "e_seconds t + e_ramped t[0.05s]"


def test_a_pass_may_draw_less_while_it_is_launched_than_the_rest_of_its_seconds_do() -> None:
    phases = only(synthetic(), "decode")
    table = phases.table
    table["energy_j"] = 10 * table["duration_s"] - 0.04 * (table["output"] - 1) + 2
    energy = list(cases(phases, 5))[1]
    fitted = phase_model(energy, "decode", Form("energy", (ONSET, SECONDS, PASS)))
    assert fitted.beta == pytest.approx([2, 10, -0.04], rel=1e-3)
    assert fitted.bounds == ()
    assert Form("energy", (ONSET, PASS, CONTEXT)).signed == [True, False, False]


def test_a_decode_s_energy_depends_on_how_far_the_power_has_risen_before_it() -> None:
    phases = synthetic(grid=[(h, p, o) for h in (0, 256) for p in (8, 16, 32, 64, 120, 256) for o in (8, 32)])
    table = phases.table
    before = table[table["phase"] == "prefill"].set_index("inference")["duration_s"]
    decodes = table["phase"] == "decode"
    risen = -np.expm1(-before.loc[table.loc[decodes, "inference"]].to_numpy() / 0.02)
    table.loc[decodes, "energy_j"] = 10 * table.loc[decodes, "duration_s"] - 2 + 3 * risen
    energy = fit(phases)[1]
    [_, decode] = energy.phases
    assert str(decode.form) == "e_onset [o>1] + e_risen r[0.02s] + e_seconds t"
    assert decode.beta == pytest.approx([-2, 3, 10])
    assert decode.timed.keys() == {"seconds", "before"}
    assert energy.predict(0, 64, 8, "decode") == pytest.approx(
        table[decodes & (table["history"] == 0) & (table["prompt"] == 64) & (table["output"] == 8)]["energy_j"].mean()
    )
    assert Model.from_json(json.loads(json.dumps(energy.to_json()))) == energy


@pytest.mark.parametrize("loss", ["huber", "quantile"])
def test_a_model_says_what_its_fit_minimised(loss: Any) -> None:
    model = fit(untapped(only(synthetic(0.01), "decode")), loss=loss)[0]
    assert model.phases[0].loss == loss
    assert model.predict(0, 64, 16, "decode") == pytest.approx(of("time").predict(0, 64, 16, "decode"), rel=0.02)


def test_predictions_broadcast_and_their_components_add_up() -> None:
    for target in ("time", "energy"):
        model = of(target)
        asked = (np.array([0, 256])[:, None], np.array([16, 64, 200]), 64)
        cost = model.predict(*asked)
        assert cost.shape == model.half_width(*asked).shape == (2, 3)
        assert sum(model.components(*asked).values()) == pytest.approx(cost)
        assert cost == pytest.approx(model.predict(*asked, "prefill") + model.predict(*asked, "decode"))


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    models = fit(synthetic(0.01))
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"models": [model.to_json() for model in models]}, allow_nan=False))
    for model, read in zip(models, read_models(file), strict=True):
        assert read == model
        assert read.half_width(10, 100, 30) == pytest.approx(model.half_width(10, 100, 30))


@pytest.mark.parametrize("text", ["{}", "[]", '{"models": [{}]}', "no JSON", '{"models": 3}'])
def test_a_file_without_models_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataInvalid, match="has no models: write it with 'joulelab fit --out'"):
        read_models(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_models(tmp_path / "none.json")


def test_a_model_refuses_a_filled_cache_that_it_has_never_seen_and_warns_outside_its_range() -> None:
    empty = of("time", synthetic(0.01, grid=[(0, p, o) for p in (16, 40, 64, 100, 128, 200, 256) for o in (1, 8, 64)]))
    assert empty.outside(0, 100, 32) == (None, None)
    assert str(empty.outside(1, 100, 32).refusal).endswith("has only seen history 0: measure it with a filled cache")
    filled = of("time")
    assert filled.outside(256, 256, 64) == (None, None)
    refusal, warning = filled.outside(0, [100, 300], 32)
    assert refusal is None
    assert "prompt 100 to 300 (seen: 16 to 256)" in str(warning)


def test_models_drawn_from_the_covariance_spread_as_the_intervals_say() -> None:
    model = of("energy")
    drawn = np.array([m.predict(128, 100, 40) for m in model.drawn(400, seed=3)])
    exact = replace(model, phases=tuple(replace(p, misfit=0.0, timed=p.timed) for p in model.phases))
    assert drawn.mean() == pytest.approx(model.predict(128, 100, 40)[0], rel=0.005)
    assert 1.96 * drawn.std() == pytest.approx(exact.half_width(128, 100, 40)[0], rel=0.35)
    assert model.gain_u_rel == pytest.approx(0.01, rel=0.1)
    assert drawn.std() / drawn.mean() > 0.009
