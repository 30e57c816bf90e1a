"""What is said of loading models and of moving caches."""

from __future__ import annotations

from collections.abc import Sequence

from joulelab.analysis.space.costs import DeviceCosts, knows
from joulelab.analysis.space.link import Link
from joulelab.report.numbers import quantity


def named(link: Link) -> str:
    return f"{link.bandwidth * 8 / 1e6:g} Mbit/s and {link.rtt_s * 1e3:g} ms"


def link_alone(costs: Sequence[DeviceCosts], targets: Sequence[str]) -> list[str]:
    """Lines where nothing says what devices themselves take to move a cache."""
    lacking: dict[str, list[str]] = {}
    for target in targets:
        models = [(each.device, model) for each in costs for model in each.models if model.target == target]
        names = ", ".join(device for device, model in models if not knows(model, "transfer"))
        lacking.setdefault(names, []).append(target)
    said = "What moving a cache out and in takes was not measured on"
    return [
        f"{said} {names}: of the {' and '.join(its)} of a transfer there only the link's part counts."
        for names, its in lacking.items()
        if names
    ]


def loading(costs: Sequence[DeviceCosts]) -> list[str]:
    """A line where something says how long loading takes."""
    known = [f"{quantity(each.loading_s, 's')} on {each.device}" for each in costs if each.loading_s is not None]
    return [f"Models are loaded; loading takes {', '.join(known)}."] if known else []
