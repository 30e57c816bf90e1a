"""Where a certificate holds: which meter it was made for, and how that meter averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joulelab.recording import Manifest
from joulelab.timebase import SECOND


def conditions(manifest: Manifest, channel: str) -> dict[str, Any]:
    """What must be the same for a certificate of `channel` to hold: the meter itself, and how it averages.

    A clock's is that of a whole instrument. A simulated meter is drawn anew for each seed.
    """
    name, _, short = channel.partition(".")
    meter = next(i for i in manifest.instruments if i.name == name)
    of = next((c for c in meter.channels if c.name == short), None)
    profile, seed = (meter.options.get("profile"), {"seed": manifest.seed}) if manifest.simulated else ("", {})
    averaging = {"unit": of.unit, "period_s": of.sensor.period_s, "window_s": of.sensor.window_s} if of else {}
    return {
        "driver": f"{meter.driver} {profile}".strip(),
        "serial": meter.wiring.get("serial") or meter.identity.get("serial"),
        "identity": meter.identity | seed,
        "interval_s": meter.interval_ns and meter.interval_ns / SECOND,
        **averaging,
    }


def mismatch(made_for: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first condition that differs, in words; what either side does not know differs from nothing."""
    for name, value in found.items():
        theirs = made_for.get(name)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            if inner := mismatch(theirs, value):
                return inner
        elif None not in (value, theirs) and value != theirs:
            unit = " s" if name.endswith("_s") else ""
            return f"made for {name.removesuffix('_s')} {theirs}{unit}, here it is {value}{unit}"
    return None
