"""The manifest: everything that was known before the first step, written once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from joulelab.errors import DataInvalid
from joulelab.quantities import Channel
from joulelab.timebase import SECOND

FORMAT = 1
"""The version of the run directory's format that this program writes, and the newest that it reads."""


def stream_period_ns(channels: Sequence[Channel]) -> int | None:
    """The period of a stream's readings [ns], None where its sensor models state none."""
    periods = [channel.sensor.period_s for channel in channels if channel.sensor.period_s]
    return round(min(periods) * SECOND) if periods else None


@dataclass(frozen=True)
class Instrument:
    """An instrument as it was opened: all that analysis needs to know of it.

    `interval_ns` is None where it streams. `wiring` is what only `lab.yaml` knows: `feeds`, `upstream_of`, `scope`,
    `serial`, `calibrated`, as far as given. `identity` and `settings` are what the meter said of itself.
    """

    name: str
    driver: str
    options: dict[str, Any]
    interval_ns: int | None
    channels: tuple[Channel, ...]
    wiring: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Instrument:
        return cls(**{**data, "channels": tuple(Channel.from_json(channel) for channel in data["channels"])})

    @property
    def period_ns(self) -> int | None:
        """How far apart its readings are [ns], as polled or as its fastest channel streams; None where unknown."""
        if self.interval_ns is not None:
            return self.interval_ns
        return stream_period_ns(self.channels)


@dataclass(frozen=True)
class Manifest:
    """What ran, on what, with which settings and versions.

    `power` names the power channels as "instrument.channel", widest scope first; `stanza` is the device as `lab.yaml`
    has it; `engine` is what the engine says of itself (model, quant, threads, batch); `arguments` are the protocol's.
    """

    session: str
    run: str
    device: str
    protocol: str
    arguments: dict[str, Any]
    seed: int
    created: str
    clock: str
    clock_offset_ns: int
    simulated: bool
    stanza: dict[str, Any]
    engine: dict[str, Any]
    instruments: tuple[Instrument, ...]
    power: tuple[str, ...]
    host: dict[str, Any]
    versions: dict[str, str]
    certificates: dict[str, str]
    format: int = FORMAT

    @property
    def channels(self) -> dict[str, Channel]:
        """Every channel by "instrument.channel"."""
        return {f"{i.name}.{channel.name}": channel for i in self.instruments for channel in i.channels}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and upgrade; DataInvalid where the file is no manifest or newer than this program."""
        run = path.parent.name
        try:
            data = json.loads(path.read_text())
            if (found := data["format"]) > FORMAT:
                raise DataInvalid(f"{run} has format {found}, this joulelab reads up to {FORMAT}: update joulelab")
            instruments = tuple(Instrument.from_json(i) for i in data.pop("instruments"))
            return cls(**{**data, "instruments": instruments, "power": tuple(data["power"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataInvalid(f"the manifest of {run} is damaged: run 'joulelab verify'") from None
