"""From what `lab.yaml` says of instruments to live ones, and from opened ones to what the manifest says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from joulelab.instruments.base import Meter
from joulelab.instruments.simulated import SimulatedMeter
from joulelab.quantities import Channel, Scope
from joulelab.registry import INSTRUMENTS, load_driver
from joulelab.timebase import Clock
from joulelab.transports.connection import connect

Spec = Mapping[str, Any]


def build(specs: Mapping[str, Spec], clock: Clock, refused: dict[str, str]) -> list[tuple[Meter, Spec]]:
    """The instruments of `lab.yaml`, name -> {driver, options, wiring}; `auto` stands for whatever this host has.

    Which of its sensors do not serve, and why, goes into `refused`.
    """
    made: list[tuple[Meter, Spec]] = []
    for name, spec in specs.items():
        driver = load_driver(INSTRUMENTS, spec["driver"])
        if hasattr(driver, "expand"):
            auto = driver()
            found = auto.expand(name, spec["options"])
            refused.update(auto.refused)
            own = {n: {**spec, "driver": d, "options": options} for n, (d, options) in found.items()}
            made += build(own, clock, refused)
        else:
            options = driver.Options.model_validate(spec["options"])
            wiring = spec.get("wiring", {})
            made.append((driver(name, options, clock, connect(wiring.get("connect", "local"), clock)), wiring))
    return made


def describe(instrument: Meter | SimulatedMeter, wiring: Spec) -> dict[str, Any]:
    """An opened instrument as the manifest has it."""
    return {
        "name": instrument.name,
        "driver": instrument.driver,
        "options": instrument.options,
        "wiring": wiring,
        "interval_ns": instrument.interval_ns,
        "channels": wired(instrument.channels, wiring),
        "identity": instrument.identity,
        "settings": instrument.settings,
    }


def wired(channels: Iterable[Channel], wiring: Spec) -> list[dict[str, Any]]:
    """Channels for the manifest or the journal. The scope of a bench meter's power is a fact of its wiring."""
    scope = wiring.get("scope")
    return [replace(c, scope=Scope(scope) if scope and c.gives_energy else c.scope).to_json() for c in channels]
