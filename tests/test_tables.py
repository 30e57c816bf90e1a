"""Tables of others: what a map can say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.tables import import_table
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import SensorModel
from joulelab.timebase import SECOND

EPOCH = 10**18
MS = SECOND // 1000
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_example_table_passes() -> None:
    phases = import_table(EXAMPLES / "decode.csv", EXAMPLES / "decode.yaml")
    assert phases.notes == ["decode.csv: 1 of 201 rows are left out, no time: the duration is not positive: rows 121"]
    assert list(phases.table.columns) == SCHEMA.names
    assert set(phases.table["origin"]) == {"imported"}
    found = validate(phases, split="prompt")
    assert [(v.target, v.verdict, v.dropped_rows) for v in found] == [("time", "pass", 1), ("energy", "pass", 1)]


CSV = "p,o,ms,mj\n64,16,10.5,1000\n128,32,20.5,2000\n"
MAP = """columns:
  device: {value: d}
  phase: {value: decode}
  history: {value: 0}
  prompt: {column: p}
  output: {column: o}
  duration_s: {column: ms, unit: ms}
  energy_j: {column: mj, unit: mJ}
channel: {name: meter, scope: wall, period: 1 ms, gain_u: 1 %}
"""


def imported(folder: Path, csv: str = CSV, mapping: str = MAP) -> Phases:
    (folder / "t.csv").write_text(csv)
    (folder / "map.yaml").write_text(mapping)
    return import_table(folder / "t.csv", folder / "map.yaml")


def test_units_are_converted_and_parquet_reads_the_same(tmp_path: Path) -> None:
    phases = imported(tmp_path)
    assert phases.table["duration_s"].tolist() == pytest.approx([0.0105, 0.0205])
    assert phases.table["energy_j"].tolist() == pytest.approx([1.0, 2.0])
    assert phases.channels["meter"].sensor == SensorModel(period_s=0.001, gain_u_rel=0.01)
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    same = import_table(tmp_path / "t.parquet", tmp_path / "map.yaml").table.assign(run="t.csv")
    pd.testing.assert_frame_equal(same, phases.table)


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        (CSV.replace("ms", "s"), "t.csv has no column 'ms' for duration_s"),
        ("p,o,ms,mj\n", "t.csv has no rows"),
        ("", "t.csv is no table"),
        ("p,o,ms,mj\n64,16,10.5,1000,7\n", "t.csv is no table"),
        ("p,o,ms,mj\n64,16,,1\n128,32,,1\n", "t.csv: column 'ms' is empty"),
        ("p,o,ms,mj\n64,16,NaN,1\n128,32,NaN,1\n", "t.csv: column 'ms' is empty"),
        (CSV.replace("20.5", "fast"), "t.csv: column 'ms', row 2: 'fast' is not a number"),
        (CSV.replace("20.5", "inf"), "t.csv: column 'ms', row 2: 'inf' is not a number"),
        (CSV.replace("128", ""), "t.csv: column 'p', row 2: is empty"),
        (CSV.replace("128", "12.8"), "t.csv: column 'p', row 2: '12.8' is not a whole number"),
        (CSV.replace("32", "0"), "t.csv: column 'o', row 2: '0' is under 1"),
    ],
)
def test_a_table_that_is_not_what_the_map_says_is_refused(tmp_path: Path, csv: str, message: str) -> None:
    with pytest.raises(DataInvalid) as refusal:
        imported(tmp_path, csv)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit: ms", "unit: mJ", "columns: duration_s: 'mJ' is not a unit of s"),
        ("{column: ms, unit: ms}", "{column: ms}", "duration_s: needs a unit, such as 'unit: s'"),
        ("{column: p}", "{column: p, unit: s}", "prompt: takes no unit"),
        ("{column: p}", "{column: p, value: 3}", "columns.prompt: expected either a column or a value"),
        ("{column: p}", "{colum: p}", "columns.prompt.colum: Extra inputs are not permitted"),
        ("prompt:", "promt:", "'promt' is no column of the phases table; did you mean 'prompt'?"),
        ("  history: {value: 0}\n", "", "history missing"),
        ("channel:", "chanel:", "chanel: Extra inputs are not permitted"),
        ("scope: wall", "scope: mains", "channel.scope: Input should be"),
        ("columns:", "columns: [", "is not YAML"),
        ("columns:", "columns:\n  inference: {value: 7}", "row 2: this phase of this inference is there already"),
    ],
)
def test_a_map_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        imported(tmp_path, mapping=MAP.replace(old, new))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_phase_has_a_known_name(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="'decoding' is no phase; did you mean 'decode'"):
        imported(tmp_path, mapping=MAP.replace("value: decode", "value: decoding"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAP)
    (tmp_path / "t.parquet").write_text("p,o")
    (tmp_path / "t.txt").write_text(CSV)
    for name, message in {
        "t.parquet": "is no table",
        "t.txt": "is neither .csv nor .parquet",
        "gone.csv": "cannot be read: No such file or directory",
    }.items():
        with pytest.raises(DataInvalid, match=f"{name} {message}"):
            import_table(tmp_path / name, tmp_path / "map.yaml")
