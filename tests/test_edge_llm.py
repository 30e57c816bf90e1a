"""Tables of rates, throttled series, and the edge-llm-bench recording (CC BY 4.0) where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.cases import cases
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.work import decode_pairs
from joulelab.analysis.phases import merge
from joulelab.analysis.space.box import mapped
from joulelab.analysis.space.costs import device_costs
from joulelab.analysis.tables import import_table
from joulelab.analysis.throttling import drift
from joulelab.errors import DataInvalid, UserError

EXAMPLES = Path(__file__).parents[1] / "examples"
RECORDING = Path(__file__).parents[1].parent / "shared" / "data" / "edge-llm-bench"
recorded = pytest.mark.skipif(not RECORDING.is_dir(), reason="the recording is not here")

CSV = "kind,ctx,pp,tg\nwarm,256,1,1\nsweep,256,50,20\nsweep,512,40,0\nsweep,1024,32,16\n"
MAP = """
where: {kind: sweep}
columns:
  device: {value: d}
  history: {value: 0}
  prompt: {column: ctx, less: 64, times: 0.25}
  output: {value: 64}
phases:
  prefill: {duration_s: {column: pp, unit: token/s, rate_of: prompt}}
  decode: {duration_s: {column: tg, unit: token/s, rate_of: pass}}
shapes:
  small: {weights: 10, weight_bytes: 20, layers: 1, heads: 1, head_dim: 2, hidden: 2, kv_bytes_per_token: 8,
    vocabulary: 3}
peaks:
  d: {compute: 2 TFLOP/s, source: data sheet}
"""


def imported(folder: Path, csv: str = CSV, mapping: str = MAP) -> Phases:
    (folder / "t.csv").write_text(csv)
    (folder / "map.yaml").write_text(mapping)
    return import_table(folder / "t.csv", folder / "map.yaml")


def test_rates_become_the_times_of_both_phases_and_their_total(tmp_path: Path) -> None:
    phases = imported(tmp_path)
    table = phases.table.set_index(["phase", "inference"])["duration_s"]
    assert phases.table["prompt"].unique().tolist() == [48, 112, 240]
    assert table["prefill"].tolist() == pytest.approx([48 / 50, 112 / 40, 240 / 32])
    assert table["decode"].dropna().to_dict() == pytest.approx({2: 63 / 20, 4: 63 / 16})
    assert table["total"].dropna().to_dict() == pytest.approx({2: 48 / 50 + 63 / 20, 4: 240 / 32 + 63 / 16})
    assert phases.notes[0] == "t.csv: 1 rows are not what the map asks for"
    assert "no time: the duration is not positive: rows 3" in phases.notes[1]
    assert (phases.shapes["small"].layers, phases.peaks["d"].compute) == (1, 2e12)


@pytest.mark.parametrize("wanted", ["{ctx: [256, 512], kind: sweep}", "{kind: sweep, ctx: ['256', '512']}"])
def test_rows_are_kept_by_numbers_and_by_text(tmp_path: Path, wanted: str) -> None:
    phases = imported(tmp_path, mapping=MAP.replace("{kind: sweep}", wanted))
    assert phases.table["inference"].unique().tolist() == [2, 3]
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    (tmp_path / "map.yaml").write_text(MAP.replace("{kind: sweep}", "{ctx: 512}"))
    assert import_table(tmp_path / "t.parquet", tmp_path / "map.yaml").table["inference"].unique().tolist() == [3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "unit: token/s, rate_of: pass",
            "unit: s, rate_of: pass",
            "duration_s: a rate gives a duration, and needs ",
        ),
        ("{value: 64}", "{value: 64, unit: token/s, rate_of: pass}", "output: a rate gives a duration"),
        ("{value: d}", "{value: d, less: 3}", "device: 'less' and 'times' are for counts of tokens"),
        (
            "rate_of: prompt",
            "rate_of: history",
            "duration_s.rate_of: Input should be 'prompt' or 'pass'",
        ),
        ("kind: sweep", "kind: swoop", "t.csv has no row of what the map asks for: {'kind': 'swoop'}"),
        ("kind: sweep", "knid: sweep", "t.csv has no column 'knid' for where; did you mean 'kind'?"),
        ("  history: {value: 0}\n", "", "columns: history missing"),
        ("2 TFLOP/s", "2 GB/s", "peaks.d.compute: 'GB/s' is not a unit of FLOP/s"),
        ("layers: 1, ", "", "shapes.small.layers: Field required"),
    ],
)
def test_a_map_of_rates_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises((UserError, DataInvalid)) as refusal:
        imported(tmp_path, mapping=MAP.replace(old, new))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def decodes(factor: np.ndarray, seed: int, noise: float = 0.02) -> pd.DataFrame:
    """A sweep over ascending contexts, 5 trials each, of a device that takes `factor` [55] times what it should."""
    prompt = np.repeat(np.linspace(40, 400, 11).round(), 5)
    output = np.full(55, 64.0)
    seconds = 63 * 0.1 + 2e-5 * decode_pairs(np.zeros(55), prompt, output)
    noisy = seconds * factor * np.exp(noise * np.random.default_rng(seed).standard_normal(55))
    return pd.DataFrame({"history": 0.0, "prompt": prompt, "output": output, "duration_s": noisy})


@given(seed=st.integers(0, 10**6), noise=st.floats(1e-4, 0.08))
@settings(max_examples=40)
def test_a_steady_device_is_not_said_to_throttle(seed: int, noise: float) -> None:
    assert drift(decodes(np.ones(55), seed, noise)) is None


@given(seed=st.integers(0, 10**6), stray=st.integers(1, 4))
@settings(max_examples=20)
def test_stray_trials_are_not_throttling(seed: int, stray: int) -> None:
    factor = np.ones(55)
    factor[np.random.default_rng(seed).permutation(55)[:stray]] = 5.0
    assert drift(decodes(factor, seed)) is None


@given(seed=st.integers(0, 10**6), slow=st.floats(1.25, 3.0), first=st.integers(15, 40))
@settings(max_examples=20)
def test_a_device_that_slows_down_on_the_way_is_found(seed: int, slow: float, first: int) -> None:
    assert drift(decodes(np.where(np.arange(55) < first, 1.0, slow), seed))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_a_burst_before_the_device_throttles_is_found(seed: int) -> None:
    assert drift(decodes(np.where(np.arange(55) < 12, 0.7, 1.0), seed))


def test_a_throttled_series_is_left_out_with_its_cause(tmp_path: Path) -> None:
    steady, slowed = (decodes(np.where(np.arange(55) < 20, 1.0, x), seed=1) for x in (1.0, 1.5))
    both = pd.concat([steady.assign(device="steady"), slowed.assign(device="slowed")]).reset_index()
    rows = "".join(f"{r.device},{r.prompt:g},{r.duration_s}\n" for r in both.itertuples())
    mapping = "columns: {device: {column: d}, phase: {value: decode}, history: {value: 0}, prompt: {column: p}, "
    mapping += "output: {value: 64}, duration_s: {column: s, unit: s}}"
    phases = imported(tmp_path, "d,p,s\n" + rows, mapping)
    assert phases.notes[0].startswith("slowed: 55 rows are left out, throttled: its rate drifts by ")
    dropped = {case.label: set(case.dropped["cause"]) for case in cases(phases, 5)}
    assert dropped["steady"] == set()
    (cause,) = dropped["slowed"]
    assert cause.startswith("throttled: ")
    assert phases.table.loc[phases.table["device"] == "slowed", "throttled"].all()


def recording(name: str) -> Phases:
    mapping = "edge-llm-bench-m4" if name == "m4" else "edge-llm-bench"
    return import_table(RECORDING / f"{name}_inference.parquet", EXAMPLES / f"{mapping}.yaml")


@recorded
def test_the_throttled_series_of_the_recording_are_found_and_no_others() -> None:
    notes = [note for name in ("pixel", "x86", "m4") for note in recording(name).notes]
    assert [note.partition(":")[0] for note in notes if "throttled" in note] == [
        "Pixel6a/Llama-3.2-3B-Instruct/Q2_K",
        "Pixel6a/Llama-3.2-3B-Instruct/Q5_K_M",
        "Pixel6a/Qwen2.5-1.5B-Instruct/Q2_K",
        "x86/Llama-3.2-3B-Instruct/Q2_K",
        "x86/Llama-3.2-3B-Instruct/Q3_K_M",
    ]


@recorded
def test_rows_that_are_means_carry_their_number_of_trials() -> None:
    assert set(recording("m4").table["trials"]) == {2, 3, 4, 5}
    assert set(recording("x86").table["trials"]) == {1}


@recorded
def test_the_fastest_device_is_known_by_context_and_not_by_output_length() -> None:
    sources = [recording("pixel"), recording("x86"), recording("m4")]
    table = merge(sources).table
    own = table[(table["quant"] == "Q4_K_S") & (table["model"] == "Llama-3.2-3B-Instruct")]
    # One at a time: the recording's devices were measured on days of their own.
    models = [m for _, part in own.groupby("device") for m in fit(Phases(part.reset_index(drop=True)))]
    costs = device_costs(models, energy=False)
    assert [each.device for each in costs] == ["M4Mac", "Pixel6a", "x86"]
    seconds = np.stack([each.seconds(0, np.array([192, 256, 395]), 64) for each in costs])
    assert (seconds.argmin(axis=0) == 0).all()
    with pytest.raises(DataInvalid, match="one output length, 64"):
        mapped(costs, None, None, None)
