"""The Jetson AGX Orin as EdgeReasoning recorded it: decode held out by prompt length, prefills too short to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from joulelab.analysis.dataset import read_dataset
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.valid import parse
from joulelab.analysis.modelling.validation import Verdict, validate
from joulelab.analysis.tables import import_table
from joulelab.cli import main

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
RECORDING = ROOT.parent / "shared" / "data" / "orin-edgereasoning"
IDLE_W = (5.517, 5.714)
"""The two readings that the recording has of the idle board."""
LIMITS = {
    ("DeepSeek-R1-Distill-Llama-8B", "time"): 0.75,
    ("DeepSeek-R1-Distill-Llama-8B", "energy"): 2.0,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "time"): 0.2,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "energy"): 2.0,
}


pytestmark = pytest.mark.skipif(not RECORDING.is_dir(), reason=f"{RECORDING} is not here")


def test_decode_is_predicted_for_prompt_lengths_that_were_not_seen() -> None:
    phases = import_table(RECORDING / "decode.csv", EXAMPLES / "orin-decode.yaml")
    assert [note[:41] for note in phases.notes] == [
        "decode.csv: 16 of 330 rows are left out, ",
        "decode.csv: 32 of 330 rows have no energy",
    ]
    found = {(v.device.partition("/")[2], v.target): v for v in validate(phases, split="prompt")}
    assert found.keys() == LIMITS.keys()
    assert {key: v.mape_percent for key, v in found.items() if not (v.mape_percent or 100) <= LIMITS[key]} == {}
    assert {v.verdict for v in found.values()} == {"undecided"}
    for v in found.values():
        assert "one run a configuration, 5 needed" in str(v.reason)
        assert v.dropped_rows == len(v.dropped) >= 8
        assert (v.mape_all_percent or 0) >= (v.mape_percent or 100)


def test_prefills_shorter_than_the_sensor_can_see_have_a_time_and_no_energy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["import", "table", str(RECORDING / "prefill.csv"), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--map", str(EXAMPLES / "orin-prefill.yaml"), "--json"])
    assert (ended.value.code, json.loads(capsys.readouterr().out)["rows_with_energy"]) == (0, 15)
    phases = read_dataset(tmp_path)
    table, given = phases.table, pd.read_csv(RECORDING / "prefill.csv")
    refused = table["energy_j"].isna()
    assert (refused == (given["ttft_ms"] < 2000)).all()
    assert refused[given["avg_power_w"].isin(IDLE_W)].all()
    assert table["duration_s"].to_numpy() == pytest.approx(given["ttft_ms"] / 1e3)
    reason = "shorter than the sensor resolves (2 s): repeat it back to back, or use a faster meter"
    assert set(table[refused]["status"]) == {reason}
    assert phases.notes[0].startswith(f"prefill.csv: 51 of 66 rows have no energy, {reason}: rows 1, 2, ")


@pytest.mark.parametrize(("period_ms", "window_ms"), [(1000, 0), (100, 100), (10, 0)])
def test_what_is_too_short_follows_from_the_sensor_that_the_map_states(
    tmp_path: Path, period_ms: int, window_ms: int
) -> None:
    text = (EXAMPLES / "orin-prefill.yaml").read_text()
    text = text.replace("period: 1 s", f"period: {period_ms} ms").replace("window: 1 s", f"window: {window_ms} ms")
    (tmp_path / "map.yaml").write_text(text)
    phases = import_table(RECORDING / "prefill.csv", tmp_path / "map.yaml")
    short = pd.read_csv(RECORDING / "prefill.csv")["ttft_ms"] < period_ms + window_ms
    assert (phases.table["energy_j"].isna() == short).all()


def judged(file: str, mapping: str, target: str, **options: Any) -> dict[str, Verdict]:
    """The verdicts on the 8B and the 1.5B model."""
    found = validate(import_table(RECORDING / file, EXAMPLES / mapping), **options)
    assert {v.verdict for v in found} == {"undecided"}
    return {v.device.rpartition("-")[2]: v for v in found if v.target == target}


def within(found: dict[str, Verdict], limits: dict[str, float]) -> bool:
    return all((found[model].mape_percent or 100) <= limit for model, limit in limits.items())


def test_energies_are_predicted_in_the_declared_range_and_refused_below_it() -> None:
    options: dict[str, Any] = {"valid": [parse("output>=64")], "min_periods": 1}
    by_prompt = judged("decode.csv", "orin-energy.yaml", "energy", split="prompt", **options)
    by_decode = judged("decode.csv", "orin-energy.yaml", "energy", split="decode", **options)
    assert within(by_prompt, {"8B": 1.5, "1.5B": 2.9})
    assert within(by_decode, {"8B": 1.5, "1.5B": 3.4})
    assert (by_prompt["8B"].configurations, by_prompt["1.5B"].configurations) == (138, 144)
    assert (by_prompt["8B"].outside_mape_percent or 0) > 5
    assert {row["outside"] for row in by_prompt["1.5B"].dropped} == {True}
    phases = import_table(RECORDING / "decode.csv", EXAMPLES / "orin-energy.yaml")
    model = next(model for model in fit(phases, **options) if model.target == "energy")
    assert "output" in str(model.outside(0, 512, 16, "decode").warning)


def test_time_to_first_token_is_predicted_and_its_outlier_found() -> None:
    found = judged("prefill.csv", "orin-prefill.yaml", "time", split="prompt", valid=[parse("prompt>=129")])
    assert within(found, {"8B": 5.0, "1.5B": 2.0})
    assert [(row["prompt"], row["cause"][:7]) for row in found["8B"].dropped] == [(2561, "outlier")]
    assert found["1.5B"].dropped == []
    assert "one run a configuration, 5 needed" in str(found["8B"].reason)
