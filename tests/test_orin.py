"""The Jetson AGX Orin as EdgeReasoning recorded it: decode time and energy, held out by prompt length."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulelab.analysis.tables import import_table
from joulelab.analysis.validation import validate

ROOT = Path(__file__).parents[1]
RECORDING = ROOT.parent / "shared" / "data" / "orin-edgereasoning" / "decode.csv"
LIMITS = {
    ("DeepSeek-R1-Distill-Llama-8B", "time"): 0.75,
    ("DeepSeek-R1-Distill-Llama-8B", "energy"): 2.0,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "time"): 0.2,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "energy"): 2.0,
}


@pytest.mark.skipif(not RECORDING.is_file(), reason=f"{RECORDING} is not here")
def test_decode_is_predicted_for_prompt_lengths_that_were_not_seen() -> None:
    phases = import_table(RECORDING, ROOT / "examples" / "orin-decode.yaml")
    assert "16 of 330 rows are left out" in phases.notes[0]
    found = {(v.device.partition("/")[2], v.target): v for v in validate(phases, split="prompt")}
    assert found.keys() == LIMITS.keys()
    assert {key: v.mape_percent for key, v in found.items() if not (v.mape_percent or 100) <= LIMITS[key]} == {}
    assert {v.verdict for v in found.values()} == {"undecided"}
    for v in found.values():
        assert "one run a configuration, 5 needed" in str(v.reason)
        assert v.dropped_rows == len(v.dropped) >= 8
        assert (v.mape_all_percent or 0) >= (v.mape_percent or 100)
