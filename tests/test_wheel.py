"""The built wheel by itself: in a clean environment, outside the checkout, with the locked versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
LAB = """\
version: 1
devices:
  puck: {driver: simulated, profile: compute-puck}
protocols:
  sweep: {history: [0], prompt: [16, 64], decode: [1, 16], batch: [1], repeats: 5, seed: 1}
"""


def call(*argv: str | Path, cwd: Path) -> str:
    """What the command prints; its error output stays on the screen."""
    return subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def joulelab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command as the wheel installs it; the wheel is built from the source archive, which so proves whole."""
    folder = tmp_path_factory.mktemp("wheel")
    python = folder / "venv" / "bin" / "python"
    locked = folder / "locked.txt"
    try:
        locked.write_text(call(UV, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", cwd=ROOT))
        call(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
        call(UV, "pip", "install", "--quiet", "--python", python, "--requirements", locked, cwd=folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no clean environment without uv and its packages: {error}")
    call(UV, "build", "--quiet", "--python", sys.executable, "--out-dir", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    call(UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, cwd=folder)
    return python.with_name("joulelab")


def test_help(joulelab: Path, tmp_path: Path) -> None:
    assert "validate" in call(joulelab, "--help", cwd=tmp_path)


def test_plan_of_a_bench(joulelab: Path, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB)
    assert "puck" in call(joulelab, "plan", "sweep", cwd=tmp_path)
