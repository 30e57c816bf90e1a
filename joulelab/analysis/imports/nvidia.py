"""Logs of `nvidia-smi` as recordings, one a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Piece, Recording
from joulelab.analysis.imports.zone import LocalClock, local_clock
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Scope, SensorModel
from joulelab.recording.block import Block
from joulelab.recording.formats.nvidia_smi import Log, parse

MS = 10**6
SENSOR = SensorModel(gain_u_rel=0.05 / 3**0.5)
"""5 % either way, rectangular, different from board to board (Yang et al., SC24, doi 10.1109/SC41406.2024.00028). How
often it is renewed and what it averages differ by GPU and driver, and a log does not say."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 local time


def read_nvidia_smi(file: Path, given: Given, advance: Advance) -> Iterator[Recording]:
    """`nvidia-smi --query-gpu=timestamp,... --format=csv`. The stamps are local time in ms."""
    text, cut = _text(file)
    try:
        logs = parse(text)
    except DataInvalid as reason:
        raise DataInvalid(f"{file}: {reason}") from None
    advance(file.stat().st_size)
    for gpu, log in logs.items():
        channels = tuple(
            given.facts(name).of(_channel(name, unit)) for name, unit in zip(log.fields, log.units, strict=True)
        )
        pieces = [_piece(file, log, given.timezone, cut)]
        yield Recording(
            channels, local_clock(given.timezone, MS), pieces, part=gpu, identity={"gpu": gpu} if gpu else {}
        )


def _text(file: Path) -> tuple[str, list[str]]:
    """The whole lines, and what is to be said of a last one that does not end: its last number may be cut off."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataInvalid(f"{file} is not UTF-8 text") from None
    whole, end, cut = text.rpartition("\n")
    return whole + end, ["the last line does not end, so it may be cut off: it is left out"] * bool(cut.strip())


def _channel(name: str, unit: str) -> Channel:
    """Only draws are power that flows; limits are W, too, but have no scope."""
    if not name.removeprefix("module.").startswith("power.draw"):
        return Channel(name, unit)
    return Channel(name, unit, scope=Scope.INPUT if name.startswith("module.") else Scope.BOARD, sensor=SENSOR)


def _piece(file: Path, log: Log, timezone: str | None, wrong: list[str]) -> Piece:
    before = log.local_ns
    if timezone:
        local = LocalClock(timezone)
        try:
            dates = (_EPOCH + timedelta(microseconds=ns // 1000) for ns in before.tolist())
            before = np.fromiter((local.ns(date) for date in dates), np.int64, len(before))
        except ValueError as reason:
            raise DataInvalid(f"{file}: {reason}") from None
    return Piece(Block(before, before + MS, None, log.values), [(len(before) - 1, text) for text in wrong])
