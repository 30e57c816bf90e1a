"""NVIDIA's management library, through nvidia-ml-py, as a transport."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from joulelab.errors import HardwareMissing
from joulelab.timebase import Clock
from joulelab.transports.call import CallTransport, refusal

MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of nvmlValue_t for each nvmlValueType_t: drivers differ in the type that they answer a field with."""
TROUBLES = {
    "NVMLError_LibraryNotFound": (
        "libnvidia-ml.so.1 is not found: there is no NVIDIA driver, or the container was started without --gpus",
        "sudo apt install nvidia-driver",
    ),
    "NVMLError_DriverNotLoaded": ("the NVIDIA kernel module is not loaded", "sudo modprobe nvidia"),
    "NVMLError_LibRmVersionMismatch": (
        "the NVIDIA driver was updated, but the kernel still runs the old one",
        "sudo reboot",
    ),
    "NVMLError_NoPermission": ("no permission on /dev/nvidia*", "sudo usermod -aG video $USER"),
}
"""Why NVML does not start, by the binding's error: what to say, and the command that mends it."""


def connect(name: str, clock: Clock) -> CallTransport:
    """NVML's functions by their names, as `calls` takes them; HardwareMissing, caused by the error, where it fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        why, command = trouble(error)
        raise HardwareMissing(f"{name}: {why}: `{command}`") from error
    return CallTransport(calls(pynvml), pynvml.NVMLError, clock, pynvml.nvmlShutdown)


def trouble(error: BaseException) -> tuple[str, str]:
    """Why NVML did not start, and the command that mends it."""
    return TROUBLES.get(type(error).__name__, (f"NVML says {error}, and nvidia-smi has to work first", "nvidia-smi"))


def calls(nvml: Any) -> Callable[..., object]:
    """NVML's functions for a CallTransport. The first argument of a device's function is the index of the GPU.

    The further arguments of `nvmlDeviceGetFieldValues` are fields, `id.scope`; its answer has an item for each, the
    value or the refusal.
    """
    handle = cache(nvml.nvmlDeviceGetHandleByIndex)
    ids = cache(lambda fields: [tuple(map(int, field.split("."))) for field in fields])

    def call(function: str, *arguments: str) -> object:
        if not arguments:
            return getattr(nvml, function)()
        gpu, *rest = arguments
        if function == "nvmlDeviceGetFieldValues":
            values = nvml.nvmlDeviceGetFieldValues(handle(int(gpu)), ids(tuple(rest)))
            return [_value(nvml, value) for value in values]
        answer = getattr(nvml, function)(handle(int(gpu)), *map(int, rest))
        return _members(answer) if isinstance(answer, ctypes.Structure) else answer

    return call


def _members(structure: ctypes.Structure) -> dict[str, object]:
    return {field[0]: getattr(structure, field[0]) for field in structure._fields_}


def _value(nvml: Any, field: Any) -> object:
    if field.nvmlReturn != nvml.NVML_SUCCESS:
        return refusal(nvml.NVMLError(field.nvmlReturn))
    return getattr(field.value, MEMBERS[field.valueType])
