"""Every verb, in-process, as a person or a script calls it; and what they say to bad input."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from joulelab.analysis.dataset import read_dataset
from joulelab.calibration.certificate import certificate
from joulelab.cli import main
from joulelab.recording import find_runs

LAB = """
version: 1
devices:
  puck: {driver: simulated, profile: compute-puck}
  edge: {driver: simulated, profile: edge-gpu}
protocols:
  sweep: {history: [0, 128], prompt: [16, 48, 72, 130, 250], decode: [1, 16, 40, 64], repeats: 5, idle: 5 s}
"""

needs_llama_cpp = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="llama.cpp is not installed: uv sync --extra host"
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lab file and one session of two simulated devices."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "lab.yaml").write_text(LAB)
    with pytest.raises(SystemExit) as end:
        main(["run", "--lab", str(folder / "lab.yaml")])
    assert end.value.code == 0
    return folder


@pytest.fixture
def call(bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(bench)

    def called(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(end.value.code or 0), said.out, said.err

    return called


def parsed(result: tuple[int, str, str], code: int = 0) -> Any:
    assert result[0] == code, result
    return json.loads(result[1])


def test_a_run_ends_with_tables_and_a_report(bench: Path, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("run", "--device", "edge", "--runs", str(tmp_path))
    assert code == 0
    assert "simulated" in out
    assert "pass" in out
    (report,) = tmp_path.glob("*/report.html")
    assert str(report) in out.replace("\n", "")
    assert "<img" in report.read_text()


def test_validate_prints_the_contract_and_totals_decide_the_exit_code(call: Call) -> None:
    code, out, _ = call("validate", "--json")
    models = json.loads(out)["models"]
    keys = "device target phase mape_percent ci95_percent limit_percent split noise_floor_percent configurations"
    keys += " dropped_rows verdict reason channel scope origin"
    assert all(set(model) >= set(keys.split()) for model in models)
    assert {model["device"] for model in models} == {"puck", "edge"}
    assert {model["origin"] for model in models} == {"simulated"}
    totals = [model["verdict"] for model in models if model["phase"] == "total"]
    assert code == (0 if set(totals) == {"pass"} else 6)
    slow = next(m for m in models if m["channel"] == "gauge.battery" and m["phase"] == "total")
    assert slow["mape_percent"] is not None


def test_run_require_pass_exits_6_where_there_are_too_few_configurations(call: Call, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB.replace("[16, 48, 72, 130, 250]", "[16, 48, 72]"))
    few = ["--lab", str(tmp_path / "lab.yaml"), "--device", "edge"]
    assert call("run", *few, "--require-pass")[0] == 6


def test_steady_energies_stand_beside_those_of_the_last_sweep(call: Call, bench: Path, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(f"{LAB}  steady: {{prompt: [72], decode: [64], repeats: 1}}\n")
    shutil.copytree(bench / "runs", tmp_path / "runs")
    asked = ["--lab", str(tmp_path / "lab.yaml"), "--device", "edge"]
    (rows,) = parsed(call("run", "steady", *asked, "--json"))["steady"].values()
    (decode,) = [row for row in rows if row["channel"] == "meter.power" and row["phase"] == "decode"]
    assert float(decode["sweep / steady"]) == pytest.approx(1, abs=0.1)
    assert decode["they"] in {"agree", "differ"}
    (late,) = parsed(call("run", "signature", *asked, "--json"))["lags"].values()
    assert [row["channel"] for row in late] == ["meter.power", "gauge.VDD_GPU_SOC"]
    assert all(row["lag (k = 2)"].endswith(" ms") for row in late)


def test_fit_writes_models_that_validate_and_report_agree_with(call: Call, tmp_path: Path) -> None:
    fitted = parsed(call("fit", "edge", "--json", "--out", str(tmp_path / "model.json")))
    assert fitted == json.loads((tmp_path / "model.json").read_text())
    assert {model["target"] for model in fitted["models"]} == {"time", "energy"}
    assert call("report", "edge", "--out", str(tmp_path / "r.html"))[0] == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_a_session_may_be_named_by_its_folder(bench: Path, call: Call, tmp_path: Path) -> None:
    (session,) = (bench / "runs").iterdir()
    by_folder = parsed(call("fit", str(session), "--runs", str(tmp_path), "--json"))
    assert by_folder == parsed(call("fit", session.name, "--json"))


def test_reduced_runs_are_datasets_that_give_the_same_verdicts(call: Call, tmp_path: Path) -> None:
    (name,) = parsed(call("reduce", "edge", "--out", str(tmp_path), "--json"))
    from_dataset = json.loads(call("validate", str(tmp_path / name), "--json")[1])
    from_run = json.loads(call("validate", "edge", "--json")[1])
    assert from_dataset == from_run


def test_runs_show_verify_and_plan(bench: Path, call: Call) -> None:
    rows = parsed(call("runs", "--json"))
    assert [row["state"] for row in rows] == ["done", "done"]
    shown = parsed(call("show", "edge", "--json"))
    assert any(
        line.startswith("meter.power, total, one inference:") and "gain" in line for line in shown["Uncertainty"]
    )
    assert parsed(call("verify", "last", "--json")) == []
    planned = parsed(call("plan", "--json"))
    lasted = {f"{run.manifest.device} (simulated)": run.journal[-1]["t"] / 1e9 for run in find_runs(bench / "runs")}
    for row in planned:
        assert row["inferences"] == 203
        assert row["expected_s"] == pytest.approx(lasted[row["device"]], rel=0.2)


def test_check_accepts_the_lab_and_prints_a_schema(call: Call) -> None:
    assert parsed(call("check", "--json"))["devices"] == {"puck": "simulated", "edge": "simulated"}
    assert parsed(call("check", "--schema"))["title"] == "lab.yaml"


def test_verify_exits_5_on_a_damaged_run(bench: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(bench / "runs", tmp_path / "runs")
    samples = next(tmp_path.glob("runs/*/edge*/samples/meter.arrows"))
    data = bytearray(samples.read_bytes())
    data[len(data) // 2] ^= 1
    samples.write_bytes(data)
    code, out, _ = call("verify", "edge", "--runs", str(tmp_path / "runs"), "--json")
    assert code == 5
    assert json.loads(out)[0]["what"] == "changed"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["frobnicate"], 1, "No such command"),
        (["run", "swep"], 1, "'swep'; did you mean 'sweep'?"),
        (["run", "--device", "pukc"], 1, "did you mean 'puck'?"),
        (["show", "nothing"], 1, "names 0 runs"),
        (["show", "sweep"], 1, "names 2 runs"),
        (["check", "--lab", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["validate", "--runs", "empty"], 1, "there are no runs in empty"),
        (["run", "--resume", "last"], 1, "sealed as done"),
        (["import", "spl", "a.txt", "--map", "b", "--out", "c"], 1, "cannot import 'spl'"),
    ],
)
def test_bad_usage_is_one_line_and_its_exit_code(call: Call, arguments: list[str], code: int, said: str) -> None:
    found, _, err = call(*arguments)
    assert found == code
    assert said in err


SMALL = """
version: 1
devices:
  edge: {driver: simulated, profile: edge-gpu}
protocols:
  sweep: {prompt: [250, 400], decode: [40, 64], idle: 5 s}
"""


@pytest.fixture
def small(call: Call, tmp_path: Path) -> tuple[str, str]:
    """The options that name a lab of one device with one run."""
    (tmp_path / "lab.yaml").write_text(SMALL)
    lab = "--lab", str(tmp_path / "lab.yaml")
    assert call("run", *lab)[0] == 0
    return lab


def test_a_gauge_is_calibrated_and_later_runs_are_read_with_it(
    call: Call, tmp_path: Path, small: tuple[str, str]
) -> None:
    before = reduced(call, tmp_path / "before", *small)
    (made,) = parsed(call("calibrate", "gain", "gauge", "--against", "meter", *small, "--json"))
    assert (made["channel"], made["simulated"]) == ("gauge.VDD_GPU_SOC", True)
    assert json.loads(Path(made["path"]).read_text())["sha256"] == made["hash"]
    gain, offset = (made["result"][name] for name in ("gain", "offset"))
    assert gain == pytest.approx(0.68, abs=0.02)
    code, out, _ = call("calibrate", "closure", "--run", "ladder", *small)
    assert code == 0
    assert "(simulated)" in out
    assert "ok: meter.power >= gauge.VDD_GPU_SOC" in out

    assert call("run", *small)[0] == 0
    after = reduced(call, tmp_path / "after", *small)
    by_channel = after.groupby("channel")["certificate"]
    assert set(by_channel.get_group("gauge.VDD_GPU_SOC")) == {made["hash"]}
    assert by_channel.get_group("meter.power").isna().all()
    assert before["certificate"].isna().all()
    totals = [t[(t["channel"] == "gauge.VDD_GPU_SOC") & (t["phase"] == "total")] for t in (before, after)]
    corrected = (totals[0]["energy_j"] - offset * totals[0]["duration_s"]) / gain
    assert totals[1]["energy_j"].to_numpy() == pytest.approx(corrected.to_numpy(), rel=1e-6)


def reduced(call: Call, out: Path, *options: str) -> Any:
    """The phases table of the last run."""
    assert call("reduce", "--out", str(out), "--method", "integrate", *options)[0] == 0
    (dataset,) = out.iterdir()
    return read_dataset(dataset).table


def test_a_sensor_is_calibrated_against_a_faster_meter(call: Call, tmp_path: Path, small: tuple[str, str]) -> None:
    out = "--out", str(tmp_path / "elsewhere")
    (made,) = parsed(call("calibrate", "sensor", "gauge", "--against", "meter", *small, *out, "--json"))
    assert Path(made["path"]).parent == tmp_path / "elsewhere"
    assert "window_s" in made["result"]


def test_certificates_that_came_later_are_applied_to_an_old_run(
    call: Call, tmp_path: Path, small: tuple[str, str]
) -> None:
    (run,) = find_runs(tmp_path / "runs")
    certificate(run, "gain", "meter.power", "by hand", {"gain": 2.0}).write(tmp_path / "later")
    later = "--certificates", str(tmp_path / "later")
    (row,) = parsed(call("reduce", *small, *later, "--json")).values()
    assert row["certificates"] == ["gain of meter.power: valid"]
    for verb in ("fit", "show", "report"):
        assert call(verb, *small, *later)[0] == 0
    code, _, err = call("reduce", *small, "--certificates", "nowhere")
    assert (code, err) == (1, "joulelab: --certificates nowhere is no folder\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gain", "gauge.power"], 1, "name the meter that it is compared with, with --against"),
        (["sensor"], 1, "calibrate sensor: name the channel"),
        (
            ["gain", "gauge", "--against", "meter"],
            1,
            "load gauge? Name one with --device: puck, edge",
        ),
        (["closure", "--device", "pukc"], 1, "did you mean 'puck'?"),
        (
            ["gain", "gauge", "--against", "nothing", "--run", "edge"],
            1,
            "'nothing' names 0 power channels of edge",
        ),
        (["clock", "--run", "edge"], 5, "through the bench's own clock only"),
    ],
)
def test_what_cannot_be_calibrated_is_told(call: Call, arguments: list[str], code: int, said: str) -> None:
    found, _, err = call("calibrate", *arguments)
    assert found == code
    assert said in err


def test_every_mistake_in_the_lab_is_a_line(call: Call, tmp_path: Path) -> None:
    wrong = LAB.replace("idle: 5 s", "idle: 5 W").replace("profile: edge-gpu", "profil: edge-gpu")
    (tmp_path / "lab.yaml").write_text(wrong)
    code, _, err = call("run", "--lab", str(tmp_path / "lab.yaml"))
    assert code == 1
    assert "devices.edge.profil: unknown key; did you mean 'profile'?" in err
    assert "protocols.sweep.idle" in err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_killed_before_its_first_inference_supports_nothing(
    bench: Path, call: Call, tmp_path: Path
) -> None:
    shutil.copytree(bench / "runs", tmp_path / "runs")
    run = next(tmp_path.glob("runs/*/edge*"))
    (run / "seal.json").unlink()
    journal = run / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    for verb in ("reduce", "fit", "validate"):
        code, _, err = call(verb, str(run))
        assert code == 5
        assert "holds no measured inference" in err
    assert call("show", str(run))[0] == 0
    assert call("verify", str(run))[0] == 5


def test_a_run_of_a_newer_format_is_refused(bench: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(bench / "runs", tmp_path / "runs")
    for manifest in tmp_path.glob("runs/*/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 9'))
    code, _, err = call("validate", "--runs", str(tmp_path / "runs"))
    assert code == 5
    assert "has format 9" in err
    assert "update joulelab" in err


def test_a_runs_folder_that_cannot_be_written_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = call("run", "--device", "edge", "--runs", str(tmp_path / "file"))
    assert code == 1
    assert "--runs" in err


@needs_llama_cpp
def test_a_missing_model_is_told(call: Call, tmp_path: Path) -> None:
    lab = LAB.replace("driver: simulated, profile: edge-gpu", "engine: {driver: llama-server, model: gone.gguf}")
    (tmp_path / "lab.yaml").write_text(lab)
    code, _, err = call("run", "--device", "edge", "--lab", str(tmp_path / "lab.yaml"))
    assert code == 1
    assert "gone.gguf" in err


def test_a_full_disk_is_told_and_the_run_can_be_resumed(call: Call, tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's end: both make a write come short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        code, _, err = call("run", "--device", "puck", "--runs", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 3
    assert "cannot be written on" in err
    assert call("run", "--resume", "last", "--runs", str(tmp_path))[0] == 0
    assert call("verify", "last", "--runs", str(tmp_path))[0] == 0
