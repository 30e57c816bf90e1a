"""YAML as plain dicts, lists and text that remember where they stand, and errors that say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from joulelab.errors import UserError

Loc = tuple[str | int, ...]
T = TypeVar("T")

MAX_DEPTH = 20
_OPEN = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSE = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_REFUSED = {yaml.AnchorToken: "an anchor (&)", yaml.AliasToken: "an alias (*)", yaml.TagToken: "a tag (!)"}
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Control characters and lone surrogates: neither a file name nor a manifest can hold them."""


class LabError(UserError):
    """All that is wrong in a lab file, one line an error. `errors` have file, line, column, path and message."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = errors
        super().__init__("\n".join(map(_line, errors)))


def _line(error: dict[str, Any]) -> str:
    place = ":".join(str(error[key]) for key in ("file", "line", "column") if error[key] is not None)
    return ": ".join(part for part in (place, error["path"], error["message"]) if part)


class Tree:
    """A YAML file as dicts, lists and text in `data`, with the nodes of its `values` and `keys` by their place.

    Scalars stay text: what they mean is the model's business, so that `on`, `1e3` and `2026-03-02` are not guessed at.
    Errors are collected, and raised together by `finish`; LabError at once where the file is not there or not YAML.
    """

    def __init__(self, path: Path) -> None:
        self.file = path
        self.values: dict[Loc, yaml.Node] = {}
        self.keys: dict[Loc, yaml.Node] = {}
        self._errors: dict[tuple[int | None, int | None, str], dict[str, Any]] = {}
        root = self._compose(self._read())
        self.data = self._plain(root, ())

    def _read(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise self._fatal(f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise self._fatal(f"is not UTF-8 text: byte {error.start}") from None

    def _compose(self, text: str) -> yaml.Node:
        try:
            self._scan(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            raise self._fatal(f"not YAML: {error.problem}", error.problem_mark) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: PyYAML on a bad \U escape or %YAML
            raise self._fatal(f"not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(root, yaml.MappingNode):
            raise self._fatal("holds no mapping; the smallest lab file is 'version: 1'")
        return root

    def _scan(self, text: str) -> None:
        """Refuse, before anything recurses, what a lab file has no use for."""
        depth = 0
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPEN) - isinstance(token, _CLOSE)
            if depth > MAX_DEPTH:
                raise self._fatal(f"nested deeper than {MAX_DEPTH}", token.start_mark)
            if what := _REFUSED.get(type(token)):
                raise self._fatal(f"{what} is not read here; write the value out", token.start_mark)

    def _plain(self, node: yaml.Node, loc: Loc) -> Any:
        self.values[loc] = node
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*loc, k)) for k, item in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:null":
            self.error(loc, "has no value; give it one or leave it out")
        elif _UNWRITABLE.search(node.value):
            self.error(loc, "holds a control character or half a surrogate pair")
        return node.value

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value or not key.value.isprintable():
                self._add(key, loc, "expected a plain word as key")
            elif key.value in mapping:
                first = self.keys[*loc, key.value].start_mark.line + 1
                self._add(key, (*loc, key.value), f"given twice, first in line {first}")
            else:
                self.keys[*loc, key.value] = key
                mapping[key.value] = self._plain(value, (*loc, key.value))
        return mapping

    def mapping(self, loc: Loc, data: Any) -> dict[str, Any] | None:
        """`data`, which stands at `loc`, where it is a mapping; else an error and None."""
        if isinstance(data, dict):
            return data
        self.error(loc, "expected a mapping")
        return None

    def names(self, section: str) -> list[str]:
        """The keys of the mapping at the top-level key `section`; none where something else stands there."""
        return [str(loc[1]) for loc in self.keys if loc[0] == section and len(loc) == 2]

    def texts(self) -> Iterator[tuple[Loc, str]]:
        """Every scalar with its place."""
        return ((loc, node.value) for loc, node in self.values.items() if isinstance(node, yaml.ScalarNode))

    def error(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        """An error about the value at `loc`, about its key, or, where `loc` is not there, about its mapping."""
        self._add(self.keys[loc] if at_key else self.values.get(loc) or self.values[loc[:-1]], loc, message)

    def _add(self, node: yaml.Node, loc: Loc, message: str) -> None:
        """Keep the first error of a place: later ones follow from it."""
        error = self._entry(message, node.start_mark, _path(loc))
        self._errors.setdefault((error["line"], error["column"], error["path"]), error)

    def _entry(self, message: str, mark: yaml.Mark | None = None, path: str = "") -> dict[str, Any]:
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return {"file": str(self.file), "line": line, "column": column, "path": path, "message": message}

    def _fatal(self, message: str, mark: yaml.Mark | None = None) -> LabError:
        return LabError([self._entry(message, mark)])

    def finish(self, result: T | None) -> T:
        """What was read; LabError with all the errors, in the order of the file, where there are any."""
        if self._errors or result is None:
            raise LabError(sorted(self._errors.values(), key=lambda e: (e["line"], e["column"])))
        return result


def _path(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")
