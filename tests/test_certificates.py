"""Certificates: written whole, read strictly, applied only to the meter that they were made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.bench import Plan, record
from joulelab.calibration.certificate import (
    FOLDER,
    Certificate,
    Store,
    calibrated,
    certificate,
    read,
)
from joulelab.calibration.conditions import conditions, mismatch
from joulelab.errors import DataInvalid
from joulelab.recording import RunDir
from joulelab.recording.seal import verify

RESULT = {"gain": 1.02, "offset": 0.5, "pivot": 20.0, "gain_u_rel": 0.003, "offset_u": 0.04}
STANZA = {"group": "joulelab.devices", "driver": "simulated", "power": None, "connect": None}
SWEEP = {"prompt": [16], "decode": [4], "repeats": 2, "idle": 5.0, "warmup": 0, "seed": 1}

values = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=20)
plain = st.recursive(st.none() | st.booleans() | st.integers() | values | words, st.lists, max_leaves=5)


def a_run(folder: Path, profile: str = "edge-gpu", certificates: Path | None = None, **arguments: Any) -> RunDir:
    stanza = {**STANZA, "options": {"profile": profile}}
    plan = Plan("dut", stanza, {}, "sweep", {**SWEEP, **arguments}, certificates)
    return record(plan, folder, lambda: False, lambda _: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return a_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def made(run: RunDir) -> Certificate:
    return certificate(run, "gain", "gauge.VDD_GPU_SOC", "by hand", RESULT)


@given(
    st.dictionaries(words, plain, max_size=4),
    st.dictionaries(words, values, max_size=4),
    st.sampled_from(["clock", "sensor", "gain", "closure"]),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, about: dict[str, Any], result: dict[str, float], kind: str
) -> None:
    covariance = {"names": list(result), "matrix": [[0.0] * len(result)] * len(result)}
    made = Certificate(kind, "a.b", "any", about, result, covariance, "2026-01-01", "2027-01-01", "s/r", None, False)
    path = made.write(tmp_path_factory.mktemp("certificates"))
    assert read(path) == made
    assert read(path).hash == made.hash


def test_each_certificate_is_a_file_of_its_own(made: Certificate, tmp_path: Path) -> None:
    other = replace(made, result=RESULT | {"gain": 1.03})
    paths = {made.write(tmp_path), made.write(tmp_path), other.write(tmp_path)}
    assert set(tmp_path.iterdir()) == paths
    assert {found.result["gain"] for found in Store(tmp_path)} == {1.02, 1.03}
    assert list(Store(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("1.02", "1.03"),
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda _: '{"format": 1}',
        lambda text: text.replace('"format": 1', '"format": "x"'),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(made: Certificate, tmp_path: Path, damage: Callable[[str], str]) -> None:
    path = made.write(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataInvalid, match=path.name):
        list(Store(tmp_path))


def test_a_newer_format_asks_for_an_update(made: Certificate, tmp_path: Path) -> None:
    path = replace(made, format=2).write(tmp_path)
    with pytest.raises(DataInvalid, match="has format 2, this joulelab reads up to 1"):
        read(path)


def test_a_later_run_names_the_certificate_keeps_it_and_is_read_with_it(made: Certificate, tmp_path: Path) -> None:
    made.write(tmp_path / "lab")
    later = a_run(tmp_path / "runs", certificates=tmp_path / "lab")
    assert later.manifest.certificates == {"gain gauge.VDD_GPU_SOC": made.hash}
    assert verify(later) == []
    found = calibrated(later)
    assert found.certified("gauge.VDD_GPU_SOC", "gain") == made
    assert found.certified("meter.power", "gain") is None
    sensor = found.channels["gauge.VDD_GPU_SOC"].sensor
    assert {name: getattr(sensor, name) for name in RESULT} == RESULT
    assert later.channels["gauge.VDD_GPU_SOC"].sensor.gain == 1
    assert [row["state"] for row in found.rows] == ["valid"]
    assert found.rows[0]["simulated"]


def test_an_old_run_is_read_with_a_certificate_that_came_later(run: RunDir, made: Certificate, tmp_path: Path) -> None:
    assert calibrated(run).rows == []
    made.write(tmp_path)
    assert calibrated(run, Store(tmp_path)).channels["gauge.VDD_GPU_SOC"].sensor.gain == 1.02


def test_the_newest_valid_certificate_is_applied(run: RunDir, made: Certificate, tmp_path: Path) -> None:
    for k, until in enumerate(["2999-01-01", "2999-01-01", "2001-01-01"]):
        replace(made, made=f"202{k}-01-01", valid_until=until, result={"gain": 1.0 + k}).write(tmp_path)
    found = calibrated(run, Store(tmp_path))
    assert found.channels["gauge.VDD_GPU_SOC"].sensor.gain == 2.0
    assert len(found.rows) == 1


def test_what_does_not_hold_is_not_applied_and_says_why(made: Certificate, tmp_path: Path) -> None:
    replace(made, valid_until="2020-01-01").write(tmp_path / "lab")
    expired = a_run(tmp_path / "a", certificates=tmp_path / "lab")
    assert expired.manifest.certificates == {}
    (row,) = calibrated(expired).rows
    assert (row["state"], row["note"][:28]) == ("expired", "it was valid until 2020-01-0")
    assert calibrated(expired).channels == expired.channels
    made.write(tmp_path / "lab")
    other = a_run(tmp_path / "b", certificates=tmp_path / "lab", seed=2)
    (row,) = calibrated(other).rows
    assert (row["state"], row["note"]) == ("refused", "made for seed 1, here it is 2")
    assert calibrated(a_run(tmp_path / "c", "phone", tmp_path / "lab")).rows == []


def test_a_certificate_that_is_gone_is_missing(made: Certificate, tmp_path: Path) -> None:
    made.write(tmp_path / "lab")
    later = a_run(tmp_path / "runs", certificates=tmp_path / "lab")
    next((later.path / FOLDER).iterdir()).unlink()
    (row,) = calibrated(later).rows
    assert (row["state"], row["kind"], row["channel"]) == ("missing", "gain", "gauge.VDD_GPU_SOC")
    assert calibrated(later, Store(tmp_path / "lab")).rows[0]["state"] == "valid"


def test_conditions_are_the_meter_itself_and_how_it_averages(run: RunDir) -> None:
    here = conditions(run.manifest, "meter.power")
    assert mismatch(here, here) is None
    assert mismatch({**here, "serial": "A"}, here) is None, "a serial number that one side does not know"
    assert mismatch({**here, "serial": "A"}, {**here, "serial": "B"}) == "made for serial A, here it is B"
    assert mismatch({**here, "interval_s": 1.0}, here) == "made for interval 1.0 s, here it is 0.001 s"
    assert mismatch({**here, "identity": {"firmware": "1"}}, {**here, "identity": {"firmware": "2"}}) is not None


def test_json_holds_all_of_it(made: Certificate, tmp_path: Path) -> None:
    data = json.loads(made.write(tmp_path).read_text())
    assert data == {**asdict(made), "sha256": made.hash}
    assert data["run_sha256"]
    assert data["simulated"] is True
