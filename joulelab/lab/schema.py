"""The lab file's JSON Schema, with the options of every registered driver, so that editors complete and check it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from joulelab.errors import HardwareMissing
from joulelab.lab import NAME, DeviceKeys, DriverKeys, InstrumentKeys
from joulelab.options import Peak
from joulelab.quantities import Scope
from joulelab.registry import DEVICES, ENGINES, INSTRUMENTS, PROTOCOLS, drivers, load_driver


class _TextSchema(GenerateJsonSchema):
    """Without defaults: that of a quantity is a number, and would be offered as text without a unit."""

    def default_schema(self, schema: Any) -> Any:
        return self.generate_inner(schema["schema"])


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12; a stanza is one of its drivers' options, told apart by the constant `driver`."""
    instruments = _stanzas(INSTRUMENTS, InstrumentKeys)
    engines = _stanzas(ENGINES, DriverKeys)
    devices = _stanzas(DEVICES, DeviceKeys)
    protocols = {name: protocol.Options for name, protocol in _loaded(PROTOCOLS)}
    models = [*instruments, *engines, *devices, *protocols.values(), Peak]
    refs, definitions = models_json_schema([(model, "validation") for model in models], schema_generator=_TextSchema)

    def one_of(models: list[type[BaseModel]]) -> dict[str, Any]:
        return {"oneOf": [refs[model, "validation"] for model in models]}

    with_engine = _mapping(
        {
            "engine": one_of(engines),
            "connect": {"type": "string", "pattern": "^(ssh|adb)://"},
            "power": {"type": "array", "items": {"type": "string"}},
            "peak": refs[Peak, "validation"],
        },
        "engine",
    )
    top = {
        "version": {"const": 1},
        "instruments": _named(one_of(instruments)),
        "devices": _named({"oneOf": [with_engine, *one_of(devices)["oneOf"]]}),
        "protocols": _mapping({name: refs[options, "validation"] for name, options in protocols.items()}),
        "certificates": {"type": "string"},
        "runs": {"type": "string"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lab.yaml",
        **_mapping(top, "version"),
        **definitions,
    }


def _loaded(group: str) -> Iterator[tuple[str, type[Any]]]:
    """The drivers of a group; those whose library is not there are left out."""
    for name in sorted(drivers(group)):
        with suppress(HardwareMissing):
            yield name, load_driver(group, name)


def _stanzas(group: str, keys: type[BaseModel]) -> list[type[BaseModel]]:
    """A model a driver: the common keys, and its own, side by side as the lab file has them."""
    models = []
    for name, driver in _loaded(group):
        fields: dict[str, Any] = {"driver": (Literal[name], ...)}
        if getattr(driver, "bench_meter", False):
            fields["scope"] = (Scope, ...)
        models.append(
            create_model(f"{group} {name}", __base__=(keys, driver.Options), __doc__=driver.__doc__, **fields)
        )
    return models


def _mapping(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _named(stanza: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": f"^{NAME}$"}, "additionalProperties": stanza}
