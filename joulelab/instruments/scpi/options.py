"""The options of a SCPI meter in `lab.yaml`, from its description."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from joulelab.errors import UserError
from joulelab.instruments.scpi.description import Description
from joulelab.options import Seconds
from joulelab.quantities import parse_quantity
from joulelab.transports.visa import PYVISA_PY


class ScpiOptions(BaseModel):
    """What every SCPI meter takes; `baud` is for serial ports."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    resource: str
    interval: Seconds = Field(default=0.1, gt=0)
    backend: str = PYVISA_PY
    terminator: Literal["LF", "CR", "CRLF"] = "LF"
    baud: int = 9600


def options(about: Description) -> type[ScpiOptions]:
    """`ScpiOptions` with the options of a model, and `range` where it has ranges."""
    own: dict[str, Any] = {
        name: (Literal[tuple(option.choices)], option.default) for name, option in about.options.items()
    }
    if about.ranges:
        sizes: dict[str, Any] = {r.name: (_quantity(r.unit), ...) for r in about.ranges}
        own["range"] = (create_model("Sizes", __config__=ScpiOptions.model_config, **sizes) | None, None)
    return create_model("Options", __base__=ScpiOptions, **own)


def _quantity(unit: str) -> Any:
    return Annotated[float, BeforeValidator(partial(_read, unit))]


def _read(unit: str, value: Any) -> Any:
    try:
        return parse_quantity(value, unit) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from error
