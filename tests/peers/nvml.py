"""NVIDIA's management library for tests: `nvml_shim.c`, compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "nvml_shim.c"


def build(folder: Path) -> Path:
    """A `libnvidia-ml.so.1` in `folder`; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the NVML library of this test (Debian: apt install gcc libc6-dev)")
    built = folder / "libnvidia-ml.so.1"
    options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *options, "-o", built, SOURCE, "-lm"], check=True)
    return built
