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
    assert all(set(model) == set(keys.split()) for model in models)
    assert {model["device"] for model in models} == {"puck", "edge"}
    assert {model["origin"] for model in models} == {"simulated"}
    totals = [model["verdict"] for model in models if model["phase"] == "total"]
    assert code == (0 if set(totals) == {"pass"} else 6)
    slow = next(m for m in models if m["channel"] == "gauge.battery" and m["phase"] == "prefill")
    assert slow["verdict"] == "undecided"
    assert slow["mape_percent"] is None


def test_run_require_pass_exits_6_where_a_slow_gauge_cannot_tell(call: Call, tmp_path: Path) -> None:
    code, _, _ = call("run", "--device", "puck", "--runs", str(tmp_path), "--require-pass")
    assert code == 6


def test_fit_writes_models_that_validate_and_report_agree_with(call: Call, tmp_path: Path) -> None:
    fitted = parsed(call("fit", "edge", "--json", "--out", str(tmp_path / "model.json")))
    assert fitted == json.loads((tmp_path / "model.json").read_text())
    assert {model["target"] for model in fitted["models"]} == {"time", "energy"}
    assert call("report", "edge", "--out", str(tmp_path / "r.html"))[0] == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_reduced_runs_are_datasets_that_give_the_same_verdicts(call: Call, tmp_path: Path) -> None:
    (name,) = parsed(call("reduce", "edge", "--out", str(tmp_path), "--json"))
    from_dataset = json.loads(call("validate", str(tmp_path / name), "--json")[1])
    from_run = json.loads(call("validate", "edge", "--json")[1])
    assert from_dataset == from_run


def test_runs_show_verify_and_plan(bench: Path, call: Call) -> None:
    rows = parsed(call("runs", "--json"))
    assert [row["state"] for row in rows] == ["done", "done"]
    shown = parsed(call("show", "edge", "--json"))
    assert any(line.startswith("meter.power, total:") and "gain" in line for line in shown["Uncertainty"])
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
