"""NVIDIA GPUs through NVML: power, energy and temperature of whole boards (a MIG slice has no power of its own)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.timebase import SECOND, Clock

Source = tuple[Channel, Callable[[], float]]

TURING, GA100, HOPPER = (7, 5), (8, 0), (9, 0)
"""CUDA compute capabilities."""
GAIN_U_REL = 0.05 / 3**0.5
"""5 % either way, rectangular, different from board to board (Yang et al., SC24, doi 10.1109/SC41406.2024.00028)."""
AVERAGE = SensorModel(period_s=0.1, window_s=1.0, resolution=1e-3, gain_u_rel=GAIN_U_REL)
COUNTER = SensorModel(period_s=0.1, resolution=1e-3, gain_u_rel=GAIN_U_REL)
"""In mJ, updated every 100 ms on an A100 (ML.ENERGY blog); others were seen to take 10 to 100 ms."""


def instant(capability: tuple[int, int]) -> SensorModel:
    """What "instantaneous" power is: a mean over a part of the update period (the same paper; it ends with Hopper)."""
    period_s, window_s = (0.02, 0.01) if capability < TURING else (0.1, 0.1)
    if capability in {GA100, HOPPER}:
        window_s = 0.025
    return SensorModel(period_s=period_s, window_s=window_s, resolution=1e-3, gain_u_rel=GAIN_U_REL)


class Driver:
    """`gpu0_power_instant`, `gpu0_power_average` [W], `gpu0_energy` [J], `gpu0_temperature` [degC], `gpu1_...`.

    What a GPU does not support is left out; one with neither power field has `gpu0_power`. The stamps of NVML's fields
    are the host's wall clock, so they are not kept.
    """

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=0.02, gt=0)

    driver = "nvml"

    def __init__(self, name: str, options: Options, clock: Clock) -> None:
        self.name, self.options = name, options.model_dump()
        self.channels: tuple[Channel, ...] = ()
        self.interval_ns = round(options.interval * SECOND)
        self._clock = clock
        self._reads: tuple[Callable[[], float], ...] = ()
        self._nvml: Any = None

    def open(self) -> None:
        """Ask every GPU what it supports; HardwareMissing where there is no driver, no GPU or nothing to read."""
        import pynvml

        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
            found = [source for index in range(pynvml.nvmlDeviceGetCount()) for source in Gpu(pynvml, index).find()]
        except pynvml.NVMLError as error:
            self.close()
            raise HardwareMissing(f"{self.name}: NVML says {error}; `nvidia-smi` has to work first") from None
        if not found:
            self.close()
            raise HardwareMissing(f"{self.name}: NVML knows no GPU that tells its power, energy or temperature")
        self.channels = tuple(channel for channel, _ in found)
        self._reads = tuple(read for _, read in found)

    def read(self) -> Block:
        """One reading; NaN where a GPU has no value just now, InstrumentFault where it does not answer."""
        before = self._clock.now()
        try:
            values = [[read()] for read in self._reads]
        except self._nvml.NVMLError as error:
            raise InstrumentFault(f"{self.name}: NVML says {error}") from None
        return Block([before], [self._clock.now()], None, values)

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


class Gpu:
    """One board, by its NVML index. A call that the board or its driver does not support raises NVMLError."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml, self._name = nvml, f"gpu{index}"
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._capability = nvml.nvmlDeviceGetCudaComputeCapability(self._handle)

    def find(self) -> list[Source]:
        """The channels that the board has, each with what reads it in its unit.

        `power` is the mean of a second on Ampere and newer except GA100, instantaneous before (NVML reference).
        """
        nvml, gpu = self._nvml, self._name
        power = partial(Channel, unit="W", scope=Scope.BOARD)
        now = instant(self._capability)
        usage = AVERAGE if self._capability > GA100 else now
        fields = self._working(
            (power(f"{gpu}_power_instant", sensor=now), partial(self._field, nvml.NVML_FI_DEV_POWER_INSTANT)),
            (power(f"{gpu}_power_average", sensor=AVERAGE), partial(self._field, nvml.NVML_FI_DEV_POWER_AVERAGE)),
        )
        energy = Channel(f"{gpu}_energy", "J", Kind.COUNTER, Scope.BOARD, sensor=COUNTER)
        temperature = Channel(f"{gpu}_temperature", "degC", sensor=SensorModel(resolution=1.0))
        return (fields or self._working((power(f"{gpu}_power", sensor=usage), self._usage))) + self._working(
            (energy, partial(self._field, nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)),
            (temperature, partial(nvml.nvmlDeviceGetTemperature, self._handle, nvml.NVML_TEMPERATURE_GPU)),
        )

    def _working(self, *sources: Source) -> list[Source]:
        return [source for source in sources if self._works(source[1])]

    def _works(self, read: Callable[[], float]) -> bool:
        try:
            return math.isfinite(read())
        except self._nvml.NVMLError:
            return False

    def _field(self, number: int) -> float:
        """A field in mW or mJ as W or J; NaN where it has no value, as when it is asked for too often."""
        nvml = self._nvml
        try:
            field = nvml.nvmlDeviceGetFieldValues(self._handle, [number])[0]
        except nvml.NVMLError_NotSupported:
            return math.nan
        # Drivers differ in the type that they answer with, and some answer 0 for "not supported".
        value = field.value.uiVal if field.valueType == nvml.NVML_VALUE_TYPE_UNSIGNED_INT else field.value.ullVal
        return value * 1e-3 if value and field.nvmlReturn == nvml.NVML_SUCCESS else math.nan

    def _usage(self) -> float:
        watts: float = self._nvml.nvmlDeviceGetPowerUsage(self._handle) * 1e-3
        return watts
