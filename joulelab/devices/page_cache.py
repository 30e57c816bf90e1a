"""The kernel's page cache: without a file's pages in it, a load reads the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def evict(files: Iterable[Path]) -> None:
    """Drop the pages of files that no process has mapped; those that were just written reach the disk first.

    What a disk or a virtual machine's host keeps by itself stays (posix_fadvise(2), POSIX_FADV_DONTNEED).
    """
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
