"""Logs of `nvidia-smi --query-gpu=timestamp,... --format=csv`, with or without `nounits` and `noheader`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab import quantities
from joulelab.errors import DataInvalid

UNITS = {**quantities.UNITS, "MHz": ("Hz", 1e6), "MiB": ("B", 2.0**20), "C": ("degC", 1.0), "": ("1", 1.0)}
"""Unit of nvidia-smi -> (SI unit, factor)."""
IMPLIED = {"power": "W", "clocks": "MHz", "temperature": "C", "utilization": "%", "memory": "MiB", "fan": "%"}
"""The units of the fields by their first word, for logs that write none."""
IDENTIFIERS = ("uuid", "gpu_uuid", "index", "gpu_bus_id", "pci.bus_id", "serial", "gpu_serial")
"""The fields that tell GPUs apart, best first."""
NOT_QUANTITIES = {*IDENTIFIERS, "timestamp", "name", "gpu_name", "count", "driver_version", "vbios_version"}

_HEADING = re.compile(r"([\w.]+)(?: \[(\S+)\])?")
_TIME = re.compile(r"20\d\d/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}")
_NUMBER = re.compile(r"(-?\d{1,15}(?:\.\d{1,9})?)(?: ([A-Za-z%]+))?")
_MASK = re.compile(r"0x[0-9a-fA-F]{1,16}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Log(NamedTuple):
    """What was logged of one GPU: `values` [fields][n] in the SI `units` of `fields`; NaN is no reading.

    `local_ns` [n] is wall-clock time since 1970 in the logging machine's time zone, which nvidia-smi does not write;
    its steps are 1 ms.
    """

    fields: tuple[str, ...]
    units: tuple[str, ...]
    local_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def parse(text: str, fields: Sequence[str] = ()) -> dict[str, Log]:
    """The log of each GPU, by its UUID or index ("" where the log has neither); DataInvalid where it is no such log.

    `fields` is what `--query-gpu` was told, for a log without a header. `[N/A]`, `[Not Supported]`, `[Unknown Error]`
    and their like are no reading; fields that are text throughout, such as `pstate`, are left out. Lines without a
    comma are nvidia-smi's complaints and are passed over, as is a last line without its end: it may be cut off.
    """
    whole = text.lstrip("\ufeff").split("\n")[:-1]
    lines = [(number, _cells(line)) for number, line in enumerate(whole, start=1)]
    rows = [(number, cells) for number, cells in lines if len(cells) > 1]
    heading = list(fields) or (rows[0][1] if rows else [])
    names, units = _heading(heading)
    if "timestamp" not in names:
        raise DataInvalid("no timestamp: an nvidia-smi log needs --query-gpu=timestamp,... and its header or fields")
    rows = [(number, cells) for number, cells in rows if cells != heading]
    gpus = _by_gpu(names, rows)
    kept = _quantities(names, [cells for _, cells in rows])
    return {gpu: _log(names, units, kept, rows) for gpu, rows in gpus.items()}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _heading(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names and units of the columns; the unit in brackets, else what the name implies."""
    found = [_HEADING.fullmatch(cell) for cell in cells]
    names = [match[1] if match else cell for match, cell in zip(found, cells, strict=True)]
    units = [
        (match[2] if match else None) or IMPLIED.get(name.removeprefix("module.").partition(".")[0], "")
        for match, name in zip(found, names, strict=True)
    ]
    if unknown := [unit for unit in units if unit not in UNITS]:
        raise DataInvalid(f"nvidia-smi log: unknown unit {unknown[0]!r}")
    return names, units


def _by_gpu(names: list[str], rows: list[tuple[int, list[str]]]) -> dict[str, list[list[str]]]:
    """The rows of each GPU, in their order."""
    which = next((names.index(field) for field in IDENTIFIERS if field in names), None)
    gpus: dict[str, list[list[str]]] = {}
    for number, cells in rows:
        if len(cells) != len(names):
            raise DataInvalid(f"nvidia-smi log, line {number}: {len(cells)} cells, not {len(names)}")
        if not _TIME.fullmatch(cells[names.index("timestamp")]):
            raise DataInvalid(f"nvidia-smi log, line {number}: {cells[names.index('timestamp')]!r} is no time stamp")
        gpus.setdefault("" if which is None else cells[which], []).append(cells)
    return gpus


def _quantities(names: list[str], rows: list[list[str]]) -> list[int]:
    """The columns that hold a number somewhere."""
    numeric = [any(_NUMBER.fullmatch(c) or _MASK.fullmatch(c) for c in column) for column in zip(*rows, strict=True)]
    return [
        i for i, (name, number) in enumerate(zip(names, numeric, strict=False)) if number and name not in NOT_QUANTITIES
    ]


def _log(names: list[str], units: list[str], kept: list[int], rows: list[list[str]]) -> Log:
    values = np.array([[_number(cells[i], units[i]) for cells in rows] for i in kept]).reshape(len(kept), len(rows))
    at = names.index("timestamp")
    local_ns = np.array([_local_ns(cells[at]) for cells in rows], np.int64)
    return Log(tuple(names[i] for i in kept), tuple(UNITS[units[i]][0] for i in kept), local_ns, values)


def _number(cell: str, unit: str) -> float:
    """A cell in SI; NaN where it is no number, or a negative power."""
    if _MASK.fullmatch(cell):
        return float(int(cell, 16))
    match = _NUMBER.fullmatch(cell)
    written = UNITS.get((match and match[2]) or unit)
    if match is None or written is None or written[0] != UNITS[unit][0]:
        return np.nan
    value = float(match[1]) * written[1]
    return np.nan if value < 0 and written[0] == "W" else value


def _local_ns(stamp: str) -> int:
    try:
        time = datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        raise DataInvalid(f"nvidia-smi log: {stamp!r} is no time stamp") from None
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000
