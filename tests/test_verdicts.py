"""Verdicts on tables of a device whose costs are known."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.crossval import hold_out
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.outliers import cleaned
from joulelab.analysis.modelling.sessions import Gains, day, measured
from joulelab.analysis.modelling.valid import parse
from joulelab.analysis.modelling.validation import Verdict, across, noise_floor, noise_floor_interval, validate
from joulelab.analysis.phases import merge
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Origin, Scope, SensorModel
from joulelab.report.verdict_text import verdicts
from tests.synthetic import METER, only, synthetic, untapped

FIELDS = """
    device target phase mape_percent ci95_percent limit_percent split noise_floor_percent configurations dropped_rows
    verdict reason channel scope origin valid noise_floor_ci95_percent in_sample_percent median_ape_percent
    p95_ape_percent bias_percent log_ratio_percent weighted_percent single_run_mape_percent mape_all_percent
    outside_mape_percent
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
    assert {v.reason for v in validate(both)} == {
        "s and t are never pooled: name the runs of one session, or use --gain session"
    }
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


def test_the_noise_floor_is_what_a_perfect_model_would_show() -> None:
    rng = np.random.default_rng(1)
    runs = rng.normal(1, 0.1, (4000, 5))
    points = pd.DataFrame({"cv": runs.std(axis=1, ddof=1) / runs.mean(axis=1), "runs": 5})
    assert noise_floor(points) == pytest.approx(100 * np.abs(runs.mean(axis=1) - 1).mean(), rel=0.1)
    assert noise_floor(pd.DataFrame({"cv": [np.nan], "runs": [1]})) is None


def test_all_that_an_error_can_be_called_is_told() -> None:
    found = verdict(decodes(0.02))
    errors = found.points["predicted"] / found.points["observed"] - 1
    assert found.bias_percent == pytest.approx(errors.mean() * 100)
    assert found.log_ratio_percent == pytest.approx(np.log1p(errors).abs().mean() * 100)
    weights = found.points["observed"]
    assert found.weighted_percent == pytest.approx((errors.abs() * weights).sum() / weights.sum() * 100)
    assert (found.in_sample_percent or 9) < (found.mape_percent or 0)
    assert found.noise_floor_ci95_percent is not None
    low, high = found.noise_floor_ci95_percent
    assert low < (found.noise_floor_percent or 0) < high


def test_the_floors_interval_covers_a_perfect_models_error() -> None:
    rng = np.random.default_rng(3)
    runs = rng.normal(1, 0.1, (200, 5))
    points = pd.DataFrame({"cv": runs.std(axis=1, ddof=1) / runs.mean(axis=1), "runs": 5})
    low, high = noise_floor_interval(points, seed=1) or (0, 0)
    assert low < 100 * np.abs(runs.mean(axis=1) - 1).mean() < high
    assert noise_floor_interval(points.assign(cv=np.nan), seed=1) is None


def held(phases: Phases, split: Any, phase: str = "total") -> pd.DataFrame:
    case = next(iter(cases(phases, 5)))
    return hold_out(case, phase, ("prefill", "decode") if phase == "total" else (phase,), split, seed=1).points


def test_a_fold_is_one_length_or_the_corner() -> None:
    phases = synthetic(0.01)
    by_decode = held(phases, "decode")
    assert (by_decode.groupby("output")["fold"].nunique() == 1).all()
    assert by_decode["fold"].nunique() == 3
    corner = held(phases, "corner")
    assert ((corner["prompt"] > 128) | (corner["output"] > 32)).all()
    assert len(corner) == 36 - 2 * 4 * 2
    with pytest.raises(DataInvalid, match="a prefill has no decode length to hold out"):
        held(phases, "decode", "prefill")


def test_one_decode_length_is_not_enough_to_learn_an_onset_from() -> None:
    assert "one decode length" in str(verdict(synthetic(0.01), "energy", "total", split="decode").reason)


def test_a_day_is_held_out_whole_without_its_gain() -> None:
    days = [decodes(seed=k, session=f"2026110{k}T080000", run=f"r{k}") for k in (1, 2, 3)]
    days[2].table["duration_s"] *= 1.1
    points = held(merge(days), "day", "decode")
    late = points[points["fold"] == 3]
    assert len(points) == 3 * len(late) == 3 * 36
    assert (late["predicted"] / late["observed"]).mean() == pytest.approx(1 / 1.1, rel=0.01)
    assert "one session alone" in str(verdict(days[0], split="day").reason)


def two_days(shift: float, noise: float = 0.01, anchors: Any = None) -> Phases:
    """Two sessions, the second of which costs more by a factor and shares no more than the anchors with the first."""
    first = decodes(noise, session="20261101T080000")
    grid = None if anchors is None else [*anchors, *((h + 64, p, o) for h, p, o in DECODES)]
    second = decodes(noise, seed=1, session="20261102T080000", run="q", **({"grid": grid} if grid else {}))
    second.table[["duration_s", "energy_j"]] *= shift
    return merge([first, second])


def gains(phases: Phases, by: Any = "session") -> Gains:
    found = verdict(phases, gain=by).gains
    assert found is not None
    return found


@pytest.mark.parametrize("shift", [0.8, 1.0, 1.1])
def test_a_shift_between_sessions_is_found_with_its_interval(shift: float) -> None:
    case = next(iter(cases(two_days(shift), 5, gain="session")))
    assert case.gains is not None
    table = case.gains.table
    assert np.log(table["gain"]).sum() == pytest.approx(0)
    assert table["gain"].iloc[1] / table["gain"].iloc[0] == pytest.approx(shift, rel=0.01)
    assert ((table["low"] < table["gain"]) & (table["gain"] < table["high"])).all()


def test_a_gain_a_session_is_taken_out_and_what_the_next_may_have_is_added() -> None:
    shifted = two_days(1.1)
    found = verdict(shifted, gain="day")
    assert (found.verdict, found.configurations) == ("pass", 36)
    assert gains(shifted, "day").table["group"].tolist() == ["2026-11-01", "2026-11-02"]
    wide, narrow = (fit(untapped(two_days(shift)), gain="session")[0] for shift in (1.1, 1.0))
    assert wide.half_width(0, 128, 64, "decode") > 5 * narrow.half_width(0, 128, 64, "decode")


def test_a_single_anchor_tells_a_shift() -> None:
    found = gains(two_days(1.1, anchors=[(0, 64, 64)]))
    assert found.anchors == 1
    low, high = found.table[["low", "high"]].iloc[1]
    assert low < np.sqrt(1.1) < high


def test_sessions_that_share_nothing_are_refused() -> None:
    apart = verdict(two_days(1.1, anchors=[]), gain="session")
    assert (apart.mape_percent, apart.verdict) == (None, "undecided")
    assert "share no configuration that tells a gain a session: measure one in both" in str(apart.reason)


def test_days_are_read_from_the_names_of_sessions() -> None:
    assert day("20261121T105420") == day("2026-11-21 late") == "2026-11-21"
    assert day("bench-1") == "bench-1"
    assert measured(["20261121T1", "20261003T2"]) == ("2026-10-03", "2026-11-21")
    assert measured(["20261121T1", "bench-1"]) is None


def test_what_lies_outside_the_declared_range_is_shown_and_not_judged() -> None:
    phases = decodes()
    few = phases.table["output"] < 16
    phases.table.loc[few, "duration_s"] *= 2
    found, naive = verdict(phases, valid=[parse("output>=16")]), verdict(phases)
    assert (found.configurations, len(found.points), found.dropped_rows) == (24, 36, 0)
    assert found.valid == ["output>=16"]
    assert (found.outside_mape_percent or 0) > 40
    assert (found.mape_percent or 9) < 1 < (naive.mape_percent or 0)
    model = fit(untapped(phases), valid=[parse("output>=16")])[0]
    assert model.phases[0].valid["output"] == (16, 64)


@pytest.mark.parametrize("text", ["outputs>=64", "output>64", "output>=x", "64"])
def test_a_range_is_written_in_one_way(text: str) -> None:
    with pytest.raises(UserError, match=r"--valid .*: expected history, prompt or output, >= or <=, and tokens"):
        parse(text)


@pytest.mark.parametrize("factor", [20.0, 1 / 20])
@pytest.mark.parametrize("repeats", [1, 5])
def test_a_gross_outlier_is_found_listed_and_counted(factor: float, repeats: int) -> None:
    phases = untapped(decodes(0.03, repeats=repeats))
    phases.table.loc[phases.table.index[7], "duration_s"] *= factor
    found = verdict(phases)
    assert [row["cause"].partition(" away from ")[2] for row in found.dropped] == [
        "its repeats" if repeats == 5 else "a robust fit"
    ]
    assert found.dropped_rows == 1
    assert (found.mape_percent or 99) < 5
    assert found.configurations == 36 - (repeats == 1)


def test_what_is_only_unusual_stays_in() -> None:
    phases = untapped(decodes(0.01))
    phases.table.loc[phases.table.index[:5], "duration_s"] *= 1.3
    assert verdict(phases).dropped_rows == 0
    (case,) = cleaned(cases(phases, 5))
    assert len(case.rows) == len(phases.table)


def only_configuration(phases: Phases) -> Phases:
    table = phases.table
    return replace(phases, table=table[(table["history"] == 0) & (table["prompt"] == 64) & (table["output"] == 16)])


def negative(phases: Phases) -> Phases:
    return replace(phases, table=phases.table.assign(energy_j=-phases.table["energy_j"]))


def mixed(phases: Phases) -> Phases:
    wall = np.where(phases.table["repeat"] == 0, "wall", "rail")
    return replace(phases, table=phases.table.assign(scope=wall))


BAD = {
    "all rows repeat one configuration (history 0, prompt 64, output 16): vary it": only_configuration(decodes()),
    "every row was dropped, most of them as energy is not positive": negative(decodes()),
    "meter.power has rows of scope rail and wall: what measures differently is another channel": mixed(decodes()),
    "3 configurations cannot support 3 coefficients: 5 are needed": decodes(grid=DECODES[:3]),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_input_gets_its_reason_and_no_number(reason: str) -> None:
    found = verdict(BAD[reason], "energy")
    assert (found.reason, found.verdict, found.mape_percent) == (reason, "undecided", None)
    model = next(model for model in fit(BAD[reason]) if model.target == "energy")
    assert (model.phases, model.refused) == ((), {"decode": reason})


def test_the_targets_are_held_out_in_every_way() -> None:
    found = across(untapped(synthetic(0.01)))
    assert [v.split for v in found] == ["configuration", "prompt", "decode", "corner", "day"]
    assert {v.phase for v in found} == {"total"}
    assert [v.mape_percent is None for v in found] == [False, False, False, False, True]


def test_a_prompt_length_that_was_not_measured_is_predicted_by_a_form_and_not_by_a_table() -> None:
    points = held(synthetic(0.01), "prompt", "prefill")
    assert points["ape_percent"].max() < 3


def test_a_shift_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    shifted = two_days(1.1)
    found = validate(untapped(shifted), gain="day", valid=[parse("output>=16")])
    splits = across(untapped(shifted), found, gain="day", valid=[parse("output>=16")])
    Console(width=100).print(verdicts([(found, splits)]))
    said = " ".join(capsys.readouterr().out.split())
    assert "held out by configuration, within output>=16" in said
    assert "a gain a day taken out, by 24 configurations in common: 2026-11-01 -4.6" in said
    assert "12 configurations outside, predicted and not judged: 16→8" in said
    assert "in-sample configuration prompt decode corner day" in said
