"""The Elmor PMD: frames without a mark, a tick that wraps, and recordings of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import HardwareMissing
from joulelab.instruments import pmd
from joulelab.instruments.base import Meter
from joulelab.recording.formats import elmor_pmd
from joulelab.recording.formats.frames import Framing
from tests.peers import serial_meters as peers
from tests.peers.streams import CLOCK, Pieces, blocks_of, check_replay, joined, messages, taped

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(pmd, "SETTLE_S", 0.05)


def links(data: Any) -> Any:
    """Frames of two bytes, the second of which counts."""
    n = max(len(data) - 3, 0)
    return (data[3 : 3 + n] - data[1 : 1 + n]) == 1


@given(
    st.lists(st.integers(0, 30).map(lambda n: bytes(b for k in range(n) for b in (0, k))) | st.binary(max_size=9)),
    st.lists(st.integers(1, 12), min_size=1),
)
def test_pieces_of_any_size_give_the_frames_of_the_whole(stretches: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(stretches) + bytes(b for k in range(20) for b in (0, k + 100))
    whole = Framing(links, 2, 5)
    data, runs = whole.feed(stream)
    expected = [data[run.start : run.start + 2 * run.length] for run in runs]
    framing, found, at = Framing(links, 2, 5), list[bytes](), 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        data, runs = framing.feed(stream[at : at + size])
        for run in runs:
            frames = data[run.start : run.start + 2 * run.length]
            found[-1:] = [found[-1] + frames] if run.continues else [*found[-1:], frames]
        at += size
    assert found == expected
    assert framing.lost == whole.lost


def make_pmd(port: str, transport: Any = None, **options: Any) -> Meter:
    return pmd.Driver("pmd", pmd.Driver.Options.model_validate({"port": port, **options}), CLOCK, transport=transport)


PMD_ANSWERS = {b"\x00": b"ElmorLabs PMD-USB", b"\x01": b"\xee\x0a\x05", b"\x04": bytes(4) + b"\x02\xff" + bytes(20)}
FRAME_NS = 613 * 1_000_000_000 // 3_000_000


def pmd_with(frames: list[bytes]) -> Meter:
    meter = make_pmd("none", Pieces(PMD_ANSWERS, frames, step_ns=100 * FRAME_NS))
    meter.open()
    return meter


def test_pmd_streams_over_a_port_and_leaves_it_as_it_was() -> None:
    peer = peers.Pmd(peers.pmd_frames(20_000))
    with peers.served(peer) as port:
        meter = make_pmd(port.path)
        tape = taped(meter)
        meter.open()
        assert peer.baud == 2_000_000
        blocks = blocks_of(meter, 20)
        meter.tape.flush()
        meter.close()
    assert (peer.baud, peer.streaming) == (115_200, False)
    readings = joined(blocks)
    volts = 1602 * 0.007568
    for name, value in {"pcie1_power": volts * 20 * 0.0488, "eps1_voltage": volts, "eps2_current": -0.0488}.items():
        row = [channel.name for channel in meter.channels].index(name)
        assert readings.values[row] == pytest.approx(value)
    assert set(np.diff(np.asarray(readings.device))) <= {FRAME_NS, FRAME_NS + 1}
    assert messages(meter) == []
    check_replay(meter, tape, blocks)


def test_pmd_adds_the_offsets_of_its_configuration() -> None:
    meter = pmd_with([peers.pmd_frames(100)])
    values = meter.read().values
    assert values[1][0] == pytest.approx(1604 * 0.007568)
    assert values[2][0] == pytest.approx(19 * 0.0488)
    assert meter.identity == {"model": "PMD-USB", "firmware": 5}


def test_pmd_tells_lost_frames_and_places_the_rest_by_arrival() -> None:
    frames = peers.pmd_frames(1000)
    pieces = [
        frames[: 100 * 18],
        frames[100 * 18 : 120 * 18] + frames[150 * 18 : 200 * 18],
        frames[420 * 18 : 500 * 18],
    ]
    transport = Pieces(PMD_ANSWERS, pieces, step_ns=100 * FRAME_NS)
    meter = make_pmd("none", transport)
    meter.open()
    blocks = blocks_of(meter, 2)
    transport.step_ns = 300 * FRAME_NS
    blocks.append(meter.read())
    found = np.asarray(joined(blocks).device) / FRAME_NS
    assert np.diff(found) == pytest.approx([1] * 117 + [33] + [1] * 47 + [222] + [1] * 78, rel=1e-4)
    assert len(messages(meter)) == 2


def test_pmd_hands_over_no_repeated_frame() -> None:
    frames = peers.pmd_frames(100)
    meter = pmd_with([frames + frames[-18:] * 5 + peers.pmd_frames(100, first_tick=60_000 + 613 * 100 & 0xFFFF)])
    assert len(meter.read().before) == 197


def test_something_else_is_no_pmd() -> None:
    with pytest.raises(HardwareMissing, match="no PMD-USB answers: a reply does not end"):
        make_pmd("none", Pieces({}, iter(lambda: b"login: " * 99, b""))).open()


RECORDINGS = sorted((DATA / "gpu-power-benchmark").glob("*/PMD_data.bin"))


@pytest.mark.skipif(not RECORDINGS, reason="no recordings here")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.parent.name)
def test_a_recording_parses_in_full_and_its_negative_currents_are_small(path: Path) -> None:
    data = path.read_bytes()
    parser = elmor_pmd.Parser()
    (frames,) = parser.feed(data)
    assert (len(frames.tick) * 18, parser.lost) == (len(data) - 36, 18)
    # What the recording's own program takes for corrupt frames are currents a few steps below nothing.
    assert (frames.amps.min(axis=0) < 0).mean() == pytest.approx(0.01, abs=0.005)
    assert frames.amps.min() > -0.2
    assert frames.volts.min() > 11.9
    rate = len(frames.tick) / (elmor_pmd.elapsed(frames.tick)[-1] / elmor_pmd.TICK_HZ)
    assert rate == pytest.approx(4890, rel=0.001)


@pytest.mark.skipif(not RECORDINGS, reason="no recordings here")
def test_a_recording_with_damage_loses_little_more_than_the_damage() -> None:
    data = bytearray(RECORDINGS[0].read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(data) - 40, 100):
        del data[at : at + int(rng.integers(1, 36))]
    parser = elmor_pmd.Parser()
    runs = parser.feed(bytes(data))
    assert parser.lost < 100 * 3 * 18
    assert max((run.volts * run.amps).sum(axis=0).max() for run in runs) < 450


@given(st.binary(max_size=400))
def test_pmd_takes_any_bytes(noise: bytes) -> None:
    frames = peers.pmd_frames(60)
    runs = elmor_pmd.Parser().feed(frames + noise + peers.pmd_frames(60, 5))
    assert sum(len(run.tick) for run in runs) >= 115
    assert runs[0].volts[0, 0] == runs[-1].volts[0, -1]


@pytest.mark.skipif(not RECORDINGS, reason="no recordings here")
def test_a_recording_replayed_through_a_port() -> None:
    peer = peers.Pmd(RECORDINGS[0].read_bytes())
    with peers.served(peer) as port:
        meter = make_pmd(port.path)
        meter.open()
        readings = joined(blocks_of(meter, 40))
        meter.close()
    assert np.asarray(readings.values)[[0, 3, 6, 9]].sum(axis=0).mean() == pytest.approx(60, abs=30)
    assert messages(meter) == []
