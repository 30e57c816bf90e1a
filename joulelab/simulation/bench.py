"""A simulated device on the virtual clock with its meters; and the truth of a recorded run, rebuilt from its seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.errors import UserError
from joulelab.recording import Manifest
from joulelab.simulation import chance
from joulelab.simulation.device import Device, Played
from joulelab.simulation.profile import Profile
from joulelab.simulation.profiles import PROFILES
from joulelab.simulation.sensor import Sensor
from joulelab.timebase import SECOND, BenchNs, Clock


def profile_named(name: str) -> Profile:
    """The profile; UserError where there is none of that name."""
    if name not in PROFILES:
        raise UserError(f"{name!r} is not a simulated device; there are {', '.join(PROFILES)}")
    return PROFILES[name]


class SimulatedBench:
    """A device that starts at rest at bench time 0 and plays what it is asked, moving the virtual clock along.

    Engine and meters share it. Given the same profile, seed and inferences at the same times, it does the same again.
    """

    def __init__(self, profile: str, seed: int, clock: Clock) -> None:
        self.profile, self.clock = profile_named(profile), clock
        self._device = Device(self.profile, seed)
        self._sensors = {
            name: Sensor(meter, chance.key(seed, profile, name, meter.channel.name))
            for name, meter in self.profile.meters.items()
        }
        self._read_until = dict.fromkeys(self._sensors, 0)

    def infer(self, number: int, history: int, prompt: int, output: int) -> Played:
        """Play inference `number` of the run now, and let its time pass."""
        played = self._device.play(self.clock.now(), history, prompt, output, self._device.luck(number))
        self.clock.sleep_until(BenchNs(played.tokens[-1]))
        return played

    def read(self, meter: str, t_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps on its own clock [ns] and values of a meter at times [n], ascending, none in the future.

        What every meter has left behind is forgotten.
        """
        self._device.idle_until(self.clock.now())
        found = self._sensors[meter].read(self._device.trace, t_ns)
        self._read_until[meter] = self.clock.now() - self._sensors[meter].reach_ns
        self._device.trace.drop_before(min(self._read_until.values()))
        return found

    def describe(self) -> dict[str, Any]:
        """What is simulated, for the manifest."""
        model = self.profile.model
        return {
            "simulated": True,
            "model": model.model,
            "quant": model.quant,
            "threads": None,
            "batch": 1,
            "ubatch": self.profile.timing.ubatch,
            "architecture": asdict(model),
            "profile": self.profile.name,
            "device": self.profile.device,
            "sources": self.profile.sources,
        }


@dataclass(frozen=True)
class TruePhase:
    """What one phase (`prefill`, `decode`, or `total`: both) really took [s] and drew [J], by "instrument.channel"."""

    inference: int
    phase: str
    start_ns: int
    stop_ns: int
    energy_j: Mapping[str, float]

    @property
    def duration_s(self) -> float:
        return (self.stop_ns - self.start_ns) / SECOND


def truth(manifest: Manifest, inferences: Iterable[Mapping[str, Any]]) -> list[TruePhase]:
    """The truth of a run on a simulated device, from its manifest and its journal's inference records, none left out.

    Of these only number, sizes and start time are used; everything else follows from the manifest's profile and seed.
    """
    device = Device(profile_named(manifest.stanza["options"]["profile"]), manifest.seed)
    return [phase for record in inferences for phase in _replay(device, record)]


def _replay(device: Device, record: Mapping[str, Any]) -> list[TruePhase]:
    number, start = record["inference"], record["phases"][0]["start"]
    device.trace.drop_before(start)
    played = device.play(start, record["history"], record["prompt"], record["output"], device.luck(number))
    first, stop = played.tokens[0], played.tokens[-1]
    edges = {"prefill": (start, first), "decode": (first, stop), "total": (start, stop)}
    return [
        TruePhase(number, phase, *edge, energy_j=_energies(device, *edge))
        for phase, edge in edges.items()
        if edge[1] > edge[0]
    ]


def _energies(device: Device, start: int, stop: int) -> dict[str, float]:
    before, after = device.trace.energy(np.array([start, stop]))
    seconds = (stop - start) / SECOND
    return {
        f"{name}.{meter.channel.name}": float(meter.share * (after - before) + meter.offset_w * seconds)
        for name, meter in device.profile.meters.items()
    }
