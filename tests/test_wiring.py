"""The wiring check: channels that are swapped, reversed or fed by somebody else are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulelab.analysis.response import responses
from joulelab.analysis.wiring import judge
from joulelab.protocols.steps import Idle, Load
from joulelab.protocols.wiring import Wiring
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run, seal_run
from joulelab.recording.samples import SampleWriter
from joulelab.timebase import SECOND, BenchNs

Meter = tuple[Channel, dict[str, Any], Callable[[Any], Any]]

OVER_S = 0.3
"""A load ends with its last inference."""


def gauge(scope: Scope, **sensor: float) -> Channel:
    return Channel("power", "W", scope=scope, sensor=SensorModel(**sensor))


def play(folder: Path, device: str, meters: dict[str, Meter], interval_ns: int = 100_000_000) -> RunDir:
    """A run of `wiring` on a device, each meter showing what its function makes of the device's load (0 or 1)."""
    manifest = Manifest(
        session="s",
        run=device,
        device=device,
        protocol="wiring",
        arguments={},
        seed=1,
        created="2026-11-21T00:00:00+00:00",
        clock="monotonic",
        clock_offset_ns=0,
        simulated=False,
        stanza={"power": None, "connect": None},
        engine={},
        instruments=tuple(Instrument(n, "fake", {}, interval_ns, (c,), w) for n, (c, w, _) in meters.items()),
        power=(),
        host={},
        versions={},
        certificates={},
    )
    journal = create_run(folder / device, manifest)
    now, spans = 0, []
    for k, step in enumerate(Wiring(Wiring.Options()).steps()):
        if isinstance(step, Idle):
            start, now = now, now + round(step.seconds * SECOND)
            journal.append(BenchNs(now), "idle", step=k, start=start, stop=now)
        elif isinstance(step, Load):
            start, now = now, now + round((step.seconds + OVER_S) * SECOND)
            journal.append(BenchNs(now), "load", step=k, start=start, stop=now)
            spans.append((start, now))
    t = np.arange(0, now, interval_ns)
    load = np.sum([(t > start) & (t <= stop) for start, stop in spans], axis=0)
    rng = np.random.default_rng(7)
    for name, (channel, _, shows) in meters.items():
        writer = SampleWriter(folder / device / "samples" / f"{name}.arrows", [channel.name])
        writer.append(Block(t, t, None, [shows(load) + rng.normal(0, 0.05, len(t))]))
        writer.close()
    seal_run(folder / device, journal, "done")
    return RunDir(folder / device)


def follows(load: Any) -> Any:
    return 5 + 10 * load


def idles(load: Any) -> Any:
    return 5 + 0 * load


WALL = gauge(Scope.WALL)


def findings(*runs: RunDir) -> dict[tuple[str, str], tuple[bool, str]]:
    rows = judge({run.manifest.device: run for run in runs})
    return {(row["device"], row["channel"]): (row["ok"], row["message"]) for row in rows}


def test_a_step_comes_out_with_its_size_and_its_error(tmp_path: Path) -> None:
    late = gauge(Scope.WALL, period_s=0.1)
    run = play(tmp_path, "orin", {"wall": (late, {}, lambda load: follows(np.roll(load, 7)))})
    (found,) = responses(run)
    assert found.step_w == pytest.approx(10, abs=0.3)
    assert found.idle_w == pytest.approx(5, abs=0.3)
    assert found.lag_s == pytest.approx(0.65, abs=0.11)
    assert found.step_u_w is not None
    assert 0 < found.step_u_w < 0.5
    assert found.sign == 1


def test_a_counter_follows_too(tmp_path: Path) -> None:
    energy = Channel("energy", "J", Kind.COUNTER, Scope.PACKAGE)
    run = play(tmp_path, "orin", {"rapl": (energy, {}, lambda load: np.cumsum(follows(load)) * 0.1)})
    (found,) = responses(run)
    assert found.step_w == pytest.approx(10, abs=0.5)
    assert found.sign == 1


def test_as_it_should_be(tmp_path: Path) -> None:
    feeds = {"feeds": ["orin"]}
    meters: dict[str, Meter] = {"wall": (WALL, feeds, follows), "other": (WALL, {"feeds": ["pi"]}, idles)}
    found = findings(play(tmp_path, "orin", meters))
    assert found == {
        ("orin", "wall.power"): (True, "follows the load"),
        ("orin", "other.power"): (True, "does not see the load"),
    }


def test_a_wrong_sign(tmp_path: Path) -> None:
    found = findings(play(tmp_path, "orin", {"wall": (WALL, {"feeds": ["orin"]}, lambda load: -follows(load))}))
    assert found["orin", "wall.power"] == (False, "falls when the load comes: its wires or its sign are reversed")


def test_a_swapped_pair_of_meters(tmp_path: Path) -> None:
    one, two = {"feeds": ["orin"]}, {"feeds": ["pi"]}
    at_orin: dict[str, Meter] = {"one": (WALL, one, idles), "two": (WALL, two, follows)}
    at_pi: dict[str, Meter] = {"one": (WALL, one, follows), "two": (WALL, two, idles)}
    found = findings(play(tmp_path, "orin", at_orin), play(tmp_path, "pi", at_pi))
    assert found["orin", "one.power"] == (
        False,
        "does not see the load, but that of pi, and two.power sees orin: the two are swapped",
    )
    assert found["orin", "two.power"] == (False, "sees orin, but feeds pi by lab.yaml")
    assert not any(ok for ok, _ in found.values())


def test_a_part_that_shows_more_than_the_whole(tmp_path: Path) -> None:
    meters: dict[str, Meter] = {
        "wall": (WALL, {"feeds": ["orin"]}, lambda load: 5 + 4 * load),
        "rails": (gauge(Scope.RAIL), {"via": "orin"}, follows),
    }
    ok, message = findings(play(tmp_path, "orin", meters))["orin", "wall.power"]
    assert not ok
    assert "sees less than rails.power, which is a part of it" in message


def test_a_meter_upstream_of_one_that_feeds_sees_the_load_as_well(tmp_path: Path) -> None:
    meters: dict[str, Meter] = {
        "wall": (WALL, {"upstream_of": ["dc"]}, lambda load: 8 + 12 * load),
        "dc": (gauge(Scope.INPUT), {"feeds": ["orin"]}, follows),
    }
    rows = judge({"orin": play(tmp_path, "orin", meters)})
    assert all(row["ok"] for row in rows)
    assert rows[1]["ratio"] == pytest.approx(10 / 12, abs=0.05)


def test_a_channel_that_fell_silent_is_no_channel_that_sees_nothing(tmp_path: Path) -> None:
    found = findings(play(tmp_path, "orin", {"wall": (WALL, {"feeds": ["orin"]}, lambda load: load + np.nan)}))
    assert found["orin", "wall.power"] == (False, "gave no readings in enough of the load's steps")
