"""What every test gets: plots without a window, hypothesis without a clock, and a look at what was left running."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "agg"
settings.register_profile("joulelab", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("joulelab")


GRACE_S = 2.0
"""Some libraries tell their threads to end and do not wait for it."""


def _running() -> set[str]:
    """Name the threads and the child processes, ended ones that nobody waited for included."""
    found = {f"thread {thread.name}" for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread ended meanwhile
            found |= {f"process {pid}" for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def _leaves_nothing_running() -> Iterator[None]:
    before = _running()
    yield
    deadline = time.monotonic() + GRACE_S
    while (left := _running() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, "the test left something running"
