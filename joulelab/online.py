"""`check --online` opens what the lab file names; `check --load` plays a load and says which channels see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joulelab.analysis.wiring import judge
from joulelab.bench import Plan, Stop, instrument_spec, record
from joulelab.errors import JoulelabError
from joulelab.instruments.base import Meter
from joulelab.instruments.build import build, wired
from joulelab.lab import Lab
from joulelab.registry import DEVICES, ENGINES, PROTOCOLS, load_driver
from joulelab.timebase import MonotonicClock

Row = dict[str, Any]


def check_instruments(lab: Lab) -> list[Row]:
    """Open each instrument, take a reading, and close it: what it says, or what is wrong with it."""
    rows = []
    for name in lab.instruments:
        refused: dict[str, str] = {}
        try:
            for meter, wiring in build({name: instrument_spec(lab, name)}, MonotonicClock(), refused):
                rows.append({"instrument": meter.name, **_opened(meter, wiring)})
        except JoulelabError as error:
            rows.append({"instrument": name, "ok": False, "message": str(error)})
        rows += [{"instrument": f"{name} ({part})", "ok": True, "message": why} for part, why in refused.items()]
    return rows


def _opened(meter: Meter, wiring: Mapping[str, Any]) -> Row:
    meter.open()
    try:
        values = meter.read().values
        channels = wired(meter.channels, wiring)
        read = {c["name"]: _text(values[k], c) for k, c in enumerate(channels)}
        expected = wiring.get("serial")
        told = str(meter.identity.get("serial", ""))
        if expected and told and expected != told:
            return {"ok": False, "message": f"its serial number is {told}, lab.yaml says {expected}"}
        who = ", ".join(f"{key} {value}" for key, value in meter.identity.items()) or "open"
        return {"ok": True, "message": who, "reads": read, "settings": meter.settings}
    finally:
        meter.close()


def _text(values: Sequence[float], channel: Mapping[str, Any]) -> str:
    scope = f" at the {channel['scope']}" if channel["scope"] else ""
    if not len(values) or math.isnan(values[-1]):
        return "no reading yet"
    return f"{values[-1]:.6g} {channel['unit'].removeprefix('1')}{scope}".strip()


def check_devices(lab: Lab) -> list[Row]:
    """Start each device's engine and end it again."""
    rows = []
    for name, device in lab.devices.items():
        if device.group == DEVICES:
            rows.append({"device": name, "ok": True, "message": "simulated"})
            continue
        try:
            engine = load_driver(ENGINES, device.driver)(name, device.options, MonotonicClock())
            engine.open()
            try:
                told = engine.describe()
            finally:
                engine.close()
            rows.append({"device": name, "ok": True, "message": f"serves {told['model']}"})
        except JoulelabError as error:
            rows.append({"device": name, "ok": False, "message": str(error)})
    return rows


def check_load(lab: Lab, folder: Path, stop: Stop, progress: Callable[[str, int], Any]) -> list[Row]:
    """Load each device in turn, all instruments watching: a row a device and channel, as `analysis.wiring` has them.

    The runs stay in `folder`; `progress` makes a context that gives a bar's advance.
    """
    everything = {name: instrument_spec(lab, name) for name in lab.instruments}
    arguments = load_driver(PROTOCOLS, "wiring").Options().model_dump(mode="json")
    runs = {}
    for name, device in lab.devices.items():
        if device.group != DEVICES:
            plan = Plan(name, device.model_dump(mode="json"), everything, "wiring", arguments)
            with progress(name, len(plan.steps())) as advance:
                runs[name] = record(plan, folder, stop, advance)
    return judge(runs)
