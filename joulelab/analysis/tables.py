"""Somebody else's table as a phases table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from joulelab.analysis.attribution import OK
from joulelab.analysis.cases import PHASES
from joulelab.analysis.dataset import SCHEMA, Phases, to_frame
from joulelab.analysis.table_map import NEEDED, Source, TableMap, read_map
from joulelab.errors import DataInvalid
from joulelab.quantities import Origin
from joulelab.registry import nearest

NO_TIME = "no time: the duration is not positive"
TOO_SHORT = "shorter than the sensor resolves ({:g} s): repeat it back to back, or use a faster meter"


def import_table(file: Path, mapping: Path) -> Phases:
    """Read a CSV or Parquet file by its map; rows in messages are counted from 1 below the header.

    A row without a positive duration has no phase: it is kept without time and energy, its status saying so. One that
    is too short for the sensor that the map states, by the rule of `attribute`, is kept without energy. UserError for a
    map that is wrong, DataInvalid for a file that is not what the map says.
    """
    table_map, frame = read_map(mapping, TableMap), _read(file)
    columns = {name: _column(file, frame, name, source) for name, source in table_map.columns.items()}
    rows, channels = len(frame), {}
    given: dict[str, Any] = {"session": file.stem, "run": file.name, "inference": range(1, rows + 1)}
    given |= {"origin": Origin.IMPORTED, "status": OK}
    if table_map.channel:
        name, channel = table_map.channel.name, table_map.channel.channel()
        channels[name] = channel
        given |= {"channel": name, "scope": channel.scope, "gain_u_rel": channel.sensor.gain_u_rel}
    table = pd.DataFrame(given | columns, index=range(rows))
    if (again := table.duplicated(["session", "run", "inference", "phase"])).any():
        raise DataInvalid(f"{file}, row {_first(again)}: this phase of this inference is there already")
    notes = _refuse_rows(file, table, table_map) if "duration_s" in columns else []
    return Phases(
        to_frame(pa.Table.from_pandas(table.reindex(columns=SCHEMA.names), SCHEMA, preserve_index=False)),
        channels,
        notes,
    )


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
    listed = ", ".join(str(row + 1) for row in np.flatnonzero(rows))
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
    if source.column is not None and source.column not in frame.columns:
        raise DataInvalid(f"{file} has no column {source.column!r} for {name}{nearest(source.column, frame.columns)}")
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


def _text(where: str, name: str, cells: pd.Series[Any]) -> Any:
    text = cells.astype(str).where(cells.notna())
    if name == "phase" and not (known := text.isin(PHASES)).all():
        row = _first(~known)
        raise DataInvalid(
            f"{where}, row {row}: {text.iloc[row - 1]!r} is no phase{nearest(text.iloc[row - 1], PHASES)}"
        )
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
            raise DataInvalid(f"{where}, row {_first(bad)}: {cells.iloc[_first(bad) - 1]!r} {problem}")
    return numbers.astype("Int64") if whole else numbers


def _first(mask: pd.Series[bool]) -> int:
    return int(np.argmax(mask)) + 1
