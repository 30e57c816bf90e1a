"""How fast readings go onto the disk, against the ways that others record."""

from __future__ import annotations

import csv
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns
from joulelab.instruments.base import Block
from joulelab.recording.samples import SampleWriter, schema

CHANNELS = ["voltage", "current", "power", "temperature"]
COLUMNS = schema(CHANNELS).names
BLOCK = 1000
ROUNDS = 9

Take = Callable[[Block], object]
Open = Callable[[Path], AbstractContextManager[Take]]


def rates() -> Iterator[Row]:
    """The recorder, 1,000 rows a batch of 4 channels."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples"
        rates = medians(taking_turns(ROUNDS, {name: _rate(open_, file, n) for name, (open_, n) in WRITERS.items()}))
    ours = rates.pop("joulelab")
    yield Row("recorder, 1,000-row batches of 4 channels", ours, "rows/s", 10e6, "higher", rates)
    yield Row("recorder against CSV", ours / rates["CSV"], "x", 20, "higher", {"CSV": 1.0})


def _blocks(n: int) -> list[Block]:
    rng = np.random.default_rng(1)
    before = np.arange(BLOCK, dtype=np.int64) * 1_000_000
    return [Block(before, before + 50_000, before + 20_000, rng.normal(5, 1, (len(CHANNELS), BLOCK))) for _ in range(n)]


def _rate(open_: Open, file: Path, n: int) -> Callable[[], float]:
    """Rows a second until the last one is with the kernel. Each round writes a new file."""
    blocks = _blocks(n)

    def rate() -> float:
        file.unlink(missing_ok=True)
        with open_(file) as take:
            return n * BLOCK / seconds(lambda: [take(block) for block in blocks])

    return rate


@contextmanager
def _arrow(file: Path) -> Iterator[Take]:
    writer = SampleWriter(file, CHANNELS)

    def take(block: Block) -> None:
        writer.append(block)
        writer.flush()

    yield take
    writer.close()


@contextmanager
def _csv(file: Path) -> Iterator[Take]:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        yield lambda block: writer.writerows(_tuples(block))


@contextmanager
def _sqlite(file: Path) -> Iterator[Take]:
    with closing(sqlite3.connect(file)) as database:
        # Synced at checkpoints only: as safe from a kill as the others, and no slower.
        database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        database.execute(f"CREATE TABLE samples ({', '.join(COLUMNS)})")

        def take(block: Block) -> None:
            with database:
                database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", _tuples(block))

        yield take


@contextmanager
def _parquet(file: Path) -> Iterator[Take]:
    with pq.ParquetWriter(file, schema(CHANNELS)) as writer:
        yield lambda block: writer.write_batch(pa.record_batch(list(_columns(block)), schema=schema(CHANNELS)))


def _columns(block: Block) -> Iterator[np.ndarray]:
    yield from (np.asarray(column) for column in (block.before, block.after, block.device, *block.values))


def _tuples(block: Block) -> Iterator[tuple[float, ...]]:
    return zip(*(column.tolist() for column in _columns(block)), strict=True)


WRITERS = {"joulelab": (_arrow, 500), "CSV": (_csv, 50), "SQLite": (_sqlite, 50), "Parquet": (_parquet, 100)}
"""Each way to record, and how many blocks of it take about as long as with the others."""
