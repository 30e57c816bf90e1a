"""The part of the inference space that is mapped, and which of it the models have seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.surface import Grid
from joulelab.calibration.integrals import Ints
from joulelab.errors import DataInvalid, UserError

Range = tuple[int, int]
STEPS = 96
"""An octave of the default box has about a dozen steps: a step is 6 %."""
HISTORIES = 4


def parse_range(text: str | None) -> Range | None:
    """`16-4096`, or one length as both ends. UserError where it is neither."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high:
        raise UserError(f"{text!r} is no range of tokens, such as 16-4096 or 64")
    return low, high


def parse_histories(text: str | None) -> list[int] | None:
    """`0,1024`. UserError where it is no list of tokens."""
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise UserError(f"{text!r} is no list of histories in tokens, such as 0,1024")
    return [int(tokens) for tokens in text.split(",")]


def log_steps(ends: Range, steps: int = STEPS) -> Ints:
    """Whole numbers from end to end in about equal ratios: at most `steps` steps, none twice."""
    return np.unique(np.geomspace(*ends, steps + 1).round().astype(np.int64))


def mapped(
    costs: Sequence[DeviceCosts],
    histories: Sequence[int] | None = None,
    prompt: Range | None = None,
    output: Range | None = None,
) -> Grid:
    """The grid of a map: what is asked for, else all that any model has seen; of histories some that all have seen.

    DataInvalid, with the reason, where no model could tell: another history than the empty one that it has seen, a
    length that never changed in the data, a box that has nothing in common with what the models have seen.
    """
    models = [model for each in costs for model in each.models]
    lengths = {name: _length(models, name, asked) for name, asked in (("prompt", prompt), ("output", output))}
    chosen = np.array(sorted(set(histories)), np.int64) if histories else _histories(models)
    for model in models:
        if refusal := model.outside(chosen, 1, 2).refusal:
            raise DataInvalid(refusal)
    grid = Grid(chosen, lengths["prompt"], lengths["output"])
    if not seen(models, grid).any():
        raise DataInvalid(f"no model may be asked there; {_said(models)}")
    return grid


def seen(models: Iterable[Model], grid: Grid) -> NDArray[np.bool_]:
    """Which points [H, P, O] lie within the range of every model."""
    found = np.ones(grid.shape, np.bool_)
    for model in models:
        found &= _seen(model, grid)
    return found


def _seen(model: Model, grid: Grid) -> NDArray[np.bool_]:
    found = np.ones(grid.shape, np.bool_)
    for part in model.parts("total"):
        history, prompt = (_within(getattr(grid, name), part.valid[name]) for name in ("history", "prompt"))
        within = history[:, None, None] & prompt[:, None]
        if part.phase == "decode":  # one output token needs none
            within = within & _within(grid.output, part.valid["output"]) | (grid.output == 1)
        elif part.phase == "total":
            within = within & _within(grid.output, part.valid["output"])
        found &= within
    return found


def _within(axis: Ints, ends: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((axis >= ends[0]) & (axis <= ends[1]))


def _length(models: Sequence[Model], name: str, asked: Range | None) -> Ints:
    """The lengths of an axis. DataInvalid where they vary and those of the data do not."""
    low, high = (round(end) for end in _range(models, name))
    if low == high and (asked is None or asked[0] < asked[1]):
        option = {"prompt": "--prompt", "output": "--decode"}[name]
        raise DataInvalid(
            f"the data have one {name} length, {low}: they cannot tell what another costs; {option} {low} maps the rest"
        )
    return log_steps(asked or (low, high))


def _histories(models: Sequence[Model]) -> Ints:
    """None, and some in equal ratios up to the longest that all models have seen."""
    high = min(round(part.valid["history"][1]) for model in models for part in model.parts("total"))
    ratios = 4.0 ** -np.arange(HISTORIES - 1)
    return np.unique(np.append((high * ratios).astype(np.int64), 0))


def _range(models: Sequence[Model], name: str) -> tuple[float, float]:
    ranges = [part.valid[name] for model in models for part in model.parts("total") if name in part.valid]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _said(models: Sequence[Model]) -> str:
    """What all the models together have seen."""
    ends = {name: _range(models, name) for name in ("history", "prompt", "output")}
    return "they have seen " + ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in ends.items())
