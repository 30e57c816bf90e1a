"""Parts of a YAML tree as pydantic models, and what pydantic finds wrong in the words of the lab file."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from joulelab.lab.tree import Loc, Tree
from joulelab.registry import did_you_mean, nearest

Model = TypeVar("Model", bound=BaseModel)

NOUNS = {
    "bool": "true or false",
    "date": "a date like 2026-03-02",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a mapping",
    "path": "a path",
    "string": "text",
    "tuple": "a list",
}
"""What pydantic's kinds of input are called here; `date_from_datetime_parsing` counts as `date`."""


def validate(tree: Tree, model: type[Model], data: dict[str, Any], loc: Loc, also: Iterable[str] = ()) -> Model | None:
    """`data`, the mapping at `loc`, as a `model`; errors in `tree` and None where it is none.

    `also` are keys that may stand there, too, and are read elsewhere.
    """
    try:
        return model.model_validate(data, context={"folder": tree.file.parent.absolute()})
    except ValidationError as invalid:
        errors = invalid.errors()
    places: dict[Loc, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_place(tree, (*loc, *error["loc"]), error["type"]), []).append(error)
    for place, found in places.items():
        if found[0]["type"] == "extra_forbidden":
            known = {*_keys([model], found[0]["loc"][:-1]), *(also if len(place) == len(loc) + 1 else ())}
            tree.error(place, f"unknown key{nearest(str(place[-1]), known)}", at_key=True)
        elif found[0]["type"] == "missing":
            tree.error(place, "missing")
        elif not any(other[: len(place)] == place for other in places if other != place):
            tree.error(
                place, _message(found, tree.values[place])
            )  # deeper ones say it better, of a union's right member
    return None


def _place(tree: Tree, loc: Loc, kind: str) -> Loc:
    """The part of a pydantic `loc` that is in the file: the names of a union's members are not."""
    place: Loc = ()
    for step in loc:
        place = (*place, step) if (*place, step) in tree.values else place
    return (*place, loc[-1]) if kind == "missing" else place


def _message(errors: list[ErrorDetails], node: yaml.Node) -> str:
    """What pydantic says of one value, once for each member of a union."""
    wanted = dict.fromkeys(filter(None, map(_wanted, errors)))
    said = [error["msg"].removeprefix("Value error, ") for error in errors if not _wanted(error)]
    if wanted:
        hint = did_you_mean(str(node.value), re.findall("'(.+?)'", " ".join(wanted)))
        said.append(f"expected {' or '.join(wanted)}, not {_given(node)}{hint}")
    return ", or ".join(said)


def _wanted(error: ErrorDetails) -> str:
    """What should have stood there; empty where the message says more than that."""
    if kind := re.fullmatch(r"([a-z]+)\w*_(?:type|parsing)", error["type"]):
        return NOUNS.get(kind[1], kind[1])
    reason = error["msg"].partition("Input should be ")[2]
    return re.sub("^(greater|less)", r"a value \1", reason)


def _given(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return reprlib.repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _keys(models: list[type[BaseModel]], loc: Loc) -> Iterator[str]:
    """The keys that the mapping at `loc` inside one of `models` may have."""
    for step in loc:
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)] or models
    return (key for model in models for key in model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
