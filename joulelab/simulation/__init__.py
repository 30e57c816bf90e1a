"""Physical models of inference devices and of the sensors on them, on a virtual clock; see docs/simulated-bench.md."""

from joulelab.simulation.bench import SimulatedBench, TruePhase, truth
from joulelab.simulation.profiles import PROFILES
from joulelab.simulation.timing import expected_seconds

__all__ = ["PROFILES", "SimulatedBench", "TruePhase", "expected_seconds", "truth"]
