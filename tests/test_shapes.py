"""Shapes of language models, peaks of devices, what rates coefficients imply, and the physical form of energy."""

from __future__ import annotations

import io
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from joulelab.analysis.dataset import SCHEMA, Phases, merge, read_dataset
from joulelab.analysis.modelling.efficiency import efficiencies
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.physical import Physical, physical
from joulelab.analysis.phases import reduce
from joulelab.analysis.shapes import Peak, Shape, label, shape
from joulelab.bench import Plan, record
from joulelab.devices.architectures import ARCHITECTURES
from joulelab.devices.random_model import describe_gguf, random_gguf
from joulelab.errors import DataInvalid
from joulelab.lab import LabError, load_lab
from joulelab.lab.schema import schema
from joulelab.quantities import Channel, Scope, SensorModel
from joulelab.report.physical_text import as_text
from joulelab.simulation.architecture import LLAMA_3_2_1B_Q8_0
from tests.synthetic import SHAPE

LAB = """
version: 1
devices:
  box: {{driver: simulated, profile: edge-gpu, peak: {peak}}}
protocols:
  sweep: {{history: [0, 256], prompt: [16, 64, 128, 256], decode: [1, 16, 64], repeats: 2, warmup: 1}}
"""
PEAK = "{compute: 42.5 TFLOP/s, bandwidth: 204.8 GB/s, source: NVIDIA data sheet}"


def lab(folder: Path, peak: str = PEAK) -> Path:
    path = folder / "lab.yaml"
    path.write_text(LAB.format(peak=peak))
    return path


def test_a_peak_is_read_with_its_units(tmp_path: Path) -> None:
    assert load_lab(lab(tmp_path)).devices["box"].peak == Peak(
        compute=42.5e12, bandwidth=204.8e9, source="NVIDIA data sheet"
    )


@pytest.mark.parametrize(
    ("peak", "message"),
    [
        ("{compute: 42.5, source: s}", "devices.box.peak.compute: '42.5' is not a quantity with a unit"),
        ("{compute: 42.5 GB/s, source: s}", "'GB/s' is not a unit of FLOP/s; expected one of GFLOP/s, TFLOP/s"),
        ("{bandwidth: 0 GB/s, source: s}", "a value greater than 0"),
        ("{bandwidth: 204.8 GB/s}", "devices.box.peak.source: missing"),
        ("{bandwith: 204.8 GB/s, source: s}", "unknown key; did you mean 'bandwidth'?"),
    ],
)
def test_what_is_wrong_in_a_peak_is_named(tmp_path: Path, peak: str, message: str) -> None:
    with pytest.raises(LabError) as refusal:
        load_lab(lab(tmp_path, peak))
    assert message in str(refusal.value)


def test_the_schema_offers_a_peak_to_every_device() -> None:
    root = schema()
    with_engine, *others = root["properties"]["devices"]["additionalProperties"]["oneOf"]
    peak = root["$defs"][with_engine["properties"]["peak"]["$ref"].rpartition("/")[2]]
    assert peak["properties"]["bandwidth"]["anyOf"][0]["examples"] == ["204.8 GB/s"]
    assert all("peak" in root["$defs"][one["$ref"].rpartition("/")[2]]["properties"] for one in others)


def test_the_shape_of_a_simulated_model_is_its_architecture() -> None:
    told = LLAMA_3_2_1B_Q8_0
    found = shape({"architecture": asdict(told)})
    assert found is not None
    assert (found.body_weights, found.attention_flops_per_pair) == (told.body_weights, told.attention_flops_per_pair)
    assert found.weight_bytes == told.bytes_of(np.array(told.body_weights + told.head_weights))
    assert found.kv_bytes_per_token == told.kv_bytes_per_token


def test_the_shape_of_a_gguf_file_leaves_out_the_embedding_table(tmp_path: Path) -> None:
    a = ARCHITECTURES["llama-15m"]
    found = shape({"architecture": describe_gguf(random_gguf("llama-15m", tmp_path))})
    assert found is not None
    kv_width = a.d_model // a.heads * a.kv_heads
    layer = 2 * a.d_model * (a.d_model + kv_width) + 3 * a.d_model * a.feed_forward
    norms = (2 * a.layers + 1) * a.d_model
    assert found.body_weights == a.layers * layer + norms
    assert found.weight_bytes == (a.layers * layer + a.vocabulary * a.d_model) * 34 / 32 + 4 * norms
    assert found.heads * found.head_dim == found.hidden == a.d_model


@pytest.mark.parametrize("engine", [{}, {"architecture": {"parameters": 1}}])
def test_an_engine_that_tells_too_little_has_no_shape(engine: dict[str, Any]) -> None:
    assert not shape(engine)


GRID = list(product((0, 512), (16, 64, 256, 512), (1, 16, 64)))
METER = {"m.power": Channel("m.power", "W", scope=Scope.INPUT, sensor=SensorModel(period_s=1e-4))}
E_FLOP, E_BYTE, P_STATIC, IDLE = 2e-12, 8e-11, 3.0, 4.0


class Setting(BaseModel):
    """A subject of the device of these tests: its power mode's rates, and the bytes of its weights."""

    model_config = ConfigDict(frozen=True)

    mode: str
    flops: float
    bandwidth: float
    quant: str = "q8_0"
    shrunk: float = 1.0

    @property
    def shape(self) -> Shape:
        return SHAPE.model_copy(update={"weight_bytes": SHAPE.weight_bytes * self.shrunk})


FULL = Setting(mode="full", flops=10e12, bandwidth=100e9)
SLOWEST = Setting(mode="slowest", flops=1e12, bandwidth=20e9)
Q4 = Setting(mode="full", flops=8e12, bandwidth=100e9, quant="q4_0", shrunk=0.5)


def measured(*settings: Setting, noise: float = 0.0, idle: float | None = IDLE) -> Phases:
    """A device whose time and energy are sums of arithmetic, bytes and a launch, in several settings."""
    rng = np.random.default_rng(0)
    frames = [_frame(setting, k, noise, rng) for k, setting in enumerate(settings)]
    rows = [{"run": f"r{k}", "channel": "m.power", "idle_w": idle, "idle_u_w": 0.01, "steps": 2} for k in range(9)]
    shapes = {label("small", setting.quant): setting.shape for setting in settings}
    table = pd.concat(frames, ignore_index=True).reindex(columns=SCHEMA.names)
    return Phases(table, METER, idle=pd.DataFrame(rows if idle else []).reindex(columns=[*rows[0]]), shapes=shapes)


def _frame(setting: Setting, run: int, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    asked = pd.DataFrame(GRID * 3, columns=["history", "prompt", "output"]).rename_axis("inference").reset_index()
    h, p, o = (asked[name].to_numpy(float) for name in ("history", "prompt", "output"))
    parts = []
    for phase in ("prefill", "decode", "total"):
        flops, read = setting.shape.flops(phase, h, p, o), setting.shape.bytes(phase, h, p, o)
        seconds = flops / setting.flops + read / setting.bandwidth + 0.01 * (phase != "decode")
        seconds -= (phase != "decode") * setting.shape.kv_bytes_per_token * (h + p) / setting.bandwidth  # overlapped
        joules = E_FLOP * flops + E_BYTE * read + (IDLE + P_STATIC) * seconds
        noisy = [x * (1 + noise * rng.standard_normal(len(x))) for x in (seconds, joules)]
        parts.append(asked.assign(phase=phase, duration_s=noisy[0], energy_j=noisy[1])[read > 0])
    about: dict[str, Any] = {"session": f"s{run}", "run": f"r{run}", "mode": setting.mode, "quant": setting.quant}
    about |= {"device": "box", "model": "small", "origin": "measured", "channel": "m.power", "status": "ok"}
    return pd.concat(parts).assign(gain_u_rel=0.0, **about)


def found(phases: Phases) -> Physical:
    (only,) = physical([(phases, fit(phases))])
    return only


def test_modes_and_quantisations_tell_arithmetic_bytes_and_time_apart() -> None:
    result = found(measured(FULL, SLOWEST, Q4, noise=0.005))
    assert result.refused is None
    assert (result.channel, result.scope, len(result.subjects), result.idle) == ("m.power", "input", 3, True)
    values = {c.name: c.value for c in result.coefficients}
    assert values == pytest.approx({"e_flop": E_FLOP, "e_byte": E_BYTE, "P_static": P_STATIC}, rel=0.1)
    for c, true in zip(result.coefficients, (E_FLOP, E_BYTE, P_STATIC), strict=True):
        assert c.low <= true <= c.high
    assert [c.unit for c in result.coefficients] == ["J/FLOP", "J/B", "W"]
    assert result.error_percent is not None
    assert result.error_percent < 1.5


def test_where_nothing_measured_the_idle_power_it_is_part_of_the_static_power() -> None:
    result = found(measured(FULL, SLOWEST, noise=0.002, idle=None))
    assert not result.idle
    assert result.coefficients[2].value == pytest.approx(IDLE + P_STATIC, rel=0.1)


def test_one_setting_is_refused_with_the_condition_number() -> None:
    result = found(measured(FULL, noise=0.005))
    assert result.coefficients == ()
    assert "they go together in box alone (condition number " in str(result.refused)
    assert "\n" not in str(result.refused)


def test_subjects_may_come_from_tables_of_their_own() -> None:
    apart = [(phases, fit(phases)) for phases in (measured(FULL, noise=0.002), measured(SLOWEST, noise=0.002))]
    (result,) = physical(apart)
    assert result.subjects == ("box/full", "box/slowest")
    assert result.coefficients[1].value == pytest.approx(E_BYTE, rel=0.1)


def test_the_terminal_shows_the_coefficients_or_why_there_are_none() -> None:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(as_text([found(measured(FULL, SLOWEST, noise=0.002)), found(measured(FULL, noise=0.002))]))
    said = console.export_text()
    assert "box m.power: energy per FLOP, byte and second" in said
    assert "pJ/FLOP" in said
    assert "P_static is on top of the idle power" in said
    assert "box m.power: no energy per FLOP, byte and second: they go together in box alone" in said


def test_an_unknown_shape_is_refused() -> None:
    phases = measured(FULL)
    phases.shapes.clear()
    assert "nothing tells the shape of the language model of box" in str(found(phases).refused)


def test_coefficients_imply_the_rates_that_made_them() -> None:
    phases = measured(Setting(mode="full", flops=10e12, bandwidth=100e9))
    phases.peaks["box"] = Peak(compute=20e12, bandwidth=90e9, source="data sheet")
    rows = {row.what: row for model in fit(phases) for row in efficiencies(model)}
    weights, cache = rows["reading the weights"], rows["reading the cache"]
    # A pass computes as well as it reads.
    assert weights.rate == pytest.approx(1 / (1 / 100e9 + 2 / 10e12), rel=1e-3)
    assert weights.share == pytest.approx(weights.rate / 90e9)
    assert weights.impossible
    assert cache.rate < 100e9
    assert rows["matrix arithmetic"].rate == pytest.approx(10e12, rel=0.3)
    assert not rows["matrix arithmetic"].impossible


def test_without_a_peak_there_is_a_rate_and_no_share() -> None:
    rows = [row for model in fit(measured(FULL)) for row in efficiencies(model)]
    assert rows
    assert all(row.share is None and not row.impossible for row in rows)


def test_a_run_keeps_shape_and_peak_and_its_sweep_alone_is_refused(tmp_path: Path) -> None:
    plan = Plan.from_lab(load_lab(lab(tmp_path)), "box", "sweep")
    phases = reduce(record(plan, tmp_path, lambda: False, lambda _: None))
    phases.save(tmp_path / "kept")
    again = read_dataset(tmp_path / "kept")
    assert again.shapes == phases.shapes
    assert again.peaks == phases.peaks == {"box": Peak(compute=42.5e12, bandwidth=204.8e9, source="NVIDIA data sheet")}
    assert list(again.shapes) == ["llama-3.2-1b/q8_0"]
    models = fit(again)
    assert all(model.shape == again.shapes["llama-3.2-1b/q8_0"] for model in models)
    shares = [row.share for model in models for row in efficiencies(model)]
    assert shares
    assert all(share and share < 1 for share in shares)
    refusals = [result.refused for result in physical([(again, models)])]
    assert all("condition number" in str(refusal) for refusal in refusals)


def test_two_peaks_of_one_device_are_not_merged() -> None:
    one, other = (Phases(measured(FULL).table, METER, peaks={"box": Peak(source=said)}) for said in "ab")
    with pytest.raises(DataInvalid, match="box is described differently"):
        merge([one, other])


def test_a_shape_that_lacks_something_is_no_shape() -> None:
    with pytest.raises(ValidationError, match="layers"):
        Shape.model_validate({"weights": 1})
