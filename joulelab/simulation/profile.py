"""What describes a simulated device and the meters on it; every group of parameters names its source."""

from __future__ import annotations

from dataclasses import dataclass

from joulelab.quantities import Channel
from joulelab.simulation.architecture import LLAMA_3_2_1B_Q8_0, Architecture


@dataclass(frozen=True)
class Timing:
    """The roofline: launches [s], arithmetic [FLOP/s], bandwidths [B/s], tile and micro-batch [tokens].

    Above `switch_tokens` of context another attention kernel reads the cache, at `kv_bandwidth_long`.
    """

    request_launch_s: float
    pass_launch_s: float
    flops: float
    weight_bandwidth: float
    kv_bandwidth: float
    kv_bandwidth_long: float
    switch_tokens: int
    tile: int
    ubatch: int
    source: str


@dataclass(frozen=True)
class Power:
    """At the supply input [W]: idle, and what working at all, fully busy memory and fully busy arithmetic add.

    Power follows the load with the time constant `ramp_s`, and overshoots a rise by `onset_rel` of it, which decays
    within `onset_s` [s]. Background activity moves the idle power by `background_rel` (standard deviation). Leakage is
    `leakage_w` at the temperature of the idle device and grows exponentially, by `leakage_per_k`.
    """

    idle_w: float
    active_w: float
    memory_w: float
    compute_w: float
    ramp_s: float
    onset_rel: float
    onset_s: float
    background_rel: float
    leakage_w: float
    leakage_per_k: float
    source: str


@dataclass(frozen=True)
class Thermal:
    """One thermal resistance [K/W of input power] to the ambient [degC] with one time constant [s]."""

    ambient_c: float
    resistance: float
    time_constant_s: float
    source: str


@dataclass(frozen=True)
class Noise:
    """Run-to-run coefficients of variation, and stalls of the allocator: probability and mean length [s]."""

    prefill_cv: float
    decode_cv: float
    power_cv: float
    stall_probability: float
    stall_mean_s: float
    source: str


@dataclass(frozen=True)
class Meter:
    """A channel and how it is read. It sees `share` times the input power plus `offset_w`; a poll takes `latency_ns`.

    `clock_u_rel` is the standard uncertainty of the rate of the sensor's own clock.
    """

    channel: Channel
    interval_ns: int
    latency_ns: int
    clock_u_rel: float
    source: str
    share: float = 1.0
    offset_w: float = 0.0


@dataclass(frozen=True)
class Profile:
    """A device, the meter in its supply line and its own gauge. All run the same model, so that they compare."""

    name: str
    device: str
    timing: Timing
    power: Power
    thermal: Thermal
    noise: Noise
    meter: Meter
    gauge: Meter
    model: Architecture = LLAMA_3_2_1B_Q8_0

    @property
    def meters(self) -> dict[str, Meter]:
        return {"meter": self.meter, "gauge": self.gauge}

    @property
    def sources(self) -> dict[str, str]:
        groups = ("timing", "power", "thermal", "noise", "meter", "gauge")
        return {name: getattr(self, name).source for name in groups}
