"""What must hold of every registered driver, each against a peer: a driver without one here fails."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Meter
from joulelab.instruments.undo import left_over
from joulelab.quantities import Channel
from joulelab.registry import INSTRUMENTS, drivers, load_driver
from joulelab.timebase import MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.tape import Cassette, Line
from tests.peers import scpi, serial_meters

Options = dict[str, Any]
Peer = Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Options]]

PEER_FOLDER = Path(__file__).parent / "peers"
TEGRASTATS = "10-01-2025 20:05:55 RAM 2274/6834MB (lfb 27x4MB) CPU [98%@1189] tj@40.25C VDD_IN 5545mW/5542mW\n"


def files(tree: dict[str, dict[str, object]]) -> Peer:
    """A tree of files like the kernel's, as the option `root`."""

    @contextmanager
    def made(folder: Path, _patch: pytest.MonkeyPatch) -> Iterator[Options]:
        for where, texts in tree.items():
            (folder / "tree" / where).mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (folder / "tree" / where / name).write_text(f"{text}\n")
        yield {"root": str(folder / "tree")}

    return made


def scpi_over_tcp(meter: Callable[[], scpi.Meter]) -> Peer:
    @contextmanager
    def made(_folder: Path, _patch: pytest.MonkeyPatch) -> Iterator[Options]:
        with scpi.tcp(meter()) as resource:
            yield {"resource": resource}

    return made


def on_a_port(meter: Callable[[], serial_meters.Meter], **options: object) -> Peer:
    @contextmanager
    def made(_folder: Path, _patch: pytest.MonkeyPatch) -> Iterator[Options]:
        with serial_meters.served(meter()) as port:
            yield {"port": port.path, **options}

    return made


@contextmanager
def modbus(_folder: Path, _patch: pytest.MonkeyPatch) -> Iterator[Options]:
    with serial_meters.pzem() as port:
        yield {"port": port.path}


@contextmanager
def this_host(_folder: Path, _patch: pytest.MonkeyPatch) -> Iterator[Options]:
    yield {}


@contextmanager
def lines_of_tegrastats(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Options]:
    (folder / "lines").write_text(TEGRASTATS * 3)
    patch.setenv("PATH", f"{PEER_FOLDER}:{os.environ['PATH']}")
    patch.setenv("TEGRASTATS_LINES", str(folder / "lines"))
    yield {"interval": 0.02}


RAPL = {"name": "package-0", "energy_uj": 123456789, "max_energy_range_uj": 262143328850}
PERF_CLOCK = {"type": 1, "cpumask": "0"}
"""The kernel's own software clock in the place of RAPL, which no virtual machine has."""
RAILS = {"in1_label": "VDD_GPU_SOC", "in1_input": 19000, "curr1_input": 500, "shunt1_resistor": 2000}

PEERS: dict[str, Peer] = {
    "battery": files({"BAT0": {"status": "Discharging", "power_now": 7_000_000, "type": "Battery"}}),
    "cpu-time": this_host,
    "hwmon": files({"hwmon0": {"name": "amdgpu", "power1_average": 42_000_000}}),
    "ina3221": files({"ina3221/1-0040/hwmon/hwmon3": RAILS}),
    "powercap": files({"intel-rapl:0": RAPL}),
    "rapl-perf": files(
        {
            ".": PERF_CLOCK,
            "events": {
                "energy-pkg": "event=0x00",
                "energy-pkg.scale": "2.3283064365386962890625e-10",
                "energy-pkg.unit": "Joules",
            },
        }
    ),
    "scpi/keithley-dmm6500": scpi_over_tcp(scpi.dmm6500),
    "scpi/siglent-spd": scpi_over_tcp(scpi.spd1168x),
    "scpi/yokogawa-wt310e": scpi_over_tcp(scpi.WT310E),
    "serial/elmor-pmd": on_a_port(lambda: serial_meters.Pmd(serial_meters.pmd_frames(20_000))),
    "serial/lines": on_a_port(
        lambda: serial_meters.Talker("t={t} V=5.02 I=431.5"),
        pattern=r"t=(?P<t>\d+) V=(?P<volts>[-\d.]+) I=(?P<amps>[-\d.]+)",
        columns={"volts": "V", "amps": "mA"},
        time={"group": "t", "unit": "us"},
    ),
    "serial/ppk2": on_a_port(serial_meters.Ppk2, mode="ampere", voltage=3.7),
    "serial/pzem-004t": modbus,
    "serial/um34c": on_a_port(lambda: serial_meters.Scripted(lambda _request: serial_meters.UM34C_FRAME)),
    "tegrastats": lines_of_tegrastats,
}
ELSEWHERE = {
    "android-battery": "needs a phone: tests/test_android.py",
    "android-odpm": "needs a phone: tests/test_android.py",
    "auto": "stands for other drivers",
    "jtop": "needs the service of jetson-stats: tests/test_jetson.py",
    "nvml": "needs a compiled library: tests/test_nvml.py",
    "scpi/yokogawa-wt330e": "is the WT310E with another number of elements: tests/test_scpi.py",
}
"""Where those that have no peer here are tested."""


def test_every_registered_driver_has_a_peer() -> None:
    ours = {name for name, entry in drivers(INSTRUMENTS).items() if entry.dist and entry.dist.name == "joulelab"}
    assert ours == PEERS.keys() | ELSEWHERE.keys()


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(params=sorted(PEERS))
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Transport | None], Meter]]:
    """Makes meters of a driver on one peer, or on a transport in its place."""
    driver = load_driver(INSTRUMENTS, request.param)
    with PEERS[request.param](tmp_path, monkeypatch) as options:
        validated = driver.Options.model_validate(options)

        def made(transport: Transport | None = None) -> Meter:
            meter: Meter = driver("meter", validated, MonotonicClock(), transport=transport)
            return meter

        yield made


def opened(meter: Meter) -> Meter:
    try:
        meter.open()
    except HardwareMissing as missing:
        if meter.driver != "rapl-perf":
            raise
        pytest.skip(f"this machine permits no perf events: {missing}")
    return meter


def some(meter: Meter, count: int = 3) -> list[Block]:
    """Blocks that hold readings."""
    found = (block for _ in range(200) if len((block := meter.read()).before))
    return list(islice(found, count))


def same(one: Block, other: Block) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one[:2], other[:2], strict=True)) and (
        np.array_equal(np.asarray(one.values, float), np.asarray(other.values, float), equal_nan=True)
    )


def test_it_says_what_it_measures(make: Callable[..., Meter]) -> None:
    meter = opened(make())
    assert meter.channels
    assert len({channel.name for channel in meter.channels}) == len(meter.channels)
    for channel in meter.channels:
        assert channel.unit
        assert Channel.from_json(json.loads(json.dumps(channel.to_json()))) == channel
        if channel.gives_energy:
            assert (channel.scope is None) == meter.bench_meter
            assert channel.sensor.gain_u_rel > 0 or meter.driver == "serial/lines"
    json.dumps([meter.identity, meter.settings, meter.options], allow_nan=False)
    assert load_driver(INSTRUMENTS, meter.driver).Options.model_validate(meter.options)
    meter.close()


def test_it_opens_and_closes_twice_and_leaves_its_settings_as_they_were(make: Callable[..., Meter]) -> None:
    meter = make()
    meter.close()
    for _ in range(2):
        opened(meter)
        for block in some(meter):
            values = np.asarray(block.values, float)
            assert values.shape == (len(meter.channels), len(block.before))
            assert (np.asarray(block.before) <= np.asarray(block.after)).all()
            assert not np.isinf(values).any()
        meter.close()
        assert list(left_over()) == []
    meter.close()


def test_its_tape_plays_the_same_readings_without_it(make: Callable[..., Meter]) -> None:
    lines: list[Line] = []
    meter = opened(make())
    meter.record(lines.append)
    recorded = some(meter)
    meter.close()
    meter.tape.flush()
    replayed = make(Cassette(json.loads(json.dumps(lines))))
    replayed.open()
    assert replayed.identity == meter.identity
    assert [channel.name for channel in replayed.channels] == [channel.name for channel in meter.channels]
    assert all(same(one, other) for one, other in zip(recorded, some(replayed), strict=True))
    replayed.close()


class Saboteur:
    """Spoils every reply of a transport."""

    def __init__(self, inner: Transport, spoil: Callable[[bytes], bytes]) -> None:
        self._inner, self._spoil = inner, spoil

    def exchange(self, request: bytes = b"") -> Reply:
        reply = self._inner.exchange(request)
        return reply._replace(data=self._spoil(reply.data))

    def close(self) -> None:
        self._inner.close()


def silent(_reply: bytes) -> bytes:
    raise InstrumentFault("meter: silent for 1 s", transient=True)


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "silent": silent,
    "cut off": lambda reply: reply[: len(reply) // 2],
    "noise": lambda reply: bytes(byte ^ 0x5A for byte in reply),
    "words": lambda reply: b"9.91E+37;NAN;error" if reply else reply,
    "nothing": lambda reply: b"",
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_it_does_not_understand_is_a_fault_and_never_a_number(make: Callable[..., Meter], spoil: str) -> None:
    meter = opened(make())
    some(meter, 1)
    meter.tape._inner = Saboteur(meter.tape._inner, SPOILS[spoil])
    for _ in range(3):
        with suppress(InstrumentFault):
            block = meter.read()
            assert all(math.isnan(value) or abs(value) < 1e30 for column in block.values for value in column)
            if spoil in {"silent", "nothing", "words"}:
                assert not np.isfinite(np.asarray(block.values, float)).any()
    meter.tape._inner = meter.tape._inner._inner
    with suppress(JoulelabError):
        meter.close()
