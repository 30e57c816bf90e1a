"""The run directory: one execution of a protocol on one device, append-only, sealed at the end, always loadable."""

from joulelab.recording.manifest import Manifest
from joulelab.recording.reader import RunDir, find_run, find_runs, sessions

__all__ = ["Manifest", "RunDir", "find_run", "find_runs", "sessions"]
