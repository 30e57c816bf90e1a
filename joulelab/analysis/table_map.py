"""The map of an imported table: which of its columns is what, in which unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from joulelab.analysis.dataset import SCHEMA
from joulelab.errors import UserError
from joulelab.options import Seconds
from joulelab.quantities import Channel, Origin, Scope, SensorModel, factor, parse_quantity
from joulelab.registry import nearest

NEEDED = {"device", "phase", "history", "prompt", "output"}
MAPPABLE = {
    *(
        "session",
        "run",
        "device",
        "model",
        "quant",
        "engine",
        "mode",
        "batch",
        "threads",
        "inference",
        "repeat",
        "phase",
    ),
    *("history", "prompt", "output", "duration_s", "cpu_s", "energy_j", "energy_u_j", "idle_j", "temperature_c"),
}
WITH_UNIT = {"s", "J", "degC"}


def unit_of(name: str) -> str:
    """The unit of a column of the phases table; empty for text."""
    return str((SCHEMA.field(name).metadata or {}).get(b"unit", b"").decode())


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where a column comes from: a column of the file, or one value for all rows."""

    column: StrictStr | None = None
    value: StrictStr | StrictInt | StrictFloat | None = None
    unit: StrictStr | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.value is None):
            raise ValueError("expected either a column or a value")
        return self

    def scale(self, name: str) -> float:
        """The factor from the unit to the one that the phases table has for `name`; UserError where there is none."""
        si = unit_of(name)
        if si not in WITH_UNIT:
            if self.unit:
                raise UserError("takes no unit")
            return 1.0
        if not self.unit:
            raise UserError(f"needs a unit, such as 'unit: {si}'")
        return factor(self.unit, si)


class ChannelMap(Strict):
    """The power channel that the energies are of.

    Its sensor updates every `period` and averages over `window`; a phase shorter than both together gets no energy.
    `gain_u` is the standard uncertainty of its gain, such as '1 %'.
    """

    name: str
    scope: Scope
    period: Seconds
    window: Seconds = 0.0
    gain_u: Annotated[float, BeforeValidator(lambda text: parse_quantity(str(text), "1"))]

    def channel(self) -> Channel:
        sensor = SensorModel(period_s=self.period, window_s=self.window, gain_u_rel=self.gain_u)
        return Channel(self.name, "W", scope=self.scope, origin=Origin.IMPORTED, sensor=sensor)


class TableMap(Strict):
    """`columns` of the phases table by name, and the `channel` where there is energy."""

    columns: dict[str, Source]
    channel: ChannelMap | None = None

    @field_validator("columns")
    @classmethod
    def _whole(cls, columns: dict[str, Source]) -> dict[str, Source]:
        if unknown := [name for name in columns if name not in MAPPABLE]:
            raise ValueError(f"{unknown[0]!r} is no column of the phases table{nearest(unknown[0], MAPPABLE)}")
        if missing := NEEDED - columns.keys():
            raise ValueError(f"{', '.join(sorted(missing))} missing; give each a column or a value")
        if not {"duration_s", "energy_j"} & columns.keys():
            raise ValueError("neither duration_s nor energy_j is mapped")
        return columns

    @field_validator("columns")
    @classmethod
    def _units(cls, columns: dict[str, Source]) -> dict[str, Source]:
        for name, source in columns.items():
            try:
                source.scale(name)
            except UserError as error:
                raise ValueError(f"{name}: {error}") from None
        return columns

    @model_validator(mode="after")
    def _channel_for_energy(self) -> Self:
        if ("energy_j" in self.columns) != (self.channel is not None):
            raise ValueError("energy_j and channel are given together or not at all")
        return self


M = TypeVar("M", bound=BaseModel)


def read_map(path: Path, model: type[M]) -> M:
    """Read a map; UserError with the first thing that is wrong in it."""
    try:
        return model.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
