"""The phases table, the one thing that analysis, imports and users share, and its file, covariance beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from joulelab.analysis.shapes import Peak, Shape
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel

T = TypeVar("T")

VERSION = 1
FILE, COVARIANCE = "phases.parquet", "phases.cov.npz"
IDLE = ["run", "channel", "idle_w", "idle_u_w", "steps"]

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_COLUMNS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("session", "run", "device", "model", "quant", "engine", "mode"), (_TEXT, "")),
    **dict.fromkeys(("batch", "threads", "inference", "repeat", "trials"), (_WHOLE, "1")),
    "phase": (_TEXT, ""),
    **dict.fromkeys(("history", "prompt", "output"), (_WHOLE, "token")),
    **dict.fromkeys(("start_ns", "stop_ns"), (_WHOLE, "ns")),
    **dict.fromkeys(("boundary_u_s", "duration_s", "cpu_s"), (_REAL, "s")),
    **dict.fromkeys(("channel", "scope", "origin", "method"), (_TEXT, "")),
    **dict.fromkeys(("energy_j", "energy_u_j"), (_REAL, "J")),
    "gain_u_rel": (_REAL, "1"),
    "idle_j": (_REAL, "J"),
    "temperature_c": (_REAL, "degC"),
    "throttled": (pa.bool_(), ""),
    "certificate": (_TEXT, ""),
    "status": (_TEXT, ""),
}
SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"unit": unit} if unit else None) for name, (kind, unit) in _COLUMNS.items()]
)
"""The columns in their order, each quantity with its unit in the field's metadata. Unknown is null; of `trials`, which
says how many inferences a row is the mean of, that is 1.
"""
SUBJECT = ("device", "model", "quant", "engine", "mode", "batch", "threads")
"""What a measurement is of: rows that differ in one of these are never pooled."""
SKIPPED = "skipped: "
"""How the status of a row begins whose configuration cannot run on its device; the reason follows."""
SYSTEMATIC = ("gain", "offset", "clock", "lag", "ramp", "start")
"""The terms of the budget that err alike in every row of a channel."""
_SHARED, _CSR = "shared_", ("data", "indices", "indptr", "shape")
_TO_PANDAS = {_WHOLE: pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), _TEXT: pd.StringDtype(na_value=np.nan)}


def to_frame(table: Any) -> pd.DataFrame:
    """A `pyarrow.Table` of `SCHEMA` as a frame whose whole numbers may be null."""
    return pd.DataFrame(table.to_pandas(types_mapper=_TO_PANDAS.get))


@dataclass(frozen=True)
class Phases:
    """The phases table with what goes with it.

    `channels` by "instrument.channel"; `notes` say what was left out and why; `idle` has the idle power of each `run`
    and `channel`: `idle_w`, `idle_u_w` (the spread over the idle steps, a standard deviation) and `steps`; `budget`
    has a signed column [J] for each term of the uncertainty and a row for each of the table's; `shared` [rows, factors]
    says in J how the noise of rows that were estimated together is correlated: its covariance is shared @ shared.T. The
    noise of rows without an entry there is independent. `certificates` has a row for each certificate that was looked
    at, as `calibration.certificate.Calibrated` has them; `shapes` are by `shapes.label` of model and quantisation,
    `peaks` by device, as far as they are known.
    """

    table: pd.DataFrame
    channels: dict[str, Channel] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    idle: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=IDLE))
    budget: pd.DataFrame | None = None
    shared: sparse.csr_array | None = None
    certificates: list[dict[str, Any]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    peaks: dict[str, Peak] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `phases.parquet`, whole or not at all, and `phases.cov.npz` where the rows have a budget.

        UserError where `folder` cannot be written.
        """
        about = {
            "version": VERSION,
            "channels": {name: channel.to_json() for name, channel in self.channels.items()},
            "notes": self.notes,
            "idle": json.loads(self.idle.to_json(orient="records", double_precision=15)),
            "certificates": self.certificates,
            "shapes": {name: shape.model_dump() for name, shape in self.shapes.items()},
            "peaks": {name: peak.model_dump() for name, peak in self.peaks.items()},
        }
        table = pa.Table.from_pandas(self.table, SCHEMA, preserve_index=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / COVARIANCE).unlink(missing_ok=True)
            draft = folder / f".{FILE}"
            pq.write_table(table.replace_schema_metadata({"joulelab": json.dumps(about)}), draft)
            if self.budget is not None:
                terms, loads = np.array(self.budget.columns, "U"), self.budget.to_numpy()
                np.savez_compressed(folder / COVARIANCE, terms=terms, loads=loads, **_arrays(self.shared))
            draft.rename(folder / FILE)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None

    def covariance(self, rows: Sequence[int]) -> Floats:
        """The covariance [rows, rows] in J^2 of the energies of some rows.

        Each term is one random number times its column of the budget, or for noise that is `shared` one a factor. The
        systematic terms share theirs over all rows of a channel; the boundary's over the phases of an inference, where
        prefill and decode have it with opposite sign; the others have one a row.
        """
        assert self.budget is not None
        table, budget = self.table.iloc[list(rows)], self.budget.iloc[list(rows)]
        channel = pd.factorize(table["channel"])[0]
        inference = table.groupby(["run", "inference", "channel"], dropna=False).ngroup().to_numpy()
        alike = dict.fromkeys(SYSTEMATIC, channel) | {"boundary": inference}
        total = np.zeros((len(table), len(table)))
        for term, load in budget.items():
            group = alike.get(str(term), np.arange(len(table)))
            total += np.outer(load, load) * (group[:, None] == group)
        if self.shared is not None:
            factors = self.shared[list(rows)]
            total += (factors @ factors.T).toarray() - np.diag(np.where(together(factors), budget["noise"] ** 2, 0.0))
        return total


def together(shared: sparse.csr_array) -> NDArray[np.bool_]:
    """Which rows [rows] have noise that they share with others."""
    return np.diff(shared.indptr) > 0


def _arrays(shared: sparse.csr_array | None) -> dict[str, Any]:
    """`shared` as plain arrays."""
    return {} if shared is None else {_SHARED + name: getattr(shared, name) for name in _CSR}


def read_dataset(path: Path) -> Phases:
    """Read a dataset: its folder or its Parquet file. DataInvalid where it is none."""
    file = path / FILE if path.is_dir() else path
    try:
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"joulelab"])
    except FileNotFoundError:
        raise DataInvalid(f"{path} is neither a run nor a dataset: it has no {FILE}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataInvalid(f"{file} is no phases table: import it with 'joulelab import table'") from None
    if about["version"] > VERSION:
        raise DataInvalid(f"{path} has format {about['version']}, this joulelab reads up to {VERSION}: update joulelab")
    channels = {name: Channel.from_json(channel) for name, channel in about["channels"].items()}
    idle = pd.DataFrame(about["idle"], columns=IDLE)
    budget, shared = _read_budget(file.with_name(COVARIANCE))
    certificates = about.get("certificates", [])
    shapes = {name: Shape(**shape) for name, shape in about.get("shapes", {}).items()}
    peaks = {name: Peak(**peak) for name, peak in about.get("peaks", {}).items()}
    frame = to_frame(table).reindex(columns=SCHEMA.names)
    return Phases(frame, channels, about["notes"], idle, budget, shared, certificates, shapes, peaks)


def _read_budget(file: Path) -> tuple[pd.DataFrame | None, sparse.csr_array | None]:
    """The budget and what its noise shares, as far as there are such."""
    if not file.is_file():
        return None, None
    with np.load(file, allow_pickle=False) as stored:
        budget = pd.DataFrame(stored["loads"], columns=stored["terms"].tolist())
        if _SHARED + "data" not in stored:
            return budget, None
        data, indices, indptr, shape = (stored[_SHARED + name] for name in _CSR)
    return budget, sparse.csr_array((data, indices, indptr), tuple(shape))


def name_of(subject: Mapping[str, Any], telling: Iterable[str]) -> str:
    """A subject by its device and what tells it from others; numbers say what they count."""
    said = (f"{name} {subject[name]}" if name in {"batch", "threads"} else str(subject[name]) for name in telling)
    return "/".join([str(subject["device"]), *said])


def of_subject(table: pd.DataFrame, subject: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one subject, None in which stands for unknown."""
    own = [table[name].isna() if x is None else (table[name] == x).fillna(False) for name, x in subject.items()]
    return table[np.logical_and.reduce(own)]


def merge(datasets: Sequence[Phases]) -> Phases:
    """Datasets as one. DataInvalid where a channel of one name is not the same channel in all of them."""
    return Phases(
        pd.concat([dataset.table for dataset in datasets], ignore_index=True),
        same([dataset.channels for dataset in datasets]),
        [note for dataset in datasets for note in dataset.notes],
        pd.concat([dataset.idle for dataset in datasets], ignore_index=True),
        _merge_budgets(datasets),
        merge_shared([(dataset.shared, len(dataset.table)) for dataset in datasets]),
        [row for dataset in datasets for row in dataset.certificates],
        same([dataset.shapes for dataset in datasets]),
        same([dataset.peaks for dataset in datasets]),
    )


def _merge_budgets(datasets: Sequence[Phases]) -> pd.DataFrame | None:
    """A term that one dataset knows and another does not is 0 in the other; without a budget all are unknown."""
    terms = dict.fromkeys(term for d in datasets if d.budget is not None for term in d.budget)
    budgets = [
        pd.DataFrame(np.nan, d.table.index, list(terms))
        if d.budget is None
        else d.budget.reindex(columns=list(terms), fill_value=0.0)
        for d in datasets
    ]
    return pd.concat(budgets, ignore_index=True) if terms else None


def merge_shared(parts: Sequence[tuple[sparse.csr_array | None, int]]) -> sparse.csr_array | None:
    """What the noise of tables of so many rows each shares, one below the other; they share nothing with each other."""
    if all(shared is None for shared, _ in parts):
        return None
    blocks = [sparse.csr_array((rows, 0)) if shared is None else shared for shared, rows in parts]
    return sparse.csr_array(sparse.block_diag(blocks, format="csr"))


def same(several: Iterable[dict[str, T]]) -> dict[str, T]:
    """What several sources say by name, as one; DataInvalid where one name stands for two things."""
    known: dict[str, T] = {}
    for found in several:
        for name, described in found.items():
            if known.setdefault(name, described) != described:
                raise DataInvalid(f"{name} is described differently in two of the sources: take them one at a time")
    return known
