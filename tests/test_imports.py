"""Recordings of other tools as runs: the real ones, their quirks, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joulelab.analysis.attribution import OK
from joulelab.analysis.imports import import_runs
from joulelab.analysis.imports.zone import LocalClock
from joulelab.analysis.phases import reduce
from joulelab.cli import main
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Scope
from joulelab.recording import RunDir
from joulelab.recording.formats import csv_log, ptd
from joulelab.recording.seal import verify
from joulelab.timebase import SECOND

DATA = Path(__file__).parents[1].parent / "shared" / "data"
PTD = DATA / "mlperf-orin-ptd"
GPU = DATA / "gpu-power-benchmark"
KM003C = DATA / "km003c" / "usb_captures.parquet"
TEGRASTATS = DATA / "tegrastats"
recorded = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded data are not here")

MS = 10**6
SPL = "Time,02-18-2023 {},Watts,{},Volts,206.930000,Amps,0.112290,PF,0.275000,Mark,testing"


def imported(folder: Path, kind: str, text: str, mapping: str = "", **known: Any) -> RunDir:
    """A run from the text of a log and of a map."""
    (folder / "log").write_text(text)
    if mapping:
        (folder / "map.yaml").write_text(mapping)
        known["mapping"] = folder / "map.yaml"
    return RunDir(import_runs(kind, [folder / "log"], folder / "runs", **known)[0])


def refused(folder: Path, kind: str, text: str, mapping: str = "", **known: Any) -> str:
    """Why a log is refused; nothing of it is left."""
    with pytest.raises(UserError) as refusal:
        imported(folder, kind, text, mapping, **known)
    assert not list((folder / "runs").glob("*"))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def column(run: RunDir, name: str) -> list[float]:
    return run.samples(run.manifest.instruments[0].name)[name].to_pylist()  # type: ignore[no-any-return]


def seconds(run: RunDir, name: str = "before_ns") -> list[float]:
    return [ns / SECOND for ns in column(run, name)]


@recorded
def test_ptdaemons_samples_keep_watts_volts_amps_and_power_factor(tmp_path: Path) -> None:
    [path] = import_runs("ptd", [PTD / "spl_head31.txt"], tmp_path, device="orin", timezone="UTC")
    run = RunDir(path)
    samples = run.samples("ptd").to_pandas()
    assert len(samples) == 31
    product = samples["voltage"] * samples["current"] * samples["power_factor"]
    assert (abs(product / samples["power"] - 1) < 0.00071).all()
    assert run.manifest.power == ("ptd.power",)
    assert run.manifest.channels["ptd.power"].scope == Scope.WALL
    assert {channel.origin for channel in run.manifest.channels.values()} == {"imported"}
    assert run.manifest.created == "2023-02-18T17:36:10.241+00:00"
    assert (run.state, verify(run), run.manifest.simulated) == ("done", [], False)


@recorded
def test_mlperfs_marks_are_placed_where_the_time_zone_is_right(tmp_path: Path) -> None:
    known: dict[str, Any] = {"phases": PTD / "server_extract.json"}
    [path] = import_runs("ptd", [PTD / "spl_head31.txt"], tmp_path / "right", timezone="UTC", **known)
    [step] = RunDir(path).records("step")
    assert step["what"]["name"] == "testing"
    assert step["what"]["start"] / SECOND == pytest.approx(-0.307, abs=1e-3)
    with pytest.raises(DataInvalid, match="is the time zone right"):
        import_runs("ptd", [PTD / "spl_head31.txt"], tmp_path / "wrong", timezone="America/Los_Angeles", **known)
    with pytest.raises(UserError, match="--timezone"):
        import_runs("ptd", [PTD / "spl_head31.txt"], tmp_path / "none", **known)


@recorded
def test_ptdaemons_messages_are_no_readings(tmp_path: Path) -> None:
    messages = [ptd.parse(line) for line in (PTD / "ptd_log_quirks.txt").read_text().splitlines()]
    assert [isinstance(m, ptd.Message) and m.bad for m in messages] == [True, False, True, False]
    with pytest.raises(DataInvalid, match="holds no sample"):
        import_runs("ptd", [PTD / "ptd_log_quirks.txt"], tmp_path)


@pytest.mark.parametrize("nothing", ["nan", "-nan", "-1", "-1.000000", "ERROR", "", "inf", "1e999", "-1.#IND"])
def test_what_stands_for_no_watts_is_no_reading(tmp_path: Path, nothing: str) -> None:
    lines = [SPL.format("17:36:10.241", 6.39), SPL.format("17:36:11.241", nothing), SPL.format("17:36:12.241", -0.02)]
    run = imported(tmp_path, "ptd", "\n".join(lines) + "\n")
    assert column(run, "power") == [6.39, None, -0.02]
    [fault] = run.records("fault")
    assert (fault["message"], fault["t"], fault["readings"]) == (f"power reads {nothing!r}", SECOND, 1)


def test_other_channels_of_the_meter_and_messages_between_samples(tmp_path: Path) -> None:
    second = ",Ch1,Watts,2.5,Volts,12.0,Amps,0.21,PF,-1.0"
    text = f"{SPL.format('17:36:10.241', 6.39)}{second}\nERROR: lost\n{SPL.format('17:36:11.241', 6.4)}{second}\n"
    run = imported(tmp_path, "ptd", text)
    assert run.manifest.power == ("ptd.power", "ptd.ch1.power")
    assert column(run, "ch1.power") == [2.5, 2.5]
    assert {r["message"]: r["t"] for r in run.records("fault")} == {
        "ch1.power_factor reads '-1.0'": 0,
        "ERROR: lost": 0,
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Time,18-02-2023 17:36:10.241,Watts,1,Mark,x", "month must be in 1..12"),
        ("Time,02-18-2023 17:36:10,Watts,1,Mark,x", "is no time"),
        ("Time,02-18-2023 17:36:10.241,Watts,1,Volts", "'Volts' is cut off or no field"),
        ("Time,02-18-2023 17:36:10.241,Watts,6", "has no mark: its end is cut off"),
        ("Time,02-18-2023 17:36:10.241,Joules,6,Mark,x", "'Joules' is cut off or no field"),
        ("Time,02-18-2023 17:36:10.241,Watts,6,Watts,7,Mark,x", "has its power twice"),
        ("Time,02-18-2023 17:36:10.241,Volts,6,Mark,x", "has no watts"),
        ("2023-02-18,6.39", "PTDaemon writes no such line"),
        ("\0", "is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    good = SPL.format("17:36:10.241", 6.39)
    message = refused(tmp_path, "ptd", f"{good}\n{line}\n{good}\n")
    assert f"{tmp_path / 'log'}, line 2: " in message
    assert reason in message


def test_a_last_line_that_was_cut_off_is_a_fault_of_the_log(tmp_path: Path) -> None:
    whole = SPL.format("17:36:10.241", 6.39)
    run = imported(tmp_path, "ptd", whole + "\n" + whole[:60])
    assert column(run, "power") == [6.39]
    assert "line 2: " in run.records("fault")[0]["message"]


@given(
    st.one_of(
        st.text(), st.from_regex(r"Time,02-18-2023 17:36:1\d\.241(,(Watts|Volts|Ch1|Mark),[-+.\deEnai]{0,8}){0,4}")
    )
)
@example("Time,")
@example("Time,99-99-0000 99:99:99.999,")
def test_ptd_lines_of_any_kind(text: str) -> None:
    try:
        found = ptd.parse(text)
    except ValueError:
        return
    if isinstance(found, ptd.Sample):
        assert all(math.isnan(v) or math.isfinite(v) for v in found.values.values())
        assert sum(map(math.isnan, found.values.values())) == len(found.refused)


CSV_MAP = """
time: {column: t, unit: ms}
channels:
  power: {column: "P [mW]", unit: mW, scope: input, period: 100 ms, gain_u: 1 %, resolution: 1 mW}
  volts: {column: U, unit: V, missing: ["-99"]}
"""
CSV = "t, P [mW], U\n1700000000000, 1500, 5.0\n1700000000100, N/A, -99\n1700000000200, 9.91E+37, 5.2\n"


def test_a_csv_file_is_read_as_its_map_says(tmp_path: Path) -> None:
    run = imported(tmp_path, "csv", CSV, CSV_MAP, device="board")
    assert column(run, "power") == [1.5, None, None]
    assert column(run, "volts") == [5.0, None, 5.2]
    assert seconds(run) == [0, 0.1, 0.2]
    assert column(run, "after_ns")[0] == MS
    channel = run.manifest.channels["csv.power"]
    assert (channel.scope, channel.sensor.period_s, channel.sensor.gain_u_rel) == (Scope.INPUT, 0.1, 0.01)
    assert channel.sensor.resolution == 1e-3
    assert run.manifest.created == "2023-11-14T22:13:20.000+00:00"
    assert run.manifest.device == "board"


@pytest.mark.parametrize(
    ("text", "mapping", "reason"),
    [
        (CSV.replace("5.0", "five"), CSV_MAP, "line 2: 'five' is not a number"),
        (CSV.replace("1700000000100", "1700000000100x"), CSV_MAP, "line 3: '1700000000100x' is no time in ms"),
        (CSV.replace(", -99", ""), CSV_MAP, "line 3: is shorter than the header"),
        (CSV.replace('"', "").replace("U\n", "V\n"), CSV_MAP, "line 1: 0 columns are called 'U'"),
        ("", CSV_MAP, "has no header"),
        ("t,P [mW],U\n", CSV_MAP, "holds no readings"),
        ('t,P [mW],U\n"1,2,3\n', CSV_MAP, "line 2: unexpected end of data"),
        (CSV, "", "needs a map"),
        (CSV, CSV_MAP.replace("scope: input, ", ""), "says no scope"),
        (CSV, CSV_MAP.replace("unit: mW", "unit: hp"), "'hp' is no unit"),
        (CSV, CSV_MAP.replace("unit: ms", ""), "either a unit"),
        (CSV, CSV_MAP.replace("resolution: 1 mW", "resolution: 1 V"), "'V' is not a unit of W"),
        (CSV, "channels: [", "is not YAML"),
    ],
)
def test_a_csv_file_that_is_not_what_its_map_says_is_refused(
    tmp_path: Path, text: str, mapping: str, reason: str
) -> None:
    assert reason in refused(tmp_path, "csv", text, mapping)


def test_dates_lines_before_the_header_and_a_last_line_without_end(tmp_path: Path) -> None:
    mapping = """
delimiter: ";"
skip: 2
time: {column: when, format: "%d.%m.%Y %H:%M:%S.%f"}
timezone: Europe/Berlin
channels: {power: {column: P, unit: W, scope: wall}}
"""
    text = "Meter X\n\nwhen;P\n01.07.2024 12:00:00.50;3\n01.07.2024 12:00:01.50;4\n01.07.2024 12:00:02.50;5"
    run = imported(tmp_path, "csv", text, mapping)
    assert column(run, "power") == [3, 4]
    assert run.manifest.created == "2024-07-01T10:00:00.500+00:00"
    assert "line 6 does not end" in run.records("fault")[0]["message"]
    assert column(run, "after_ns")[0] == 10 * MS


READERS: list[Callable[[str], float]] = [
    csv_log.number,
    *(lambda text, unit=unit: csv_log.numeric_stamp(text, unit).ns / SECOND for unit in csv_log.TICKS),
    lambda text: csv_log.date_stamp(text, "iso").ns / SECOND,
    lambda text: csv_log.date_stamp(text, "%Y/%m/%d %H:%M:%S.%f").ns / SECOND,
]


@given(st.one_of(st.text(), st.from_regex(r"[-+.\deE:/ T]{1,24}")), st.sampled_from(READERS))
@example("1e999", csv_log.number)
def test_cells_of_any_kind(text: str, read: Callable[[str], float]) -> None:
    try:
        value = read(text)
    except ValueError:
        return
    assert math.isnan(value) or abs(value) < csv_log.SCPI_LIMIT


@given(st.integers(-(2**61), 2**61))
def test_stamps_are_exact(ns: int) -> None:
    sign, whole, rest = "-" * (ns < 0), *divmod(abs(ns), SECOND)
    assert csv_log.numeric_stamp(f"{sign}{whole}.{rest:09d}", "s").ns == ns
    assert csv_log.numeric_stamp(str(ns), "ns").ns == ns


@given(st.lists(st.tuples(st.integers(0, 4 * 10**12), st.floats(allow_nan=False, width=32)), min_size=2, max_size=30))
def test_any_stamps_make_a_run_that_never_goes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]]
) -> None:
    text = "t,P [mW],U\n" + "".join(f"{t},{value!r},1\n" for t, value in rows)
    run = imported(tmp_path_factory.mktemp("any"), "csv", text, CSV_MAP)
    before, after = (np.array(column(run, name)) for name in ("before_ns", "after_ns"))
    assert before[0] == 0
    assert (np.diff(before) >= 0).all()
    assert (after - before == MS).all()
    steps = np.diff([t for t, _ in rows])
    assert len(run.records("jump")) == (steps < 0).sum()
    assert not [finding for finding in verify(run) if finding.bad]


def test_stamps_that_go_back_are_a_jump(tmp_path: Path) -> None:
    text = "t,P [mW],U\n5000,1,1\n6000,1,1\n2000,1,1\n3000,1,1\n"
    run = imported(tmp_path, "csv", text, CSV_MAP.replace("unit: ms", "unit: ms, clock: own"))
    assert seconds(run) == [0, 1, 1.001, 2.001]
    [jump] = run.records("jump")
    assert (jump["t"], jump["wall_step"]) == (1001 * MS, -4 * SECOND)
    assert run.manifest.created == ""
    (tmp_path / "phases.csv").write_text("phase,start,stop\nload,5,6\n")
    reason = refused(tmp_path / "runs", "csv", text, CSV_MAP, phases=tmp_path / "phases.csv")
    assert "on a clock of its own" in reason


def test_summer_time_ends_without_a_jump(tmp_path: Path) -> None:
    lines = "".join(SPL.format(t, 5) + "\n" for t in ("02:59:59.000", "02:00:00.000", "02:00:01.000"))
    october = lines.replace("02-18-2023", "10-29-2023")
    known = imported(tmp_path, "ptd", october, timezone="Europe/Berlin")
    assert (seconds(known), known.records("jump")) == ([0, 1, 2], [])
    (tmp_path / "other").mkdir()
    unknown = imported(tmp_path / "other", "ptd", october)
    assert [jump["wall_step"] / SECOND for jump in unknown.records("jump")] == [-3599]
    assert unknown.manifest.created == "2023-10-29T02:59:59.000"
    with pytest.raises(ValueError, match="summer time began"):
        LocalClock("Europe/Berlin").ns(datetime(2023, 3, 26, 2, 30))  # noqa: DTZ001 local time


def test_gaps_are_journalled(tmp_path: Path) -> None:
    text = "t,P [mW],U\n" + "".join(f"{t},1,1\n" for t in (0, 100, 200, 300, 900, 1000))
    run = imported(tmp_path, "csv", text, CSV_MAP)
    [gap] = run.records("gap")
    assert (gap["start"], gap["stop"], gap["missed"]) == (300 * MS, 900 * MS, 5)
    assert not [finding for finding in verify(run) if finding.bad]


def tegrastats_lines(start: str) -> list[str]:
    found = [json.loads(line)["line"] for line in (TEGRASTATS / "lines.jsonl").read_text().splitlines()]
    return [line for line in found if line.startswith(start)]


@recorded
def test_tegrastats_stamps_whole_seconds(tmp_path: Path) -> None:
    lines = tegrastats_lines("10-01-2025")
    run = imported(tmp_path, "tegrastats", "\n".join(["$ sudo tegrastats", *lines, lines[-1][:200], ""]))
    assert len(column(run, "VDD_IN")) == len(lines) + 1
    assert column(run, "after_ns")[0] == SECOND
    assert column(run, "VDD_IN")[0] == pytest.approx(5.542)
    assert column(run, "VDD_SOC")[-1] is None
    assert run.manifest.power[0] == "tegrastats.VDD_IN"
    assert run.manifest.channels["tegrastats.VDD_IN"].scope == Scope.INPUT
    assert run.manifest.channels["tegrastats.VDD_SOC"].scope == Scope.RAIL
    assert "nobody stated" in run.manifest.clock
    messages = [record["message"] for record in run.records("fault")]
    assert messages[0].startswith("line 1: no line of tegrastats")
    assert messages[1].startswith("the line has no VDD_")


@recorded
def test_tegrastats_without_stamps_needs_an_interval(tmp_path: Path) -> None:
    lines = tegrastats_lines("RAM 1655/3956MB")
    assert "give the --interval of tegrastats" in refused(tmp_path, "tegrastats", "\n".join(lines) + "\n")
    run = imported(tmp_path, "tegrastats", "\n".join([lines[0], "torn", *lines[1:], ""]), "interval: 500 ms")
    assert seconds(run) == [0, 0.5, 1, 1.5]
    assert column(run, "POM_5V_IN")[1] is None
    assert run.manifest.clock.startswith("imported: estimated")


@recorded
@pytest.mark.parametrize("line", [*range(50), "not"])
def test_each_line_of_tegrastats_makes_a_run_or_is_refused_for_its_reason(tmp_path: Path, line: int | str) -> None:
    name = "not_device_output.jsonl" if line == "not" else "lines.jsonl"
    sample = json.loads((TEGRASTATS / name).read_text().splitlines()[0 if line == "not" else int(line)])
    if line == "not" or "no power rails" in sample["note"] or "oldest known format" in sample["note"]:
        assert "line 1: no rails recognised" in refused(tmp_path, "tegrastats", sample["line"] + "\n", "interval: 1 s")
    else:
        run = imported(tmp_path, "tegrastats", sample["line"] + "\n", "interval: 1 s")
        assert run.manifest.power


@recorded
@pytest.mark.parametrize("folder", ["A100_step", "A100_square_wave", "RTX3090_step"])
def test_an_external_meter_and_nvidia_smi_lie_on_one_clock(tmp_path: Path, folder: str) -> None:
    (tmp_path / "map.yaml").write_text("channels: {power: {scope: input, gain_u: 1 %}}")
    marks: dict[str, Any] = {"phases": GPU / folder / "timestamps.csv"}
    [pmd] = import_runs("elmor-pmd", [GPU / folder / "PMD_data.bin"], tmp_path, mapping=tmp_path / "map.yaml", **marks)
    zone = "Europe/London"
    [smi] = import_runs("nvidia-smi", [GPU / folder / "gpudata.csv"], tmp_path / "smi", timezone=zone, **marks)
    outside, inside = RunDir(pmd), RunDir(smi)
    assert outside.manifest.power[0] == "elmor-pmd.power"
    assert outside.manifest.instruments[0].interval_ns is None
    assert [f for run in (outside, inside) for f in verify(run) if f.bad] == []
    starts = [run.journal[0]["anchor"]["wall"] / SECOND for run in (outside, inside)]
    first = [
        run.records("step")[0]["what"]["start"] / SECOND + start
        for run, start in zip((outside, inside), starts, strict=True)
    ]
    assert first[0] == pytest.approx(first[1], abs=1e-6)
    external, internal = (np.nanmean(column(*of)) for of in ((outside, "power"), (inside, "power.draw.instant")))
    assert 1.0 < external / internal < 1.35


def test_bytes_that_are_no_frames_are_refused(tmp_path: Path) -> None:
    assert "holds no frames of an Elmor Labs PMD" in refused(tmp_path, "elmor-pmd", "no frames" * 100)


@recorded
def test_each_session_of_a_usb_capture_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("channels: {power: {scope: input}}")
    runs = [RunDir(path) for path in import_runs("km003c", [KM003C], tmp_path / "runs", mapping=tmp_path / "map.yaml")]
    periods = {run.path.name.rpartition("_")[2]: run.manifest.channels["km003c.power"].sensor.period_s for run in runs}
    assert periods == {"1000hz.6": 0.001, "50hz.6": 0.02, "record.6": 0.5}
    for run in runs:
        volts, amps, watts = (np.array(column(run, name)) for name in ("voltage", "current", "power"))
        assert np.allclose(watts, volts * amps)
        assert (np.diff(column(run, "device_ns")) > 0).all()
        lag = np.array(column(run, "after_ns")) - column(run, "device_ns")
        assert np.ptp(lag) < 2 * MS
        assert not [finding for finding in verify(run) if finding.bad]


def test_a_file_that_is_no_usb_capture_is_refused(tmp_path: Path) -> None:
    assert "is no USB capture in Parquet" in refused(tmp_path, "km003c", "PAR1")


def phone_log(amperes: float, online: int = 0, odpm: str = "") -> str:
    """Ten readings of a phone on its battery, half a second apart, in the format of `android_log.sh`."""
    gauge = f"status Discharging\nvoltage_now 3850000\ncurrent_now {amperes * 1e6:.0f}\n"
    text = "# joulelab android log 1\n"
    for k in range(10):
        files = [f"battery/{line.split()[0]} {line.split()[1]}\n" for line in gauge.splitlines()]
        files += [f"usb/online {online}\n"] + [f"iio/energy_value {line}\n" for line in odpm.format(k=k).splitlines()]
        text += f"@ {1_700_000_000 + k / 2:.9f} {1000 + k / 2:.2f}\n" + "".join(files) + ".\n"
    return text


def test_a_phones_log_is_its_battery_in_a_learned_unit_and_sign(tmp_path: Path) -> None:
    odpm = "t={k}\nCH0(T={k})[VSYS_CPU], {k}000000\n"
    run = imported(tmp_path, "android-log", phone_log(-0.5, odpm=odpm))
    assert column(run, "power") == pytest.approx([0.5 * 3.85] * 10)
    assert column(run, "VSYS_CPU") == pytest.approx(range(10))
    assert seconds(run)[:3] == [0, 0.5, 1]
    assert run.manifest.power == ("android-log.power", "android-log.VSYS_CPU")
    assert run.manifest.instruments[0].identity["current"]["sign"] == "negative-discharging"


def test_a_phone_that_was_fed_is_refused(tmp_path: Path) -> None:
    assert "too few to learn" in refused(tmp_path, "android-log", phone_log(-0.5, online=1))
    assert "line 1: a log of android_log.sh begins" in refused(tmp_path, "android-log", "watts\n")


INFERENCES = """phase,inference,history,prompt,output,start,stop
idle,,,,,1700000000,1700000002
prefill,1,0,64,16,1700000003.0,1700000004.0
decode,1,0,64,16,1700000004.0,1700000008.0
load,,,,,1700000000,1700000001
prefill,2,0,64,16,1700009003.0,1700009004.0
decode,2,0,64,16,1700009004.0,1700009008.0
"""


def ramp(folder: Path, phases: str, name: str = "phases.csv") -> RunDir:
    (folder / name).write_text(phases)
    text = "t,P [mW],U\n" + "".join(f"{1700000000000 + 100 * k},2000,1\n" for k in range(100))
    return imported(folder, "csv", text, CSV_MAP, phases=folder / name)


def test_inferences_get_their_energy(tmp_path: Path) -> None:
    run = ramp(tmp_path, INFERENCES)
    phases = reduce(run)
    rows = phases.table.set_index("phase")
    assert set(rows["status"]) == {OK}
    assert rows["energy_j"].to_dict() == pytest.approx({"prefill": 2.0, "decode": 8.0, "total": 10.0})
    assert phases.idle["idle_w"].tolist() == pytest.approx([2.0])
    assert set(rows["origin"]) == {"imported"}
    assert run.manifest.arguments["phases"] == {"file": "phases.csv", "outside the readings": 2}
    assert [step["what"]["name"] for step in run.records("step")] == ["load"]


def test_phases_as_json_lines_and_dates(tmp_path: Path) -> None:
    edges = {"start": "2023-11-14T22:13:23+00:00", "stop": "2023-11-14T23:13:24+01:00"}
    asked = {"inference": 1, "history": 0, "prompt": 64, "output": 1}
    run = ramp(tmp_path, json.dumps({"phase": "prefill", **asked, **edges}) + "\n", "phases.jsonl")
    [inference] = run.records("inference")
    assert inference["phases"][0]["start"] == 3 * SECOND
    assert reduce(run).table["energy_j"].tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("phases", "reason"),
    [
        ("phase,start,stop\nload,1700000001,1700000000\n", "line 2: it stops before it starts"),
        ("phase,start,stop\nload,soon,later\n", "line 2: Invalid isoformat string: 'soon'"),
        ("phase,start,stop\nload,1700000001\n", "line 2: stop: Field required"),
        ("phase,start,stop\nprefill,1700000001,1700000002\n", "a prefill or decode needs inference"),
        ("phase,start,stop,prompt\nload,1700000001,1700000002,4\n", "not 'load'"),
        ("phase,start,stop,watts\nload,1700000001,1700000002,4\n", "watts: Extra inputs are not permitted"),
        ("phase,start,stop\n", "has no phases"),
        ("phase,start,stop\na,1700000001,1700000002\nb,1,2\n", "stamps of different clocks"),
        ("phase,start,stop\na,1700100001,1700100002\n", "is the time zone right"),
        (INFERENCES.replace("decode,1", "prefill,1"), "has the phases prefill, prefill"),
    ],
)
def test_phases_that_cannot_be_are_refused(tmp_path: Path, phases: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason.replace("(", r"\(")):
        ramp(tmp_path, phases)
    assert not list((tmp_path / "runs").glob("*"))


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_an_imported_run_can_be_shown_verified_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [SPL.format(f"17:36:1{second}.241", 5 + second) for second in range(9)]
    Path("spl.txt").write_text("\n".join(lines) + "\n")
    assert call("import", "ptd", "spl.txt", "spl.txt", "--out", "runs", "--timezone", "UTC", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["readings"], row["power"]) for row in rows] == [(9, "ptd.power")] * 2
    for verb in ("show", "verify", "report"):
        assert call(verb, rows[1]["run"]) == 0, verb
    assert "every file is as it was sealed" in capsys.readouterr().out


def test_the_command_says_what_it_can_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("")
    assert call("import", "ptdaemon", str(tmp_path / "log"), "--out", str(tmp_path / "runs")) == 1
    assert "cannot import 'ptdaemon'" in capsys.readouterr().err
    assert call("import", "ptd", str(tmp_path / "log"), "--out", str(tmp_path / "runs")) == 5
    assert call("import", "ptd", str(tmp_path / "gone"), "--out", str(tmp_path / "runs")) == 1
    assert "gone: No such file" in capsys.readouterr().err
    assert call("import", "table", str(tmp_path / "log"), "--out", str(tmp_path / "runs")) == 1


def test_what_was_imported_of_a_file_before_the_bad_one_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "good").write_text(SPL.format("17:36:10.241", 5) + "\n")
    (tmp_path / "bad").write_text("watts\n")
    with pytest.raises(DataInvalid, match="bad, line 1"):
        import_runs("ptd", [tmp_path / "good", tmp_path / "bad"], tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
