"""Energies of phases that were repeated back to back, which a sensor of any speed sees as steady power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from joulelab.analysis.budget import TERMS
from joulelab.analysis.direct import direct
from joulelab.analysis.edges import LONG, OK, Attribution, Edges, Source, sources
from joulelab.analysis.means import Means
from joulelab.calibration.certificate import Store, calibrated
from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.errors import DataInvalid
from joulelab.recording import RunDir

SIZE = ["history", "prompt", "output"]
ANEW = ("noise", "sampling")
"""What errs anew in every hold; the other terms err alike in all."""
METER = ("gain", "offset", "resolution")
"""... and these alike in whatever one meter reads."""
SETTLED_S = 0.5
"""So long after a load comes or goes its power has reached where it stays, beyond what the sensor takes to show it."""


class Hold(NamedTuple):
    """Inferences of one size in a row, without those in which power or sensor were not settled.

    From the start of the first to the start of the one after the last [ns]: `inferences` of them, and the gaps between.
    """

    size: tuple[int, int, int]
    start_ns: int
    stop_ns: int
    inferences: int
    gap_s: float
    duration_s: float


@dataclass(frozen=True)
class Steady:
    """`table`: `SIZE`, `phase`, `energy_j` with its standard uncertainty `energy_u_j`, the part `own_u_j` of it that
    `METER` has no part in, and `duration_s` of one inference, a row a configuration and phase; `covariance` in J^2.
    """

    table: pd.DataFrame
    covariance: Floats


def steady(run: RunDir, channel: str, certificates: Store | None = None) -> Steady:
    """The mean energies on a channel in a run of the protocol `steady`; the method `steady`.

    Prefill is what inferences of one output token draw, total what whole ones do, decode their difference. What the
    device draws in the gaps between inferences is taken to be its idle power. DataInvalid where no load was held long
    enough for the sensor.
    """
    read = calibrated(run, certificates)
    [source] = sources(run, read, [channel])
    held = _holds(run, source)
    if not held:
        least_s = LONG * source.blur_s + 2 * _settle_s(source)
        raise DataInvalid(f"{run.path.name} holds no load long enough for {channel}: hold it for {least_s:.0f} s")
    found, idle_w = _attributed(source, held), _idle_w(run, source)
    count, gap_s = (np.array([getattr(hold, name) for hold in held]) for name in ("inferences", "gap_s"))
    energy = (found.energy_j - idle_w * gap_s) / count
    rows, average = _average(held)
    meters, own = (average @ (errors / count[:, None]) for errors in _errors(found))
    covariance = meters @ meters.T + own @ own.T
    table = rows.assign(
        energy_j=average @ energy,
        energy_u_j=np.sqrt(np.diag(covariance)),
        own_u_j=np.linalg.norm(own, axis=1),
        duration_s=average @ np.array([hold.duration_s for hold in held]),
    )
    return Steady(table, covariance)


def _holds(run: RunDir, source: Source) -> list[Hold]:
    """The loads that come after a rest, as far as they are settled and long enough."""
    asked = {record["step"]: record["what"] for record in run.records("step")}
    loads = [r for r in run.records("load") if asked.get(r["step"] - 1, {}).get("kind") == "idle"]
    settle_ns = round(_settle_s(source) / NS)
    found = [_hold(record, asked[record["step"]], settle_ns) for record in loads]
    return [hold for hold in found if hold and (hold.stop_ns - hold.start_ns) * NS >= LONG * source.blur_s]


def _settle_s(source: Source) -> float:
    sensor = source.channel.sensor
    return SETTLED_S + source.blur_s + sensor.delay_s + 5 * sensor.lowpass_s


def _hold(record: dict[str, Any], asked: dict[str, Any], settle_ns: int) -> Hold | None:
    played = np.array(record["inferences"], np.int64)
    inner = played[(played[:, 0] >= record["start"] + settle_ns) & (played[:, 2] <= record["stop"] - settle_ns)]
    if len(inner) < 2:
        return None
    start, stop, count = int(inner[0, 0]), int(inner[-1, 0]), len(inner) - 1
    busy_ns = int((inner[:-1, 2] - inner[:-1, 0]).sum())
    size = asked["history"], asked["prompt"], asked["output"]
    return Hold(size, start, stop, count, (stop - start - busy_ns) * NS, busy_ns * NS / count)


def _attributed(source: Source, held: Sequence[Hold]) -> Attribution:
    """The energy of each hold as a whole; DataInvalid where one cannot be read."""
    spans = np.array([(hold.start_ns, hold.stop_ns) for hold in held], np.int64)
    found = _direct(source, spans)
    if (lost := found.status != OK).any():
        raise DataInvalid(f"a load that was held has no energy on {source.name}: {found.status[lost][0]}")
    return found


def _direct(source: Source, spans: Ints) -> Attribution:
    return direct(source, source.readings(), Edges(spans[:, 0], spans[:, 1], np.zeros(len(spans))))


def _idle_w(run: RunDir, source: Source) -> float:
    """The mean power of the rests, once settled; 0 where none is long enough to be read."""
    settle_ns = round(_settle_s(source) / NS)
    spans = np.array([(r["start"] + settle_ns, r["stop"]) for r in run.records("idle")], np.int64).reshape(-1, 2)
    spans = spans[spans[:, 1] > spans[:, 0]]
    watts = _direct(source, spans).energy_j / (np.diff(spans)[:, 0] * NS)
    return float(np.nanmean(watts))


def _errors(found: Attribution) -> tuple[Floats, Floats]:
    """What each hold errs by for one standard uncertainty of each independent cause [holds, causes] in J: those of the
    meter, and the others.
    """
    meters = np.stack([found.budget[term] for term in METER], axis=1)
    alike = np.stack([found.budget[term] for term in TERMS if term not in {*METER, *ANEW}], axis=1)
    return meters, np.hstack([alike, *(np.diag(found.budget[term]) for term in ANEW)])


def _average(held: Sequence[Hold]) -> tuple[pd.DataFrame, Floats]:
    """The rows, and how each comes from the holds [rows, holds]: means over repeats, and their differences."""
    sizes = np.array([hold.size for hold in held])
    mean = {size: (w := (sizes == size).all(axis=1)) / w.sum() for size in dict.fromkeys(hold.size for hold in held)}
    rows, weights = [], []
    for (history, prompt, output), whole in mean.items():
        first = mean.get((history, prompt, 1))
        parts = {"total": whole, "prefill": first, "decode": None if first is None else whole - first}
        for phase, weight in parts.items():
            if weight is not None and (output > 1) == (phase != "prefill"):
                rows.append((history, prompt, output, phase))
                weights.append(weight)
    return pd.DataFrame(rows, columns=[*SIZE, "phase"]), np.array(weights)


def agreement(held: Steady, swept: Means, channel: str) -> pd.DataFrame:
    """`SIZE`, `phase`, the `ratio` of the energies that a sweep gave to the steady ones, and `z`: their difference over
    its standard uncertainty, in which the meter's gain, offset and resolution do not count: they are the same in both.

    Of the configurations that both have; a prefill is that of any output.
    """
    own_u_j = np.sqrt((swept.budget.drop(columns=list(METER)) ** 2).sum(axis=1, skipna=False))
    alone = swept.table["batch"].fillna(1) == 1  # as loads are
    theirs = swept.table.assign(own_u_j=own_u_j)[alone & (swept.table["channel"] == channel)]
    both = held.table.merge(theirs, "inner", ["history", "prompt", "phase"], suffixes=("", "_swept"))
    both = both[(both["output"] == both["output_swept"]) | (both["phase"] == "prefill") & (both["output"] == 1)]
    z: Any = (both["energy_j_swept"] - both["energy_j"]) / np.hypot(both["own_u_j_swept"], both["own_u_j"])
    ratio = both["energy_j_swept"] / both["energy_j"]
    return both[[*SIZE, "phase"]].assign(ratio=ratio, z=z).reset_index(drop=True)
