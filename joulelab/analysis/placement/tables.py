"""What each turn of a session costs on each device, by how much of the context the device's cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from joulelab.analysis.placement.turns import Turn, histories
from joulelab.analysis.space.costs import Idle
from joulelab.analysis.space.link import Link, cache_bytes, parse_link
from joulelab.calibration.integrals import Floats, Ints
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import parse_quantity

Objective = Literal["latency", "energy", "edp", "energy-capped"]
"""Those that add up over the turns; the energy-delay product is declared to be per turn."""
OVER_CAP = 1e9
"""What breaking the cap costs [J]: more than any session, so that as few turns as possible break it."""
RE_PREFILL, TRANSFER = 0, 1
"""The ways to bring a device's cache up to date."""


class Device(Protocol):
    """What a device's inferences cost, and what it takes by itself to move a cache: `DeviceCosts`, or the truth of a
    simulated one.
    """

    @property
    def device(self) -> str: ...
    @property
    def idle_w(self) -> float | None: ...
    @property
    def kv_bytes_per_token(self) -> float | None: ...
    def seconds(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, /) -> Floats: ...
    def joules(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, /) -> Floats: ...
    def moving_seconds(self, tokens: ArrayLike, /) -> Floats: ...
    def moving_joules(self, tokens: ArrayLike, /) -> Floats: ...


@dataclass(frozen=True)
class Setting:
    """What is minimised, over which link (None: nothing is transferred), whether devices keep the caches of earlier
    turns, and whether those that do not work sleep. `cap_s` is the latency that `energy-capped` keeps to.
    """

    objective: Objective
    cap_s: float | None = None
    link: Link | None = None
    copies: bool = True
    idle: Idle = "sleep"


def setting_of(objective: Objective, cap: str | None, link: str | None, *, copies: bool, idle: Idle) -> Setting:
    """The setting as the command line says it; UserError where that is not clear."""
    if (cap is not None) != (objective == "energy-capped"):
        raise UserError("--cap and --objective energy-capped go together: --objective energy-capped --cap 5s")
    cap_s = None if cap is None else parse_quantity(cap, "s")
    return Setting(objective, cap_s, None if link is None else parse_link(link), copies, idle)


class View(NamedTuple):
    """A session's turns, of which those from `first` on are still to be placed."""

    turns: Sequence[Turn]
    first: int = 0


@dataclass(frozen=True)
class Table:
    """Seconds and joules (None for latency) [turns from `first` on, prefixes, devices, ways], `kv` bytes a token.

    Prefix l holds the first l turns. What cannot be is infinite: prefixes that are still to come, transfers of nothing
    or without a link, and what lies outside the range of a device's models.
    """

    view: View
    seconds: Floats
    joules: Floats | None
    kv: Floats

    @property
    def history(self) -> Ints:
        """Tokens in the context before each turn and after the last [turns + 1]."""
        return np.array(histories(self.view.turns))

    def value(self, setting: Setting) -> Floats:
        """What is minimised, in the table's shape."""
        if self.joules is None:
            return self.seconds
        if setting.objective == "edp":
            return self.joules * self.seconds
        if setting.objective == "energy":
            return self.joules
        assert setting.cap_s is not None
        return self.joules + OVER_CAP * (self.seconds > setting.cap_s)


class _Fleet(NamedTuple):
    """Of each device [devices]: cache [B/token], what the others draw while it works, and what all draw while a cache
    is on the link to it [W].
    """

    kv: Floats
    others_w: Floats
    waiting_w: Floats

    @classmethod
    def of(cls, devices: Sequence[Device], setting: Setting) -> _Fleet:
        kv = np.array([cache_bytes(d.device, d.kv_bytes_per_token) if setting.link else 0.0 for d in devices])
        idle = np.array([_idle(device, setting) for device in devices])
        others = idle.sum() - idle if setting.idle == "awake" else np.zeros(len(idle))
        return cls(kv, others, others + idle)


def _idle(device: Device, setting: Setting) -> float:
    """Idle power [W], 0 where nothing asks for it."""
    if setting.objective == "latency" or (setting.idle == "sleep" and setting.link is None):
        return 0.0
    if device.idle_w is None:
        raise DataInvalid(f"nothing measured the idle power of {device.device}: leave --link and --idle awake out")
    return device.idle_w


class Grid(NamedTuple):
    """The inferences [n] of a view without transfers, where they stand in its table, row and prefix, and how many
    tokens of history they are `missing`, which are read along with the prompt.
    """

    row: Ints
    prefix: Ints
    history: Ints
    prompt: Ints
    output: Ints
    missing: Ints

    @classmethod
    def of(cls, view: View) -> Grid:
        turns, held = np.array(view.turns), np.array(histories(view.turns))
        row, prefix = np.nonzero(np.tri(len(turns) - view.first, len(turns), view.first, dtype=bool))
        turn = row + view.first
        missing = held[turn] - held[prefix]
        return cls(row, prefix, held[prefix], missing + turns[turn, 0], turns[turn, 1], missing)


def tables(devices: Sequence[Device], views: Sequence[View], setting: Setting) -> list[Table]:
    """The tables of several sessions; all their points are predicted at once.

    DataInvalid where the size of a cache, or a power or an energy that the setting asks for, is unknown.
    """
    if setting.link and setting.link.joules_per_byte is None and setting.objective != "latency":
        raise DataInvalid("what the link draws is unknown: add it to --link, such as 0.5 uJ/byte")
    fleet = _Fleet.of(devices, setting)
    grids = [Grid.of(view) for view in views]
    h, p, o, missing = (np.concatenate([grid[column] for grid in grids]) for column in (2, 3, 4, 5))
    seconds = np.stack([device.seconds(h, p, o) for device in devices], axis=1)
    costs = [seconds]
    if setting.objective != "latency":
        # What is infinite stays so: where the others draw nothing, the product is left out.
        others = np.multiply(seconds, fleet.others_w, out=np.zeros_like(seconds), where=fleet.others_w > 0)
        costs.append(np.stack([device.joules(h, p, o) for device in devices], axis=1) + others)
    both = zip(costs, _transfers(devices, missing, fleet, setting.link), strict=False)
    ends = np.cumsum([len(grid.row) for grid in grids])[:-1]
    split = zip(*(np.split(np.stack(each, axis=-1), ends) for each in both), strict=True)
    return [_table(view, grid, own, fleet) for view, grid, own in zip(views, grids, split, strict=True)]


def _transfers(devices: Sequence[Device], missing: Ints, fleet: _Fleet, link: Link | None) -> tuple[Floats, Floats]:
    """Seconds and joules [n, devices] that it takes to move so many tokens of a cache to each device."""
    if link is None:
        never = np.full((len(missing), len(devices)), np.inf)
        return never, never
    moved = missing[:, None] * fleet.kv
    on_link = link.seconds(moved)
    own_s = np.stack([device.moving_seconds(missing) for device in devices], axis=1)
    own_j = np.stack([device.moving_joules(missing) for device in devices], axis=1) + own_s * fleet.others_w
    joules = on_link * fleet.waiting_w + moved * (link.joules_per_byte or 0.0) + own_j
    return np.where(moved > 0, on_link + own_s, np.inf), np.where(moved > 0, joules, np.inf)


def _table(view: View, grid: Grid, costs: Sequence[Floats], fleet: _Fleet) -> Table:
    """From seconds and, where they count, joules [n, devices, 2] without transfers, and of the transfers alone."""
    filled = [_both_ways(grid, view, cost) for cost in costs]
    return Table(view, filled[0], filled[1] if len(filled) > 1 else None, fleet.kv)


def _both_ways(grid: Grid, view: View, cost: Floats) -> Floats:
    """A table [rows, prefixes, devices, ways] of `cost` [n, devices, 2].

    A transfer comes on top of the turn on a device that holds the whole context.
    """
    found = np.full((len(view.turns) - view.first, len(view.turns), *cost.shape[1:]), np.inf)
    found[grid.row, grid.prefix] = cost
    rows = np.arange(len(found))
    found[..., TRANSFER] += found[rows, view.first + rows, :, RE_PREFILL][:, None]
    return found
