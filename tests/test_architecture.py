"""The floors of the house as they are when it runs; import-linter reads the same from the source."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
TIDY_IMPORTS = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
HEAVY = set(TIDY_IMPORTS["banned-module-level-imports"])
WET = {f"joulelab.{room}" for room in ("bench", "devices", "instruments", "protocols", "simulation", "transports")}

IMPORT_ALL = """
import importlib, pkgutil
for room in {rooms}:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        importlib.import_module(module.name)
"""


def modules_after(code: str) -> set[str]:
    """Everything that a fresh Python has loaded once it has run `code`."""
    run = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout.split())


def within(packages: set[str], modules: set[str]) -> set[str]:
    """The modules that lie in one of the packages."""
    return {module for module in modules if any(f"{module}.".startswith(f"{package}.") for package in packages)}


def test_floors() -> None:
    assert lint_imports(no_cache=True, no_logo=True) == 0


def test_dry_side_loads_no_wet_module() -> None:
    loaded = modules_after(IMPORT_ALL.format(rooms=("joulelab.analysis", "joulelab.report")))
    assert {"joulelab.analysis", "joulelab.report"} <= loaded
    assert not within(WET, loaded)


@pytest.mark.parametrize("module", ["joulelab", "joulelab.cli"])
def test_what_starts_fast_loads_nothing_heavy(module: str) -> None:
    assert not within(HEAVY, modules_after(f"import {module}"))


def test_optional_libraries_load_only_where_they_are_used() -> None:
    loaded = modules_after(IMPORT_ALL.format(rooms=("joulelab",)))
    assert "joulelab.instruments.base" in loaded
    assert not within({"gguf", "pynvml", "torch", "transformers", "xllamacpp"}, loaded)
