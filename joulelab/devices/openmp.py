"""GCC's OpenMP runtime, which xllamacpp needs: a bare Debian has none, the wheel of scikit-learn carries one."""

from __future__ import annotations

import ctypes
import os
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from joulelab.errors import HardwareMissing

LIBRARY = "libgomp.so.1"


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with `folder` on the library path where the system has no libgomp.

    The carried library is linked to from there by the name that the loader looks for.
    """
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        _link(folder / LIBRARY)
        return os.environ | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    return dict(os.environ)


def _link(link: Path) -> None:
    try:
        carried = [file.locate() for file in files("scikit-learn") or () if file.name.startswith("libgomp")]
    except PackageNotFoundError:
        carried = []
    if not carried:
        raise HardwareMissing(f"llama.cpp needs {LIBRARY}; this brings it: sudo apt-get install -y libgomp1")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(str(carried[0]))
