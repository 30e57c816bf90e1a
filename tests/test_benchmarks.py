"""The frame of the benchmarks: what it prints for programs and for people, and what it measures when asked for less."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from benchmarks import __main__ as frame
from benchmarks.backbone import integral
from benchmarks.row import Row
from benchmarks.trust import coverage
from joulelab.errors import HardwareMissing

FIELDS = {"topic", "what", "value", "unit", "limit", "better", "alternative", "ok"}


def missing() -> Iterator[Row]:
    """A figure that needs a card.

    Nobody has that card.
    """
    yield Row("before it", 2.0, "s", 1.0, "lower")
    raise HardwareMissing("there is no card")


def slow() -> Iterator[Row]:
    """A slow one."""
    yield Row("slow", 5.0, "x", 4.0, "higher", {"other": 1.0})


@pytest.fixture(autouse=True)
def _small_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        frame,
        "TOPICS",
        {"numbers": frame.Topic([integral.exactness], []), "cards": frame.Topic([missing], [slow])},
    )


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    frame.main([*arguments, "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_row_is_an_object_with_the_fields_of_the_design(capsys: pytest.CaptureFixture[str]) -> None:
    row, *others = rows(capsys)
    assert row.keys() == FIELDS
    assert (row["topic"], row["limit"], row["better"], row["ok"]) == ("numbers", 1e-9, "lower", True)
    assert {other["topic"] for other in others} == {"cards"}


def test_what_cannot_be_measured_here_has_the_reason_for_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    before, row = rows(capsys, "--only", "cards")
    assert (before["what"], before["ok"]) == ("before it", False)
    assert row.keys() == FIELDS | {"reason"}
    assert (row["what"], row["value"], row["ok"]) == ("A figure that needs a card", None, None)
    assert row["reason"] == "there is no card"


def test_the_slow_ones_are_measured_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["what"] for row in rows(capsys, "--only", "cards", "--long")][-1] == "slow"


def test_people_get_a_table_and_see_what_is_being_measured(capsys: pytest.CaptureFixture[str]) -> None:
    frame.main(["--only", "cards", "--long"])
    out, err = capsys.readouterr()
    assert [word for word in ("cards", "slow", "≥ 4", "other 1", "yes", "there is no card") if word not in out] == []
    assert err.splitlines() == ["cards: A figure that needs a card", "cards: A slow one"]


def test_an_unknown_topic_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        frame.main(["--only", "card"])
    assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize("sensor", ["fast", "slow"])
def test_a_run_of_the_law_tells_of_each_kind_of_interval(sensor: str) -> None:
    held = coverage._run(sensor, 0)
    assert {each.kind for each in held} == {coverage.COEFFICIENT, coverage.CHOSEN, coverage.ENERGY}
    assert sum(each.held for each in held) > 0.9 * len(held)
