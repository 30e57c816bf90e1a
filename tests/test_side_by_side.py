"""Engines that ran one language model on one machine stand side by side in the report and on the terminal."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.shapes import Shape, label
from joulelab.errors import DataInvalid
from joulelab.recording import Manifest, RunDir
from joulelab.recording.recorder import create_run
from joulelab.report.figures import style
from joulelab.report.html import write_report
from joulelab.report.section import Section
from joulelab.report.side_by_side import plot, side_by_side
from joulelab.report.text import coefficients, results
from tests.synthetic import TRUE_TIME, only, synthetic, untapped

SHAPE = Shape(
    weights=100_000_000,
    weight_bytes=1.1e8,
    layers=12,
    heads=12,
    head_dim=64,
    hidden=768,
    kv_bytes_per_token=36_864,
    vocabulary=32_000,
)
HOST = {"system": "Linux", "cpu": "a CPU", "cores": 2}
MANIFEST = Manifest(
    session="s",
    run="r",
    device="d",
    protocol="sweep",
    arguments={},
    seed=1,
    created="2026-01-02T03:04:05+00:00",
    clock="monotonic",
    clock_offset_ns=0,
    simulated=False,
    stanza={},
    engine={},
    instruments=(),
    power=(),
    host=HOST,
    versions={},
    certificates={},
)


def run(folder: Path, device: str, **manifest: Any) -> RunDir:
    create_run(folder / device, replace(MANIFEST, device=device, **manifest)).close()
    return RunDir(folder / device)


def section(folder: Path, device: str, engine: str, quant: str, shape: Shape) -> Section:
    """What a run of an engine found, each of the same costs."""
    columns: dict[str, Any] = {"device": device, "engine": engine, "model": "llama-100m", "quant": quant, "threads": 1}
    found = untapped(synthetic(noise=0.005, **columns))
    table = found.table.astype({"channel": object})
    found = replace(found, table=table, shapes={label("llama-100m", quant): shape})
    stanza, settings = {"driver": engine}, {"device": "cpu"} if engine == "transformers" else {}
    return Section(
        found, fit(found), validate(found), run(folder, device, stanza=stanza, engine={"settings": settings})
    )


def of_models(section: Section, **changed: Any) -> Section:
    return replace(section, models=[replace(model, **changed) for model in section.models])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Section]:
    """llama.cpp beside transformers, which counts a few more weights and stores them wider."""
    wider = SHAPE.model_copy(update={"weights": SHAPE.weights + 20_000, "weight_bytes": 4e8})
    folder = tmp_path_factory.mktemp("runs")
    return [
        section(folder, "host-llama", "llama-server", "Q8_0", SHAPE),
        section(folder, "host-torch", "transformers", "float32", wider),
    ]


def test_a_row_an_engine_has_what_its_time_model_implies(both: list[Section]) -> None:
    (found,) = side_by_side(both)
    assert found.title == "llama-100m on a CPU"
    first, second = found.rows
    assert second["engine"] == "transformers on cpu"
    assert list(first.values())[:4] == ["host-llama", "llama-server", "Q8_0", "1"]
    assert float(first["ms a pass"]) == pytest.approx(1e3 * TRUE_TIME["pass"], rel=0.05)
    assert float(first["ms a prompt token"]) == pytest.approx(1e3 * TRUE_TIME["tile"], rel=0.2)
    assert float(first["GB/s"]) == pytest.approx(SHAPE.weight_bytes / TRUE_TIME["pass"] / 1e9, rel=0.05)
    assert float(second["GB/s"]) == pytest.approx(4e8 / TRUE_TIME["pass"] / 1e9, rel=0.05)
    assert first["total time"].endswith(" %")


@pytest.mark.parametrize(
    "other",
    [
        {"host": {**HOST, "cpu": "another"}},
        {"stanza": {"options": {"url": "http://elsewhere:8080"}}},
        {"simulated": True},
        {"host": {}},
    ],
)
def test_other_machines_do_not_stand_beside(both: list[Section], tmp_path: Path, other: dict[str, Any]) -> None:
    assert not side_by_side([both[0], replace(both[1], run=run(tmp_path, "other", **other))])


def test_other_shapes_batches_and_the_same_engine_do_not_stand_beside(both: list[Section]) -> None:
    one, other = both
    subject = other.models[0].subject
    deeper = SHAPE.model_copy(update={"layers": 16})
    for differing in ({"shape": deeper}, {"subject": subject | {"batch": 4}}, {"subject": one.models[0].subject}):
        assert not side_by_side([one, of_models(other, **differing)])
    assert not side_by_side([one, replace(other, run=None)])


def test_terminal_and_page_show_them(both: list[Section], tmp_path: Path) -> None:
    file = io.StringIO()
    Console(file=file, width=100).print(results(both))
    page = write_report(tmp_path / "report.html", both).read_text()
    for said in (file.getvalue(), page):
        assert "llama-100m on a CPU" in said
        assert "ms a prompt" in said
    assert "Engines side by side" not in write_report(tmp_path / "one.html", both[:1]).read_text()


def test_predictions_of_both_are_drawn(both: list[Section]) -> None:
    (found,) = side_by_side(both)
    with style():
        drawn = base64.b64decode(plot(found).uri.partition(",")[2]).decode()
    for text in ("prefill", "decode", "prompt [tokens], history 0", "output [tokens], history 0, prompt 16"):
        assert f"<!-- {text} -->" in drawn
    assert "host-torch: transformers on cpu, float32" in drawn


def test_totals_alone_are_not_drawn(both: list[Section]) -> None:
    (found,) = side_by_side([replace(each, models=fit(only(each.phases, "total"))) for each in both])
    with pytest.raises(DataInvalid, match="told apart"):
        plot(found)


def test_the_day_of_the_data_is_said_once_a_device(both: list[Section]) -> None:
    (model,) = of_models(both[0], measured=("2026-01-02", "2026-01-02")).models
    file = io.StringIO()
    Console(file=file, width=100).print(coefficients([model, model]))
    assert file.getvalue().count("measured 2026-01-02") == 1
