"""NVIDIA GPUs: the real nvidia-ml-py on a compiled library, its tape without one, and the logs of nvidia-smi."""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.devices import cuda_card
from joulelab.devices.cuda_card import check_free
from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, UserError
from joulelab.instruments.nvml import MIG, Driver
from joulelab.instruments.nvml_sources import parse
from joulelab.quantities import Kind, Scope
from joulelab.recording.formats import nvidia_smi
from joulelab.timebase import MonotonicClock, VirtualClock
from joulelab.transports.base import Reply
from joulelab.transports.call import CallTransport
from joulelab.transports.connection import connect
from joulelab.transports.tape import Cassette, Line
from tests.peers.nvml import build

H200 = "186.0 185.0 185.2 83.0 energy usage temperature clocks events throttle"
LOGS = Path(__file__).parents[1].parent / "shared" / "data" / "gpu-power-benchmark"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A compiled NVML that answers as the environment says."""
    return ctypes.CDLL(str(build(tmp_path_factory.mktemp("nvml"))))


class Shim:
    """The compiled library under the real binding."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def set(self, **environment: str) -> None:
        for name, value in environment.items():
            self._patch.setenv(f"SHIM_{name.upper()}", value)


@pytest.fixture
def shim(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """One GPU that supports what an H200 does, until it is told otherwise."""
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    made = Shim(monkeypatch)
    made.set(gpus="1", supports=H200)
    return made


def opened(**options: Any) -> Driver:
    meter = Driver("cards", Driver.Options(**options), MonotonicClock())
    meter.open()
    return meter


def reading(meter: Driver) -> dict[str, float]:
    block = meter.read()
    assert list(block.before) <= list(block.after)
    assert block.device is None
    return {channel.name: value for channel, (value,) in zip(meter.channels, block.values, strict=True)}


class TestChannels:
    def test_reads_every_quantity_of_two_gpus(self, shim: Shim) -> None:
        shim.set(gpus="2")
        meter = opened()
        meter.close()
        meter.open()
        expected = {"power_instant": 700.0, "power_average": 650.0, "memory_power_average": 50.0, "energy": 5e9}
        expected |= {"temperature": 60.0, "sm_clock": 1.98e9, "memory_clock": 3.201e9, "clocks_event_reasons": 1.0}
        found = reading(meter)
        assert {name: found[f"gpu0_{name}"] for name in expected} == expected
        assert {name.removeprefix("gpu1_") for name in found if name.startswith("gpu1_")} == expected.keys()
        assert (found["gpu1_power_instant"], found["gpu1_temperature"]) == (700.001, 61.0)
        meter.close()

    def test_says_what_each_includes(self, shim: Shim) -> None:
        meter = opened()
        meter.close()
        channels = {channel.name.removeprefix("gpu0_"): channel for channel in meter.channels}
        energy, now, memory = (channels[name] for name in ("energy", "power_instant", "memory_power_average"))
        assert (energy.unit, energy.kind, energy.scope) == ("J", Kind.COUNTER, Scope.BOARD)
        assert (now.scope, memory.scope) == (Scope.BOARD, Scope.RAIL)
        assert (now.sensor.period_s, now.sensor.window_s) == (0.1, 0.025)
        assert channels["power_average"].sensor.window_s == 1.0
        assert all(channel.sensor.gain_u_rel > 0 for channel in channels.values() if channel.gives_energy)

    def test_a_module_is_wider_than_its_gpu_and_so_is_its_energy(self, shim: Shim) -> None:
        shim.set(supports=f"{H200} 186.1")
        meter = opened()
        assert reading(meter)["gpu0_module_power_instant"] == 900.0
        scopes = {channel.name: channel.scope for channel in meter.channels}
        assert scopes["gpu0_module_power_instant"] == scopes["gpu0_energy"] == Scope.INPUT
        assert scopes["gpu0_power_instant"] == Scope.BOARD
        meter.close()

    @pytest.mark.parametrize(("capability", "window_s"), [("70", 0.01), ("75", 0.1), ("80", 0.025), ("86", 1.0)])
    def test_power_usage_means_what_the_architecture_says(self, shim: Shim, capability: str, window_s: float) -> None:
        """The 1 s mean came with Ampere, except on the GA100."""
        shim.set(supports="usage", capability=capability)
        meter = opened()
        assert reading(meter) == {"gpu0_power": 640.0}
        assert meter.channels[0].sensor.window_s == window_s
        meter.close()

    def test_functions_of_older_drivers_stand_in(self, shim: Shim) -> None:
        shim.set(supports="186.0 energy throttle")
        meter = opened()
        assert list(reading(meter)) == ["gpu0_power_instant", "gpu0_energy", "gpu0_clocks_event_reasons"]
        assert not {"gpu0_energy", "gpu0_clocks_event_reasons", "gpu0_power"} & meter.settings["refused"].keys()
        meter.close()

    def test_one_gpu_fields_are_one_call(self, shim: Shim) -> None:
        shim.set(gpus="2")
        taped: list[Line] = []
        meter = opened()
        meter.record(taped.append)
        meter.tape.flush()
        taped.clear()
        meter.read()
        meter.tape.flush()
        meter.close()
        (exchange,) = taped
        calls = exchange["request"].splitlines()
        assert [call for call in calls if "Field" in call] == [
            f"nvmlDeviceGetFieldValues {gpu} 186.0 185.0 185.2 83.0" for gpu in (0, 1)
        ]


class TestRefusals:
    def test_what_a_card_does_not_support_is_said(self, shim: Shim) -> None:
        shim.set(supports="186.0 185.0 186.2 temperature", values="185.0=0 186.2=4294967295")
        meter = opened()
        assert [channel.name for channel in meter.channels] == ["gpu0_power_instant", "gpu0_temperature"]
        refused = meter.settings["refused"]
        assert refused["gpu0_energy"] == refused["gpu0_module_power_instant"] == "Not Supported"
        assert refused["gpu0_power_average"] == "answers 0"
        assert refused["gpu0_memory_power_instant"] == "answers 4.29497e+09"
        meter.close()

    def test_a_driver_without_scopes_gives_no_module(self, shim: Shim) -> None:
        shim.set(supports="186.0 186.1", values="186.1=700000")
        meter = opened()
        assert meter.settings["refused"]["gpu0_module_power_instant"] == "answers the same as the whole GPU"
        assert [channel.name for channel in meter.channels] == ["gpu0_power_instant"]
        meter.close()

    def test_a_value_that_is_not_there_now_is_no_reading(self, shim: Shim) -> None:
        meter = opened()
        shim.set(supports="temperature clocks events", values="clocks=4294967295")
        found = reading(meter)
        assert {name for name, value in found.items() if not math.isnan(value)} == {
            "gpu0_temperature",
            "gpu0_clocks_event_reasons",
        }
        shim.set(supports=H200, values="186.0=0")
        assert math.isnan(reading(meter)["gpu0_power_instant"])
        meter.close()

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"gpus": "0"}, "cards: NVML knows no GPU"),
            ({"supports": "temperature"}, r"cards: no power or energy of NVIDIA H200: gpu0_power_instant: Not Supp"),
            ({"fail": "nvmlInitWithFlags=9"}, r"cards: the NVIDIA kernel module is not loaded: `sudo modprobe nvidia`"),
            ({"fail": "nvmlInitWithFlags=18"}, "cards: the NVIDIA driver was updated, but the kernel .*`sudo reboot`"),
            ({"fail": "nvmlInitWithFlags=4"}, r"cards: no permission on /dev/nvidia\*: `sudo usermod -aG video"),
            ({"fail": "nvmlInitWithFlags=999"}, "cards: NVML says Unknown Error, and nvidia-smi has to work first"),
            ({"fail": "nvmlDeviceGetHandleByIndex_v2.0=15"}, "cards: no power or energy of .*: gpu0: GPU is lost"),
            ({"supports": "", "name": "Orin (nvgpu)"}, r"cards: Orin \(nvgpu\): .* use driver: tegrastats, or"),
        ],
    )
    def test_nothing_to_read(self, shim: Shim, environment: dict[str, str], message: str) -> None:
        shim.set(**environment)
        with pytest.raises(HardwareMissing, match=message):
            opened()

    def test_no_library(self, tmp_path: Path) -> None:
        """A file that is no library stands before any real one in the search of a process of its own."""
        (tmp_path / "libnvidia-ml.so.1").write_text("")
        probe = """
from joulelab.errors import HardwareMissing
from joulelab.instruments.nvml import Driver
from joulelab.timebase import MonotonicClock
try:
    Driver("cards", Driver.Options(), MonotonicClock()).open()
except HardwareMissing as error:
    print(error)
"""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
        command = [sys.executable, "-W", "error", "-c", probe]
        said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        assert said.startswith("cards: libnvidia-ml.so.1 is not found: there is no NVIDIA driver")

    def test_another_machine(self) -> None:
        class Elsewhere:
            url = "ssh://lab@far"

        meter = Driver("cards", Driver.Options(), MonotonicClock(), place=Elsewhere())
        with pytest.raises(HardwareMissing, match="cards: NVML serves the GPUs of this machine, not those of ssh://"):
            meter.open()


class TestChoice:
    @pytest.mark.parametrize("gpus", [(0, 2), ("0", "GPU-2"), ("GPU-0", 2)])
    def test_by_index_or_uuid(self, shim: Shim, gpus: tuple[int | str, ...]) -> None:
        shim.set(gpus="3", supports="186.0")
        meter = opened(gpus=gpus)
        assert reading(meter) == pytest.approx({"gpu0_power_instant": 700.0, "gpu2_power_instant": 700.002})
        assert list(meter.gpus) == ["gpu0", "gpu2"]
        meter.close()

    def test_one_that_is_not_there(self, shim: Shim) -> None:
        with pytest.raises(HardwareMissing, match=r"cards: no GPU 7, GPU-x to read; NVML knows 0 \(GPU-0\)"):
            opened(gpus=(0, 7, "GPU-x"))

    def test_one_that_may_not_be_read_is_left_out(self, shim: Shim) -> None:
        shim.set(gpus="2", fail="nvmlDeviceGetHandleByIndex_v2.1=4")
        meter = opened()
        assert list(meter.gpus) == ["gpu0"]
        assert meter.settings["refused"]["gpu1"] == "Insufficient Permissions"
        meter.close()
        with pytest.raises(
            HardwareMissing, match=r"no GPU 1 to read; NVML knows 0 \(GPU-0\), 1 \(Insufficient Permissions\)"
        ):
            opened(gpus=(1,))


class TestWhatIsTold:
    def test_identity_and_settings(self, shim: Shim) -> None:
        shim.set(processes="1")
        meter = opened()
        meter.close()
        assert meter.identity == {
            "driver": "580.95.05",
            "nvml": "13.580.95.05",
            "gpu0": {
                "name": "NVIDIA H200",
                "uuid": "GPU-0",
                "serial": None,
                "vbios": "96.00.5E.00.01",
                "compute_capability": [9, 0],
                "ecc_now_and_pending": [1, 1],
            },
        }
        settings = meter.settings["gpu0"]
        assert (settings["power_limit_mw"], settings["enforced_power_limit_mw"]) == (700_000, 650_000)
        assert (settings["persistence_mode"], settings["application_clock_sm_mhz"]) == (1, None)
        assert settings["processes"] == [{"pid": 4242, "memory_bytes": 2**30}]
        assert "mig" not in settings
        json.dumps(meter.settings)

    def test_mig_is_the_whole_gpu(self, shim: Shim) -> None:
        shim.set(mig="1")
        meter = opened()
        meter.close()
        assert meter.settings["gpu0"]["mig"] == MIG

    def test_slowdowns_by_power_heat_or_hardware(self, shim: Shim) -> None:
        meter = opened()
        for mask in (0, 1, 4, 5, 0x24, 0):  # 1 is an idle GPU
            shim.set(values=f"events={mask}")
            meter.read()
        meter.close()
        assert all(kind == "throttle" and fields["at"] > 0 for kind, fields in meter.told)
        told = [(fields["instrument"], fields["gpu"], fields["reasons"]) for _, fields in meter.told]
        assert told == [
            ("cards", "gpu0", ["sw_power_cap"]),
            ("cards", "gpu0", ["sw_power_cap", "sw_thermal_slowdown"]),
            ("cards", "gpu0", []),
        ]

    def test_a_counter_that_went_back_also_over_a_reopening(self, shim: Shim) -> None:
        meter = opened()
        for millijoules in (2000, 3000, 0, 3000):
            shim.set(values=f"83.0={millijoules}")
            meter.read()
        assert not meter.told
        meter.close()
        shim.set(values="83.0=7")
        meter.open()
        meter.read()
        meter.close()
        message = "gpu0_energy went back from 3.000 J to 0.007 J: the driver was loaded again"
        assert meter.told == [("fault", {"source": "cards", "message": message})]


class TestFaults:
    @pytest.mark.parametrize(
        ("fail", "message", "transient"),
        [
            ("nvmlDeviceGetFieldValues.1=15", r"cards: gpu1: GPU is lost: .*dmesg.*reboot", False),
            ("nvmlDeviceGetTemperature.0=15", r"cards: gpu0: GPU is lost", False),
            ("nvmlDeviceGetFieldValues.0=16", r"cards: gpu0: GPU requires restart: .*gpu-reset", False),
            (
                "nvmlDeviceGetFieldValues.0=18",
                r"cards: gpu0: RM has detected an NVML/RM version mismatch.*reboot",
                False,
            ),
            ("nvmlDeviceGetFieldValues.0=10", r"cards: gpu0: Timeout$", True),
            ("83.0.0=999", r"cards: gpu0: Unknown Error$", True),
        ],
    )
    def test_a_gpu_that_fails_mid_run(self, shim: Shim, fail: str, message: str, transient: bool) -> None:
        shim.set(gpus="2")
        meter = opened()
        shim.set(fail=fail)
        with pytest.raises(InstrumentFault, match=message) as caught:
            meter.read()
        assert caught.value.transient is transient
        shim.set(fail="")
        assert len(reading(meter)) == 16
        meter.close()

    def test_closing_does_not_end_another_ones_nvml(self, shim: Shim) -> None:
        import pynvml

        before = pynvml._nvmlLib_refcount
        first, second = opened(), opened()
        first.close()
        first.close()
        assert pynvml._nvmlLib_refcount == before + 1
        second.close()
        assert pynvml._nvmlLib_refcount == before

    @given(st.binary() | st.sampled_from([b"[" * 9999, b"1e999", b"[1,2]\n3", b'"!x"\n"y"', b"true\n1", b"NaN\n1"]))
    def test_garbage_is_a_fault(self, data: bytes) -> None:
        try:
            found = parse(data, [3, 1])
        except ValueError:
            return
        assert len(found) == 4
        assert all(isinstance(answer, str) or math.isfinite(answer) for answer in found)

    def test_garbage_from_the_library_is_a_transient_fault(self) -> None:
        class Garbage:
            def exchange(self, request: bytes = b"") -> Reply:
                return Reply(b"\xff?", MonotonicClock().now(), MonotonicClock().now())

            def close(self) -> None: ...

        meter = Driver("cards", Driver.Options(), MonotonicClock(), transport=Garbage())
        with pytest.raises(InstrumentFault, match=r"cards: b'\\xff\?' is no answer of NVML") as caught:
            meter.open()
        assert caught.value.transient


def test_a_cassette_replays_a_session_without_the_library(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    shim.set(gpus="2", supports=f"{H200} 186.1")
    taped: list[Line] = []
    meter = opened()
    meter.record(taped.append)
    blocks = [meter.read()]
    shim.set(fail="nvmlDeviceGetFieldValues.1=10", values="events=64")
    with pytest.raises(InstrumentFault):
        meter.read()
    shim.set(fail="")
    blocks += [meter.read(), meter.read()]
    meter.tape.flush()
    meter.close()

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    lines = json.loads(json.dumps(taped))
    replayed = Driver("cards", Driver.Options(), VirtualClock(), transport=Cassette(lines))
    replayed.open()
    again = [replayed.read()]
    with pytest.raises(InstrumentFault, match="cards: gpu1: Timeout"):
        replayed.read()
    again += [replayed.read(), replayed.read()]
    replayed.close()
    assert again == blocks
    assert (replayed.channels, replayed.identity) == (meter.channels, meter.identity)
    assert (replayed.settings, replayed.told) == (meter.settings, meter.told)


class TestBeforeARun:
    def test_discover_prints_a_stanza_that_opens(self, shim: Shim) -> None:
        shim.set(gpus="2")
        (found,) = Driver.discover(connect("local", MonotonicClock()), None)
        assert found.note == "gpu0 is NVIDIA H200, gpu1 is NVIDIA H200"
        opened(**found.stanza).close()

    def test_discover_finds_none(self, shim: Shim) -> None:
        shim.set(gpus="0")
        assert not list(Driver.discover(connect("local", MonotonicClock()), None))

    def test_doctor_says_what_a_card_lacks(self, shim: Shim) -> None:
        shim.set(mig="1")
        library, gpu = Driver.doctor(connect("local", MonotonicClock()))
        assert (library.ok, library.message) == (True, "driver 580.95.05, NVML 13.580.95.05")
        assert (gpu.what, gpu.ok) == ("nvml gpu0", True)
        assert gpu.message.startswith("NVIDIA H200; without gpu0_module_power_instant: Not Supported; without")
        assert gpu.message.endswith(f"; {MIG}")

    def test_doctor_names_the_command_that_mends(self, shim: Shim) -> None:
        shim.set(fail="nvmlInitWithFlags=9")
        (check,) = Driver.doctor(connect("local", MonotonicClock()))
        assert (check.ok, check.message) == (False, "the NVIDIA kernel module is not loaded")
        assert check.mend == "sudo modprobe nvidia"

    def test_doctor_sends_a_jetson_to_its_own_drivers(self, shim: Shim) -> None:
        shim.set(supports="temperature", name="Orin (nvgpu)")
        (check,) = Driver.doctor(connect("local", MonotonicClock()))
        assert not check.ok
        assert "use driver: tegrastats" in check.message


class TestCudaCard:
    def test_a_free_card_is_measured(self, shim: Shim) -> None:
        shim.set(supports=f"{H200} utilization", values="utilization=1")
        check_free("box", 0)

    @pytest.mark.parametrize(
        ("environment", "index", "message"),
        [
            ({"processes": "2"}, 0, "box: GPU 0 is used by process 4242, 4243: end that, or take another card"),
            ({"values": "utilization=40"}, 1, "box: GPU 1 is busy 40 % of the time with something else: wait, or"),
        ],
    )
    def test_one_that_others_use_is_not(
        self, shim: Shim, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], index: int, message: str
    ) -> None:
        monkeypatch.setattr(cuda_card, "LOOK_NS", 0)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        shim.set(gpus="2", supports=f"{H200} utilization", **environment)
        with pytest.raises(UserError, match=message):
            check_free("box", index)

    @pytest.mark.parametrize(
        ("visible", "index", "number"), [("2,1", 0, 2), ("2,1", 1, 1), ("GPU-1,GPU-0", 0, 1), ("0", 0, 0)]
    )
    def test_cards_are_numbered_as_cuda_sees_them(
        self, shim: Shim, monkeypatch: pytest.MonkeyPatch, visible: str, index: int, number: int
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        shim.set(gpus="3", processes="1")
        with pytest.raises(UserError, match=f"box: GPU {number} is used by process 4242"):
            check_free("box", index)

    @pytest.mark.parametrize("visible", ["", "MIG-7", "GPU-0"])
    def test_of_a_card_that_nvml_does_not_know_nothing_is_said(
        self, shim: Shim, monkeypatch: pytest.MonkeyPatch, visible: str
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        shim.set(processes="1")
        check_free("box", 1)

    def test_without_nvml_cuda_says_what_is_wrong(self, shim: Shim) -> None:
        shim.set(fail="nvmlInitWithFlags=9")
        check_free("box", 0)

    def test_under_mig_there_is_no_utilization(self, shim: Shim) -> None:
        shim.set(supports=H200)
        check_free("box", 0)


class TestCallTransport:
    def test_answers_line_by_line_and_errors_as_text(self) -> None:
        class LibraryError(Exception):
            pass

        def call(function: str, *arguments: str) -> object:
            if function == "fail":
                raise LibraryError("not here")
            return [function, *arguments]

        ended: list[int] = []
        transport = CallTransport(call, LibraryError, MonotonicClock(), lambda: ended.append(1))
        reply = transport.exchange(b"power 0\nfail 1")
        assert reply.data == b'["power", "0"]\n"!LibraryError: not here"'
        assert 0 < reply.before <= reply.after
        transport.close()
        transport.close()
        assert ended == [1]


class TestNvidiaSmiLogs:
    def test_several_gpus_with_units_and_without_a_number(self) -> None:
        text = (
            "timestamp, index, pstate, power.draw [W], clocks.current.sm [MHz], temperature.gpu, memory.used [MiB], "
            "clocks_event_reasons.active\r\n"
            "2023/07/14 10:10:26.905, 0, P0, 56.38 W, 1410 MHz, 37, 2 MiB, 0x0000000000000004\r\n"
            "2023/07/14 10:10:26.907, 1, P0, [N/A], [Not Supported], [Unknown Error], 1 MiB, Not Active\r\n"
            "2023/07/14 10:10:27.905, 0, P8, -1.00 W, 1410 MHz, 38, 2 MiB, 0x1\r\n"
        )
        logs = nvidia_smi.parse(text)
        assert list(logs) == ["0", "1"]
        log = logs["0"]
        assert dict(zip(log.fields, log.units, strict=True)) == {
            "power.draw": "W",
            "clocks.current.sm": "Hz",
            "temperature.gpu": "degC",
            "memory.used": "B",
            "clocks_event_reasons.active": "1",
        }
        assert log.local_ns.tolist() == [1_689_329_426_905_000_000, 1_689_329_427_905_000_000]
        np.testing.assert_array_equal(log.values[0], [56.38, np.nan])
        assert log.values[1:, 0].tolist() == [1.41e9, 37, 2 * 2**20, 4]
        assert np.isnan(logs["1"].values[[0, 1, 2, 4]]).all()

    def test_without_a_header_the_fields_are_told(self) -> None:
        fields = ["timestamp", "uuid", "power.draw", "utilization.gpu"]
        row = "2023/07/14 10:10:26.905, GPU-1, 56.38, 50\n"
        log = nvidia_smi.parse(row, fields)["GPU-1"]
        assert (log.units, log.values.tolist()) == (("W", "1"), [[56.38], [0.5]])
        with pytest.raises(DataInvalid, match="no timestamp"):
            nvidia_smi.parse(row)

    def test_complaints_repeated_headers_and_a_torn_end_are_passed_over(self) -> None:
        header, row = "timestamp, power.draw [W]\n", "2023/07/14 10:10:26.905, 56.38\n"
        text = header + row + "Unable to determine the device handle for GPU\n" + header + row + row[:-4]
        assert nvidia_smi.parse(text)[""].values.tolist() == [[56.38, 56.38]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("timestamp, power.draw [W]\n2023/07/14 10:10:26.905, 1, 2\n", "line 2: 3 cells, not 2"),
            ("timestamp, power.draw [W]\nyesterday, 1\n", "line 2: 'yesterday' is no time stamp"),
            ("timestamp, power.draw [W]\n2023/13/14 10:10:26.905, 1\n", "'2023/13/14 10:10:26.905' is no time stamp"),
            ("timestamp, power.draw [hp]\n", "unknown unit 'hp'"),
            ("", "no timestamp"),
        ],
    )
    def test_what_is_no_such_log(self, text: str, message: str) -> None:
        with pytest.raises(DataInvalid, match=message):
            nvidia_smi.parse(text)

    @given(st.text(alphabet="0123456789:/., \n[]W%xPNA-") | st.text())
    def test_anything_is_parsed_or_refused(self, text: str) -> None:
        for start in ("", "timestamp, index, power.draw [W]\n"):
            try:
                logs = nvidia_smi.parse(f"{start}{text}\n")
            except DataInvalid:
                continue
            assert all(log.values.shape == (len(log.fields), len(log.local_ns)) for log in logs.values())

    @pytest.mark.skipif(not LOGS.exists(), reason="the recorded logs are not here")
    @pytest.mark.parametrize(("name", "rows"), [("A100_square_wave", 965), ("A100_step", 1245), ("RTX3090_step", 2308)])
    def test_recorded_logs(self, name: str, rows: int) -> None:
        (log,) = nvidia_smi.parse((LOGS / name / "gpudata.csv").read_text()).values()
        watts = log.values[[field.startswith("power.draw") for field in log.fields]]
        assert watts.shape[1] == rows == len(log.local_ns)
        assert (watts > 50).all()
        assert (np.diff(log.local_ns) > 0).all()
