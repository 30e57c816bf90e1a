"""Which errors have a common cause: in the table, in the means of configurations and in the coefficients."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse, stats

from joulelab.analysis.budget import TERMS
from joulelab.analysis.dataset import COVARIANCE, SCHEMA, Phases, merge, read_dataset, to_frame
from joulelab.analysis.means import Means, means
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.estimation import phase_model
from joulelab.analysis.modelling.intervals import Errors, uncertainty
from joulelab.quantities import Channel, Scope, SensorModel

CHANNEL = "meter.power"
METER = Channel("power", "W", scope=Scope.WALL, sensor=SensorModel(period_s=0.3, gain_u_rel=0.01))
PHASES = ("prefill", "decode", "total")
REPEATS = 5
SECONDS = {"prefill": 0.5, "decode": 1.0, "total": 1.5}
JOULES = {"prefill": 100.0, "decode": 200.0, "total": 300.0}
LOADS = {"gain": 0.01, "lag": -0.004, "noise": 0.02}
"""Of a phase's energy."""
BOUNDARY_J = {"prefill": 2.0, "decode": -2.0, "total": 0.0}


def table(grid: Any = ((0, 64, 16),), **columns: Any) -> pd.DataFrame:
    """Five inferences of each configuration, three rows each, that all cost the same."""
    rows = [
        {"inference": number, "history": h, "prompt": p, "output": o, "phase": phase}
        for number, (_, (h, p, o)) in enumerate(product(range(REPEATS), grid))
        for phase in PHASES
    ]
    frame = pd.DataFrame(rows).assign(
        session="s", run="r", device="d", channel=CHANNEL, scope="wall", origin="measured", status="ok", gain_u_rel=0.01
    )
    frame["duration_s"], frame["energy_j"] = frame["phase"].map(SECONDS), frame["phase"].map(JOULES)
    frame["idle_j"] = 40 * frame["duration_s"]
    return to_frame(pa.Table.from_pandas(frame.assign(**columns).reindex(columns=SCHEMA.names), SCHEMA))


def phases(rows: pd.DataFrame, shared: sparse.csr_array | None = None, **loads: Any) -> Phases:
    """With a budget; loads are relative to the energies, where they are not given in J."""
    budget = pd.DataFrame(0.0, rows.index, list(TERMS))
    for term, load in LOADS.items():
        budget[term] = load * rows["energy_j"]
    budget = budget.assign(boundary=rows["phase"].map(BOUNDARY_J), **loads)
    idle = pd.DataFrame([{"run": "r", "channel": CHANNEL, "idle_w": 40.0, "idle_u_w": 1.5, "steps": 3}])
    return Phases(rows, {CHANNEL: METER}, idle=idle, budget=budget, shared=shared)


def deconvolved(rows: pd.DataFrame, factors: NDArray[Any]) -> Phases:
    """Rows whose noise is what they share."""
    shared = sparse.csr_array(factors)
    return phases(rows.assign(method="deconvolve"), shared, noise=np.linalg.norm(factors, axis=1))


def test_what_is_shared_is_saved_and_read(tmp_path: Path) -> None:
    rows = table()
    saved = deconvolved(rows, np.random.default_rng(1).standard_normal((len(rows), 4)))
    saved.save(tmp_path)
    found = read_dataset(tmp_path)
    assert found.shared is not None
    assert saved.shared is not None
    assert found.shared.toarray() == pytest.approx(saved.shared.toarray())
    everything = range(len(rows))
    assert found.covariance(everything) == pytest.approx(saved.covariance(everything))


def test_a_dataset_without_the_newer_terms_is_read_and_merged(tmp_path: Path) -> None:
    old, new = phases(table()), deconvolved(table(), np.ones((15, 1)))
    assert old.budget is not None
    replace(old, budget=old.budget.drop(columns=["ramp"])).save(tmp_path)
    with np.load(tmp_path / COVARIANCE) as stored:
        assert set(stored) == {"terms", "loads"}
    both = merge([read_dataset(tmp_path), new])
    assert both.shared is not None
    assert both.shared.toarray().tolist() == [[0.0]] * 15 + [[1.0]] * 15
    assert both.budget is not None
    assert both.budget["ramp"].tolist() == [0.0] * 30
    apart = both.covariance(range(15)), both.covariance(range(15, 30))
    assert [found.tolist() for found in apart] == [part.covariance(range(15)).tolist() for part in (old, new)]


def test_datasets_share_no_noise_and_one_without_a_budget_stays_unknown() -> None:
    one, other = (deconvolved(table(), np.full((15, 1), load)) for load in (1.0, 2.0))
    both = merge([one, replace(other, budget=None), other])
    assert both.shared is not None
    assert (both.shared @ both.shared.T).toarray()[0, [0, 14, 15, 44]].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert both.budget is not None
    assert both.budget.isna().all(axis=1).tolist() == [False] * 15 + [True] * 15 + [False] * 15
    assert merge([phases(table())] * 2).shared is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.booleans())
def test_a_covariance_is_one(seed: int, factors: int, everywhere: bool) -> None:
    rng, rows = np.random.default_rng(seed), table()
    shared = rng.standard_normal((len(rows), factors)) * (everywhere | (rng.random((len(rows), 1)) < 0.5))
    noise = np.where(shared.any(axis=1), np.linalg.norm(shared, axis=1), 1.0)
    found = phases(rows, sparse.csr_array(shared), noise=noise)
    covariance = found.covariance(range(len(rows)))
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * covariance.max()
    assert found.budget is not None
    assert np.diag(covariance) == pytest.approx((found.budget**2).sum(axis=1).to_numpy())


def test_the_covariance_is_that_of_errors_drawn_from_the_budget() -> None:
    rng = np.random.default_rng(2)
    factors = np.where(np.arange(6)[:, None] < 3, rng.standard_normal((6, 2)), 0.0)
    found = phases(table().iloc[:6], sparse.csr_array(factors))
    loads, draws = found.budget, 100_000
    assert loads is not None
    loads["noise"] = np.where(np.arange(6) < 3, np.linalg.norm(factors, axis=1), loads["noise"])
    gain, lag = (rng.standard_normal((draws, 1)) * loads[term].to_numpy() for term in ("gain", "lag"))
    boundary = rng.standard_normal((draws, 2)).repeat(3, axis=1) * loads["boundary"].to_numpy()
    alone = rng.standard_normal((draws, 6)) * loads["noise"].to_numpy() * (np.arange(6) >= 3)
    errors = gain + lag + boundary + alone + rng.standard_normal((draws, 2)) @ factors.T
    covariance = found.covariance(range(6))
    assert np.cov(errors.T) == pytest.approx(covariance, abs=0.03 * covariance.max())


def test_the_boundary_cancels_in_the_total() -> None:
    found = phases(table(), noise=0.0, gain=0.0, lag=0.0)
    assert np.array([1, 1, -1]) @ found.covariance([0, 1, 2]) == pytest.approx([0, 0, 0])
    assert mean_of(means(found), "total")["energy_u_j"] == 0.0


def mean_of(found: Means, phase: str) -> Any:
    """The only mean of a phase, with its budget."""
    return found.table.join(found.budget).set_index("phase").loc[phase]


def sessions(many: int) -> pd.DataFrame:
    """The same experiment in so many sessions."""
    once = table()
    numbers = np.arange(many).repeat(len(once)).astype(str)
    return pd.concat([once] * many, ignore_index=True).assign(session=numbers)


def test_a_mean_is_as_uncertain_as_it_says_and_its_interval_holds() -> None:
    """In each session everything that errs is drawn anew, and so is what the inferences really cost."""
    rng, many, spread = np.random.default_rng(3), 500, 0.03
    rows = sessions(many)
    alike = rng.standard_normal((2, many)).repeat(len(rows) // many, axis=1)
    each = rng.standard_normal(many * REPEATS).repeat(len(PHASES))
    joules, boundary = (rows["phase"].map(of).to_numpy(np.float64) for of in (JOULES, BOUNDARY_J))
    drawn = 1 + LOADS["gain"] * alike[0] + LOADS["lag"] * alike[1]
    drawn += np.hypot(LOADS["noise"], spread) * rng.standard_normal(len(rows))
    found = means(phases(rows.assign(energy_j=joules * drawn + boundary * each))).table
    for phase, own in found.groupby("phase"):
        error = own["energy_j"] - JOULES[str(phase)]
        assert np.sqrt((own["energy_u_j"] ** 2).mean()) == pytest.approx(error.std(), rel=0.1)
        held = (error.abs() <= own["energy_k"] * own["energy_u_j"]).mean()
        assert held == pytest.approx(0.95, abs=0.03)


def test_the_terms_of_a_mean_average_as_their_causes_do() -> None:
    found = mean_of(means(phases(table(), resolution=0.3)), "prefill")
    assert found["runs"] == REPEATS
    assert [found[term] for term in ("gain", "lag", "resolution")] == pytest.approx([1.0, 0.4, 0.3])
    assert [found[term] for term in ("noise", "boundary")] == pytest.approx([2 / np.sqrt(5)] * 2)
    assert found["repetition"] == 0.0
    assert found["energy_dof"] == np.inf
    assert found["energy_k"] == pytest.approx(stats.norm.ppf(0.975))


def test_repeats_that_differ_by_more_than_their_noise_have_few_degrees_of_freedom() -> None:
    spread = np.repeat([-20.0, -10.0, 0.0, 10.0, 20.0], 3)
    rows = table()
    found = mean_of(
        means(phases(rows.assign(energy_j=rows["energy_j"] + spread), gain=0.0, lag=0.0, noise=3.0)), "total"
    )
    assert found["repetition"] ** 2 + found["noise"] ** 2 == pytest.approx(250 / 5)
    assert found["energy_dof"] == pytest.approx(4)
    assert found["energy_k"] == pytest.approx(stats.t.ppf(0.975, 4))


def test_what_lies_above_idle_has_the_baseline_in_its_budget_and_no_offset() -> None:
    found = means(phases(table(), offset=1.0))
    dynamic = found.dynamic.iloc[0]
    assert found.table["dynamic_j"].tolist() == pytest.approx([80.0, 160.0, 240.0])
    assert dynamic[["gain", "offset", "baseline"]].tolist() == pytest.approx([0.8, 0.0, 0.75])
    assert found.table["dynamic_u_j"].iloc[0] == pytest.approx(np.sqrt((dynamic**2).sum()))


def test_one_run_tells_no_repetition_and_no_budget_no_uncertainty() -> None:
    once = means(phases(table().iloc[:3]))
    assert once.table["energy_j"].tolist() == [100.0, 200.0, 300.0]
    assert once.table["energy_u_j"].isna().all()
    assert means(replace(phases(table()), budget=None)).table["energy_u_j"].isna().all()


def totals(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["phase"] == "total"].reset_index(drop=True)


def test_instances_that_were_drawn_together_do_not_understate_their_mean() -> None:
    """Their mean is free; they differ from it as far as a prior of their spread and their noise allow."""
    rng, many, spread, noise = np.random.default_rng(4), 500, 10.0, 20.0
    mean, keep = np.full((REPEATS, REPEATS), 1 / REPEATS), spread**2 / (spread**2 + noise**2)
    estimate = mean + keep * (np.eye(REPEATS) - mean)
    read = JOULES["total"] + np.hypot(spread, noise) * rng.standard_normal((many, REPEATS))
    rows = totals(sessions(many)).assign(energy_j=(read @ estimate).ravel())
    found = deconvolved(rows, np.kron(np.eye(many), noise * np.linalg.cholesky(estimate)))
    assert found.budget is not None
    variance = means(replace(found, budget=found.budget.assign(gain=0.0, lag=0.0))).table["energy_u_j"] ** 2
    assert variance.mean() == pytest.approx((spread**2 + noise**2) / REPEATS, rel=0.1)
    assert variance.mean() == pytest.approx(read.mean(axis=1).var(), rel=0.15)


def test_the_noise_floor_counts_what_instances_that_were_drawn_together_lack() -> None:
    found = deconvolved(totals(table()), 30 * np.eye(REPEATS))
    energies = next(case for case in cases(found, 5) if case.target == "energy")
    assert energies.points("total")["cv"].tolist() == pytest.approx([30 / 300])


def test_deconvolved_phases_may_be_short() -> None:
    grid = list(product((0, 128), (16, 64, 100), (8, 16)))
    short = phases(table(grid))
    slow = replace(short, table=short.table.assign(method="deconvolve"))
    assert [[len(case.dropped) for case in cases(found, 5)] for found in (short, slow)] == [[0, 120], [0, 0]]


def decodes(factors: NDArray[np.float64] | None) -> Phases:
    """Decodes of a known cost without any scatter; they share what `factors` [configurations, n] say."""
    grid = list(product((0, 256), (16, 256), (8, 32, 64)))
    rows = table(grid).query("phase == 'decode'").reset_index(drop=True)
    o, h, p = (rows[name].to_numpy(np.float64) for name in ("output", "history", "prompt"))
    wobble = 1e-4 * np.resize([1, -1, -1, 1, 1, -1, 1], len(rows))
    rows["energy_j"] = (2 + 3 * (o - 1) + 1e-3 * ((o - 1) * (h + p) + (o - 1) * o / 2)) * (1 + wobble)
    found = phases(rows) if factors is None else deconvolved(rows, np.tile(factors, (REPEATS, 1)))
    assert found.budget is not None
    return replace(
        found, channels={CHANNEL: replace(METER, sensor=SensorModel())}, budget=found.budget.assign(gain=0.0, lag=0.0)
    )


def relative_u(found: Phases) -> NDArray[np.float64]:
    """Of the coefficients of the energy."""
    case = next(case for case in cases(found, 5) if case.target == "energy")
    model = phase_model(case, "decode")
    return np.sqrt(np.diag(model.covariance)) / [coefficient.value for coefficient in model.coefficients]


def test_what_configurations_share_shifts_the_coefficients_as_it_shifts_the_energies() -> None:
    factors = 0.02 * decodes(None).table["energy_j"].to_numpy(np.float64)[:12]
    assert relative_u(decodes(factors[:, None])) == pytest.approx([0.02] * 3, rel=0.01)


def test_noise_is_counted_once_whether_repeats_or_readings_tell_it() -> None:
    rng, nothing = np.random.default_rng(6), np.zeros(40)
    design, variance = np.vander(np.linspace(0, 1, 40), 2), 1 + rng.random(40)
    y = design @ np.array([5.0, 2.0]) + 0.9 * np.sqrt(variance) * rng.standard_normal(40)
    told = [
        Errors(nothing[:, None], np.diag(nothing), variance, nothing + 4),
        Errors(nothing[:, None], np.diag(np.sqrt(variance)), nothing, nothing),
        Errors(nothing[:, None], np.diag(np.sqrt(variance / 2)), variance / 2, nothing + 4),
    ]
    effect = np.linalg.pinv(design)
    for errors in told:
        assert uncertainty(design, y, errors).covariance == pytest.approx(effect * variance @ effect.T)


@given(st.integers(3, 12), st.integers(0, 2**32 - 1))
def test_a_mean_fitted_as_a_coefficient_has_students_interval(n: int, seed: int) -> None:
    """Whether the points scatter, or each point's repeats do."""
    y, nothing = np.random.default_rng(seed).standard_normal(n), np.zeros(n)
    design, variance = np.ones((n, 1)), y.var(ddof=1)
    single = uncertainty(design, y, Errors(nothing[:, None], np.diag(nothing), nothing, nothing))
    assert single.half == pytest.approx([stats.t.ppf(0.975, n - 1) * np.sqrt(variance / n)])
    assert single.misfit == pytest.approx(np.sqrt(variance))
    repeated = uncertainty(design, y, Errors(nothing[:, None], np.diag(nothing), nothing + 2 * variance, nothing + 4))
    assert repeated.half == pytest.approx([stats.t.ppf(0.975, 4 * n) * np.sqrt(2 * variance / n)])
    assert repeated.misfit == 0.0
