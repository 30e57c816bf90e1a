"""Samples: one Arrow IPC stream an instrument, written batch by batch so that a kill costs at most the last one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from joulelab.errors import DataInvalid
from joulelab.recording.block import Block

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
STAMPS = ("before_ns", "after_ns", "device_ns")


def schema(channels: Sequence[str]) -> Any:
    """Brackets on the bench clock, the instrument's own stamp, and a column a channel; null is "no reading"."""
    stamps = [pa.field(name, pa.int64(), nullable=name == "device_ns") for name in STAMPS]
    return pa.schema([*stamps, *(pa.field(name, pa.float64()) for name in channels)])


class SampleWriter:
    """Collects blocks and appends them as record batches. Opening an interrupted stream cuts its torn tail and goes on.

    The messages are written by hand from Arrow's own serialisation, because its stream writer cannot continue a file.
    """

    def __init__(self, path: Path, channels: Sequence[str]) -> None:
        self._schema = schema(channels)
        self._blocks: list[Block] = []
        self.rows = 0
        self.last_ns = -1
        whole = self._whole_bytes(path) if path.exists() else 0
        self._file = path.open("r+b" if whole else "wb", buffering=0)
        self._file.truncate(whole)
        self._file.seek(whole)
        if not whole:
            self._write(self._schema.serialize())

    def _whole_bytes(self, path: Path) -> int:
        """How much of an interrupted stream is whole batches; 0 where not even the schema is."""
        whole = 0
        with pa.OSFile(str(path)) as source:
            try:
                reader = pa.ipc.open_stream(source)
                whole = source.tell()
                for batch in reader:
                    whole = source.tell()
                    self.rows += batch.num_rows
                    self.last_ns = batch["after_ns"][-1].as_py()
            except (pa.ArrowInvalid, OSError):
                pass
        return whole

    def append(self, block: Block) -> None:
        """Take a block over; it must not be changed afterwards."""
        if len(block.before):
            self._blocks.append(block)

    def flush(self) -> None:
        """Write what was collected as one record batch."""
        if not self._blocks:
            return
        blocks, self._blocks = self._blocks, []
        batch = self._one(blocks[0]) if len(blocks) == 1 else self._many(blocks)
        self._write(batch.serialize())
        self.rows += batch.num_rows
        self.last_ns = int(blocks[-1].after[-1])

    def _one(self, block: Block) -> Any:
        device = pa.nulls(len(block.before), pa.int64()) if block.device is None else block.device
        return self._batch([block.before, block.after, device], block.values)

    def _many(self, blocks: Sequence[Block]) -> Any:
        """The blocks of a polled meter are single readings: join each column once."""
        stamps = [_join([block[k] for block in blocks]) for k in (0, 1)]
        if blocks[0].device is None:
            device = pa.nulls(len(stamps[0]), pa.int64())
        else:
            device = _join([block.device for block in blocks])
        values = [_join([block.values[k] for block in blocks], float) for k in range(len(self._schema) - len(STAMPS))]
        return self._batch([*stamps, device], values)

    def _batch(self, stamps: Sequence[Any], values: Any) -> Any:
        columns = [s if isinstance(s, pa.Array) else _column(np.asarray(s, np.int64), pa.int64()) for s in stamps]
        columns += [_column(np.asarray(v, np.float64), pa.float64()) for v in values]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _write(self, message: Any) -> None:
        if self._file.write(message) != len(message):
            raise OSError(28, "no space left for samples")

    def close(self) -> None:
        with self._file:
            self.flush()
            self._write(END_OF_STREAM)
            os.fsync(self._file.fileno())


def _column(values: Any, kind: Any) -> Any:
    """An Arrow array on the values' own memory, NaN as null. `pa.array` would import pandas: a second, in mid-run."""
    values = np.ascontiguousarray(values)
    missing = values != values  # noqa: PLR0124 only NaN differs from itself
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


def _join(parts: Sequence[Any], dtype: type = np.int64) -> Any:
    if all(len(part) == 1 for part in parts):
        return np.fromiter(chain.from_iterable(parts), dtype, len(parts))
    return np.concatenate([np.asarray(part, dtype) for part in parts])


def read_samples(path: Path) -> Any:
    """The stream as one `pyarrow.Table`, memory-mapped; batches after a torn tail are not there."""
    batches = []
    with pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
        except (pa.ArrowInvalid, OSError):
            raise DataInvalid(
                f"{path.name} of {path.parent.parent.name} holds no samples: its head is damaged"
            ) from None
        with suppress(pa.ArrowInvalid, OSError):  # the torn tail of an interrupted run; `verify` tells it from damage
            batches.extend(reader)
    return pa.Table.from_batches(batches, reader.schema)
