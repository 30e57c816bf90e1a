"""How long a person waits for the command line to answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns

SPAWNS = 15


def start() -> Iterator[Row]:
    """Starting the command line and importing the package."""
    commands = {
        "joulelab --help": [str(Path(sys.executable).with_name("joulelab")), "--help"],
        "import joulelab": [sys.executable, "-c", "import joulelab"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    candidates = {name: lambda command=command: seconds(lambda: _spawn(command)) for name, command in commands.items()}
    wall_ms = {name: 1e3 * wall for name, wall in medians(taking_turns(SPAWNS, candidates)).items()}
    bare = {"python -c pass": wall_ms["python -c pass"]}
    yield Row("joulelab --help", wall_ms["joulelab --help"], "ms", 250, "lower", bare)
    imported = wall_ms["import joulelab"] - bare["python -c pass"]
    yield Row("import joulelab, beyond Python's own start", imported, "ms", 50, "lower", bare)


def _spawn(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
