"""The three devices of the simulated bench. docs/simulated-bench.md has the derivation of every parameter."""

from joulelab.simulation.profiles.compute_puck import COMPUTE_PUCK
from joulelab.simulation.profiles.edge_gpu import EDGE_GPU
from joulelab.simulation.profiles.phone import PHONE

PROFILES = {profile.name: profile for profile in (EDGE_GPU, PHONE, COMPUTE_PUCK)}

__all__ = ["COMPUTE_PUCK", "EDGE_GPU", "PHONE", "PROFILES"]
