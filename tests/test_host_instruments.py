"""The host's own sensors on fake kernel trees, the real /proc and the kernel's perf events."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments import auto, battery, cpu_time, hwmon, powercap, rapl_perf
from joulelab.instruments.base import Meter
from joulelab.instruments.sysfs import HeldFile
from joulelab.quantities import Kind, Origin, Scope
from joulelab.timebase import MonotonicClock
from joulelab.transports.base import Reply
from joulelab.transports.connection import connect
from joulelab.transports.files import split
from joulelab.transports.tape import Cassette, Line

NOBODY = 65534
WRAP_UJ = 262_143_328_850


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def made(driver: Any, root: Path) -> Any:
    return driver("here", driver.Options(root=str(root)), MonotonicClock())


def readings(instrument: Meter) -> dict[str, float]:
    """One reading by channel, over two openings that must agree on the channels."""
    instrument.open()
    channels = instrument.channels
    instrument.close()
    instrument.open()
    block = instrument.read()
    instrument.close()
    assert instrument.channels == channels
    assert list(block.before) <= list(block.after)
    return {channel.name: value for channel, (value,) in zip(channels, block.values, strict=True)}


def rapl_zone(root: Path, zone: str, name: str, energy_uj: object, wrap_uj: int = WRAP_UJ) -> Path:
    return write(root / f"intel-rapl:{zone}", name=name, energy_uj=energy_uj, max_energy_range_uj=wrap_uj)


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    rapl_zone(tmp_path, "0", "package-0", 81_234_567)
    rapl_zone(tmp_path, "0:0", "core", 40_000_000)
    rapl_zone(tmp_path, "0:1", "uncore", 0)
    rapl_zone(tmp_path, "0:2", "dram", 5_000_000, 65_712_999_613)
    rapl_zone(tmp_path, "1", "psys", 200_000_000)
    write(tmp_path / "intel-rapl-mmio:0", name="package-0", energy_uj=81_234_567, max_energy_range_uj=WRAP_UJ)
    return tmp_path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def unprivileged() -> Iterator[None]:
    """File permissions do not bind root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was == 0:
            os.seteuid(0)


class TestPowercap:
    def test_reads_the_counters_as_they_stand(self, rapl: Path) -> None:
        assert readings(made(powercap.Driver, rapl)) == pytest.approx(
            {"package-0": 81.234567, "package-0-core": 40.0, "package-0-dram": 5.0, "psys": 200.0}
        )

    def test_says_what_each_counter_is(self, rapl: Path) -> None:
        meter = made(powercap.Driver, rapl)
        meter.open()
        meter.close()
        package, core, dram, psys = meter.channels
        assert [c.scope for c in meter.channels] == [Scope.PACKAGE, Scope.RAIL, Scope.RAIL, Scope.BOARD]
        assert all(c.gives_energy and c.kind is Kind.COUNTER for c in (package, core, dram, psys))
        assert package.sensor.wrap == pytest.approx(262_143.328850)
        assert package.sensor.resolution == pytest.approx(61.04e-6, rel=1e-3)
        assert dram.sensor.resolution == pytest.approx(15.3e-6, rel=1e-3)
        assert package.sensor.gain_u_rel > 0

    def test_permission_denied_names_the_mending_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/tmp")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            root.chmod(0o755)
            (rapl_zone(root, "0", "package-0", 1) / "energy_uj").chmod(0)
            with unprivileged(), pytest.raises(HardwareMissing, match=r"here: only root may read .*`sudo chmod a\+r "):
                made(powercap.Driver, root).open()

    def test_no_rapl(self, tmp_path: Path) -> None:
        with pytest.raises(HardwareMissing, match=f"here: this host .* no RAPL.*looked below {tmp_path}"):
            made(powercap.Driver, tmp_path).open()

    @pytest.mark.parametrize(
        ("cpuinfo", "why", "mend"),
        [
            (b"vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor lahf_lm\n", "virtual machine", ""),
            (
                b"vendor_id\t: GenuineIntel\nflags\t: fpu\n\nprocessor: 1",
                "loads it",
                "sudo modprobe intel_rapl_msr",
            ),
            (b"processor\t: 0\nCPU implementer\t: 0x41\n", "only processors by Intel and AMD", ""),
        ],
    )
    def test_why_there_is_no_rapl(self, cpuinfo: bytes, why: str, mend: str) -> None:
        said, command = powercap.no_rapl(cpuinfo)
        assert why in said
        assert command == mend

    def test_a_counter_may_wrap(self, rapl: Path) -> None:
        energy = rapl / "intel-rapl:0" / "energy_uj"
        energy.write_text(f"{WRAP_UJ - 1000}\n")
        meter = made(powercap.Driver, rapl)
        meter.open()
        energy.write_text("99000\n")
        meter.read()
        meter.close()
        assert meter.told == []

    def test_a_reset_is_told_and_its_span_has_no_energy(self, rapl: Path) -> None:
        energy = rapl / "intel-rapl:0" / "energy_uj"
        meter = made(powercap.Driver, rapl)
        meter.open()
        energy.write_text("0\n")
        block = meter.read()
        meter.read()
        meter.close()
        (_, fault), (kind, span) = meter.told
        assert "went from 81.234567 to 0.000000 J" in fault["message"]
        assert kind == "overrange"
        assert span["start"] < span["stop"] == block.before[0]

    def test_two_counters_that_take_turns_end_it(self, rapl: Path) -> None:
        """As guests of Xen saw them: each read came from another processor's register."""
        energy = rapl / "intel-rapl:0" / "energy_uj"
        meter = made(powercap.Driver, rapl)
        meter.open()

        def turn(joules: int) -> None:
            energy.write_text(f"{joules * 10**6}\n")
            meter.read()

        for number in range(powercap.JUMPS - 1):
            turn(number % 2 * 90_000)
        with pytest.raises(InstrumentFault, match="again: this host's RAPL cannot be trusted, leave it out") as fault:
            turn(90_000)
        meter.close()
        assert not fault.value.transient

    def test_garbage_is_a_fault_that_names_the_file(self, rapl: Path) -> None:
        meter = made(powercap.Driver, rapl)
        meter.open()
        (rapl / "intel-rapl:0:0" / "energy_uj").write_text("<error>\n")
        with pytest.raises(InstrumentFault, match=r"here: .*intel-rapl:0:0/energy_uj holds '<error>', not an int"):
            meter.read()
        meter.close()

    def test_a_counter_whose_device_goes_is_a_fault_that_names_the_file(self, rapl: Path) -> None:
        """A number of a process in /proc vanishes under an open descriptor, as a device's does."""
        process = subprocess.Popen(["sleep", "60"])
        energy = rapl / "intel-rapl:0" / "energy_uj"
        energy.unlink()
        energy.symlink_to(f"/proc/{process.pid}/oom_score")
        meter = made(powercap.Driver, rapl)
        meter.open()
        meter.read()
        process.kill()
        process.wait()
        with pytest.raises(InstrumentFault, match=r"here: .*/intel-rapl:0/energy_uj cannot be read: No such process"):
            meter.read()
        meter.close()

    def test_closes_its_files_when_opening_fails(self, rapl: Path) -> None:
        (rapl / "intel-rapl:1" / "energy_uj").write_text("?")
        held = open_files()
        with pytest.raises(InstrumentFault):
            made(powercap.Driver, rapl).open()
        assert open_files() == held


@given(st.binary())
def test_a_file_holds_a_number_or_faults_with_its_name(content: bytes) -> None:
    held = HeldFile("here", PurePosixPath("/sys/x"))
    held.record = content
    fault: InstrumentFault | None = None
    try:
        value = held.number(1e-6)
    except InstrumentFault as raised:
        fault = raised
    if fault is None:
        assert math.isfinite(value)
    else:
        assert fault.transient
        assert str(fault).startswith(("here: /sys/x holds", "here: /sys/x cannot be read"))


@given(st.binary())
def test_other_files_are_understood_or_refused(content: bytes) -> None:
    assert cpu_time.processors(content) >= 1
    assert all(isinstance(part, str) for part in (*powercap.no_rapl(content), powercap.model(content)))
    with suppress(ValueError):
        cpu_time.parse(content)
    with suppress(ValueError):
        split(content)


class TestHwmon:
    def test_takes_what_measures_power(self, tmp_path: Path) -> None:
        write(tmp_path / "hwmon0", name="nvme", temp1_input=40_000)
        write(tmp_path / "hwmon1", name="amdgpu", power1_average=35_500_000, power1_label="PPT", power1_cap=9)
        write(tmp_path / "hwmon2", name="amdgpu", power1_input=7_000_000)
        write(tmp_path / "hwmon3", name="power_meter", power1_average=210_000_000, power1_average_interval=1000)
        write(tmp_path / "hwmon4", name="corsairpsu", power1_input=300_000_000, power1_label="power total")
        write(tmp_path / "hwmon5", name="ina260", power1_input=12_000_000, power2_input="")
        meter = made(hwmon.Driver, tmp_path)
        assert readings(meter) == pytest.approx(
            {
                "amdgpu_power1_average_PPT": 35.5,
                "amdgpu2_power1": 7.0,
                "power_meter_power1_average": 210.0,
                "corsairpsu_power1_power_total": 300.0,
                "ina260_power1": 12.0,
            }
        )
        scopes = [channel.scope for channel in meter.channels]
        assert scopes == [Scope.PACKAGE, Scope.PACKAGE, Scope.INPUT, Scope.INPUT, Scope.BOARD]
        assert [channel.sensor.window_s for channel in meter.channels] == [0, 0, 1.0, 0, 0]

    def test_leaves_batteries_to_their_driver(self, tmp_path: Path) -> None:
        supply = write(tmp_path / "power_supply" / "BAT0", uevent="DEVTYPE=power_supply\nPOWER_SUPPLY_NAME=BAT0")
        chip = write(tmp_path / "hwmon" / "hwmon0", name="BAT0", power1_input=9_000_000)
        (chip / "device").symlink_to(supply)
        with pytest.raises(HardwareMissing, match="here: no hwmon chip of this host measures power"):
            made(hwmon.Driver, tmp_path / "hwmon").open()


class TestBattery:
    @pytest.mark.parametrize("sign", [1, -1])
    def test_power_drawn_is_positive(self, tmp_path: Path, sign: int) -> None:
        write(tmp_path / "BAT0", status="Discharging", power_now=sign * 8_250_000)
        write(tmp_path / "BAT1", status="Discharging", current_now=sign * 500_000, voltage_now=12_000_000)
        write(tmp_path / "AC", online=0)
        meter = made(battery.Driver, tmp_path)
        assert readings(meter) == pytest.approx({"BAT0": 8.25, "BAT1": 6.0})
        assert {channel.scope for channel in meter.channels} == {Scope.BATTERY}

    @pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
    def test_no_reading_unless_discharging(self, tmp_path: Path, status: str) -> None:
        write(tmp_path / "BAT0", status=status, power_now=8_250_000)
        assert math.isnan(readings(made(battery.Driver, tmp_path))["BAT0"])

    def test_plugged_in_mid_run(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "BAT0", status="Discharging", power_now=8_250_000)
        meter = made(battery.Driver, tmp_path)
        meter.open()
        assert meter.read().values == [[8.25]]
        write(folder, status="Charging")
        assert math.isnan(meter.read().values[0][0])
        meter.close()

    def test_no_battery(self, tmp_path: Path) -> None:
        write(tmp_path / "BAT0", status="Discharging", capacity=80)
        with pytest.raises(HardwareMissing, match="here: this host has no battery"):
            made(battery.Driver, tmp_path).open()


class TestCpuTime:
    def test_estimates_from_the_real_proc(self) -> None:
        options = cpu_time.Driver.Options(idle=10.0, core=0.0)
        meter = cpu_time.Driver("here", options, MonotonicClock())
        for _ in range(2):
            meter.open()
            first, second = meter.read(), meter.read()
            meter.close()
            elapsed_s = (second.before[0] - first.before[0]) / 1e9
            assert second.values[0][0] - first.values[0][0] == pytest.approx(10 * elapsed_s, abs=1e-6)
            assert second.values[1][0] >= first.values[1][0] > 0

    def test_says_that_it_is_an_estimate(self) -> None:
        meter = cpu_time.Driver("here", cpu_time.Driver.Options(), MonotonicClock())
        meter.open()
        meter.close()
        energy, busy = meter.channels
        assert meter.settings["idle_w"] == pytest.approx(0.74 * (os.cpu_count() or 1))
        assert (energy.scope, energy.origin, energy.gives_energy) == (Scope.ESTIMATE, Origin.ESTIMATED, True)
        assert energy.sensor.gain_u_rel == pytest.approx(0.43, abs=0.01)
        assert (busy.unit, busy.origin, busy.gives_energy) == ("s", Origin.MEASURED, False)

    @given(st.lists(st.integers(0, 2**50), min_size=10, max_size=10))
    def test_busy_leaves_out_idle_waiting_and_stolen_time(self, ticks: list[int]) -> None:
        line = "cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 2 3"
        assert cpu_time.parse(line.encode()) == pytest.approx((sum(ticks[:3]) + sum(ticks[5:7])) / 100)


SOFTWARE, CPU_CLOCK = 1, 0
"""An event that most kernels have: the time that a processor was on, whoever used it [ns]."""


@pytest.fixture
def pmu(tmp_path: Path) -> Path:
    """The tree of the `power` PMU; its counters are the time that processor 0 was on, a watt of it."""
    write(tmp_path, type=SOFTWARE, cpumask=0)
    events = write(tmp_path / "events")
    for name in ("energy-pkg", "energy-ram", "energy-psys"):
        write(events, **{name: f"event=0x0{CPU_CLOCK}", f"{name}.scale": "1.0e-9", f"{name}.unit": "Joules"})
    return tmp_path


@pytest.fixture
def _events() -> None:
    try:
        os.close(rapl_perf.opened(SOFTWARE, CPU_CLOCK, 0))
    except OSError as error:
        pytest.skip(f"perf events cannot be opened here: {error.strerror} (sysctl kernel.perf_event_paranoid=0)")


class Refusing:
    """Files, but no perf events."""

    def __init__(self, reason: bytes) -> None:
        self._files = connect("local", MonotonicClock()).files()
        self._reason = reason

    def exchange(self, request: bytes = b"") -> Reply:
        reply = self._files.exchange(request)
        return reply._replace(data=b"\x1e!%s\x1e" % self._reason) if b"perf:" in request else reply

    def close(self) -> None:
        self._files.close()


class TestRaplPerf:
    @pytest.mark.usefixtures("_events")
    def test_reads_the_kernels_counters(self, pmu: Path) -> None:
        meter = made(rapl_perf.Driver, pmu)
        held = open_files()
        assert set(readings(meter)) == {"package-0", "package-0-dram", "psys"}
        meter.open()
        first, second = meter.read(), meter.read()
        meter.close()
        assert open_files() == held
        least_s, most_s = (second.before[0] - first.after[0]) / 1e9, (second.after[0] - first.before[0]) / 1e9
        assert least_s <= second.values[0][0] - first.values[0][0] <= most_s

    @pytest.mark.usefixtures("_events")
    def test_says_what_each_counter_is(self, pmu: Path) -> None:
        meter = made(rapl_perf.Driver, pmu)
        meter.open()
        meter.close()
        scopes = {channel.name: channel.scope for channel in meter.channels}
        assert scopes == {"package-0": Scope.PACKAGE, "package-0-dram": Scope.RAIL, "psys": Scope.BOARD}
        assert all(channel.gives_energy and channel.sensor.wrap is None for channel in meter.channels)

    @pytest.mark.parametrize("reason", [b"Permission denied", b"Operation not permitted"])
    def test_no_permission_names_the_mending_command(self, pmu: Path, reason: bytes) -> None:
        options = rapl_perf.Driver.Options(root=str(pmu))
        meter = rapl_perf.Driver("here", options, MonotonicClock(), transport=Refusing(reason))
        with pytest.raises(HardwareMissing, match=r"here: .*`sudo sysctl kernel.perf_event_paranoid=0`"):
            meter.open()

    def test_an_event_that_the_kernel_refuses(self, pmu: Path) -> None:
        write(pmu, type=4_000_000)
        # Who may open no events at all is told that, who may that there is no such one.
        with pytest.raises((InstrumentFault, HardwareMissing), match="perf:4000000:0:0"):
            made(rapl_perf.Driver, pmu).open()

    @pytest.mark.parametrize(
        ("file", "text", "message"),
        [
            ("type", "power", "energy-pkg of type 'power' holds 'event=0x00'"),
            ("events/energy-pkg", "event=two", "holds 'event=two', not `event=0x...`"),
            ("events/energy-pkg.unit", "Ergs", "counts in 1.0e-9 Ergs, not in joules"),
            ("events/energy-pkg.scale", "one", "counts in one Joules, not in joules"),
        ],
    )
    def test_a_tree_that_it_does_not_understand(self, pmu: Path, file: str, text: str, message: str) -> None:
        (pmu / file).write_text(f"{text}\n")
        with pytest.raises(InstrumentFault, match=re.escape(message)):
            made(rapl_perf.Driver, pmu).open()

    def test_no_pmu(self, tmp_path: Path) -> None:
        with pytest.raises(HardwareMissing, match=r"here: this host .* no RAPL"):
            made(rapl_perf.Driver, tmp_path).open()


def test_a_cassette_replays_a_meter_without_its_tree(rapl: Path) -> None:
    write(rapl / "BAT0", status="Discharging", power_now=8_250_000, manufacturer="SMP", serial_number=17)
    write(rapl / "hwmon0", name="amdgpu", power1_average=35_500_000, power1_label="PPT")
    for driver in (powercap.Driver, battery.Driver, hwmon.Driver, cpu_time.Driver):
        root = {"root": str(rapl)} if "root" in driver.Options.model_fields else {}
        options, tape = driver.Options.model_validate(root), list[Line]()
        meter = driver("here", options, MonotonicClock())
        meter.record(tape.append)
        meter.open()
        blocks = [meter.read(), meter.read()]
        meter.tape.flush()
        meter.close()
        again = driver("here", options, MonotonicClock(), transport=Cassette(tape))
        again.open()
        assert [again.read(), again.read()] == blocks
        assert (again.channels, again.identity, again.settings) == (meter.channels, meter.identity, meter.settings)


class TestFinding:
    def test_discover_names_the_channels(self, rapl: Path) -> None:
        (found,) = sensors_below(rapl)["powercap"].discover(connect("local", MonotonicClock()), None)
        assert found == ("powercap", {}, "package-0, package-0-core, package-0-dram, psys")

    def test_doctor_agrees(self, rapl: Path) -> None:
        here = connect("local", MonotonicClock())
        checks = {name: next(driver.doctor(here)) for name, driver in sensors_below(rapl).items()}
        assert {name: check.ok for name, check in checks.items()} == {
            "powercap": True,
            "battery": False,
            "hwmon": False,
        }
        assert checks["battery"].message.startswith("this host has no battery")

    def test_doctor_hands_over_the_mending_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/tmp")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            root.chmod(0o755)
            (rapl_zone(root, "0", "package-0", 1) / "energy_uj").chmod(0)
            with unprivileged():
                check = next(sensors_below(root)["powercap"].doctor(connect("local", MonotonicClock())))
        assert check.mend == f"sudo chmod a+r {root}/intel-rapl:*/energy_uj"

    def test_an_address_is_for_others(self, rapl: Path) -> None:
        here = connect("local", MonotonicClock())
        assert list(sensors_below(rapl)["powercap"].discover(here, "/dev/ttyUSB0")) == []


def sensors_below(root: Path) -> dict[str, Any]:
    """The drivers that read files, as `auto` tries them, with another root."""

    def rooted(driver: Any) -> Any:
        options = create_model("Options", __base__=driver.Options, root=(str, str(root)))
        return type("Rooted", (driver,), {"Options": options})

    return {module.Driver.driver: rooted(module.Driver) for module in (powercap, battery, hwmon)}


class TestAuto:
    def test_offers_what_reads_now_and_tells_why_not_the_rest(
        self, rapl: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(rapl / "BAT0", status="Charging", power_now=1)
        monkeypatch.setattr(auto, "SENSORS", sensors_below(rapl))
        found = auto.Auto()
        assert found.expand("here", {}) == {"here-powercap": ("powercap", {})}
        assert found.refused["battery"].startswith("here-battery: no power or energy reading now")
        assert found.refused["hwmon"].startswith("here-hwmon: no hwmon chip")

    def test_only_the_estimator_where_there_is_no_meter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auto, "SENSORS", sensors_below(tmp_path))
        found = auto.Auto()
        assert found.expand("here", {}) == {"here-cpu-time": ("cpu-time", {})}
        assert set(found.refused) == {"powercap", "battery", "hwmon"}

    def test_knows_every_sensor_of_the_host(self) -> None:
        assert all(driver.driver == name for name, driver in auto.SENSORS.items())
        assert auto.Auto().expand("here", {})
