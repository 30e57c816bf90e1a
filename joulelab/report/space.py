"""The inference space in the report: which device is best where for each language model, or what a device waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.shapes import label
from joulelab.analysis.space.aims import Aim
from joulelab.analysis.space.bottlenecks import bottlenecks
from joulelab.analysis.space.boundaries import boundaries
from joulelab.analysis.space.box import mapped
from joulelab.analysis.space.costs import DeviceCosts, device_costs
from joulelab.analysis.space.regions import region_maps
from joulelab.errors import DataInvalid
from joulelab.report.bottleneck_maps import bottleneck_map
from joulelab.report.figures import Picture
from joulelab.report.map_page import meters, pictures

AIMS = [Aim("latency"), Aim("energy"), Aim("edp")]


@dataclass(frozen=True)
class Space:
    """What a language model costs on the devices that run it. `notes` say what was compared, or why nothing was."""

    title: str
    origins: list[str]
    notes: list[str]
    pictures: list[Picture]


def spaces(models: Sequence[Model]) -> list[Space]:
    """One for each language model, and for each device of which nobody knows what it runs. To be drawn in the style."""
    groups: dict[str, list[Model]] = {}
    for model in models:
        known = model.subject["model"]
        name = label(known, model.subject["quant"]) if known else f"{model.subject['device']}, language model not known"
        groups.setdefault(name, []).append(model)
    return [_space(name, own) for name, own in groups.items()]


def _space(name: str, models: Sequence[Model]) -> Space:
    origins = sorted({model.origin for model in models})
    try:
        return Space(name, origins, *_drawn(models))
    except DataInvalid as reason:
        return Space(name, origins, [f"no map, because {reason}."], [])


def _drawn(models: Sequence[Model]) -> tuple[list[str], list[Picture]]:
    costs = device_costs(models, energy=False)
    if len(costs) == 1:
        return [], [bottleneck_map(bottlenecks(costs, mapped(costs)))]
    costs, aims, doubts = _comparable(models, costs)
    grid = mapped(costs)
    maps = region_maps(costs, grid, aims)
    edges = [boundaries(found, costs) for found in maps]
    return [*meters(costs), *doubts], [*pictures(costs, maps, edges, [bottlenecks(costs, grid)])]


def _comparable(models: Sequence[Model], timed: list[DeviceCosts]) -> tuple[list[DeviceCosts], list[Aim], list[str]]:
    """With energies where they can be compared, else with the times alone and why."""
    try:
        return device_costs(models), AIMS, []
    except DataInvalid as reason:
        return timed, AIMS[:1], [f"Only latency is compared: {reason}."]
