"""What a driver's `Options` may hold beside plain types: quantities, kept as SI floats, and paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from joulelab.errors import UserError
from joulelab.quantities import UNITS, parse_quantity


def _quantity(si: str, example: str) -> tuple[BeforeValidator, WithJsonSchema]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_quantity(value, si)
        except UserError as error:
            raise ValueError(f"{error}; write it like {example!r}") from error

    units = "|".join(re.escape(unit) for unit, (dimension, _) in UNITS.items() if dimension == si)
    pattern = rf"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*({units})\s*$"
    return BeforeValidator(read), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def _beside_lab(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", "")) / path


_FINITE = Field(allow_inf_nan=False)

Seconds = Annotated[float, _FINITE, *_quantity("s", "100 ms")]
"""A duration [s], and the pattern for the rest: text must carry a unit (`"100 ms"` is 0.1, `"100"` is an error).

A number that is not text is SI already. `lab.yaml` is read as text only, so it stays strict, while
`Options.model_validate(options.model_dump(mode="json"))`, and so a manifest or a sampler's specification, gives the
same options back.
"""
Watts = Annotated[float, _FINITE, *_quantity("W", "5 W")]
"""A power [W]; see `Seconds`."""
Volts = Annotated[float, _FINITE, *_quantity("V", "3.7 V")]
"""A voltage [V]; see `Seconds`."""
Celsius = Annotated[float, _FINITE, *_quantity("degC", "55 degC")]
"""A temperature [degC]; see `Seconds`."""
BytesPerSecond = Annotated[float, Field(gt=0), _FINITE, *_quantity("B/s", "204.8 GB/s")]
"""A bandwidth [B/s]; see `Seconds`."""
FlopsPerSecond = Annotated[float, Field(gt=0), _FINITE, *_quantity("FLOP/s", "42.5 TFLOP/s")]
"""A rate of arithmetic [FLOP/s]; see `Seconds`."""
LabPath = Annotated[Path, AfterValidator(_beside_lab)]
"""A file or folder; a relative one stands beside the `lab.yaml` that names it and comes out absolute."""


class Peak(BaseModel):
    """What a device can do at most, by its data sheet, for the kind of arithmetic that the engine uses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compute: FlopsPerSecond | None = None
    bandwidth: BytesPerSecond | None = None
    source: str
