"""Caches that move between devices: what that takes, and which turns wait for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.placement.mapper import Mapper
from joulelab.analysis.placement.online import Expected
from joulelab.analysis.placement.plans import fixed, outcome
from joulelab.analysis.placement.ranges import Ranged
from joulelab.analysis.placement.tables import Setting, View, tables
from joulelab.analysis.placement.turns import Turn
from joulelab.analysis.placement.waits import waits
from joulelab.analysis.shapes import Shape
from joulelab.analysis.space.bottlenecks import KINDS, bottlenecks
from joulelab.analysis.space.costs import DeviceCosts, device_costs
from joulelab.analysis.space.link import Link
from joulelab.analysis.space.surface import Grid
from joulelab.cli import main
from joulelab.errors import DataInvalid
from tests.made_up import device, with_moves

SHAPE = Shape(
    weights=10**8,
    weight_bytes=1e8,
    layers=8,
    heads=8,
    head_dim=64,
    hidden=512,
    kv_bytes_per_token=1e4,
    vocabulary=32000,
)
LINK = Link(1e6, 0.05, 1e-6)
"""A token of the cache takes it 10 ms."""


def known(models: list[Model]) -> list[Model]:
    return [replace(model, shape=SHAPE) for model in models]


READER = known(device("reader", 0.05, 1e-4, 0.1, 30.0))
WRITER = known(with_moves(device("writer", 0.05, 0.02, 0.002, 20.0), 0.2, 1e-3, 3.2))


def costs_of(*models: list[Model]) -> list[DeviceCosts]:
    return device_costs([model for its in models for model in its])


READER_COSTS, WRITER_COSTS = costs_of(READER, WRITER)


def test_moving_a_cache_is_what_the_model_of_the_phase_says() -> None:
    assert WRITER_COSTS.moving_seconds([0, 1000, 20_000]) == pytest.approx([0.2, 1.2, 20.2])
    assert WRITER_COSTS.moving_joules([1000]) == pytest.approx([24.0])
    assert READER_COSTS.moving_seconds([[1000], [9]]).tolist() == [[0.0], [0.0]]
    assert WRITER_COSTS.loading_s == pytest.approx(3.2)
    assert READER_COSTS.loading_s is None


def test_moving_a_cache_never_takes_less_than_nothing() -> None:
    [odd] = costs_of(with_moves(device("odd", 0.05, 1e-4, 0.1, 30.0), -0.5, 1e-3, 1.0))
    assert odd.moving_seconds([100, 1000]) == pytest.approx([0.0, 0.5])


def test_a_device_without_the_phase_pays_the_link_alone() -> None:
    setting = Setting("latency", link=LINK)
    [table] = tables([Ranged(READER_COSTS), Ranged(WRITER_COSTS)], [View([Turn(64, 65), Turn(16, 16)])], setting)
    moved = table.seconds[1, 0, :, 1] - table.seconds[1, 1, :, 0]
    assert moved == pytest.approx([0.05 + 1.28, 0.05 + 1.28 + 0.2 + 0.128])


some_turns = st.lists(st.builds(Turn, st.integers(16, 300), st.integers(2, 300)), min_size=1, max_size=5)


@given(some_turns, st.lists(st.integers(0, 1), min_size=5, max_size=5), st.booleans())
@settings(deadline=None, max_examples=30)
def test_what_turns_wait_for_adds_up_to_what_they_take(turns: list[Turn], where: list[int], copies: bool) -> None:
    setting = Setting("latency", link=LINK, copies=copies)
    costs = [READER_COSTS, WRITER_COSTS]
    [table] = tables([Ranged(each) for each in costs], [View(turns)], setting)
    plan = fixed(table.value(setting), copies, where[: len(turns)])
    found = waits(table, plan, costs)
    assert np.sum([*found.values()], axis=0) == pytest.approx(outcome(table, plan).seconds)
    assert ((found["transfer"] > 0) == (outcome(table, plan).moved > 0)).all()


def test_the_mapper_weighs_what_moving_takes() -> None:
    """Reading 1,500 tokens again takes the writer 30 s, the link 15 s, and itself 1.7 s, or too long by far."""
    slow = known(with_moves(device("writer", 0.05, 0.02, 0.002, 20.0), 60.0, 1e-3, 3.2))
    for writer, chosen in ((WRITER, "writer"), (slow, "reader")):
        mapper = Mapper(costs_of(READER, writer), Setting("latency", link=LINK), Expected(Turn(16, 16), 0))
        assert mapper.place(1500, 2, later=[]) == "reader"
        mapper.ran(2)
        assert mapper.place(16, 256, later=[]) == chosen


GRID = Grid(np.array([0, 256, 4096]), np.array([16, 64]), np.array([2, 64]))


def test_a_history_over_a_link_is_waited_for_and_none_is_not() -> None:
    still, moved = (bottlenecks([WRITER_COSTS], GRID, link)[0] for link in (None, LINK))
    transfer = [*KINDS].index("transfer")
    assert (moved.dominant[0] == still.dominant[0]).all()
    assert moved.share[0] == pytest.approx(still.share[0])
    assert (moved.dominant[1:] == transfer).all()
    assert transfer not in still.dominant
    took = 0.05 + 40.96 + 0.2 + 4.096
    assert moved.share[2, 0, 0] == pytest.approx(took / (took + WRITER_COSTS.seconds(4096, 16, 2)[0]))


def test_a_cache_of_unknown_size_cannot_be_moved() -> None:
    with pytest.raises(DataInvalid, match="how large the KV cache of writer is: leave --link out"):
        bottlenecks([replace(WRITER_COSTS, kv_bytes_per_token=None)], GRID, LINK)


Call = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What a verb prints of both devices; there is a session of three turns."""
    monkeypatch.chdir(tmp_path)
    Path("models.json").write_text(json.dumps({"models": [each.to_json() for each in (*READER, *WRITER)]}))
    Path("one.csv").write_text("session,prompt,output\na,1500,2\na,16,1000\na,16,1000\n")

    def called(verb: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([verb, "models.json", *arguments])
        assert not end.value.code
        return capsys.readouterr().out

    return called


PLACED = ("--sessions", "one.csv", "--link", "1 MB/s 50 ms 1 uJ/byte")


def test_place_says_what_each_turn_waits_for(call: Call) -> None:
    found = json.loads(call("place", *PLACED, "--json"))
    turns = found["plan"]["a"]
    assert [(turn["device"], turn["way"], turn["bottleneck"]) for turn in turns] == [
        ("reader", "stay", "compute"),
        ("writer", "transfer", "transfer"),
        ("writer", "stay", "weights"),
    ]
    assert all(0 < turn["share"] <= 1 for turn in turns)
    assert found["loading_s"] == {"reader": None, "writer": pytest.approx(3.2)}
    said = call("place", *PLACED)
    assert "waits for" in said
    assert f"transfer {100 * turns[1]['share']:.0f} %" in said


def test_place_says_what_loading_takes_and_what_is_not_known_of_transfers(call: Call) -> None:
    said = " ".join(call("place", *PLACED, "--objective", "energy").split())
    assert "Models are loaded; loading takes 3.20 s on writer." in said
    unknown = "What moving a cache out and in takes was not measured on reader"
    assert f"{unknown}: of the time and energy of a transfer there only the link's part counts." in said
    assert "not measured" not in call("place", "--sessions", "one.csv")


MAPPED = ("--objective", "latency", "--history", "0,4096", "--link", "8 Mbit/s 50 ms")


def test_map_shows_what_turns_wait_for_whose_history_comes_over_a_link(call: Call) -> None:
    said = " ".join(call("map", *MAPPED).split())
    assert "What takes most of the time, measured: share of the plane in %" in said
    assert "the history comes over a link of 8 Mbit/s and 50 ms" in said
    assert "not measured on reader" in said
    found = json.loads(call("map", *MAPPED, "--json"))["bottlenecks"]
    assert [(row["device"], row["history"], row["over_link"]) for row in found] == [
        (device, history, link) for link in (False, True) for device in ("reader", "writer") for history in (0, 4096)
    ]
    assert [row["shares"]["transfer"] > 0 for row in found] == [False] * 4 + [False, True] * 2
    assert all(sum(row["shares"].values()) + row["unseen_share"] == pytest.approx(1) for row in found)
    assert "transfer" not in call("map", *MAPPED[:4])


def test_map_writes_what_turns_wait_for_as_pictures_and_points(call: Call) -> None:
    call("map", *MAPPED, "--out", "map.html")
    page = Path("map.html").read_text()
    assert page.count("Which kind of work takes most of the time of an inference") == 2
    assert "over a link of 8 Mbit/s and 50 ms" in page
    call("map", *MAPPED, "--out", "map.csv")
    table = pd.read_csv("map.csv")
    far = table[table["history"] == 4096]
    assert "transfer" in set(far["bottleneck_writer_over_link"])
    assert "transfer" not in set(table["bottleneck_writer"])
    assert ((table["share_reader_over_link"] > 0) & (table["share_reader_over_link"] <= 1)).all()
