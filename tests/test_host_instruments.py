"""The host's own sensors on fake kernel trees, a compiled NVML library and the real /proc."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments import auto, battery, cpu_time, hwmon, powercap
from joulelab.instruments.base import Instrument
from joulelab.instruments.sysfs import HeldFile
from joulelab.quantities import Channel, Kind, Origin, Scope
from joulelab.timebase import MonotonicClock

NOBODY = 65534
WRAP_UJ = 262_143_328_850


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def made(driver: Any, root: Path) -> Any:
    return driver("here", driver.Options(root=str(root)), MonotonicClock())


def readings(instrument: Instrument) -> dict[str, float]:
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

    def test_permission_denied_names_the_mending_command(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            root.chmod(0o755)
            (rapl_zone(root, "0", "package-0", 1) / "energy_uj").chmod(0)
            with unprivileged(), pytest.raises(HardwareMissing, match=r"here: only root may read .*`sudo chmod a\+r "):
                made(powercap.Driver, root).open()

    def test_no_rapl(self, tmp_path: Path) -> None:
        with pytest.raises(HardwareMissing, match=r"here: this host has no RAPL.*modprobe"):
            made(powercap.Driver, tmp_path).open()

    def test_garbage_is_a_fault_that_names_the_file(self, rapl: Path) -> None:
        meter = made(powercap.Driver, rapl)
        meter.open()
        (rapl / "intel-rapl:0:0" / "energy_uj").write_text("<error>\n")
        with pytest.raises(InstrumentFault, match=r"here: .*intel-rapl:0:0/energy_uj holds b'<error>', not an int"):
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


@given(st.from_regex(rb"[^0-9]{0,80}", fullmatch=True))
def test_a_file_without_a_number_faults_with_its_name(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        file.write(content)
        held = HeldFile("here", Path(file.name))
        with pytest.raises(InstrumentFault, match=f"here: {file.name} holds .*, not an integer"):
            held.number(1e-6)
        held.close()


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
        supply = write(tmp_path / "power_supply" / "BAT0", status="Charging")
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
        energy, busy = cpu_time.Driver("here", cpu_time.Driver.Options(), MonotonicClock()).channels
        assert (energy.scope, energy.origin, energy.gives_energy) == (Scope.ESTIMATE, Origin.ESTIMATED, True)
        assert energy.sensor.gain_u_rel == pytest.approx(0.43, abs=0.01)
        assert (busy.unit, busy.origin, busy.gives_energy) == ("s", Origin.MEASURED, False)

    @given(st.lists(st.integers(0, 2**50), min_size=10, max_size=10))
    def test_busy_leaves_out_idle_waiting_and_stolen_time(self, ticks: list[int]) -> None:
        line = "cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 2 3"
        assert cpu_time.parse(line.encode()) == pytest.approx((sum(ticks[:3]) + sum(ticks[5:7])) / 100)


PROBE = """
import dataclasses, json
from joulelab.errors import JoulelabError
from joulelab.instruments.nvml import Driver
from joulelab.timebase import MonotonicClock

meter = Driver("here", Driver.Options(), MonotonicClock())
try:
    for _ in range(2):
        meter.open()
        block = meter.read()
        meter.close()
    found = [[dataclasses.asdict(c), value] for c, (value,) in zip(meter.channels, block.values, strict=True)]
    print(json.dumps({"found": found}))
except JoulelabError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compiled `libnvidia-ml.so.1` that answers as its environment says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the NVML library of this test (Debian: apt install gcc libc6-dev)")
    folder = tmp_path_factory.mktemp("nvml")
    source, library = Path(__file__).with_name("nvml_shim.c"), folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder


def ask_nvml(library: Path, **environment: str) -> Any:
    """What the driver says in a process of its own, since a loaded library stays loaded."""
    variables = {**os.environ, "LD_LIBRARY_PATH": str(library), **environment}
    command = [sys.executable, "-W", "error", "-c", PROBE]
    return json.loads(subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout)


def nvml_channels(library: Path, **environment: str) -> dict[str, tuple[Channel, float]]:
    found = ask_nvml(library, **environment)["found"]
    return {data["name"]: (Channel.from_json(data), value) for data, value in found}


class TestNvml:
    def test_reads_two_gpus(self, nvml_library: Path) -> None:
        found = nvml_channels(nvml_library, SHIM_GPUS="2", SHIM_SUPPORTS="instant average usage energy temperature")
        assert {name: value for name, (_, value) in found.items()} == pytest.approx(
            {
                "gpu0_power_instant": 700.0,
                "gpu0_power_average": 650.0,
                "gpu0_energy": 5e9,
                "gpu0_temperature": 60,
                "gpu1_power_instant": 700.001,
                "gpu1_power_average": 650.001,
                "gpu1_energy": 5e9 + 1e-3,
                "gpu1_temperature": 61,
            },
            rel=1e-12,
        )
        energy, instant = found["gpu0_energy"][0], found["gpu0_power_instant"][0]
        assert (energy.unit, energy.kind, energy.scope) == ("J", Kind.COUNTER, Scope.BOARD)
        assert (instant.sensor.period_s, instant.sensor.window_s) == (0.1, 0.025)
        assert found["gpu0_power_average"][0].sensor.window_s == 1.0

    @pytest.mark.parametrize(("capability", "window_s"), [("70", 0.01), ("75", 0.1), ("80", 0.025), ("86", 1.0)])
    def test_power_usage_means_what_the_architecture_says(
        self, nvml_library: Path, capability: str, window_s: float
    ) -> None:
        """The 1 s mean came with Ampere, except on the GA100."""
        found = nvml_channels(nvml_library, SHIM_SUPPORTS="usage", SHIM_CAPABILITY=capability)
        (name, (channel, value)) = found.popitem()
        assert (name, value) == ("gpu0_power", 640.0)
        assert channel.sensor.window_s == window_s

    def test_a_power_of_zero_is_no_support(self, nvml_library: Path) -> None:
        assert list(nvml_channels(nvml_library, SHIM_SUPPORTS="instant average zero")) == ["gpu0_power_instant"]

    def test_no_value_just_now_is_no_reading(self, nvml_library: Path) -> None:
        found = nvml_channels(nvml_library, SHIM_SUPPORTS="instant temperature", SHIM_SILENT_AFTER="7")
        assert math.isnan(found["gpu0_power_instant"][1])
        assert found["gpu0_temperature"][1] == 60

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"SHIM_GPUS": "0"}, "here: NVML knows no GPU that tells its power, energy or temperature"),
            ({"SHIM_SUPPORTS": ""}, "here: NVML knows no GPU that tells its power, energy or temperature"),
            ({"SHIM_DRIVER": "0"}, "here: NVML says Driver Not Loaded; `nvidia-smi` has to work first"),
        ],
    )
    def test_nothing_to_read(self, nvml_library: Path, environment: dict[str, str], message: str) -> None:
        assert ask_nvml(nvml_library, **environment) == {"error": "HardwareMissing", "message": message}

    def test_no_library(self, tmp_path: Path) -> None:
        """A file that is no library stands before any real one in the search."""
        (tmp_path / "libnvidia-ml.so.1").write_text("")
        answer = ask_nvml(tmp_path)
        assert answer["error"] == "HardwareMissing"
        assert answer["message"].startswith("here: NVML says NVML Shared Library Not Found")

    def test_a_lost_gpu_is_a_fault(self, nvml_library: Path) -> None:
        answer = ask_nvml(nvml_library, SHIM_SUPPORTS="instant", SHIM_LOST_AFTER="3")
        assert answer == {"error": "InstrumentFault", "message": "here: NVML says GPU is lost"}


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
