"""NVIDIA GPUs through NVML: power, energy, temperature and clocks of whole boards (a MIG slice has none of its own)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.nvml_sources import (
    IDENTITY,
    SETTINGS,
    Answer,
    Source,
    parse,
    reason,
    request,
    slowdowns,
    sources,
    working,
)
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind
from joulelab.timebase import MonotonicClock
from joulelab.transports import nvml
from joulelab.transports.base import Reply, Transport
from joulelab.transports.call import answers, is_refusal
from joulelab.transports.connection import Connection

MIG = "MIG is on: power, energy and temperature are those of the whole GPU, not of an instance"
NOTHING_NOW = {"NVMLError_NotSupported", "NVMLError_NoData", "NVMLError_NotReady"}
"""Errors of a value that is not there just now, as when it is asked for too often."""
LASTING = {
    "NVMLError_GpuIsLost": "it fell off the bus; see `sudo dmesg | grep Xid`, then reboot",
    "NVMLError_ResetRequired": "run `sudo nvidia-smi --gpu-reset`",
    "NVMLError_LibRmVersionMismatch": "its driver was updated meanwhile; reboot",
}
"""Errors that asking again does not mend, and what does."""
JETSON = re.compile(r"nvgpu|tegra|xavier|orin|thor", re.IGNORECASE)


T = TypeVar("T")


class Driver(Meter):
    """`gpu0_power_instant`, `gpu0_power_average`, `gpu0_module_power_instant`, `gpu0_energy`, `gpu1_...`.

    What a GPU does not support is left out, and `settings["refused"]` says why; one with neither power field has
    `gpu0_power`. The stamps of NVML's fields are the host's wall clock, so they are not kept.
    """

    driver = "nvml"
    wire: ClassVar[bool] = False  # some 20 kB/s a GPU

    class Options(BaseModel):
        """`gpus`: indexes or UUIDs, as `nvidia-smi -L` lists them; all of them where none is named.

        `interval` divides no likely update period, so that readings fall everywhere in it.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=0.017, gt=0)
        gpus: tuple[int | str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._joules: dict[str, float] = {}  # kept over a reopening: that is when a driver may have been loaded again
        self._slowed: dict[str, list[str]] = {}

    def connect(self) -> Transport:
        if self.place.url != "local":
            raise HardwareMissing(f"{self.name}: NVML serves the GPUs of this machine, not those of {self.place.url}")
        return nvml.connect(self.name, self.clock)

    def start(self) -> Sequence[Channel]:
        """Ask every GPU what it supports; HardwareMissing where none tells its power or energy."""
        self._refused: dict[str, str] = {}
        self.identity = self._facts({"driver": "nvmlSystemGetDriverVersion", "nvml": "nvmlSystemGetNVMLVersion"})
        self.settings = {"refused": self._refused}
        self._sources = [source for index in self._chosen() for source in self._gpu(index)]
        if not any(source.channel.gives_energy for source in self._sources):
            raise HardwareMissing(f"{self.name}: {self._nothing()}")
        self._request, self._widths = request(self._sources)
        return [source.channel for source in self._sources]

    def read(self) -> Block:
        """One reading; NaN where a GPU has no value just now, InstrumentFault where it does not answer."""
        reply, found = self._exchange(self._request, lambda data: parse(data, self._widths))
        values = [self._value(*pair) for pair in zip(self._sources, found, strict=True)]
        for source, value in zip(self._sources, values, strict=True):
            if source.channel.kind is Kind.COUNTER:
                self._watch_counter(source.channel, value)
            elif source.channel.unit == "1":
                self._watch_clocks(source.channel, value, reply.before)
        return Block([reply.before], [reply.after], None, [[value] for value in values])

    def _exchange(self, asked: bytes, read: Callable[[bytes], T]) -> tuple[Reply, T]:
        reply = self.exchange(asked)
        try:
            return reply, read(reply.data)
        except ValueError:
            raise InstrumentFault(f"{self.name}: {reply.data[:60]!r} is no answer of NVML", transient=True) from None

    def _value(self, source: Source, answer: Answer) -> float:
        if not isinstance(answer, str):
            return source.value(answer)
        error, _, message = answer[1:].partition(": ")
        if error in NOTHING_NOW:
            return math.nan
        told = f"{self.name}: {_gpu_of(source.channel)}: {message}"
        if mend := LASTING.get(error):
            raise InstrumentFault(f"{told}: {mend}")
        raise InstrumentFault(told, transient=True)

    def _watch_counter(self, channel: Channel, joules: float) -> None:
        """Tell of an energy counter that went back."""
        if math.isnan(joules):
            return
        if joules < (was := self._joules.get(channel.name, joules)):
            message = f"{channel.name} went back from {was:.3f} J to {joules:.3f} J: the driver was loaded again"
            self.tell("fault", source=self.name, message=message)
        self._joules[channel.name] = joules

    def _watch_clocks(self, channel: Channel, mask: float, at: int) -> None:
        """Tell of slowdowns that began or ended, `at` on the bench clock [ns]."""
        if math.isnan(mask):
            return
        reasons = slowdowns(int(mask))
        if reasons != self._slowed.get(channel.name, []):
            self.tell("throttle", instrument=self.name, gpu=_gpu_of(channel), at=at, reasons=reasons)
        self._slowed[channel.name] = reasons

    def _chosen(self) -> list[int]:
        """The indexes of the GPUs that the options name; HardwareMissing where one of them does not answer."""
        count = self._facts({"count": "nvmlDeviceGetCount"})["count"] or 0
        found = self._replies({str(index): f"nvmlDeviceGetUUID {index}" for index in range(count)})
        uuids = {index: uuid for index, uuid in found.items() if not is_refusal(uuid)}
        self._refused |= {f"gpu{i}": reason(refusal) for i, refusal in found.items() if i not in uuids}
        wanted = {str(gpu) for gpu in self.options["gpus"]}
        chosen = {index: uuid for index, uuid in uuids.items() if not wanted or {index, uuid} & wanted}
        if missing := wanted - chosen.keys() - set(chosen.values()):
            there = ", ".join(f"{i} ({reason(said) if i not in uuids else said})" for i, said in found.items())
            raise HardwareMissing(f"{self.name}: no GPU {', '.join(sorted(missing))} to read; NVML knows {there}")
        return [int(index) for index in chosen]

    def _gpu(self, index: int) -> list[Source]:
        """Identify a GPU; the sources that work on it."""
        gpu = f"gpu{index}"
        identity = self.identity[gpu] = self._facts({key: call.format(index) for key, call in IDENTITY.items()})
        settings = self.settings[gpu] = self._facts({key: call.format(index) for key, call in SETTINGS.items()})
        running = settings["processes"] or []
        settings["processes"] = [{"pid": one["pid"], "memory_bytes": one["usedGpuMemory"]} for one in running]
        if (settings["mig_now_and_pending"] or [0])[0]:
            settings["mig"] = MIG
        major, minor = identity["compute_capability"] or (0, 0)
        asked = list(sources(index, (major, minor)))
        calls, widths = request(asked)
        kept, refused = working(asked, self._exchange(calls, lambda data: parse(data, widths))[1])
        self._refused |= refused
        return kept

    def _facts(self, calls: dict[str, str]) -> dict[str, Any]:
        """What calls return; None where a GPU or a driver does not support one."""
        return {key: None if is_refusal(answer) else answer for key, answer in self._replies(calls).items()}

    def _replies(self, calls: dict[str, str]) -> dict[str, Any]:
        asked = "\n".join(calls.values()).encode()
        return self._exchange(asked, lambda data: dict(zip(calls, answers(data), strict=True)))[1]

    def _nothing(self) -> str:
        names = ", ".join(str(what["name"]) for what in self.gpus.values())
        if JETSON.search(names):
            return f"{names}: NVML has no power of a Jetson; use driver: tegrastats, or driver: ina3221"
        why = "; ".join(f"{name}: {why}" for name, why in self._refused.items())
        return f"no power or energy of {names}: {why}" if why else "NVML knows no GPU"

    @property
    def gpus(self) -> dict[str, Any]:
        """The identity of each GPU, by `gpu0` and so on."""
        return {key: what for key, what in self.identity.items() if key.startswith("gpu")}

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        meter = cls("nvml", cls.Options(), MonotonicClock(), place)
        try:
            meter.open()
        except JoulelabError:
            return
        meter.close()
        yield Found("nvml", {}, ", ".join(f"{gpu} is {what['name']}" for gpu, what in meter.gpus.items()))

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        if place.url != "local":
            return
        meter = cls("nvml", cls.Options(), MonotonicClock(), place)
        try:
            meter.open()
        except JoulelabError as error:
            yield Check("nvml", False, *(nvml.trouble(error.__cause__) if error.__cause__ else (str(error), "")))
            return
        meter.close()
        yield Check("nvml", True, f"driver {meter.identity['driver']}, NVML {meter.identity['nvml']}")
        for gpu, what in meter.gpus.items():
            refused = meter.settings["refused"].items()
            lacks = [f"without {name}: {why}" for name, why in refused if name.startswith(f"{gpu}_")]
            notes = filter(None, [meter.settings[gpu].get("mig")])
            yield Check(f"nvml {gpu}", True, "; ".join([what["name"], *lacks, *notes]))


def _gpu_of(channel: Channel) -> str:
    return channel.name.partition("_")[0]
