"""Jetson: tegrastats from a program that replays its lines, the power monitors on fake kernel trees, jtop."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, UserError
from joulelab.instruments import ina3221, jtop, tegrastats
from joulelab.instruments.base import Meter
from joulelab.instruments.probes import BURST, ProbeClock
from joulelab.quantities import Scope
from joulelab.recording.formats import jetson_rails
from joulelab.recording.formats.tegrastats import Power, parse
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection, connect
from joulelab.transports.files import LocalFiles
from joulelab.transports.tape import Cassette, Line
from tests.peers import sshd

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "tegrastats"
PEER = Path(__file__).parent / "peers" / "tegrastats"
CLOCK = MonotonicClock()
HERE = connect("local", CLOCK)

NX = (
    "10-01-2025 20:05:5{n} RAM 2274/6834MB (lfb 27x4MB) SWAP 542/3417MB (cached 2MB) CPU [98%@1189,off,50%@1190] "
    "EMC_FREQ 0% GR3D_FREQ 22% GPU@-256C tj@40.25C VDD_IN 554{n}mW/5542mW VDD_CPU_GPU_CV 1594mW/1594mW "
    "VDD_SOC 1234mW/1200mW"
)
TX1 = (
    "RAM 1179/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102] AO@42.5C VDD_IN 2532/2698 VDD_CPU 76/178"
)


def recorded(name: str) -> list[dict[str, Any]]:
    if not DATA.exists():
        pytest.skip("the recorded lines are not here")
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


class TestParse:
    def test_a_line_with_units(self) -> None:
        line = parse(NX.format(n=5))
        assert line.stamp == datetime.fromisoformat("2025-10-01T20:05:55")
        assert line.rails["VDD_IN"] == Power(5.545, 5.542)
        assert line.rails["VDD_SOC"] == Power(1.234, 1.2)
        assert (line.temperatures, line.off) == ({"tj": 40.25}, ("GPU",))
        assert line.loads == {"EMC": 0.0, "GR3D": 0.22, "CPU": 0.74}
        assert (line.ram, line.reason) == (2274 * 2**20, "")

    def test_a_line_without_units(self) -> None:
        line = parse(TX1 + "\r\n")
        assert line.rails == {"VDD_IN": Power(2.532, 2.698), "VDD_CPU": Power(0.076, 0.178)}
        assert line.stamp is None

    def test_a_rail_may_read_below_zero(self) -> None:
        """The monitors' offset is more than an idle rail draws."""
        assert parse("RAM 1/2MB VDD_GPU -392mW/-392mW").rails == {"VDD_GPU": Power(-0.392, -0.392)}

    def test_the_recorded_lines(self) -> None:
        for row in recorded("lines.jsonl"):
            line = parse(row["line"])
            named = dict(re.findall(r"(\S+)\s+(\d+)(?:mW)?/\d+(?:mW)?(?!\S)", row["line"]))
            named.pop("NC", None)
            assert {rail: str(round(power.now * 1000)) for rail, power in line.rails.items()} == named
            assert bool(line.rails) != bool(line.reason)
            assert -256 not in line.temperatures.values()
            without = row["model"].startswith("Tegra 2") or "no power rails" in row["note"]
            assert bool(line.reason) == without

    def test_what_no_device_wrote(self) -> None:
        (row,) = recorded("not_device_output.jsonl")
        line = parse(row["line"])
        assert (line.rails, line.temperatures) == ({}, {})
        assert line.reason.startswith("no rails recognised")

    @pytest.mark.parametrize("line", [NX.format(n=5), TX1])
    def test_a_cut_line_gives_fewer_numbers_but_no_other_ones(self, line: str) -> None:
        whole = parse(line)
        for end in range(len(line)):
            try:
                cut = parse(line[:end], whole=False)
            except DataInvalid:
                continue
            assert cut.rails.items() <= whole.rails.items()
            assert cut.temperatures.items() <= whole.temperatures.items()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("[sudo] password for lab:", "no line of tegrastats"),
            ("", "no line of tegrastats"),
            ("42 VDD_IN 5542mW/5542mW", "no line of tegrastats"),
            (TX1[:80] + TX1, "two lines"),
            (f"{TX1} VDD_IN 2532/2698", "twice"),
            (NX.format(n=5).replace("10-01", "13-41"), "no time of day"),
        ],
    )
    def test_refuses(self, line: str, message: str) -> None:
        with pytest.raises(DataInvalid, match=message):
            parse(line)

    @given(st.text() | st.lists(st.sampled_from([*NX.split(), *TX1.split(), "\n"])).map(" ".join))
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        for line in (text, f"RAM 1/2MB {text}"):
            try:
                found = parse(line)
            except DataInvalid:
                continue
            assert all(map(math.isfinite, [power.now for power in found.rails.values()]))


class TestRails:
    @pytest.mark.parametrize(
        ("model", "module"),
        [
            ("jetson_tx1", "TX1"),
            ("quill", "TX2"),
            ("NVIDIA Jetson Nano Developer Kit", "Nano"),
            ("NVIDIA Jetson Xavier NX Developer Kit", "Xavier NX"),
            ("Jetson-AGX", "AGX Xavier"),
            ("NVIDIA Jetson Orin Nano Developer Kit", "Orin NX or Orin Nano"),
            ("NVIDIA Jetson AGX Orin Developer Kit", "AGX Orin"),
            ("NVIDIA IGX Orin Developer Kit", "IGX Orin"),
            ("NVIDIA Jetson AGX Thor Developer Kit", "Thor"),
            ("Raspberry Pi 5", "unknown Jetson"),
        ],
    )
    def test_by_the_model(self, model: str, module: str) -> None:
        assert jetson_rails.identify(model, ()).name == module

    def test_by_the_rails_of_the_recorded_lines(self) -> None:
        for row in recorded("lines.jsonl"):
            if rails := parse(row["line"]).rails:
                module = jetson_rails.identify("", rails)
                assert any(name in row["model"] for name in re.split(" or |Jetson ", module.name))
                assert jetson_rails.unknown(module, rails) == []

    def test_which_rail_is_the_input(self) -> None:
        inputs = {module.name: module.inputs for module in jetson_rails.MODULES}
        assert inputs["Thor"] == ("VIN",)
        assert inputs["Nano"] == ("POM_5V_IN",)
        assert inputs["AGX Orin"] == inputs["AGX Xavier"] == ()

    @pytest.mark.parametrize(
        ("model", "rails"),
        [
            ("Orin NX", ("VDD_IN", "VDD_SOC")),
            ("AGX Orin", ("VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")),
            ("AGX Thor", ("VDD_GPU", "VIN")),
            ("Jetson TX2", ("VDD_MUX", "VDD_CPU")),
            ("Jetson Nano", ("POM_5V_GPU", "POM_5V_GPU")),
        ],
    )
    def test_refuses_to_add_up_what_overlaps(self, model: str, rails: Sequence[str]) -> None:
        with pytest.raises(UserError, match=f"{rails[-2]} and {rails[-1]} of .* overlap"):
            jetson_rails.check_addable(jetson_rails.identify(model, ()), rails, rails)

    def test_parts_add_up(self) -> None:
        rails = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
        jetson_rails.check_addable(jetson_rails.identify("AGX Orin", ()), rails, rails)

    def test_names_are_exact(self) -> None:
        module, rails = jetson_rails.identify("Orin NX", ()), ["VDD_CPU", "VDD_SOC"]
        with pytest.raises(UserError, match=r"VDD_CPU of .*: not known which rails it feeds"):
            jetson_rails.check_addable(module, rails, rails)
        with pytest.raises(UserError, match=r"has no rail VDD_CPU to add up; it has VDD_CPU_GPU_CV, VDD_SOC"):
            jetson_rails.check_addable(module, ["VDD_CPU_GPU_CV", "VDD_SOC"], rails)


class Lines:
    """A machine on which `tegrastats` writes what it is given, or the peer replays the lines of a file."""

    def __init__(self, place: Connection, lines: Path) -> None:
        self._place, self._lines = place, lines
        self.url = place.url

    def open(self, argv: Sequence[str]) -> Transport:
        program, *rest = argv
        assert program == "tegrastats"
        return self._place.open([shutil.which("env") or "env", f"TEGRASTATS_LINES={self._lines}", str(PEER), *rest])

    def files(self) -> Transport:
        return self._place.files()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_text("".join(NX.format(n=n) + "\n" for n in range(10)))
    return path


def made(place: Connection = HERE, transport: Transport | None = None, interval: float = 0.02) -> tegrastats.Driver:
    return tegrastats.Driver("rails", tegrastats.Driver.Options(interval=interval), CLOCK, place, transport)


def read(meter: Meter, count: int) -> list[list[float]]:
    """The next readings [n][channels]."""
    found: list[list[float]] = []
    while len(found) < count:
        found += zip(*meter.read().values, strict=True)  # type: ignore[arg-type]
    return found


class TestTegrastats:
    def test_a_sum_of_parts(self, lines: Path) -> None:
        options = tegrastats.Driver.Options(interval=0.02, sum=("VDD_CPU_GPU_CV", "VDD_SOC"))
        meter = tegrastats.Driver("rails", options, CLOCK, Lines(HERE, lines))
        meter.open()
        with closing(meter):
            (row,) = read(meter, 1)
        names = [channel.name for channel in meter.channels]
        assert row[names.index("sum")] == pytest.approx(1.594 + 1.234)
        assert len(row) == len(names)

    def test_reads_the_rails(self, lines: Path) -> None:
        meter = made(Lines(HERE, lines))
        for _ in range(2):
            meter.open()
            with closing(meter):
                block = meter.read()
                rest = read(meter, 2)
        assert meter.interval_ns is None
        assert [(c.name, c.unit, c.scope) for c in meter.channels] == [
            ("VDD_IN", "W", Scope.INPUT),
            ("VDD_CPU_GPU_CV", "W", Scope.RAIL),
            ("VDD_SOC", "W", Scope.RAIL),
            ("tj_temperature", "degC", None),
            ("GPU_temperature", "degC", None),
        ]
        (before,), (after,) = block.before, block.after
        assert after - before == tegrastats.LATENCY_NS
        assert [row[0] for row in rest] == [5.542, 5.543]
        assert rest[0][3] == 40.25
        assert math.isnan(rest[0][4])
        assert meter.identity["module"] == "Xavier NX or Orin NX or Orin Nano"
        sensor = meter.channels[0].sensor
        assert (sensor.period_s, sensor.window_s) == (0.02, 0.0)
        assert sensor.resolution == pytest.approx(0.04)

    def test_a_cassette_replays_it(self, lines: Path) -> None:
        tape: list[Line] = []
        meter = made(Lines(HERE, lines))
        meter.open()
        with closing(meter):
            meter.record(tape.append)
            blocks = [meter.read() for _ in range(3)]
            meter.tape.flush()
        again = made(transport=Cassette(tape))
        again.open()
        assert [again.read() for _ in range(3)] == blocks
        assert (again.channels, again.identity) == (meter.channels, meter.identity)

    def test_its_end_is_a_fault_and_it_opens_again(self, lines: Path) -> None:
        meter = made(Lines(HERE, lines))
        meter.open()
        with closing(meter):
            read(meter, 1)
            (child,) = children()
            os.kill(child, signal.SIGKILL)
            with pytest.raises(InstrumentFault, match="has ended") as caught:
                read(meter, 10)
            assert caught.value.transient
        channels = meter.channels
        meter.open()
        with closing(meter):
            assert len(read(meter, 1)[0]) == len(channels)

    def test_channels_stay_the_same_though_zones_come_and_go(self, lines: Path) -> None:
        meter = made(Lines(HERE, lines))
        meter.open()
        meter.close()
        channels = meter.channels
        lines.write_text(NX.format(n=1).replace("GPU@-256C ", "") + "\n")
        meter.open()
        meter.close()
        assert meter.channels == channels

    def test_garbage_is_told_and_no_reading(self, lines: Path) -> None:
        lines.write_text(f"[sudo] ok\n{NX.format(n=1)}\nNvRmMemInit failed\n{NX.format(n=2)}\n")
        meter = made(Lines(HERE, lines))
        meter.open()
        with closing(meter):
            assert [row[0] for row in read(meter, 2)] == [5.542, 5.541]
        assert meter.told[0][0] == "fault"
        assert "NvRmMemInit" in meter.told[0][1]["message"]

    def test_a_rail_that_goes_has_no_reading(self, lines: Path) -> None:
        lines.write_text(f"{TX1}\n{TX1.replace('VDD_CPU', 'VDD_NEW')}\n")
        meter = made(Lines(HERE, lines))
        meter.open()
        with closing(meter):
            ((vdd_in, vdd_cpu, _),) = read(meter, 1)
        assert vdd_in == 2.532
        assert math.isnan(vdd_cpu)
        assert "['VDD_CPU']; rails that were not there at the start: ['VDD_NEW']" in meter.told[0][1]["message"]

    def test_a_board_without_rails(self, lines: Path) -> None:
        lines.write_text("RAM 1758/3956MB (lfb 12x4MB) CPU [28%@921] PLL@41C\n")
        with pytest.raises(HardwareMissing, match="rails: no rails recognised"):
            made(Lines(HERE, lines)).open()

    def test_not_a_jetson(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(HardwareMissing, match=r"rails: tegrastats: .*is this a Jetson.*nvidia-l4t-tools"):
            made().open()

    def test_found_on_path(self, monkeypatch: pytest.MonkeyPatch, lines: Path) -> None:
        monkeypatch.setenv("PATH", f"{PEER.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("TEGRASTATS_LINES", str(lines))
        meter = made()
        meter.open()
        with closing(meter):
            assert read(meter, 1)[0][1] == 1.594


def children() -> list[int]:
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


class Far:
    """A machine whose clock is `ahead` of the bench's; the transport and the program's lines in one."""

    url = "ssh://lab@far"

    def __init__(self, ahead: int) -> None:
        self.ahead, self.now, self.asked = ahead, 10**12, 0
        self.answers: list[bytes] = []

    def open(self, argv: Sequence[str]) -> Transport:
        return self

    def files(self) -> Transport:
        raise NotImplementedError

    def exchange(self, request: bytes = b"") -> Reply:
        before, self.now = self.now, self.now + 1_000_000
        if request:
            self.asked += 1
            self.answers.append(b"%d" % (before + 500_000 + self.ahead))
            return Reply(b"", BenchNs(before), BenchNs(before))
        if self.answers:
            return Reply(self.answers.pop(), BenchNs(before), BenchNs(self.now))
        self.now += 100_000_000
        stamped = b"%d %s" % (self.now - 2_000_000 + self.ahead, NX.format(n=1).encode())
        return Reply(stamped, BenchNs(before), BenchNs(self.now))

    def close(self) -> None:
        pass


class TestAnotherMachine:
    def test_readings_lie_where_the_probes_say(self) -> None:
        far = Far(5 * 10**15)
        meter = made(far, interval=0.1)
        meter.open()
        for _ in range(50):
            block = meter.read()
            for before, after, device in zip(block.before, block.after, block.device or [], strict=True):
                taken = device - far.ahead
                assert before + tegrastats.LATENCY_NS <= taken <= after <= far.now
                assert after - before < tegrastats.LATENCY_NS + 3_000_000
        probes = [fields for kind, fields in meter.told if kind == "probe"]
        assert len(probes) == far.asked
        assert far.asked - BURST >= (far.now - 10**12) / 10**9 * 3.5
        assert all(p["before"] <= p["device"] - far.ahead <= p["after"] for p in probes)

    def test_a_clock_that_goes_back_is_told_and_mapped_anew(self) -> None:
        far = Far(10**15)
        meter = made(far)
        meter.open()
        far.ahead = 0
        with pytest.raises(InstrumentFault, match="rails: the clock of ssh://lab@far went back") as caught:
            read(meter, 1)
        assert caught.value.transient
        block = meter.read()
        assert block.before[0] <= far.now <= block.after[0] + 3_000_000

    @given(st.binary(max_size=60).filter(bool))
    def test_garbage_is_a_fault(self, data: bytes) -> None:
        far = Far(0)
        meter = made(far)
        meter.open()
        far.answers = [data]
        try:
            assert len(meter.read().before) == 0
        except InstrumentFault as fault:
            assert fault.transient  # noqa: PT017 either is right

    @pytest.mark.skipif(sshd.PROGRAM is None, reason=sshd.MISSING)
    def test_over_ssh(self, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with sshd.running(tmp_path) as server:
            monkeypatch.setenv("JOULELAB_SSH", server.client("key"))
            meter = made(Lines(connect(server.url, CLOCK), lines))
            meter.open()
            with closing(meter):
                blocks = [block for block in (meter.read() for _ in range(20)) if len(block.before)]
        assert blocks
        assert all(block.device is not None for block in blocks)
        assert all(a.after[0] <= b.after[0] for a, b in pairwise(blocks))


class TestProbeClock:
    def test_the_narrowest_probe_counts_until_it_is_old(self) -> None:
        clocks = ProbeClock()
        clocks.note(1000, 500, 1010)
        clocks.note(1_800, 1_400, 2_700)
        low, high = clocks.bracket(1_400)
        assert (low, high) == (1_900, 1_910)
        low, high = clocks.bracket(1_400 + 10**9)
        assert high - low == 10 + 2 * 200_000

    def test_a_clock_that_was_set_is_followed(self) -> None:
        clocks = ProbeClock()
        clocks.note(1000, 500, 1010)
        clocks.note(2000, 90_000, 2010)
        assert clocks.bracket(90_000) == (2000, 2010)


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def hwmon(root: Path, chip: str, number: int, **files: object) -> Path:
    return write(root / "ina3221" / chip / "hwmon" / f"hwmon{number}", name="ina3221", **files)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """AGX Orin, JetPack 5 and 6."""
    timing: dict[str, object] = {"update_interval": 7, "samples": 1}
    channels: dict[str, object] = {}
    for k, (rail, volts, amperes) in enumerate(
        [("VDD_GPU_SOC", 19936, 480), ("VDD_CPU_CV", 19936, 40), ("VIN_SYS_5V0", 4968, 953)], start=1
    ):
        channels |= {f"in{k}_label": rail, f"in{k}_input": volts, f"curr{k}_input": amperes, f"shunt{k}_resistor": 2000}
    hwmon(tmp_path, "1-0040", 3, **timing, **channels, in7_label="sum of shunt voltages", in7_input=760)
    nothing = {"in1_label": "NC", "in1_input": 0, "curr1_input": 0}
    hwmon(tmp_path, "1-0041", 4, **timing, **nothing, in2_label="VDDQ_VDD2_1V8AO", in2_input=4968, curr2_input=80)
    return tmp_path


def monitors(root: Path, transport: Transport | None = None, **options: Any) -> ina3221.Driver:
    return ina3221.Driver("rails", ina3221.Driver.Options(root=str(root), **options), CLOCK, None, transport)


def readings(meter: Meter) -> dict[str, float]:
    meter.open()
    with closing(meter):
        return {channel.name: value for channel, (value,) in zip(meter.channels, meter.read().values, strict=True)}


class TestIna3221:
    def test_jetpack_5_and_6(self, orin: Path) -> None:
        meter = monitors(orin)
        for _ in range(2):
            found = readings(meter)
        assert found == pytest.approx(
            {"VDD_GPU_SOC": 9.56928, "VDD_CPU_CV": 0.79744, "VIN_SYS_5V0": 4.734504, "VDDQ_VDD2_1V8AO": 0.39744}
        )
        assert {channel.scope for channel in meter.channels} == {Scope.RAIL}
        assert meter.identity["chips"] == ["1-0040", "1-0041"]
        assert meter.settings == {"samples": {"1-0040": 1, "1-0041": 1}, "disabled": [], "unknown_rails": []}
        assert meter.interval_ns == 4 * 2 * 7_000_000

    def test_a_sum_of_parts(self, orin: Path) -> None:
        meter = monitors(orin, sum=("VDD_GPU_SOC", "VDD_CPU_CV"))
        found = readings(meter)
        assert found["sum"] == pytest.approx(9.56928 + 0.79744)
        part, total = meter.channels[0], meter.channels[-1]
        assert (total.name, total.scope) == ("sum", Scope.RAIL)
        assert total.sensor.offset_u == pytest.approx(part.sensor.offset_u * 2**0.5, rel=1e-3)
        with pytest.raises(UserError, match=r"VIN_SYS_5V0 and VDDQ_VDD2_1V8AO of .* overlap"):
            monitors(orin, sum=("VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")).open()

    def test_accuracy_from_the_data_sheet(self, orin: Path) -> None:
        """80 uV over 2 mOhm at 20 V are 0.8 W; 40 uV are 0.4 W."""
        meter = monitors(orin)
        readings(meter)
        sensor = meter.channels[0].sensor
        assert sensor.resolution == pytest.approx(0.4, rel=0.01)
        assert sensor.offset_u == pytest.approx(0.8 / 3**0.5, rel=0.01)
        assert 0.006 < sensor.gain_u_rel < 0.0065
        assert (sensor.period_s, sensor.window_s) == (0.007, 0.0)

    def test_an_averaging_chip_has_a_window(self, orin: Path) -> None:
        write(orin / "ina3221/1-0040/hwmon/hwmon3", samples=16, update_interval=106)
        meter = monitors(orin, interval=0.5)
        readings(meter)
        assert meter.channels[0].sensor.window_s == pytest.approx(0.212)
        assert meter.interval_ns == 500_000_000

    def test_jetpack_4(self, tmp_path: Path) -> None:
        write(
            tmp_path / "ina3221x" / "6-0040" / "iio:device0",
            rail_name_0="POM_5V_IN",
            in_voltage0_input=5000,
            in_current0_input=400,
            rail_name_1="POM_5V_GPU",
            in_voltage1_input=5000,
            in_current1_input=0,
        )
        meter = monitors(tmp_path)
        assert readings(meter) == {"POM_5V_IN": 2.0, "POM_5V_GPU": 0.0}
        assert (meter.identity["module"], meter.channels[0].scope) == ("Nano", Scope.INPUT)
        assert meter.channels[0].sensor.resolution == pytest.approx(0.04)

    def test_thor(self, tmp_path: Path) -> None:
        channels: dict[str, object] = {}
        for k, rail in enumerate(["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"], start=1):
            channels |= {f"in{k}_label": rail, f"in{k}_input": 19000, f"curr{k}_input": 100}
        hwmon(tmp_path, "2-0040", 1, **channels)
        write(tmp_path / "ina238" / "2-0044" / "hwmon" / "hwmon0", name="ina238", power1_input=19_780_000)
        meter = monitors(tmp_path)
        found = readings(meter)
        assert found["VIN"] == pytest.approx(19.78)
        assert {c.name for c in meter.channels if c.scope is Scope.INPUT} == {"VIN"}
        assert meter.identity["module"] == "Thor"

    def test_a_disabled_input_is_left_out_and_said(self, orin: Path) -> None:
        """The kernel answers EIO for what a process may not look at in its own memory, as for such an input."""
        amperes = orin / "ina3221/1-0041/hwmon/hwmon4/curr2_input"
        amperes.unlink()
        amperes.symlink_to("/proc/self/mem")
        meter = monitors(orin)
        assert "VDDQ_VDD2_1V8AO" not in readings(meter)
        assert meter.settings["disabled"] == ["VDDQ_VDD2_1V8AO"]

    def test_an_unknown_rail_is_a_part(self, orin: Path) -> None:
        write(orin / "ina3221/1-0041/hwmon/hwmon4", in3_label="VDD_WHAT", in3_input=5000, curr3_input=1)
        meter = monitors(orin)
        readings(meter)
        assert meter.settings["unknown_rails"] == [channel.name for channel in meter.channels]

    def test_a_cassette_replays_it(self, orin: Path) -> None:
        tape: list[Line] = []
        meter = monitors(orin)
        meter.open()
        with closing(meter):
            meter.record(tape.append)
            block = meter.read()
            meter.tape.flush()
        again = monitors(orin, Cassette(tape))
        again.open()
        assert again.read() == block
        assert again.channels == meter.channels

    def test_no_jetson(self, tmp_path: Path) -> None:
        with pytest.raises(HardwareMissing, match="rails: no power monitor of a Jetson"):
            monitors(tmp_path).open()


class Board:
    """This machine with another device tree."""

    url = "local"

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def open(self, argv: Sequence[str]) -> Transport:
        return HERE.open(argv)

    def files(self) -> Transport:
        return Moved(self._tree)


class Moved(LocalFiles):
    def __init__(self, tree: Path) -> None:
        super().__init__(CLOCK)
        self._tree = tree

    def exchange(self, request: bytes = b"") -> Reply:
        return super().exchange(request.replace(b"/proc/device-tree", str(self._tree).encode()))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    write(tmp_path, model="NVIDIA Jetson AGX Orin Developer Kit\0", compatible="nvidia,p3737\0nvidia,tegra234\0")
    return Board(tmp_path)


class TestFinding:
    def test_discover_says_what_the_total_is(self, board: Board) -> None:
        (found,) = tegrastats.Driver.discover(board, None)
        assert found.note == "NVIDIA Jetson AGX Orin Developer Kit: none of its rails is the total"
        tegrastats.Driver.Options.model_validate(found.stanza)

    def test_nothing_is_said_of_other_machines(self, tmp_path: Path) -> None:
        for driver in (tegrastats.Driver, ina3221.Driver):
            assert list(driver.doctor(Board(tmp_path))) == []
        assert list(tegrastats.Driver.discover(Board(tmp_path), None)) == []

    def test_doctor_names_the_package(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        nvml, program = tegrastats.Driver.doctor(board)
        assert "NVML gives no power on a Jetson" in nvml.message
        assert (program.ok, program.mend) == (False, "sudo apt install nvidia-l4t-tools")

    def test_doctor_is_content(self, board: Board, lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", f"{PEER.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("TEGRASTATS_LINES", str(lines))
        assert all(check.ok for check in tegrastats.Driver.doctor(board))


class TestJtop:
    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "jtop", None)
        with pytest.raises(HardwareMissing, match=r"rails: .*`pip install joulelab\[jetson\]`"):
            jtop.Driver("rails", jtop.Driver.Options(), CLOCK).open()

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_no_service(self) -> None:
        """Without a Jetson's libraries one of jtop's own threads raises, besides."""
        pytest.importorskip("jtop", reason="jetson-stats is not installed (pip install joulelab[jetson])")
        with pytest.raises(HardwareMissing, match=r"rails: The jtop\.service is not active"):
            jtop.Driver("rails", jtop.Driver.Options(), CLOCK).open()

    def test_replays_what_the_service_told(self) -> None:
        power = {
            "rail": {"VDD_SOC": {"power": 0, "online": False}, "VDD_CPU_GPU_CV": {"power": 1590, "online": True}},
            "tot": {"power": 5542, "avg": 5000, "online": True, "name": "VDD_IN"},
        }
        exchange: Line = {"request": "power", "reply": json.dumps(power), "before": 0, "after": 2_000_000_000}
        meter = jtop.Driver("rails", jtop.Driver.Options(), CLOCK, transport=Cassette([exchange] * 2))
        meter.open()
        block = meter.read()
        assert [(c.name, c.scope) for c in meter.channels] == [
            ("VDD_IN", Scope.INPUT),
            ("VDD_SOC", Scope.RAIL),
            ("VDD_CPU_GPU_CV", Scope.RAIL),
        ]
        assert (block.before, block.after) == ([1_000_000_000], [2_000_000_000])
        assert block.values == [[5.542], [pytest.approx(math.nan, nan_ok=True)], [1.59]]

    def test_a_total_that_is_a_sum_is_not_taken(self) -> None:
        assert jtop.parse({"rail": {"CPU": {"power": 311}}, "tot": {"power": 311, "avg": 3}}) == {"CPU": 0.311}

    @given(st.binary())
    def test_garbage_is_a_fault(self, data: bytes) -> None:
        exchange: Line = {"request": "power", "reply": data.decode("latin1"), "before": 0, "after": 1}
        meter = jtop.Driver("rails", jtop.Driver.Options(), CLOCK, transport=Cassette([exchange]))
        with pytest.raises((InstrumentFault, HardwareMissing)):
            meter.open()
