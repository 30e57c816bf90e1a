"""What is left of a process whose parent is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie: those have no command line."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


def check_child_ends(script: str) -> None:
    """Run a Python script that prints the number of a child of its, and kill it: the child ends as well."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    while is_running(pid):
        time.sleep(0.01)
