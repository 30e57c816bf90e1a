"""The map of an imported table: which of its columns is what, in which unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from joulelab.analysis.dataset import SCHEMA
from joulelab.analysis.shapes import Peak, Shape
from joulelab.errors import UserError
from joulelab.options import Seconds
from joulelab.quantities import Channel, Origin, Scope, SensorModel, factor, parse_quantity
from joulelab.registry import nearest

NEEDED = {"device", "phase", "history", "prompt", "output"}
MAPPABLE = {
    *("session", "run", "device", "model", "quant", "engine", "mode", "batch", "threads", "inference", "repeat"),
    *("trials", "phase", "history", "prompt", "output", "duration_s", "cpu_s", "energy_j", "energy_u_j", "idle_j"),
    "temperature_c",
}
WITH_UNIT = {"s", "J", "degC"}
RATE = "token/s"


def unit_of(name: str) -> str:
    """The unit of a column of the phases table; empty for text."""
    return str((SCHEMA.field(name).metadata or {}).get(b"unit", b"").decode())


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where a column comes from: a column of the file, or one value for all rows.

    Token counts may be what is left of the column without `less` tokens, `times` a share, rounded. A duration may come
    from a rate in token/s: that of the `prompt`, or of the decode, which is a `pass` for each output token but the
    first.
    """

    column: StrictStr | None = None
    value: StrictStr | StrictInt | StrictFloat | None = None
    unit: StrictStr | None = None
    less: StrictInt = 0
    times: Annotated[StrictFloat, Field(gt=0)] = 1.0
    rate_of: Literal["prompt", "pass"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.value is None):
            raise ValueError("expected either a column or a value")
        return self

    def scale(self, name: str) -> float:
        """The factor from the unit to the one that the phases table has for `name`; UserError where there is none."""
        si = unit_of(name)
        if (self.less or self.times != 1) and si != "token":
            raise UserError("'less' and 'times' are for counts of tokens")
        if self.rate_of:
            return self._rate(si)
        if si not in WITH_UNIT:
            if self.unit:
                raise UserError("takes no unit")
            return 1.0
        if not self.unit:
            raise UserError(f"needs a unit, such as 'unit: {si}'")
        return factor(self.unit, si)

    def _rate(self, si: str) -> float:
        if si != "s" or self.unit != RATE:
            raise UserError(f"a rate gives a duration, and needs 'unit: {RATE}'")
        return 1.0


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


Sources = dict[str, Source]
Cell = StrictStr | StrictInt | StrictFloat


class TableMap(Strict):
    """`columns` of the phases table by name, and the `channel` where there is energy.

    `phases` has the columns of prefill and decode apart, where a row of the file holds both. `where` keeps the rows
    whose columns have one of the values that it lists. `shapes` by model and quantisation, such as `llama/Q8_0`, and
    `peaks` by device are what the file does not tell.
    """

    columns: Sources
    phases: dict[Literal["prefill", "decode"], Sources] = {}
    where: dict[str, Cell | tuple[Cell, ...]] = {}
    channel: ChannelMap | None = None
    shapes: dict[str, Shape] = {}
    peaks: dict[str, Peak] = {}

    @property
    def tables(self) -> list[Sources]:
        """The columns of each phase that a row of the file holds; of one where it says itself which."""
        apart = [{**self.columns, "phase": Source(value=name), **own} for name, own in self.phases.items()]
        return apart or [self.columns]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for columns in self.tables:
            for name, source in columns.items():
                _check(name, source)
            if missing := NEEDED - columns.keys():
                raise ValueError(f"columns: {', '.join(sorted(missing))} missing; give each a column or a value")
            if not {"duration_s", "energy_j"} & columns.keys():
                raise ValueError("columns: neither duration_s nor energy_j is mapped")
            if ("energy_j" in columns) != (self.channel is not None):
                raise ValueError("energy_j and channel are given together or not at all")
        return self


def _check(name: str, source: Source) -> None:
    if name not in MAPPABLE:
        raise ValueError(f"columns: {name!r} is no column of the phases table{nearest(name, MAPPABLE)}")
    try:
        source.scale(name)
    except UserError as error:
        raise ValueError(f"columns: {name}: {error}") from None


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
        said = (str(path), where, first["msg"].removeprefix("Value error, "))
        raise UserError(": ".join(filter(None, said))) from None
