"""Captures of a POWER-Z KM003C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import DataInvalid
from joulelab.recording.formats import km003c

DATA = Path(__file__).parents[2] / "shared" / "data"

CAPTURES = DATA / "km003c" / "usb_captures.parquet"


def captures() -> Iterator[tuple[str, list[bytes]]]:
    table = pq.read_table(CAPTURES, columns=["session_id", "payload_hex"]).to_pylist()
    for session in sorted({row["session_id"] for row in table}):
        yield session, [bytes.fromhex(row["payload_hex"] or "") for row in table if row["session_id"] == session]


@pytest.mark.skipif(not CAPTURES.exists(), reason="no captures here")
def test_every_capture_parses_without_a_hole() -> None:
    step_ms = {"orig_adc_1000hz.6": 1, "orig_adc_50hz.6": 20, "orig_adc_record.6": 500}
    for session, payloads in captures():
        found = [km003c.parse(payload) for payload in payloads]
        seq = np.concatenate([samples.seq for samples in found])
        assert set(np.diff(seq)) == {step_ms[session]}
        assert np.concatenate([samples.volts for samples in found]) == pytest.approx(5.082, abs=0.005)


def message(seq: list[int], microamps: int = -1500) -> bytes:
    header = (2 | len(seq) << 16 | 20 << 22).to_bytes(4, "little")
    body = np.array([(s, 60, 5_000_000, microamps, (0, 0, 0, 0)) for s in seq], km003c._SAMPLE).tobytes()
    return b"\x41\x07\x82\x02" + header + body


def test_km003c_counter_wraps_and_current_has_a_sign() -> None:
    found = km003c.parse(message([65_534, 65_535, 0, 3]))
    assert np.diff(found.seq).tolist() == [1, 1, 3]
    assert (found.volts[0], found.amps[0]) == pytest.approx((5.0, -0.0015))


def test_km003c_message_that_is_cut_is_refused() -> None:
    with pytest.raises(DataInvalid, match="cut: its data end at byte 48"):
        km003c.parse(message([1, 2])[:-3])


def test_km003c_other_messages_hold_no_samples() -> None:
    for other in (b"", b"\x41\x08\xc2\xff", b"\x05\x01\x00\x00", message([])):
        assert len(km003c.parse(other).seq) == 0


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"\x41\x00\x00\x00" + rest))
def test_km003c_parses_or_refuses_any_bytes(data: bytes) -> None:
    try:
        found = km003c.parse(data)
    except DataInvalid:
        return
    assert len(found.seq) * 20 <= len(data)
