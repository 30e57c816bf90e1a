"""Recordings of other tools as run directories."""

from joulelab.analysis.imports.runs import KINDS, import_runs

__all__ = ["KINDS", "import_runs"]
