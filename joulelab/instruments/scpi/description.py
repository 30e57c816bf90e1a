"""What there is to say of a model of SCPI meter, as data: with it the engine needs no code for the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joulelab.quantities import Kind


@dataclass(frozen=True)
class Option:
    """An option in `lab.yaml`: what may be written there -> the meter's word for it."""

    choices: Mapping[str, str]
    default: str


@dataclass(frozen=True)
class Setting:
    """A setting of the meter, which the manifest holds.

    `command` has `{value}`. `value` is what to set, with options by name (`U,{element}`); None: it is only read.
    """

    name: str
    query: str
    command: str = ""
    value: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """Data-sheet limits of error: a share of the reading, a share of the range, and a rest in the channel's unit."""

    reading: float
    range: float = 0.0
    rest: float = 0.0


@dataclass(frozen=True)
class Column:
    """A number of a reading, and the channel that it becomes.

    `ranges` are those whose product is the column's own (power: voltage and current); one without is never over range.
    `factor` leads to the channel's unit. `never` are values that are no measurement.
    """

    name: str
    unit: str
    accuracy: Accuracy
    ranges: tuple[str, ...] = ()
    kind: Kind = Kind.GAUGE
    factor: float = 1.0
    resolution: float = 0.0
    never: tuple[float, ...] = ()


@dataclass(frozen=True)
class Range:
    """A range: its sizes, how it is set, and the columns that tell the size needed.

    `rms` is at most the size. `waveform` columns, instantaneous values, are at most `crest` times it, where the
    variants leave the sizes as they are.
    """

    name: str
    unit: str
    sizes: tuple[float, ...]
    size: Setting
    auto: Setting
    rms: str
    waveform: tuple[str, ...] = ()
    crest: float = 1.0


@dataclass(frozen=True)
class Variant:
    """What a choice of an option changes: sizes of ranges, errors of range (factors), error of reading (added)."""

    option: str
    choice: str
    size: float = 1.0
    range_error: float = 1.0
    reading_error: float = 0.0


@dataclass(frozen=True)
class Demand:
    """What must hold before anything is set: the answer matches the pattern, or the meter cannot be used."""

    query: str
    pattern: str
    otherwise: str


@dataclass(frozen=True)
class OverRange:
    """The register that says so; `masks` has its bits for each choice of an option."""

    query: str
    option: str
    masks: Mapping[str, int]


@dataclass(frozen=True)
class Integrator:
    """Commands for a counter that runs only while the ranges stay fixed."""

    start: tuple[str, ...]
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A model, or several that differ in nothing that is said here.

    `identity` is a pattern of `<maker>,<model>,`. The answers to the queries in `reading` are the columns in order;
    `compound` meters take several queries in one message. `period` and `window` [s] may name options. `settings` are
    set in this order and put back in it, the ranges after them.
    """

    driver: str
    meter: str
    identity: str
    scope: str
    reading: tuple[str, ...]
    columns: tuple[Column, ...]
    errors: str
    conditions: str
    options: Mapping[str, Option] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    ranges: tuple[Range, ...] = ()
    variants: tuple[Variant, ...] = ()
    demands: tuple[Demand, ...] = ()
    over_range: OverRange | None = None
    integrator: Integrator | None = None
    compound: bool = False
    period: str | None = None
    window: str = "0"
