"""Runs to phases tables: every phase of every inference, its energy on each power channel, or why it has none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from joulelab.analysis.attribution import OK, Attribution, Edges, attribute
from joulelab.analysis.budget import TERMS
from joulelab.analysis.dataset import IDLE, SCHEMA, Phases, merge, read_dataset, same_channels, to_frame
from joulelab.calibration.integrals import NS, Floats
from joulelab.quantities import Channel, Origin
from joulelab.recording import Manifest, RunDir

__all__ = ["Phases", "load_phases", "merge", "reduce", "reduce_all"]

Columns = dict[str, Any]

INNER_EDGE = {"prefill": 1.0, "decode": -1.0, "total": 0.0}
"""The edge between prefill and decode is the stop of the one and the start of the other."""

ASKED = ("inference", "repeat", "history", "prompt", "output", "temperature_c", "throttled")
SPAN = (*ASKED, "phase", "start_ns", "stop_ns", "boundary_u_s", "duration_s", "cpu_s")


class Block(NamedTuple):
    """The rows of one run on one channel: `budget` [rows, terms] in J."""

    table: Any
    channels: dict[str, Channel]
    notes: list[str]
    idle: list[Columns]
    budget: Floats


def load_phases(path: Path) -> Phases:
    """The phases of a run directory, or of a dataset by its folder or its Parquet file."""
    return reduce(RunDir(path)) if (path / "manifest.json").is_file() else read_dataset(path)


def reduce(run: RunDir) -> Phases:
    """Reduce one run, whatever state it is in. Warm-up inferences are left out."""
    return reduce_all([run])


def reduce_all(runs: Sequence[RunDir]) -> Phases:
    """Reduce runs side by side: what takes long in it does not hold the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A run is opened anew, so that its parsed journal goes when it is done: 200 of them would fill the memory.
        blocks = list(chain.from_iterable(pool.map(lambda run: _reduce(RunDir(run.path)), runs)))
    return Phases(
        to_frame(pa.concat_tables([block.table for block in blocks])),
        same_channels(block.channels for block in blocks),
        [note for block in blocks for note in block.notes],
        pd.DataFrame([row for block in blocks for row in block.idle], columns=IDLE),
        pd.DataFrame(np.concatenate([block.budget for block in blocks]), columns=list(TERMS)),
    )


def _reduce(run: RunDir) -> list[Block]:
    records = run.records("inference")
    warmups = sum(record["warmup"] for record in records)
    spans = [span for record in records if not record["warmup"] for span in _spans(record)]
    common = _common(run.manifest, spans)
    blocks = _on_channels(run, common) if run.manifest.power else [_time_only(run.manifest, common)]
    if warmups:
        blocks[0].notes.insert(0, f"{run.manifest.run}: {warmups} warm-up inferences are left out")
    return blocks


def _spans(record: Columns) -> Iterator[Columns]:
    """The phases of an inference, and all together as its total, by column of the table."""
    phases = record["phases"]
    cpu = [phase["cpu_s"] for phase in phases]
    total = {"name": "total", "start": phases[0]["start"], "stop": phases[-1]["stop"], "boundary_u_s": None}
    asked = {name: record[name] for name in ASKED}
    for phase in [*phases, total | {"cpu_s": None if None in cpu else sum(cpu)}]:
        yield asked | {
            "phase": phase["name"],
            "start_ns": phase["start"],
            "stop_ns": phase["stop"],
            "boundary_u_s": phase["boundary_u_s"],
            "duration_s": (phase["stop"] - phase["start"]) * NS,
            "cpu_s": phase["cpu_s"],
        }


def _common(manifest: Manifest, spans: Sequence[Columns]) -> Columns:
    """The columns that do not depend on the channel."""
    engine = {name: manifest.engine.get(name) for name in ("model", "quant", "mode", "batch", "threads")}
    run = {"session": manifest.session, "run": manifest.run, "device": manifest.device}
    constant = run | engine | {"engine": manifest.stanza.get("driver")}
    varying = {name: [span[name] for span in spans] for name in SPAN}
    return varying | constant


def _block(common: Columns, **columns: Any) -> Any:
    """Rows of the table. A column that is one value has it in every row, one that is missing is unknown."""
    given, rows = common | columns, len(common["phase"])
    arrays = []
    for field in SCHEMA:
        x = given.get(field.name)
        many = isinstance(x, list | np.ndarray)
        arrays.append(pa.array(x, field.type, from_pandas=True) if many else pa.repeat(pa.scalar(x, field.type), rows))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _time_only(manifest: Manifest, common: Columns) -> Block:
    origin = Origin.SIMULATED if manifest.simulated else Origin.MEASURED
    table = _block(common, origin=origin, status=OK)
    return Block(table, {}, [], [], np.full((len(table), len(TERMS)), np.nan))


def _on_channels(run: RunDir, common: Columns) -> list[Block]:
    """A block for each power channel; the samples of an instrument are opened once for all of its channels."""
    intervals = {instrument.name: instrument.interval_ns for instrument in run.manifest.instruments}
    idle = [_settled(record["start"], record["stop"]) for record in run.records("idle")]
    idle_s = np.array([(stop - start) * NS for start, stop in idle])
    edges = _edges(common, idle)
    samples = {name: run.samples(name) for name in {channel.partition(".")[0] for channel in run.manifest.power}}
    blocks = []
    for name in run.manifest.power:
        meter = name.partition(".")[0]
        spans = {kind: _spans_of(run.records(kind), meter) for kind in ("gap", "overrange")}
        found = attribute(run.channels[name], intervals[meter], samples[meter], edges, spans["gap"], spans["overrange"])
        blocks.append(_on_channel(run, common, name, found, idle_s))
    return blocks


def _spans_of(records: Sequence[Columns], meter: str) -> list[tuple[int, int]]:
    return [(record["start"], record["stop"]) for record in records if record["instrument"] == meter]


def _settled(start: int, stop: int) -> tuple[int, int]:
    """The middle of an idle step: the device cools down first, and a slow sensor has not seen the end yet."""
    tenth = (stop - start) // 10
    return start + tenth, stop - tenth


def _edges(common: Columns, idle: Sequence[tuple[int, int]]) -> Edges:
    """The edges of all phases, and behind them those of the idle steps."""
    inner = [INNER_EDGE[p] * (u or 0.0) for p, u in zip(common["phase"], common["boundary_u_s"], strict=True)]
    start = np.array(common["start_ns"] + [start for start, _ in idle], np.int64)
    stop = np.array(common["stop_ns"] + [stop for _, stop in idle], np.int64)
    return Edges(start, stop, np.array(inner + [0.0] * len(idle)))


def _on_channel(run: RunDir, common: Columns, name: str, found: Attribution, idle_s: Floats) -> Block:
    manifest, channel, rows = run.manifest, run.channels[name], len(common["phase"])
    idle = _idle_power(found.energy_j[rows:], idle_s)
    table = _block(
        common,
        channel=name,
        scope=channel.scope,
        origin=Origin.SIMULATED if manifest.simulated else channel.origin,
        method=found.method,
        energy_j=found.energy_j[:rows],
        energy_u_j=found.energy_u_j[:rows],
        gain_u_rel=channel.sensor.gain_u_rel,
        idle_j=idle["idle_w"] * np.array(common["duration_s"]),
        certificate=manifest.certificates.get(name),
        status=found.status[:rows],
    )
    lost = Counter(cause for cause in found.status[:rows] if cause != OK)
    notes = [f"{manifest.run}: {count} phases have no energy on {name}: {cause}" for cause, count in lost.items()]
    budget = np.stack([load[:rows] for load in found.budget.values()], axis=1)
    return Block(table, {name: channel}, notes, [{"run": manifest.run, "channel": name, **idle}], budget)


def _idle_power(energy_j: Floats, duration_s: Floats) -> Columns:
    """Mean power of the idle steps, weighted by their length, and its standard deviation over them."""
    known = ~np.isnan(energy_j)
    energy, seconds = energy_j[known], duration_s[known]
    mean = energy.sum() / seconds.sum() if len(energy) else np.nan
    spread = np.std(energy / seconds, ddof=1) if len(energy) > 1 else np.nan
    return {"idle_w": mean, "idle_u_w": spread, "steps": len(energy)}
