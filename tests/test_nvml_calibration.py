"""A card's sensor, identified from a load in real time: nvidia-ml-py on a library whose GPU draws made-up power, which
follows the CPU time of llama.cpp; what comes out is what the library was told.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from joulelab.analysis.edges import LONG
from joulelab.analysis.phases import reduce
from joulelab.cli import main
from joulelab.recording import RunDir, find_runs
from joulelab.report.health import events
from tests.peers.nvml import build

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp is not installed"),
]

MOST_OTHERS = 0.1
IDLE_W, SWING_W = 70.0, 200.0
LAB = """
version: 1
instruments:
  gpu: {driver: nvml, interval: 7 ms, feeds: [box]}
devices:
  box:
    engine: {driver: llama-server, model: {random: llama-15m}, context: 2048}
    power: [gpu.gpu0_power_instant, gpu.gpu0_power_average, gpu.gpu0_energy]
protocols:
  ladder: {hold: 1.3 s, warmup: 0.5 s, levels: [0.5, 1.0], period: 60 ms, square: 0.8 s, prompt: 64}
  points:
    configurations: [[0, 200, 48]]
    anchor: [0, 1400, 260]
    repeats: 2
    warmup: 0
    idle: 1 s
    signature: 2 s
"""


class Sensor(NamedTuple):
    """In ms, and in mW or mJ: what the library is told of a channel."""

    period: float
    window: float
    delay: float
    step: float

    @property
    def told(self) -> str:
        return "/".join(map(str, self))


SENSORS = {
    "gpu0_power_instant": ("186.0", Sensor(60.03, 40, 15, 100)),
    "gpu0_power_average": ("185.0", Sensor(60.03, 200, 0, 1)),
    "gpu0_energy": ("83.0", Sensor(20.01, 0, 5, 1)),
}
SHIM = {
    "GPUS": "1",
    "SUPPORTS": "186.0 185.0 185.2 83.0 temperature clocks events",
    "SENSORS": " ".join(f"{field}={sensor.told}" for field, sensor in SENSORS.values()),
    "LOAD": "joulelab.devices.llama_child",
    "IDLE": str(IDLE_W),
    "SWING": str(SWING_W),
    "CAP": "100",
    "COST": "300",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a lab file, on a machine with a made-up GPU."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "lab.yaml").write_text(LAB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(build(folder).parent))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, value in SHIM.items():
            patch.setenv(f"SHIM_{name}", value)
        patch.chdir(folder)
        yield folder


class Clock(NamedTuple):
    """Seconds: the time, the CPU time of this process and its children, and that of all, the hypervisor's included."""

    wall: float
    own: float
    everyone: float

    @classmethod
    def now(cls) -> Clock:
        user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
        everyone = (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), sum(os.times()[:4]), everyone)


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0


@pytest.fixture(scope="module")
def certificates(bench: Path) -> dict[str, dict[str, Any]]:
    """What `joulelab calibrate sensor gpu` wrote, by channel. Beside other work nothing can be told in real time."""
    before = Clock.now()
    call("calibrate", "sensor", "gpu")
    wall, own, everyone = (b - a for a, b in zip(before, Clock.now(), strict=True))
    if (others := (everyone - own) / wall) > MOST_OTHERS:
        pytest.skip(f"other work took {others:.0%} of a core meanwhile")
    found = [json.loads(path.read_text()) for path in (bench / "certificates").iterdir()]
    return {certificate["channel"].removeprefix("gpu."): certificate for certificate in found}


@pytest.fixture(scope="module")
def measured(bench: Path, certificates: dict[str, dict[str, Any]]) -> RunDir:
    """A run of short and of long inferences, read with the certificates."""
    call("run", "points")
    return next(run for run in find_runs(bench / "runs") if run.manifest.protocol == "points")


@pytest.mark.parametrize("channel", SENSORS)
def test_a_channel_is_found_to_be_what_it_is(certificates: dict[str, dict[str, Any]], channel: str) -> None:
    found, told = certificates[channel]["result"], SENSORS[channel][1]
    assert found["period_s"] == pytest.approx(told.period / 1e3, rel=1e-3)
    assert found["resolution"] == pytest.approx(told.step / 1e3)
    assert found["window_s"] == pytest.approx(told.window / 1e3, abs=5 * found["window_u_s"] + 1e-9)
    assert found["window_u_s"] < 0.01
    # Power follows the request by what llama.cpp takes to begin: that is lag here.
    age_s = found["delay_s"] + found["window_s"] / 2 + found["lowpass_s"]
    assert age_s == pytest.approx((told.delay + told.window / 2) / 1e3, abs=4 * found["delay_u_s"] + 4e-3)
    assert found["delay_u_s"] < 0.01
    assert found["idle_w"] == pytest.approx(IDLE_W, abs=2)
    assert 0 <= found["idle_sd_w"] < 2
    assert 3e-4 <= found["call_p50_s"] <= found["call_p99_s"]


def test_a_channel_that_cannot_be_told_does_not_keep_the_others_from_it(
    certificates: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert certificates.keys() == SENSORS.keys()
    call("calibrate", "sensor", "gpu", "--run", "ladder")
    said = capsys.readouterr()
    assert said.err == (
        "joulelab: no certificate: gpu.gpu0_memory_power_average always reads 50 W: it is no sensor of the load\n"
    )
    assert all(word in said.out for word in ["new every", *SENSORS, "at the 99th percentile"])


def test_short_phases_are_deconvolved_and_long_ones_subtracted(measured: RunDir) -> None:
    phases = reduce(measured)
    assert {(row["channel"], row["kind"], row["state"]) for row in phases.certificates} == {
        (f"gpu.{channel}", "sensor", "valid") for channel in SENSORS
    }
    table = phases.table[phases.table["channel"] == "gpu.gpu0_energy"]
    shortest_s = table.groupby("inference")["duration_s"].transform("min")
    long = shortest_s >= LONG * SENSORS["gpu0_energy"][1].period / 1e3
    assert 0 < long.mean() < 1
    assert (table["method"] == np.where(long, "counter", "deconvolve")).all()


@pytest.mark.parametrize("channel", SENSORS)
def test_the_joules_are_those_that_the_card_was_told_to_draw(measured: RunDir, channel: str) -> None:
    table = reduce(measured).table
    rows = table[(table["channel"] == f"gpu.{channel}") & (table["phase"] == "total") & (table["status"] == "ok")]
    assert len(rows) >= 2
    joules = IDLE_W * rows["duration_s"] + SWING_W * rows["cpu_s"]
    off = (rows["energy_j"] - joules) / rows["energy_u_j"]
    assert np.abs(off).max() < 4


def test_a_card_that_is_slowed_down_is_told_of(measured: RunDir) -> None:
    phases = reduce(measured)
    assert phases.table["throttled"].all()
    (note,) = {note for note in phases.notes if "slowed down" in note}
    assert note.endswith(": 4 of 4 inferences ran slowed down by sw_power_cap")
    (event,) = [event for event in events(measured) if event["kind"] == "throttle"]
    assert event["what happened"].startswith("gpu gpu0: slowed down by sw_power_cap ")
    assert event["what happened"] in (measured.path.parent / "report.html").read_text()
