"""Runs to phases tables: every phase of every inference, its energy on each power channel, or why it has none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from joulelab.analysis.attribution import OK, Attribution, Edges, Source, attribute_source
from joulelab.analysis.budget import TERMS
from joulelab.analysis.dataset import IDLE, SCHEMA, SKIPPED, Phases, merge, merge_shared, read_dataset, same, to_frame
from joulelab.analysis.edges import sources
from joulelab.analysis.shapes import Peak, Shape, label, shape
from joulelab.analysis.slowdowns import slowed, with_slowdowns
from joulelab.calibration.activity import timeline
from joulelab.calibration.certificate import Calibrated, Store, calibrated
from joulelab.calibration.integrals import NS, Floats
from joulelab.calibration.threads import one_thread
from joulelab.quantities import Channel, Origin
from joulelab.recording import Manifest, RunDir
from joulelab.timebase import SECOND

__all__ = ["Phases", "load_phases", "merge", "reduce", "reduce_all"]

Columns = dict[str, Any]

REST_NS = SECOND
"""A shorter idle step is a pause between loads: the device has not settled when it ends."""
INNER_EDGE = {"prefill": 1.0, "decode": -1.0, "total": 0.0, "load": 0.0, "transfer": 0.0}
"""The edge between prefill and decode is the stop of the one and the start of the other."""

ASKED = ("inference", "repeat", "history", "prompt", "output", "batch", "temperature_c", "throttled")
SPAN = (*ASKED, "phase", "start_ns", "stop_ns", "boundary_u_s", "duration_s", "cpu_s")


class Block(NamedTuple):
    """The rows of one run on one channel: `budget` [rows, terms] and `shared` [rows, factors] in J."""

    table: Any
    channels: dict[str, Channel]
    notes: list[str]
    idle: list[Columns]
    budget: Floats
    shared: sparse.csr_array | None = None


def load_phases(path: Path, certificates: Store | None = None, method: str | None = None) -> Phases:
    """The phases of a run directory, or of a dataset by its folder or its Parquet file."""
    is_run = (path / "manifest.json").is_file()
    return reduce(RunDir(path), certificates, method) if is_run else read_dataset(path)


def reduce(run: RunDir, certificates: Store | None = None, method: str | None = None) -> Phases:
    """Reduce one run, whatever state it is in. Warm-up inferences are left out.

    With the certificates that it keeps, or with others; with the method that suits each channel and inference, or with
    the one named (integrate, counter or deconvolve) wherever a channel allows it.
    """
    return reduce_all([run], certificates, method)


def reduce_all(runs: Sequence[RunDir], certificates: Store | None = None, method: str | None = None) -> Phases:
    """Reduce runs side by side: what takes long in it does not hold the interpreter's lock."""

    def reduced(run: RunDir) -> tuple[list[Block], Calibrated]:
        # A run is opened anew, so that its parsed journal goes when it is done: 200 of them would fill the memory.
        run = RunDir(run.path)
        read = calibrated(run, certificates)
        return _reduce(run, read, method), read

    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(reduced, runs))
    blocks = [block for several, _ in found for block in several]
    return Phases(
        to_frame(pa.concat_tables([block.table for block in blocks])),
        same(block.channels for block in blocks),
        [note for block in blocks for note in block.notes],
        pd.DataFrame([row for block in blocks for row in block.idle], columns=IDLE),
        pd.DataFrame(np.concatenate([block.budget for block in blocks]), columns=list(TERMS)),
        merge_shared([(block.shared, len(block.table)) for block in blocks]),
        [row for _, read in found for row in read.rows],
        same(_shapes(run.manifest) for run in runs),
        same(_peaks(run.manifest) for run in runs),
    )


def _shapes(manifest: Manifest) -> dict[str, Shape]:
    engine, known = manifest.engine, shape(manifest.engine)
    return {label(engine.get("model"), engine.get("quant")): known} if known else {}


def _peaks(manifest: Manifest) -> dict[str, Peak]:
    given = manifest.stanza.get("peak")
    return {manifest.device: Peak(**given)} if given else {}


def _reduce(run: RunDir, read: Calibrated, method: str | None) -> list[Block]:
    records = [*run.records("inference"), *run.records("move")]
    warmups = sum(record["warmup"] for record in records)
    kept = with_slowdowns(run, [record for record in records if not record["warmup"]])
    spans = [span for record in kept for span in _spans(record)]
    common = _common(run.manifest, spans)
    blocks = _on_channels(run, read, common, method) if run.manifest.power else [_time_only(run.manifest, common)]
    if skipped := [record for record in run.records("skipped") if not record["warmup"]]:
        blocks += [_skipped(run.manifest, skipped, block) for block in blocks]
    blocks[0].notes.extend(slowed(run, kept))
    if warmups:
        blocks[0].notes.insert(0, f"{run.manifest.run}: {warmups} warm-up inferences are left out")
    return blocks


def _spans(record: Columns) -> Iterator[Columns]:
    """The phases of an inference, and all together as its total, by column of the table; a move is one phase."""
    phases = record["phases"]
    asked = {name: record.get(name) for name in ASKED}
    for phase in phases if record["kind"] == "move" else [*phases, _total(phases)]:
        yield asked | {
            "phase": phase["name"],
            "start_ns": phase["start"],
            "stop_ns": phase["stop"],
            "boundary_u_s": phase["boundary_u_s"],
            "duration_s": (phase["stop"] - phase["start"]) * NS,
            "cpu_s": phase["cpu_s"],
        }


def _total(phases: Sequence[Columns]) -> Columns:
    cpu = [phase["cpu_s"] for phase in phases]
    ends = {"start": phases[0]["start"], "stop": phases[-1]["stop"]}
    return {"name": "total", **ends, "boundary_u_s": None, "cpu_s": None if None in cpu else sum(cpu)}


def _common(manifest: Manifest, spans: Sequence[Columns]) -> Columns:
    """The columns that do not depend on the channel."""
    engine = {name: manifest.engine.get(name) for name in ("model", "quant", "mode", "threads")}
    run = {"session": manifest.session, "run": manifest.run, "device": manifest.device}
    constant = run | engine | {"engine": manifest.stanza.get("driver")}
    varying = {name: [span[name] for span in spans] for name in SPAN}
    batch = [manifest.engine.get("batch") if own is None else own for own in varying["batch"]]
    return varying | constant | {"batch": batch}


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
    return _empty(_block(common, origin=origin, status=OK))


def _empty(table: Any) -> Block:
    """Rows without energies."""
    return Block(table, {}, [], [], np.full((len(table), len(TERMS)), np.nan))


def _skipped(manifest: Manifest, records: Sequence[Columns], beside: Block) -> Block:
    """What could not run, on the channel of the block of what could."""
    spans = [span for record in records for span in _missing(record)]
    origin = Origin.SIMULATED if manifest.simulated else Origin.MEASURED
    about: Columns = {"origin": origin, "status": [span["status"] for span in spans]}
    for name, channel in beside.channels.items():
        about |= {"channel": name, "scope": channel.scope, "origin": origin if manifest.simulated else channel.origin}
    return _empty(_block(_common(manifest, spans), **about))


def _missing(record: Columns) -> Iterator[Columns]:
    """The phases that a skipped inference or move would have had."""
    asked = {name: record.get(name) for name in ASKED}
    inferred = ("prefill", "decode", "total") if record["output"] > 1 else ("prefill", "total")
    for phase in [record["phase"]] if "phase" in record else inferred:
        yield dict.fromkeys(SPAN) | asked | {"phase": phase, "status": SKIPPED + record["message"]}


def _on_channels(run: RunDir, read: Calibrated, common: Columns, method: str | None) -> list[Block]:
    """A block for each power channel; the samples of an instrument are opened once for all of its channels."""
    rests = [(record["start"], record["stop"]) for record in run.records("idle")]
    idle = [_settled(*rest) for rest in rests if rest[1] - rest[0] >= REST_NS]
    idle_s = np.array([(stop - start) * NS for start, stop in idle])
    edges = replace(_edges(common, idle), timeline=timeline(run.journal))
    found = sources(run, read, run.manifest.power)
    return [_on_channel(run, read, common, source, attribute_source(source, edges, method), idle_s) for source in found]


def _settled(start: int, stop: int) -> tuple[int, int]:
    """The middle of an idle step: the device cools down first, and a slow sensor has not seen the end yet."""
    tenth = (stop - start) // 10
    return start + tenth, stop - tenth


def _edges(common: Columns, idle: Sequence[tuple[int, int]]) -> Edges:
    """The edges of all phases, and behind them those of the idle steps."""
    inner = [INNER_EDGE[p] * (u or 0.0) for p, u in zip(common["phase"], common["boundary_u_s"], strict=True)]
    start = np.array(common["start_ns"] + [start for start, _ in idle], np.int64)
    stop = np.array(common["stop_ns"] + [stop for _, stop in idle], np.int64)
    inference = np.array(common["inference"] + [-1] * len(idle), np.int64)
    return Edges(start, stop, np.array(inner + [0.0] * len(idle)), inference)


def _on_channel(
    run: RunDir, read: Calibrated, common: Columns, source: Source, found: Attribution, idle_s: Floats
) -> Block:
    manifest, name, channel, rows = run.manifest, source.name, source.channel, len(common["phase"])
    gain = read.certified(name, "gain")
    idle = _idle_power(found.energy_j[rows:], idle_s)
    table = _block(
        common,
        channel=name,
        scope=channel.scope,
        origin=Origin.SIMULATED if manifest.simulated else channel.origin,
        method=found.method[:rows],
        energy_j=found.energy_j[:rows],
        energy_u_j=found.energy_u_j[:rows],
        gain_u_rel=channel.sensor.gain_u_rel,
        idle_j=idle["idle_w"] * np.array(common["duration_s"]),
        certificate=gain and gain.hash,
        status=found.status[:rows],
    )
    lost = Counter(cause for cause in found.status[:rows] if cause != OK)
    notes = [f"{manifest.run}: {count} phases have no energy on {name}: {cause}" for cause, count in lost.items()]
    shared = None if found.shared is None else found.shared[:rows]
    budget = np.stack([load[:rows] for load in found.budget.values()], axis=1)
    return Block(table, {name: channel}, notes, [{"run": manifest.run, "channel": name, **idle}], budget, shared)


def _idle_power(energy_j: Floats, duration_s: Floats) -> Columns:
    """Mean power of the idle steps, weighted by their length, and its standard deviation over them."""
    known = ~np.isnan(energy_j)
    energy, seconds = energy_j[known], duration_s[known]
    mean = energy.sum() / seconds.sum() if len(energy) else np.nan
    spread = np.std(energy / seconds, ddof=1) if len(energy) > 1 else np.nan
    return {"idle_w": mean, "idle_u_w": spread, "steps": len(energy)}
