"""What NVML may be asked about a GPU, what its sensors do to the truth, and how its answers are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.transports.call import answers, is_refusal

TURING, GA100, HOPPER = (7, 5), (8, 0), (9, 0)
"""CUDA compute capabilities."""
GAIN_U_REL = 0.05 / 3**0.5
"""5 % either way, rectangular, different from board to board (Yang et al., SC24, doi 10.1109/SC41406.2024.00028)."""
AVERAGE = SensorModel(period_s=0.1, window_s=1.0, resolution=1e-3, gain_u_rel=GAIN_U_REL)
COUNTER = SensorModel(period_s=0.1, resolution=1e-3, gain_u_rel=GAIN_U_REL)
"""In mJ, updated every 100 ms on an A100 (ML.ENERGY blog); others were seen to take 10 to 100 ms."""

POWER_AVERAGE, POWER_INSTANT, TOTAL_ENERGY = 185, 186, 83
"""Field ids of nvml.h."""
POWER = {"power": (0, Scope.BOARD), "module_power": (1, Scope.INPUT), "memory_power": (2, Scope.RAIL)}
"""NVML's scopes of power: the GPU, the module with the CPU beside it, the memory as a part of the GPU."""
SLOWDOWNS = {
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
}
"""The clocks event reasons that are power, heat or hardware, by their bits, named as nvidia-smi names them."""
NOT_AVAILABLE = {2**32 - 1, 2**64 - 1}
"""NVML_VALUE_NOT_AVAILABLE in its two widths."""

IDENTITY = {
    "name": "nvmlDeviceGetName {}",
    "uuid": "nvmlDeviceGetUUID {}",
    "serial": "nvmlDeviceGetSerial {}",
    "vbios": "nvmlDeviceGetVbiosVersion {}",
    "compute_capability": "nvmlDeviceGetCudaComputeCapability {}",
    "ecc_now_and_pending": "nvmlDeviceGetEccMode {}",
}
SETTINGS = {
    "persistence_mode": "nvmlDeviceGetPersistenceMode {}",
    "power_limit_mw": "nvmlDeviceGetPowerManagementLimit {}",
    "enforced_power_limit_mw": "nvmlDeviceGetEnforcedPowerLimit {}",
    "application_clock_sm_mhz": "nvmlDeviceGetApplicationsClock {} 1",
    "application_clock_memory_mhz": "nvmlDeviceGetApplicationsClock {} 2",
    "mig_now_and_pending": "nvmlDeviceGetMigMode {}",
    "processes": "nvmlDeviceGetComputeRunningProcesses {}",
}

Answer = float | str
"""A number, or the refusal of one."""


def instant(capability: tuple[int, int]) -> SensorModel:
    """What "instantaneous" power is: a mean over a part of the update period (the same paper; it ends with Hopper)."""
    period_s, window_s = (0.02, 0.01) if capability < TURING else (0.1, 0.1)
    if capability in {GA100, HOPPER}:
        window_s = 0.025
    return SensorModel(period_s=period_s, window_s=window_s, resolution=1e-3, gain_u_rel=GAIN_U_REL)


class Source(NamedTuple):
    """A channel, the call that reads it, the factor into its unit, and, of `nvmlDeviceGetFieldValues`, the field."""

    channel: Channel
    call: str
    scale: float = 1.0
    field: str = ""

    def value(self, answer: float) -> float:
        """An answer in the channel's unit; NaN where it is none: some drivers say 0 W for "not supported"."""
        if answer in NOT_AVAILABLE or (self.channel.gives_energy and answer <= 0):
            return math.nan
        return answer * self.scale


def sources(index: int, capability: tuple[int, int]) -> Iterator[Source]:
    """What a GPU may have; of several sources for one channel the first that works counts.

    `power` is the mean of a second on Ampere and newer except GA100, instantaneous before (NVML reference).
    """
    gpu, fields = f"gpu{index}", f"nvmlDeviceGetFieldValues {index}"
    now = instant(capability)
    for quantity, (scope, includes) in POWER.items():
        power = partial(Channel, unit="W", scope=includes)
        yield Source(power(f"{gpu}_{quantity}_instant", sensor=now), fields, 1e-3, f"{POWER_INSTANT}.{scope}")
        yield Source(power(f"{gpu}_{quantity}_average", sensor=AVERAGE), fields, 1e-3, f"{POWER_AVERAGE}.{scope}")
    energy = Channel(f"{gpu}_energy", "J", Kind.COUNTER, Scope.BOARD, sensor=COUNTER)
    yield Source(energy, fields, 1e-3, f"{TOTAL_ENERGY}.0")
    yield Source(energy, f"nvmlDeviceGetTotalEnergyConsumption {index}", 1e-3)
    usage = Channel(f"{gpu}_power", "W", scope=Scope.BOARD, sensor=AVERAGE if capability > GA100 else now)
    yield Source(usage, f"nvmlDeviceGetPowerUsage {index}", 1e-3)
    temperature = Channel(f"{gpu}_temperature", "degC", sensor=SensorModel(resolution=1.0))
    yield Source(temperature, f"nvmlDeviceGetTemperature {index} 0")
    for number, clock in ((1, "sm"), (2, "memory")):
        channel = Channel(f"{gpu}_{clock}_clock", "Hz", sensor=SensorModel(resolution=1e6))
        yield Source(channel, f"nvmlDeviceGetClockInfo {index} {number}", 1e6)
    for name in ("Event", "Throttle"):  # the second is what drivers before R535 know
        reasons = Channel(f"{gpu}_clocks_event_reasons", "1")
        yield Source(reasons, f"nvmlDeviceGetCurrentClocks{name}Reasons {index}")


def request(asked: Sequence[Source]) -> tuple[bytes, list[int]]:
    """The request for sources, fields of one GPU in one call, and how many values each line of its reply has."""
    calls: dict[str, list[str]] = {}
    for source in asked:
        calls.setdefault(source.call, []).append(source.field)
    lines = [" ".join([call, *fields]).strip() for call, fields in calls.items()]
    return "\n".join(lines).encode(), [len(fields) for fields in calls.values()]


def parse(data: bytes, widths: Sequence[int]) -> list[Answer]:
    """The answers to a `request`, in the order of its sources; ValueError where `data` holds anything else."""
    found: list[Answer] = []
    for line, width in zip(answers(data), widths, strict=True):
        values = line if isinstance(line, list) else [line] * (width if isinstance(line, str) else 1)
        if len(values) != width or not all(map(_is_answer, values)):
            raise ValueError(f"{values} is no answer")
        found += values
    return found


def _is_answer(value: object) -> bool:
    if isinstance(value, str):
        return is_refusal(value)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**64


def slowdowns(mask: int) -> list[str]:
    """The clocks event reasons in a mask that slow a GPU down, not those that let it rest."""
    return [name for bit, name in SLOWDOWNS.items() if mask & bit]


def reason(refusal: str) -> str:
    """The library's message in a refusal."""
    return refusal.partition(": ")[2]


def working(asked: Sequence[Source], found: Sequence[Answer]) -> tuple[list[Source], dict[str, str]]:
    """Of one GPU's sources those that answered with a number, and why the other channels have none.

    `power` stands in for the two fields that say which power they mean. Where there is a CPU beside the GPU, its energy
    is in the counter (seen on a GH200: Zeus, pull request 172).
    """
    whole = {source.field: answer for source, answer in zip(asked, found, strict=True) if source.field.endswith(".0")}
    kept: dict[str, Source] = {}
    refused: dict[str, str] = {}
    for source, answer in zip(asked, found, strict=True):
        name = source.channel.name
        if why := _refusal(source, answer, whole):
            refused.setdefault(name, why)
        else:
            kept.setdefault(name, source)
    gpu = asked[0].channel.name.partition("_")[0]
    if {f"{gpu}_power_instant", f"{gpu}_power_average"} & kept.keys():
        kept.pop(f"{gpu}_power", None)
        refused.pop(f"{gpu}_power", None)
    if any(name.startswith(f"{gpu}_module_power") for name in kept) and (energy := kept.get(f"{gpu}_energy")):
        kept[f"{gpu}_energy"] = energy._replace(channel=replace(energy.channel, scope=Scope.INPUT))
    return list(kept.values()), {name: why for name, why in refused.items() if name not in kept}


def _refusal(source: Source, answer: Answer, whole: dict[str, Answer]) -> str:
    """Why a source does not work; drivers that know no scopes answer for the whole GPU instead (empty: it works)."""
    if isinstance(answer, str):
        return reason(answer)
    if math.isnan(source.value(answer)):
        return f"answers {answer:g}"
    field, _, scope = source.field.partition(".")
    if scope not in {"", "0"} and answer == whole[f"{field}.0"]:
        return "answers the same as the whole GPU"
    return ""
