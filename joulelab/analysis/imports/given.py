"""The map of an import: what its user knows and the file does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator

from joulelab.options import Seconds
from joulelab.quantities import UNITS, Channel, Kind, Origin, Scope, factor, parse_quantity

Share = Annotated[float, BeforeValidator(lambda text: parse_quantity(str(text), "1"))]
"""A part of the whole, such as '0.3 %'."""


SENSOR = {
    **{name: f"{name}_s" for name in ("period", "window", "delay")},
    "delay_u": "delay_u_s",
    **{name: name for name in ("offset_u", "noise_u", "resolution", "wrap")},
    "gain_u": "gain_u_rel",
}
"""Name in a map -> field of the sensor model."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Facts(Strict):
    """What is known of a channel beside the file. Uncertainties are standard ones; texts are in the channel's unit."""

    scope: Scope | None = None
    period: Seconds | None = None
    window: Seconds | None = None
    delay: Seconds | None = None
    delay_u: Seconds | None = None
    gain_u: Share | None = None
    offset_u: StrictStr | None = None
    noise_u: StrictStr | None = None
    resolution: StrictStr | None = None
    wrap: StrictStr | None = None

    def of(self, channel: Channel) -> Channel:
        """A channel as imported, with what is given of it here; UserError where a text is not in its unit."""
        given = {
            field: self._in(channel.unit, name) for name, field in SENSOR.items() if getattr(self, name) is not None
        }
        sensor = replace(channel.sensor, **given)
        return replace(channel, scope=self.scope or channel.scope, origin=Origin.IMPORTED, sensor=sensor)

    def _in(self, unit: str, name: str) -> float:
        value = getattr(self, name)
        return parse_quantity(value, unit) if isinstance(value, str) else float(value)


class Given(Strict):
    """`channels` by name; `timezone` of local stamps; `interval` and `start` of a log that has none of its own."""

    timezone: StrictStr | None = None
    interval: Annotated[Seconds, Field(gt=0)] | None = None
    start: StrictStr | None = None
    channels: dict[str, Facts] = {}

    def facts(self, name: str) -> Facts:
        return self.channels.get(name, Facts())


class Time(Strict):
    """The column of the stamps: numbers in a `unit`, since the epoch or any other zero, or dates in a `format`."""

    column: StrictStr
    unit: Literal["s", "ms", "us", "ns"] | None = None
    format: StrictStr | None = None
    clock: Literal["epoch", "own"] = "epoch"

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.unit is None) == (self.format is None):
            raise ValueError("expected either a unit (of numbers) or a format (of dates)")
        return self


class Column(Facts):
    """A channel of a CSV file: its column, the unit in it, and what other words than the usual stand for no value."""

    column: StrictStr
    unit: StrictStr
    kind: Kind = Kind.GAUGE
    missing: frozenset[str] = frozenset()

    @model_validator(mode="after")
    def _power_has_a_scope(self) -> Self:
        if self.unit not in UNITS:
            raise ValueError(f"{self.unit!r} is no unit; expected one of {', '.join(UNITS)}")
        if self.made("").gives_energy and self.scope is None:
            raise ValueError(f"says no scope; expected one of {', '.join(Scope)}")
        return self

    def made(self, name: str) -> Channel:
        return self.of(Channel(name, UNITS[self.unit][0], self.kind))

    @property
    def factor(self) -> float:
        return factor(self.unit, UNITS[self.unit][0])


class CsvGiven(Given):
    """The map of a CSV file. `delimiter` stands between cells; `skip` lines stand before the header."""

    time: Time
    channels: dict[str, Column] = Field(min_length=1)  # type: ignore[assignment]
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    skip: Annotated[int, Field(ge=0)] = 0
