"""Maps of devices whose costs are known: labels, boundaries, how sure they are, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.terms import Term
from joulelab.analysis.space.aims import Aim, aims_of
from joulelab.analysis.space.bottlenecks import KINDS, bottlenecks, kinds, over_session
from joulelab.analysis.space.boundaries import boundaries
from joulelab.analysis.space.box import mapped, parse_histories, parse_range
from joulelab.analysis.space.costs import DeviceCosts, cost, device_costs, others_w
from joulelab.analysis.space.regions import NONE, UNSEEN, Costs, region_maps
from joulelab.analysis.space.surface import Grid, Surface
from joulelab.cli import main
from joulelab.errors import DataInvalid, UserError
from joulelab.report.map_page import write_maps
from joulelab.report.map_text import points, rows
from tests.made_up import device, model, part

LATENCY, ENERGY = Aim("latency"), Aim("energy")


BIG, SMALL = device("big", 0.05, 1e-4, 0.01, 30.0), device("small", 0.01, 2e-3, 0.02, 10.0)


def costs_of(*models: list[Model], **changed: Any) -> list[DeviceCosts]:
    return device_costs([model for its in models for model in its], **changed)


def grid_of(costs: Sequence[DeviceCosts]) -> Grid:
    return mapped(costs, [0, 4096], (16, 4096), (2, 1024))


tokens = st.lists(st.integers(1, 3000), min_size=1, max_size=4, unique=True).map(sorted)


@given(tokens, tokens, tokens)
def test_a_surface_is_what_the_model_predicts(history: list[int], prompt: list[int], output: list[int]) -> None:
    grid = Grid(*(np.array(axis) for axis in ([0, *history], prompt, output)))
    for each in BIG:
        surface = Surface(each, grid)
        found = np.stack([surface.at(number) for number in range(len(grid.history))])
        h, p = grid.history[:, None, None], grid.prompt[:, None]
        assert found == pytest.approx(each.predict(h, p, grid.output), rel=1e-9)


def test_a_model_of_the_total_alone_has_a_surface() -> None:
    terms = ("start", "token", "pair", "onset", "pass", "context")
    total = part("energy", "total", {Term(name): 10.0**-number for number, name in enumerate(terms)})
    whole, grid = model("d", "energy", [total]), Grid(np.array([0, 7]), np.array([3, 90]), np.array([1, 2, 50]))
    expected = whole.predict(grid.history[:, None, None], grid.prompt[:, None], grid.output)
    assert np.stack([Surface(whole, grid).at(k) for k in (0, 1)]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "aim", [LATENCY, ENERGY, Aim("power"), Aim("edp"), Aim("energy-capped", cap_s=3.0), Aim("energy", "awake")]
)
def test_a_map_is_the_best_of_predictions_point_by_point(aim: Aim) -> None:
    costs = costs_of(BIG, SMALL)
    grid = grid_of(costs)
    (found,) = region_maps(costs, grid, [aim], draws=0)
    rng = np.random.default_rng(1)
    for k, i, j in zip(*(rng.integers(0, n, 100) for n in grid.shape), strict=True):
        at = int(grid.history[k]), int(grid.prompt[i]), int(grid.output[j])
        seconds, joules = (np.array([getattr(each, name)(*at)[0] for each in costs]) for name in ("seconds", "joules"))
        joules = joules + (2.0 * seconds if aim.idle == "awake" else 0.0)
        each = cost(aim.objective, seconds, joules, aim.cap_s)
        ranked = np.sort(each)
        if np.isinf(ranked[0]):
            assert found.label[k, i, j] == NONE
        else:
            assert found.label[k, i, j] == each.argmin()
            assert found.margin[k, i, j] == pytest.approx(ranked[1] / ranked[0] - 1)


def test_boundaries_are_exact_to_the_token() -> None:
    costs = costs_of(BIG, SMALL)
    (found,) = region_maps(costs, grid_of(costs), [ENERGY], draws=0)
    edges = boundaries(found, costs)
    assert set(edges["along"]) == {"prompt", "output"}
    judged = Costs(costs, ENERGY)
    for row in edges.sample(100, random_state=1).to_dict("records"):
        at = {name: row[name] for name in ("history", "prompt", "output")}
        before = at | {row["along"]: row[row["along"]] - 1}
        names = [costs[int(np.argmin(np.stack(judged.at(*point.values()))[:, 0]))].device for point in (before, at)]
        assert names == [row["below"], row["above"]]


def test_a_known_crossing_is_where_algebra_puts_it() -> None:
    """Without a cache's cost the energies meet where 1 + 0.1 (o - 1) = 3.02 + 0.05 (o - 1): o is 41.4."""
    named = {"steep": (1.0, 0.1), "flat": (3.02, 0.05)}
    made = [
        model(name, target, [part(target, "prefill", {Term("start"): a}), part(target, "decode", {Term("pass"): b})])
        for name, (a, b) in named.items()
        for target in ("time", "energy")
    ]
    costs = device_costs(made)
    (found,) = region_maps(costs, mapped(costs, [0], (16, 64), (2, 100)), [ENERGY], draws=0)
    edges = boundaries(found, costs)
    assert set(edges["output"]) == {42}
    assert rows(found, edges)[0]["boundaries"][0]["at"][0] == {"prompt": 16, "output": 42}


def test_labels_flip_near_boundaries_and_nowhere_else() -> None:
    costs = costs_of(BIG, SMALL)
    (found,) = region_maps(costs, grid_of(costs), [ENERGY], draws=50)
    assert found.flips is not None
    assert found.flips[found.margin < 0.002].mean() > 0.3
    assert found.flips[found.margin > 0.2].max() == 0.0


@pytest.mark.parametrize(("gain_u_rel", "limit"), [(0.0, 0.05), (0.01, 0.0196)])
def test_the_gain_band_is_what_two_meters_may_decide(gain_u_rel: float, limit: float) -> None:
    pairs = [[replace(each, gain_u_rel=gain_u_rel) for each in pair] for pair in (BIG, SMALL)]
    costs = costs_of(*pairs)
    energy, time = region_maps(costs, grid_of(costs), [ENERGY, LATENCY], draws=0)
    assert energy.gains == (limit, limit)
    assert np.array_equal(energy.band, energy.margin < np.hypot(limit, limit))
    assert not time.band.any()


def test_what_a_model_has_not_seen_has_no_label() -> None:
    narrow = device("narrow", 0.02, 1e-3, 0.015, 5.0, prompt=(64.0, 1024.0))
    costs = costs_of(BIG, narrow)
    (found,) = region_maps(costs, grid_of(costs), [ENERGY], draws=0)
    beyond = (found.grid.prompt < 64) | (found.grid.prompt > 1024)
    assert ((found.label == UNSEEN) == beyond[:, None]).all()
    (row, _) = rows(found, boundaries(found, costs))
    assert row["unseen_share"] == pytest.approx(0.5, abs=0.02)
    assert sum(row["shares"].values()) + row["unseen_share"] == pytest.approx(1)
    table = points([found], [bottlenecks(costs, found.grid)])
    assert table["best"].isna().equals(~table["measured"])
    assert table["cost"].isna().equals(~table["measured"])
    assert table["bottleneck_narrow"].isna().equals(~table["measured"])
    assert table["share_big"].notna().all()


def test_one_output_token_needs_no_decode_that_was_seen() -> None:
    costs = costs_of(device("d", 0.02, 1e-3, 0.015, 5.0, output=(64.0, 1024.0)))
    (found,) = region_maps(costs, mapped(costs, [0], None, (1, 1024)), [LATENCY], draws=0)
    assert (found.label[0, 0, found.grid.output == 1] == 0).all()
    assert (found.label[0, 0, found.grid.output == 2] == UNSEEN).all()


def changed(models: list[Model], **values: Any) -> list[Model]:
    return [replace(each, **values) if each.target == "energy" else each for each in models]


def subject(models: list[Model], **values: Any) -> list[Model]:
    return [replace(each, subject=each.subject | values) for each in models]


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([BIG, subject(SMALL, model="n")], "no model in common: big runs m/q8; small runs n/q8"),
        ([BIG, subject(SMALL, quant="q4")], "no model in common"),
        ([BIG, changed(SMALL, scope="battery")], "mixed scope say nothing .* big's is input, small's is battery"),
        ([BIG, SMALL[:1]], "small has no energy model of a meter"),
        ([BIG, changed(SMALL, scope="estimate")], "small has no energy model of a meter"),
        ([BIG, SMALL[1:]], "small has no time model"),
        ([BIG, SMALL, SMALL], "small has 2 time models: name the run"),
        ([[replace(each, phases=each.phases[:1]) for each in BIG]], "the time model of big has no total"),
        ([BIG, subject(BIG, model="n"), SMALL, subject(SMALL, model="n")], "which language model.* m/q8, n/q8"),
        ([], "there are no models of single sequences"),
    ],
)
def test_devices_that_cannot_be_compared_are_refused(pairs: list[list[Model]], reason: str) -> None:
    with pytest.raises(DataInvalid, match=reason):
        costs_of(*pairs)


def test_a_device_is_chosen_by_language_model_channel_and_widest_scope() -> None:
    rail = replace(BIG[1], channel="rails.gpu", scope="rail", idle_w=None)
    costs = costs_of([*BIG, rail], subject(SMALL, model="n"), language_model="m")
    assert [each.device for each in costs] == ["big"]
    assert costs[0].energy == BIG[1]
    (other,) = costs_of([*BIG, rail], channel="rails")
    assert other.energy == rail
    with pytest.raises(DataInvalid, match="nothing measured the idle power of big"):
        others_w([other], "awake")
    with pytest.raises(DataInvalid, match="no device has a model of x; there are m/q8"):
        costs_of(BIG, language_model="x")
    assert costs_of(BIG, SMALL[:1], energy=False)[1].energy is None


def test_modes_of_one_device_are_told_apart() -> None:
    costs = costs_of(subject(BIG, mode="15W"), subject(BIG, mode="50W"))
    assert [each.device for each in costs] == ["big/15W", "big/50W"]


ONE_OUTPUT = device("one", 0.02, 1e-3, 0.015, 5.0, output=(64.0, 64.0))
NO_HISTORY = device("fresh", 0.02, 1e-3, 0.015, 5.0, history=(0.0, 0.0))


@pytest.mark.parametrize(
    ("models", "box", "reason"),
    [
        (ONE_OUTPUT, {}, "one output length, 64: .* --decode 64"),
        (ONE_OUTPUT, {"output": (16, 1024)}, "one output length, 64"),
        (NO_HISTORY, {"histories": [0, 1024]}, "only seen history 0"),
        (BIG, {"prompt": (5000, 9000)}, "seen history 0 to 8192, prompt 16 to 4096, output 2 to 1024"),
    ],
)
def test_a_box_that_no_model_can_answer_for_is_refused(models: list[Model], box: Any, reason: str) -> None:
    with pytest.raises(DataInvalid, match=reason):
        mapped(costs_of(models), **box)


def test_histories_are_those_that_all_have_seen() -> None:
    assert mapped(costs_of(BIG, SMALL)).history.tolist() == [0, 512, 2048, 8192]
    assert mapped(costs_of(BIG, NO_HISTORY)).history.tolist() == [0]
    assert mapped(costs_of(ONE_OUTPUT), output=(64, 64)).output.tolist() == [64]


def test_what_is_asked_for_in_words() -> None:
    assert [parse_range("16-4096"), parse_range("64"), parse_range(None)] == [(16, 4096), (64, 64), None]
    assert parse_histories("0, 1024") == [0, 1024]
    for wrong in ("", "9-3", "0-4", "a"):
        with pytest.raises(UserError, match="no range of tokens"):
            parse_range(wrong)
    with pytest.raises(UserError, match="no list of histories"):
        parse_histories("1;2")
    assert [aim.objective for aim in aims_of(None, "sleep", None)] == ["latency", "energy", "power", "edp"]
    assert aims_of(None, "sleep", "500 ms")[-1] == Aim("energy-capped", cap_s=0.5)
    with pytest.raises(UserError, match="needs a longest latency"):
        aims_of(["energy-capped"], "sleep", None)
    with pytest.raises(UserError, match="--objective speed: expected one of latency"):
        aims_of(["speed"], "sleep", None)


def test_kinds_of_work_add_up_and_shift_to_the_cache() -> None:
    turns = over_session(BIG[0], [(64, 64)] * 20)
    assert turns["history"].tolist()[:3] == [0, 127, 254]
    total = turns[[*KINDS]].sum(axis=1).to_numpy()
    assert total == pytest.approx(BIG[0].predict(turns["history"], 64, 64))
    share = turns["cache"] / total
    assert share[turns["history"] > 512].is_monotonic_increasing  # from where one kernel reads it


def test_a_roofline_waits_for_weights_before_it_waits_for_arithmetic() -> None:
    roofline = part("time", "prefill", {Term("roofline", (1, 128, np.inf)): 1e-3})
    timed = model("d", "time", [roofline, part("time", "decode", {Term("pass"): 1e-9})])
    found = kinds(timed, pd.DataFrame({"history": 0, "prompt": [64, 128, 256], "output": 2}))
    assert (found["compute"] > found["weights"]).tolist() == [False, False, True]
    chained = replace(part("energy", "prefill", {Term("seconds"): 7.0}), timed={"seconds": roofline})
    energy = model("d", "energy", [chained, part("energy", "decode", {Term("pass"): 7e-9})])
    joules = kinds(energy, pd.DataFrame({"history": 0, "prompt": [64, 128, 256], "output": 2}))
    assert joules["compute"] == pytest.approx(7 * found["compute"])


def test_a_long_prompt_is_compute_and_a_long_decode_weights() -> None:
    grid = Grid(np.array([0]), np.array([16, 4096]), np.array([2, 1024]))
    [found] = bottlenecks(costs_of(SMALL), grid)
    named = np.array([*KINDS])[found.dominant[0]]
    assert named.tolist() == [["compute", "weights"], ["compute", "weights"]]
    assert found.seen.all()
    assert (found.share > 0.5).all()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": [each.to_json() for each in (*BIG, *SMALL)]}))
    return path


def ask(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)


def test_the_verb_prints_shares_boundaries_and_how_sure(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("map", file, "--objective", "energy", "--history", "0,4096") == 0
    said = capsys.readouterr().out
    assert "Least energy: share of the plane in %" in said
    assert "big, then small from decode" in said
    assert "big 5 %, small 5 %" in said
    assert ask("map", file, "--cap", "3s", "--idle", "awake", "--json", "--history", "0") == 0
    found = json.loads(capsys.readouterr().out)["maps"]
    assert [row["objective"] for row in found] == ["latency", "energy", "power", "edp", "energy-capped"]
    assert found[-1]["no_device_share"] > 0
    assert found[0]["unit"] == "s"


@pytest.mark.parametrize("name", ["map.html", "map.csv", "map.parquet"])
def test_the_verb_writes_pictures_or_points(file: Path, name: str) -> None:
    out = file.with_name(name)
    assert ask("map", file, "--objective", "latency", "--history", "0", "--out", out) == 0
    assert out.stat().st_size > 1000


def test_what_cannot_be_written_is_said_first(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("map", file, "--out", "map.txt") == 1
    assert "map.txt: a map is written as .html, .csv or .parquet" in capsys.readouterr().err


def test_a_page_says_what_was_compared_and_by_which_meter(tmp_path: Path) -> None:
    simulated = [[replace(each, origin="simulated") for each in pair] for pair in (BIG, SMALL)]
    costs = costs_of(*simulated)
    for output in ((2, 1024), (64, 64)):
        grid = mapped(costs, [0, 4096], None, output)
        maps = region_maps(costs, grid, [ENERGY], draws=2)
        assert maps[0].simulated
        edges = [boundaries(found, costs) for found in maps]
        write_maps(tmp_path / "map.html", costs, maps, edges, [bottlenecks(costs, grid)])
        page = (tmp_path / "map.html").read_text()
        assert "Origin: simulated" in page
        assert "big: meter.power, scope input" in page
