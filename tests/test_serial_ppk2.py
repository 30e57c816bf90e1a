"""The PPK2: its formula, its stream, and what happens to it where samples are lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import DataInvalid, HardwareMissing
from joulelab.instruments import ppk2
from joulelab.instruments.base import Meter
from tests.peers import serial_meters as peers
from tests.peers.streams import CLOCK, Pieces, blocks_of, check_replay, joined, messages, taped

CALIBRATION = ppk2.parse_metadata(peers.ppk2_metadata())


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def make_ppk2(port: str, transport: Any = None, **options: Any) -> Meter:
    stanza = {"port": port, "mode": "source", "voltage": "3.7 V", **options}
    return ppk2.Driver("ppk", ppk2.Driver.Options.model_validate(stanza), CLOCK, transport=transport)


def ppk2_with(pieces: Iterable[bytes], **options: Any) -> Meter:
    meter = make_ppk2("none", Pieces({b"\x19": peers.ppk2_metadata().encode()}, pieces), **options)
    meter.open()
    return meter


def samples(start: int, stop: int, word: int = 2000 | 4 << 14) -> bytes:
    return peers.ppk2_samples(np.arange(start, stop), word)


def test_ppk2_streams_over_a_port() -> None:
    peer = peers.Ppk2(reading=2000, scale=4)
    with peers.served(peer) as port:
        meter = make_ppk2(port.path)
        tape = taped(meter)
        meter.open()
        blocks = blocks_of(meter, 20)
        meter.tape.flush()
        meter.close()
    readings = joined(blocks)
    amps = (4 * 2000 - 112.5) * (1.8 / 163_840) / 0.0564 - 1e-6
    assert len(readings.before) > 20
    assert np.asarray(readings.values) == pytest.approx(
        np.array([[3.7 * amps], [amps]] * len(readings.before)).reshape(-1, 2).T
    )
    assert set(np.diff(np.asarray(readings.device))) == {1_000_000}
    assert (np.asarray(readings.before) < np.asarray(readings.after)).all()
    assert messages(meter) == []
    assert peer.log == [b"\x11\x02", b"\x0d\x0e\x74", b"\x0c\x01"]
    assert not peer.streaming
    check_replay(meter, tape, blocks)


def test_ppk2_says_what_it_is_and_what_its_means_are() -> None:
    meter = ppk2_with([], average=200)
    assert meter.identity["resistances"][4] == 0.0564
    assert [(c.name, c.unit, c.sensor.window_s, c.sensor.period_s) for c in meter.channels] == [
        ("power", "W", 0.002, 0.002),
        ("current", "A", 0.002, 0.002),
    ]


@given(st.integers(0, 7), st.integers(0, (1 << 14) - 1))
def test_ppk2_currents_follow_the_formula_of_its_maker(scale: int, reading: int) -> None:
    factors = {**CALIBRATION, "GS2": 0.1, "GI2": 0.98, "S2": 1e-6, "UG2": 1.01}
    (found,) = ppk2.decode(
        np.array([reading | scale << 14 | 5 << 18 | 0xFF << 24], np.uint32), ppk2.amperes(factors, 5.0)
    )
    if scale > 4:
        assert np.isnan(found)
        return
    r, gs, gi, o, s, i, ug = (factors[f"{name}{scale}"] for name in ("R", "GS", "GI", "O", "S", "I", "UG"))
    raw = (4 * reading - o) * 1.8 / 163_840 / r
    assert found == pytest.approx(ug * (raw * (gs * raw + gi) + s * 5.0 + i), abs=1e-12)


def test_ppk2_tells_lost_samples_and_starts_a_new_map() -> None:
    meter = ppk2_with([samples(0, 1000), samples(1000, 1500) + samples(1530, 2000), samples(2000, 3000)])
    blocks = blocks_of(meter, 3)
    assert messages(meter) == ["about 32 samples were lost"]
    device = np.asarray(joined(blocks).device)
    assert list(device[:14]) == [k * 1_000_000 + 10_000 for k in range(1, 15)]
    assert list(device[14:]) == [k * 1_000_000 + 15_310_000 for k in range(1, len(device) - 13)]


def test_ppk2_estimates_a_long_loss_by_the_time_of_arrival() -> None:
    pieces = [samples(0, 1000), samples(1000, 2000), samples(6005, 7000)]
    transport = Pieces({b"\x19": peers.ppk2_metadata().encode()}, pieces)
    meter = make_ppk2("none", transport)
    meter.open()
    blocks_of(meter, 2)
    transport.step_ns = 50_000_000
    meter.read()
    assert messages(meter) == ["about 4007 samples were lost"]


def test_ppk2_finds_its_samples_again_after_lost_bytes() -> None:
    meter = ppk2_with([samples(0, 700) + samples(700, 1400)[3:], samples(1400, 3000)])
    current = np.asarray(joined(blocks_of(meter, 2)).values[1])
    assert np.ptp(current) == pytest.approx(0)
    assert len(messages(meter)) == 1


def test_ppk2_readings_of_no_range_are_none() -> None:
    meter = ppk2_with([samples(0, 150) + samples(150, 160, word=7 << 14) + samples(160, 320)])
    assert list(np.isnan(joined(blocks_of(meter, 1)).values[1])) == [False, True, False]


def test_ppk2_calibration_without_a_factor_is_refused() -> None:
    with pytest.raises(DataInvalid, match="lacks GS3"):
        ppk2.parse_metadata(peers.ppk2_metadata().replace("GS3:", "XX3:"))
    with pytest.raises(HardwareMissing, match="no PPK2 answers: the calibration of a PPK2 lacks R0, R1"):
        make_ppk2("none", Pieces({b"\x19": b"Menu\nEND\n"}, [])).open()


@given(st.text())
def test_ppk2_metadata_parses_or_is_refused(text: str) -> None:
    with pytest.raises(DataInvalid):
        ppk2.parse_metadata(text)


@given(st.binary(max_size=600))
def test_ppk2_takes_any_bytes(noise: bytes) -> None:
    meter = ppk2_with([samples(0, 100) + noise, samples(500, 700)], average=10)
    current = joined(blocks_of(meter, 2)).values[1]
    assert np.nanmedian(current) == pytest.approx(np.asarray(current)[0])
