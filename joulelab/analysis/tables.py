"""Somebody else's table as a phases table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from joulelab.analysis.attribution import OK
from joulelab.analysis.dataset import SCHEMA, Phases, to_frame
from joulelab.analysis.modelling.cases import INFERENCE
from joulelab.analysis.table_map import NEEDED, Source, Sources, TableMap, read_map
from joulelab.analysis.throttling import without_throttled
from joulelab.errors import DataInvalid
from joulelab.quantities import Origin
from joulelab.registry import nearest

ADDED = ("duration_s", "energy_j", "cpu_s", "idle_j")
"""Columns that add up over the phases of an inference."""
NO_TIME = "no time: the duration is not positive"
TOO_SHORT = "shorter than the sensor resolves ({:g} s): repeat it back to back, or use a faster meter"


def import_table(file: Path, mapping: Path) -> Phases:
    """Read a CSV or Parquet file by its map; rows in messages are counted from 1 below the header.

    A row without a positive duration has no phase: it is kept without time and energy, its status saying so. One that
    is too short for the sensor that the map states, by the rule of `attribute`, is kept without energy. UserError for a
    map that is wrong, DataInvalid for a file that is not what the map says.
    """
    table_map, frame = read_map(mapping, TableMap), _read(file)
    kept = _kept(file, frame, table_map)
    notes = [f"{file.name}: {len(frame) - len(kept)} rows are not what the map asks for"] * (len(kept) < len(frame))
    tables = []
    for columns in table_map.tables:
        tables.append(_table(file, kept, table_map, columns))
        notes += _refuse_rows(file, tables[-1], table_map) if "duration_s" in columns else []
    table = pd.concat([*tables, *_totals(tables)], ignore_index=True)
    channels = {table_map.channel.name: table_map.channel.channel()} if table_map.channel else {}
    arrow = pa.Table.from_pandas(table.reindex(columns=SCHEMA.names), SCHEMA, preserve_index=False)
    found = Phases(to_frame(arrow), channels, notes, shapes=table_map.shapes, peaks=table_map.peaks)
    return without_throttled(found)


def _kept(file: Path, frame: pd.DataFrame, table_map: TableMap) -> pd.DataFrame:
    """The rows that the map asks for."""
    keep = pd.Series(data=True, index=frame.index)
    for column, values in table_map.where.items():
        _need(file, frame, column, "where")
        wanted = values if isinstance(values, tuple) else (values,)
        keep &= frame[column].isin(wanted) | frame[column].astype(str).isin(map(str, wanted))  # a CSV's cells are text
    if not keep.any():
        raise DataInvalid(f"{file} has no row of what the map asks for: {table_map.where}")
    return frame[keep]


def _table(file: Path, frame: pd.DataFrame, table_map: TableMap, sources: Sources) -> pd.DataFrame:
    """One phase of each row."""
    given: dict[str, Any] = {"session": file.stem, "run": file.name, "inference": frame.index + 1}
    given |= {"origin": Origin.IMPORTED, "status": OK}
    if table_map.channel:
        channel = table_map.channel.channel()
        given |= {"channel": channel.name, "scope": channel.scope, "gain_u_rel": channel.sensor.gain_u_rel}
    columns = {name: _column(file, frame, name, source) for name, source in sources.items()}
    table = pd.DataFrame(given | columns, index=frame.index)
    if (source := sources.get("duration_s")) and source.rate_of:
        tokens = table["prompt"] if source.rate_of == "prompt" else table["output"] - 1
        table["duration_s"] = (tokens / table["duration_s"].where(table["duration_s"] > 0)).astype(float)
    if (again := table.duplicated(["session", "run", "inference", "phase"])).any():
        raise DataInvalid(f"{file}, row {_first(again)}: this phase of this inference is there already")
    return table


def _totals(tables: Sequence[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Prefill and decode of the same rows as their total."""
    if len(tables) == len(INFERENCE) - 1:
        prefill, decode = tables
        names = [name for name in ADDED if name in prefill and name in decode]
        status = prefill["status"].where(prefill["status"] != OK, decode["status"])
        yield prefill.assign(phase="total", status=status, **{name: prefill[name] + decode[name] for name in names})


def _refuse_rows(file: Path, table: pd.DataFrame, table_map: TableMap) -> list[str]:
    """Take from the rows what they cannot support; the notes that list them."""
    energy = ["energy_j", "energy_u_j"]
    notes = _refuse(file, table, ~(table["duration_s"] > 0), ["duration_s", *energy], NO_TIME)
    if table_map.channel:
        least_s = table_map.channel.period + table_map.channel.window
        notes += _refuse(file, table, table["duration_s"] < least_s, energy, TOO_SHORT.format(least_s))
    return notes


def _refuse(file: Path, table: pd.DataFrame, rows: pd.Series[bool], columns: list[str], reason: str) -> list[str]:
    table.loc[rows, table.columns.intersection(columns)] = np.nan
    table.loc[rows, "status"] = reason
    if not rows.any():
        return []
    listed = ", ".join(str(row + 1) for row in rows.index[rows])
    lost = "are left out" if "duration_s" in columns else "have no energy"
    return [f"{file.name}: {rows.sum()} of {len(table)} rows {lost}, {reason}: rows {listed}"]


def _read(file: Path) -> pd.DataFrame:
    """The file as it is, a CSV's cells as text."""
    if file.suffix not in {".csv", ".parquet"}:
        raise DataInvalid(f"{file} is neither .csv nor .parquet")
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else _read_csv(file)
    except OSError as error:
        raise DataInvalid(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserWarning) as error:
        raise DataInvalid(f"{file} is no table: {' '.join(str(error).split())}") from None
    if frame.empty:
        raise DataInvalid(f"{file} has no rows")
    return frame.reset_index(drop=True)


def _read_csv(file: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header, cut off otherwise
        return pd.read_csv(file, dtype=str, index_col=False)


def _column(file: Path, frame: pd.DataFrame, name: str, source: Source) -> Any:
    """One column of the phases table, in its unit and type."""
    if source.column is not None:
        _need(file, frame, source.column, name)
    cells = pd.Series(source.value, frame.index) if source.column is None else frame[source.column]
    where = f"{file}: column {source.column!r}" if source.column else f"{name} of the map"
    empty = cells.isna()
    if empty.all():
        raise DataInvalid(f"{where} is empty")
    if name in NEEDED and empty.any():
        raise DataInvalid(f"{where}, row {_first(empty)}: is empty")
    if pa.types.is_string(SCHEMA.field(name).type):
        return _text(where, name, cells)
    return _numbers(where, name, cells, source)


def _need(file: Path, frame: pd.DataFrame, column: str, name: str) -> None:
    if column not in frame.columns:
        raise DataInvalid(f"{file} has no column {column!r} for {name}{nearest(column, frame.columns)}")


def _text(where: str, name: str, cells: pd.Series[Any]) -> Any:
    text = cells.astype(str).where(cells.notna())
    if name == "phase" and not (known := text.isin(INFERENCE)).all():
        row = _first(~known)
        raise DataInvalid(f"{where}, row {row}: {text[row - 1]!r} is no phase{nearest(text[row - 1], INFERENCE)}")
    return text


def _numbers(where: str, name: str, cells: pd.Series[Any], source: Source) -> Any:
    numbers = pd.to_numeric(cells, errors="coerce").astype(float) * source.scale(name)
    whole = pa.types.is_integer(SCHEMA.field(name).type)
    least = 1 if name == "output" else 0
    checks = {"is not a number": numbers.abs() < np.inf}
    if whole:
        checks |= {"is not a whole number": numbers % 1 == 0, f"is under {least}": numbers >= least}
    for problem, good in checks.items():
        if (bad := ~good & cells.notna()).any():
            raise DataInvalid(f"{where}, row {_first(bad)}: {cells[_first(bad) - 1]!r} {problem}")
    return ((numbers - source.less) * source.times).round().astype("Int64") if whole else numbers


def _first(mask: pd.Series[bool]) -> int:
    return int(mask.index.to_numpy()[mask.to_numpy().argmax()]) + 1
