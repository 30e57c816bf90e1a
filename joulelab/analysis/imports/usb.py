"""USB captures of a POWER-Z KM003C as recordings, one a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Clock, Piece, Recording
from joulelab.calibration.clock import arrivals, unwrap
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.block import Block
from joulelab.recording.formats.km003c import parse
from joulelab.timebase import SECOND

COLUMNS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("session_id", "endpoint_address", "urb_type")),
        pa.field("payload_hex", pa.string()),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("urb_ts_sec", "urb_ts_usec")),
    ]
)
REPLIES = "0x81"
"""The endpoint that the meter answers on."""
MS = 10**6
WRAP = 65_536
"""The meter counts milliseconds in 16 bits."""
LATE_NS = 5 * SECOND
"""No sample waits so long for the host to fetch it: a meter that is further ahead has begun anew."""

Ints = NDArray[np.int64]


class Captured(NamedTuple):
    """Samples [n]: when the meter took them on its clock and when they came on the host's [ns], and what it read."""

    device: Ints
    came: Ints
    volts: NDArray[np.float64]
    amps: NDArray[np.float64]


def read_km003c(file: Path, given: Given, advance: Advance) -> Iterator[Recording]:
    """A Parquet file of USB packets with the host's stamps in us, as usbmon takes them."""
    table = _table(file)
    advance(file.stat().st_size)
    sessions = table["session_id"].unique().to_pylist()
    captured = {name: _captured(file, table.filter(pa.compute.field("session_id") == name)) for name in sessions}
    if not any(captured.values()):
        raise DataInvalid(f"{file} holds no samples of a KM003C")
    yield from (_recording(name, given, samples) for name, samples in captured.items() if samples)


def _table(file: Path) -> Any:
    """The completed transfers from the meter, in their order."""
    try:
        table = pq.read_table(file, columns=COLUMNS.names).select(COLUMNS.names).cast(COLUMNS)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataInvalid(f"{file} is no USB capture in Parquet: {' '.join(str(error).split())}") from None
    return table.filter((pa.compute.field("endpoint_address") == REPLIES) & (pa.compute.field("urb_type") == "C"))


def _captured(file: Path, replies: Any) -> Captured | None:
    stamps = replies["urb_ts_sec"].to_numpy() * SECOND + replies["urb_ts_usec"].to_numpy() * 1000
    parsed = []
    for number, text in enumerate(replies["payload_hex"].to_pylist(), start=1):
        try:
            parsed.append(parse(bytes.fromhex(text or "")))
        except (DataInvalid, ValueError) as reason:
            raise DataInvalid(f"{file}, message {number} of the meter: {reason}") from None
    came = np.repeat(stamps, [len(samples.seq) for samples in parsed])
    if not len(came):
        return None
    device = unwrap(np.concatenate([samples.seq for samples in parsed]), WRAP, MS, came)
    if (np.diff(device) - np.diff(came) > LATE_NS).any():
        raise DataInvalid(f"{file}: the meter's clock went back, so it was restarted: cut the capture there")
    volts, amps = (np.concatenate([samples[k] for samples in parsed]) for k in (1, 2))
    return Captured(device, came, volts, amps)


def _recording(session: str, given: Given, samples: Captured) -> Recording:
    """A sample cannot come before it was taken, and the freshest that ever came was at most a sample's time old."""
    device, came, volts, amps = samples
    period = int(np.median(np.diff(device))) if len(device) > 1 else MS
    block = Block(*arrivals(device, came - period, came), device, np.stack([volts * amps, volts, amps]))
    channels = (Channel("power", "W"), Channel("voltage", "V"), Channel("current", "A"))
    sensor = SensorModel(period_s=period / SECOND)
    known = tuple(given.facts(c.name).of(Channel(c.name, c.unit, sensor=sensor)) for c in channels)
    about = "the meter's clock, on the capturing host's"
    return Recording(known, Clock(about, 1, "epoch"), [Piece(block)], streams=True, part=session)
