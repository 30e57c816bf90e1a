"""Phones: every spelling of a fuel gauge, one shell over ADB, and what must not pass for a discharge."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, JoulelabError, UserError
from joulelab.instruments import android_battery, android_odpm, android_phones
from joulelab.instruments.android_state import state
from joulelab.instruments.undo import left_over
from joulelab.quantities import Kind, Scope
from joulelab.recording.formats import android
from joulelab.recording.formats.android import Battery, Odpm
from joulelab.recording.formats.android_rule import learn
from joulelab.timebase import SECOND, BenchNs, MonotonicClock
from joulelab.transports.adb import Adb, BootClock
from joulelab.transports.connection import connect
from joulelab.transports.files import split
from joulelab.transports.tape import Cassette
from tests.peers import adbd
from tests.peers.adbd import SERIAL, Phone, Server

SAMPLES = Path(__file__).parents[1].parent / "shared" / "data" / "android" / "samples.jsonl"
URL = f"adb://{SERIAL}"
CURRENT = "/sys/class/power_supply/battery/current_now"
ENERGY = "t={0}\nCH0(T={0})[VSYS_PWR_MODEM], 29110940\nCH1(T={0})[S2M_VDD_CPUCL2], {1}\n"
REFUSED = {
    "app_report": "no reading",
    "charger_artifact": "on its charger, nothing was measured",
    "perfetto_counter": "no reading",
    "perfetto_counter_names": "no reading",
}


class HastyClock(MonotonicClock):
    """A real clock on which nobody waits."""

    def sleep_until(self, t: BenchNs) -> None: ...


def samples() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLES.read_text().splitlines()] if SAMPLES.exists() else []


def told(kind: str, meter: android_battery.Driver) -> list[dict[str, Any]]:
    found = [fields for each, fields in meter.told if each == kind]
    meter.told.clear()
    return found


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/bin/false")  # no test may start an adb server that outlives it


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path / "phone")


@pytest.fixture
def server(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with adbd.serving(phone) as running:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(running.server_address[1]))
        yield running


KNOWN: dict[str, Any] = {"current_unit": "uA", "current_sign": "negative-discharging"}
LEARN: dict[str, Any] = {"current_unit": "auto", "current_sign": "auto"}


def battery(transport: Cassette | None = None, **options: Any) -> android_battery.Driver:
    made = android_battery.Driver.Options.model_validate({**KNOWN, **options})
    clock = HastyClock()
    return android_battery.Driver("phone", made, clock, Adb(URL, clock), transport)


def odpm() -> android_odpm.Driver:
    return android_odpm.Driver("rails", android_odpm.Driver.Options(), HastyClock(), Adb(URL, HastyClock()))


def values(meter: android_battery.Driver | android_odpm.Driver) -> dict[str, float]:
    block = meter.read()
    return {channel.name: float(column[0]) for channel, column in zip(meter.channels, block.values, strict=True)}


# The parsers


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: f"{sample['kind']}-{sample['device']}")
def test_a_recorded_sample_gives_what_is_expected_or_is_refused(sample: dict[str, Any]) -> None:
    if sample["kind"] in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[sample["kind"]]):
            android.parse(sample["text"])
        return
    reading, expected = android.parse(sample["text"]), sample["expect"]
    if isinstance(reading, Battery):
        charge = None if reading.charge is None else round(reading.charge / 3.6e-3)
        found = {"V": reading.voltage, "I_A": reading.amperes, "charge_counter_uAh": charge}
        found["P_W_discharge"] = reading.drawn
        assert expected == {key: pytest.approx(found[key], abs=1e-12) for key in expected}
    elif isinstance(reading, Odpm):
        assert expected == {"t_ms": reading.t_ms, "n_ch": len(reading.rails)}
    else:
        assert all(reading.values())


def test_contradicting_values_of_one_key_are_not_used() -> None:
    reading = android.uevent("POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_SERIAL=1=2\nPOWER_SUPPLY_STATUS=Full\n")
    assert reading.status is None


@pytest.mark.parametrize("error", ["-22", "-61", "-2147483648", "9223372036854775807", "unknown", ""])
def test_an_error_number_is_no_reading(error: str) -> None:
    reading = android.sysfs({"current_now": error, "voltage_now": error, "charge_counter": error, "temp": error})
    assert reading == Battery()


@pytest.mark.parametrize(
    ("line", "amperes"),
    [("441", 0.441), ("-335232", -0.335232), ("-350000 ua", -0.35), ("9 mA", 0.009), ("-7000", -7.0), ("9000000", 9.0)],
)
def test_the_unit_of_a_logged_current_is_stated_or_the_only_plausible_one(line: str, amperes: float | None) -> None:
    assert android.dumpsys(f"  voltage: 3900\n  current now: {line}\n").amperes == pytest.approx(amperes)


def test_a_torn_text_gives_no_number() -> None:
    assert android.dumpsys("  voltage: 3900\n  current now: -33").current is None
    with pytest.raises(ValueError, match="cut off"):
        android.energy_value(ENERGY.format(5, 123456)[:-3])


@given(st.text() | st.binary().map(lambda data: data.decode(errors="replace")))
def test_any_text_is_read_or_refused(text: str) -> None:
    for start in ("", "t=1\nCH0[A], 1\n", "CH0[A]:", "healthd: battery ", "POWER_SUPPLY_STATUS=", "  voltage: "):
        with suppress(ValueError):
            android.parse(start + text)


@given(st.lists(st.sampled_from(["@ 1.5 2.50\n", ".\n", "battery/temp 301\n", "a/energy_value t=1\n", "x", "@\n"])))
def test_any_log_is_read_or_refused(lines: list[str]) -> None:
    with suppress(ValueError):
        assert all(reading.boot_ns == 2_500_000_000 for reading in android.log(["# joulelab android log 1\n", *lines]))


# Unit and sign


def unplugged(*currents: float) -> list[Battery]:
    return [Battery(voltage=4.0, current=current, status="Discharging") for current in currents]


@pytest.mark.parametrize(
    ("low", "high", "unit", "sign"),
    [
        (-60_000, -900_000, "uA", "negative-discharging"),
        (60_000, 900_000, "uA", "positive-discharging"),
        (-60, -900, "mA", "negative-discharging"),
        (60, 900, "mA", "positive-discharging"),
    ],
)
def test_unit_and_sign_are_learned_from_a_phone_that_discharges(low: int, high: int, unit: str, sign: str) -> None:
    rule = learn(unplugged(*[low] * 5, *[high] * 5))
    assert (rule.unit, rule.sign) == (unit, sign)
    assert rule.drawn(unplugged(high)[0]) == pytest.approx(0.9)
    assert rule.drawn(unplugged(-low)[0]) == pytest.approx(-0.06)


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        (unplugged(-625, -5625, -10312, *[-8000] * 6), "nothing was measured"),
        (unplugged(*[-300_000, 300_000] * 5), "both signs"),
        ([Battery(voltage=4.0, current=-500_000, status="Charging")] * 20, "too few"),
        (unplugged(*[0] * 20), "too few"),
    ],
)
def test_readings_that_do_not_agree_teach_nothing(readings: list[Battery], reason: str) -> None:
    with pytest.raises(DataInvalid, match=reason):
        learn(readings)


# The connection


def test_one_shell_answers_all_requests(phone: Phone, server: Server) -> None:
    phone.discharging()
    files = connect(URL, MonotonicClock()).files()
    stamp, records = split(files.exchange(f"cat {CURRENT} /nowhere".encode()).data)
    assert records == [b"-500000\n", b"!No such file or directory"]
    assert stamp is not None
    assert abs(stamp - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < SECOND
    _, listed = split(files.exchange(b"ls /sys/class/power_supply/*/online /nowhere").data)
    assert listed == [b"/sys/class/power_supply/usb/online"]
    assert split(files.exchange(b"run echo no; false").data)[1] == [b"!no"]
    assert len(server.live) == 1
    files.close()


def test_a_program_streams_its_lines_with_the_phones_clock(server: Server) -> None:
    program = Adb(URL, MonotonicClock()).open(["sh", "-c", "echo 'a  b'; read x; echo $x"])
    first, line = program.exchange().data.split(b" ", 1)
    program.exchange(b"clock")
    second = program.exchange().data
    program.exchange(b"told")
    assert (line, program.exchange().data.split(b" ", 1)[1]) == (b"a  b", b"told")
    assert int(first) <= int(second)
    with pytest.raises(InstrumentFault, match="sh has ended"):
        program.exchange()
    program.close()


@pytest.mark.parametrize(
    ("states", "url", "mend"),
    [
        ({SERIAL: "unauthorized"}, URL, "unlock it and accept"),
        ({SERIAL: "offline"}, URL, "adb reconnect offline"),
        ({SERIAL: "no"}, URL, "plugdev"),
        ({}, URL, "switch USB debugging on"),
        ({"A": "device", "B": "device"}, "adb://", "adb://A, adb://B"),
        ({"A": "device"}, "adb://192.0.2.7:5555", "adb://A"),
    ],
)
def test_a_phone_that_is_not_there_says_what_to_do(server: Server, states: Any, url: str, mend: str) -> None:
    server.states = states
    with pytest.raises(HardwareMissing, match=mend):
        Adb(url, MonotonicClock()).files()


def test_without_an_adb_server_the_mending_is_to_start_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    with pytest.raises(HardwareMissing, match="`adb start-server`"):
        Adb(URL, MonotonicClock()).files()


def test_a_phone_that_goes_away_is_a_transient_fault(phone: Phone, server: Server) -> None:
    phone.discharging()
    files = Adb(URL, MonotonicClock()).files()
    server.drop()
    for _ in range(2):
        with pytest.raises(InstrumentFault, match="is disconnected") as caught:
            files.exchange(b"cat /x")
        assert caught.value.transient


def test_garbage_for_a_reply_is_a_transient_fault(phone: Phone, server: Server) -> None:
    files = Adb(URL, MonotonicClock()).files()
    server.garble = lambda _: b"\xff\x00linker: warning\x1d"
    with pytest.raises(InstrumentFault, match="no whole reply") as caught:
        files.exchange(b"cat /x")
    assert caught.value.transient


def test_a_clock_that_is_set_on_the_phone_is_told_once() -> None:
    clock = BootClock("phone")
    assert clock.stamp(b"1000.000 10.00 10.00") == 10 * SECOND
    assert clock.stamp(b"1001.004000 11.01 11.05") == 11_010_000_000  # nearer by 6 ms
    with pytest.raises(InstrumentFault, match=r"was set by -500\.00 s") as caught:
        clock.stamp(b"502.004 12.01 12.01")
    assert caught.value.transient
    assert clock.stamp(b"502.104 12.11 12.11") == 12_110_000_000
    assert clock.stamp(b"503.004 13.01 13.01") == 13_010_000_000


# The battery


def test_a_phone_that_discharges_is_read_in_si(phone: Phone, server: Server) -> None:
    phone.discharging()
    meter = battery()
    meter.open()
    block = meter.read()
    assert values(meter) == pytest.approx(
        {"power": 2.0, "current": 0.5, "voltage": 4.0, "charge": 2448973 * 3.6e-3, "temperature": 30.1}
    )
    assert meter.channels[0].scope is Scope.BATTERY
    assert block.before[0] < block.after[0]
    assert block.device is not None
    assert meter.identity["serial"] == SERIAL
    assert meter.settings["current"]["unit"] == "uA"
    assert meter.settings["source"] == "sysfs"
    meter.close()


def test_what_was_learned_of_a_phone_is_kept(phone: Phone, server: Server) -> None:
    phone.discharging(current_now=700)
    for _ in range(2):
        meter = battery(**LEARN)
        meter.open()
        meter.close()
        phone.discharging(current_now=3)  # too little to learn from: the second time nothing has to be
    assert meter.settings["current"]["unit"] == "mA"
    assert meter.settings["current"]["sign"] == "positive-discharging"
    meter = battery()
    meter.open()
    assert meter.settings["current"]["source"] == "lab.yaml"
    meter.close()


def test_sysfs_that_is_forbidden_leaves_dumpsys(phone: Phone, server: Server) -> None:
    phone.battery(adbd.DUMPSYS + "  current now: -400\n")
    meter = battery(**LEARN)
    meter.open()
    assert meter.settings["source"] == "dumpsys"
    assert values(meter)["power"] == pytest.approx(1.6)
    meter.close()


def test_a_phone_without_a_current_has_an_energy_counter(phone: Phone, server: Server) -> None:
    meter = battery()
    meter.open()
    assert [channel.name for channel in meter.channels] == ["energy", "voltage", "charge", "temperature"]
    assert meter.channels[0].kind is Kind.COUNTER
    assert values(meter)["energy"] == 0.0
    phone.battery(adbd.DUMPSYS.replace("2448973", "2447973"))
    assert values(meter)["energy"] == pytest.approx(3.6 * 4.0)
    meter.close()


@pytest.mark.parametrize(
    ("files", "usb", "dumpsys", "reason"),
    [
        ({"status": "Charging"}, 1, adbd.DUMPSYS, "says Charging"),
        ({"status": "Full"}, 1, adbd.DUMPSYS, "says Full"),
        ({"status": "Not charging"}, 1, adbd.DUMPSYS, "says Not charging"),
        ({}, 1, adbd.DUMPSYS, r"it is fed \(usb\)"),
        ({}, 0, adbd.DUMPSYS + "  (UPDATES STOPPED -- use 'reset' to restart)\n", "dumpsys battery reset"),
    ],
)
def test_a_phone_that_is_fed_is_refused(
    phone: Phone, server: Server, files: dict[str, str], usb: int, dumpsys: str, reason: str
) -> None:
    phone.discharging(**files)
    phone.supply("usb", online=usb)
    phone.battery(dumpsys)
    with pytest.raises(HardwareMissing, match=f"{reason}.*adb tcpip"):
        battery().open()


@pytest.mark.parametrize("line", ["USB powered: true", "status: 2", "(UPDATES STOPPED -- use 'reset' to restart)"])
def test_a_phone_that_is_fed_is_refused_by_dumpsys_too(phone: Phone, server: Server, line: str) -> None:
    key = line.partition(":")[0]
    kept = [each for each in adbd.DUMPSYS.splitlines() if key not in each]
    phone.battery("\n".join([*kept, f"  {line}", ""]))
    with pytest.raises(HardwareMissing, match="measures no discharge"):
        battery().open()


def test_charging_that_begins_gives_no_power_and_is_told_once(phone: Phone, server: Server) -> None:
    phone.discharging()
    meter = battery()
    meter.open()
    phone.supply("battery", status="Charging", current_now=800000)
    assert [math.isnan(values(meter)["power"]) for _ in range(2)] == [True, True]
    assert [fault["message"] for fault in told("fault", meter)] == [
        "phone: its battery says Charging: no power until that ends"
    ]
    phone.discharging(current_now=800000)
    assert math.isnan(values(meter)["power"])
    assert "flows into the battery" in told("fault", meter)[0]["message"]
    phone.discharging()
    assert values(meter)["power"] == pytest.approx(2.0)
    meter.close()


@pytest.mark.parametrize("nonsense", ["-22", "", "NaN", "9.91E+37"])
def test_a_sentinel_is_no_power(phone: Phone, server: Server, nonsense: str) -> None:
    phone.discharging()
    meter = battery()
    meter.open()
    phone.supply("battery", current_now=nonsense)
    assert math.isnan(values(meter)["power"])
    meter.close()


def test_the_input_is_suspended_and_put_back(phone: Phone, server: Server) -> None:
    gauge = phone.discharging(input_suspend=0)
    phone.supply("usb", online=1)
    phone._command("id", "echo 0")
    meter = battery(suspend_input=True)
    meter.open()
    assert (gauge / "input_suspend").read_text() == "1\n"
    assert list(left_over())
    assert values(meter)["power"] == pytest.approx(2.0)
    meter.close()
    assert (gauge / "input_suspend").read_text() == "0\n"
    assert not list(left_over())


def test_a_phone_that_is_not_rooted_cannot_suspend_its_input(phone: Phone, server: Server) -> None:
    phone.discharging(input_suspend=0)
    phone._command("id", "echo 2000")
    phone._command("su", "echo su: not allowed; exit 1")
    with pytest.raises(HardwareMissing, match=r"takes a rooted phone.*su: not allowed"):
        battery(suspend_input=True).open()
    assert not list(left_over())


def test_screen_and_radios_are_recorded_and_changes_told(
    phone: Phone, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.discharging()
    meter = battery()
    meter.open()
    assert meter.settings["state"] == {"mWakefulness": "Asleep", "screen_brightness": "40", "wifi_on": "1"}
    phone.screen("Awake")
    meter.read()
    assert not told("settings", meter)
    monkeypatch.setattr("joulelab.instruments.android_state.STATE_S", 0.0)
    meter.read()
    meter.read()
    (change,) = told("settings", meter)
    assert change["settings"]["state"]["mWakefulness"] == "Awake"
    meter.close()


def test_the_state_leaves_out_what_android_does_not_know() -> None:
    text = "  mWakefulness=Awake\nsystem screen_brightness=102\nglobal wifi_on=null\nglobal low_power=\nx\n"
    assert state(text) == {"mWakefulness": "Awake", "screen_brightness": "102"}


def test_a_recording_plays_back_without_the_phone(phone: Phone, server: Server, tmp_path: Path) -> None:
    phone.discharging()
    lines: list[dict[str, Any]] = []
    meter = battery(**LEARN)
    meter.record(lines.append)
    meter.open()
    live = [meter.read() for _ in range(3)]
    meter.close()
    meter.tape.flush()
    again = battery(Cassette(lines), **LEARN)
    again.open()
    assert [again.read() for _ in range(3)] == live
    assert (again.channels, again.identity, again.settings) == (meter.channels, meter.identity, meter.settings)


def test_a_meter_of_a_phone_needs_a_phone() -> None:
    clock = MonotonicClock()
    with pytest.raises(UserError, match="via: adb://SERIAL"):
        android_battery.Driver("phone", android_battery.Driver.Options(), clock, connect("local", clock)).open()


# The rails


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def test_the_rails_of_both_monitors_are_counters_with_their_own_time(phone: Phone, server: Server) -> None:
    first = boot_ms()
    phone.odpm(0, ENERGY.format(first, 30203502), "CH0[VSYS_PWR_MODEM]:Cellular\nCH1[S2M_VDD_CPUCL2]:CPU\n")
    phone.odpm(1, f"t={first + 1}\nCH0(T={first + 1})[S2S_VDD_G3D], 5315420\n", "garbled\n")
    meter = odpm()
    meter.open()
    assert {(channel.kind, channel.scope) for channel in meter.channels} == {(Kind.COUNTER, Scope.RAIL)}
    assert meter.settings["subsystems"]["S2M_VDD_CPUCL2"] == "CPU"
    block = meter.read()
    assert [float(column[0]) for column in block.values] == pytest.approx([29.11094, 30.203502, 5.31542])
    assert block.device is not None
    assert block.device[0] == (first + 1) * 1_000_000
    assert math.isnan(values(meter)["S2S_VDD_G3D"])  # nobody has refreshed it
    phone.odpm(0, ENERGY.format(boot_ms(), 30303502))
    assert values(meter)["S2M_VDD_CPUCL2"] == pytest.approx(30.303502)
    meter.close()


def test_rails_of_a_phone_that_was_restarted_are_a_fault(phone: Phone, server: Server) -> None:
    phone.odpm(0, ENERGY.format(boot_ms(), 30203502))
    meter = odpm()
    meter.open()
    meter.read()
    phone.odpm(0, ENERGY.format(4, 1))
    with pytest.raises(InstrumentFault, match="was restarted"):
        meter.read()
    phone.odpm(0, "t=5\nCH0(T=5)[VSYS")
    with pytest.raises(InstrumentFault, match="cut off"):
        meter.read()
    meter.close()


def test_a_phone_without_monitors_says_so(phone: Phone, server: Server) -> None:
    with pytest.raises(HardwareMissing, match="Phone 7 shows no power monitor"):
        odpm().open()


# discover, doctor, the log


def test_discover_gives_stanzas_that_open(phone: Phone, server: Server) -> None:
    phone.discharging()
    clock = HastyClock()
    (found,) = android_battery.Driver.discover(connect("local", clock), None)
    assert (found.name, found.stanza) == ("Phone-7".lower(), {"via": URL})
    assert not list(android_odpm.Driver.discover(connect("local", clock), None))
    phone.odpm(0, ENERGY.format(5, 5))
    (rails,) = android_odpm.Driver.discover(Adb(URL, clock), None)
    assert rails.stanza == {}
    meter = battery()
    meter.open()
    meter.close()


def test_doctor_tells_of_each_phone_how_to_mend_it(server: Server) -> None:
    server.states["X"] = "unauthorized"
    checks = {check.what: check for check in android_phones.checks(connect("local", MonotonicClock()))}
    assert checks[f"phone {SERIAL}"].ok
    assert "unlock it" in checks["phone X"].message
    server.states = {}
    (check,) = android_phones.checks(connect("local", MonotonicClock()))
    assert "USB debugging" in check.message


def test_doctor_and_discover_start_no_server_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    here = connect("local", MonotonicClock())
    assert not list(android_battery.Driver.discover(here, None))
    (check,) = android_phones.checks(here, usb=tmp_path)
    assert (check.what, check.mend) == ("adb server", "adb start-server")
    interface = tmp_path / "1-1:1.0"
    interface.mkdir()
    for name, value in zip(("Class", "SubClass", "Protocol"), android_phones.ADB_INTERFACE, strict=True):
        (interface / f"bInterface{name}").write_text(f"{value}\n")
    (check,) = android_phones.checks(here, usb=tmp_path)
    assert "no adb server answers" in check.message


def test_the_log_that_a_phone_keeps_is_read(phone: Phone, server: Server, tmp_path: Path) -> None:
    phone.discharging()
    phone.odpm(0, ENERGY.format(7, 30203502))
    log = tmp_path / "phone.log"
    files = Adb(URL, MonotonicClock()).files()
    script = (Path(android_battery.__file__).with_name("android_log.sh")).read_text()
    (phone.root / "bin" / "android_log.sh").write_text(script.replace("/sys/", f"{phone.root}/sys/"))
    files.exchange(f"run sh {phone.root}/bin/android_log.sh 0.01 {log} 2".encode())
    files.close()
    readings = list(android.log(log.read_text().splitlines(keepends=True)))
    assert readings
    assert all(reading.battery.drawn == pytest.approx(2.0) for reading in readings)
    assert [monitor.t_ms for monitor in readings[0].odpm] == [7]
    assert abs(readings[0].boot_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 60 * SECOND
    with pytest.raises(ValueError, match="begins with"):
        list(android.log(["t=3\n"]))


# The real adb server and adbd


@pytest.mark.peers
@pytest.mark.skipif(not adbd.can_run(), reason=adbd.MISSING)
def test_the_real_adbd_serves_both_meters(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    phone.discharging()
    phone.odpm(0, ENERGY.format(boot_ms(), 30203502))
    with adbd.real(phone) as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        place = Adb(f"adb://{adbd.REAL_ADDRESS}", HastyClock())
        _until_it_is_there(place)
        meter = android_battery.Driver("phone", android_battery.Driver.Options(), HastyClock(), place)
        meter.open()
        assert values(meter)["power"] == pytest.approx(2.0)
        rails = android_odpm.Driver("rails", android_odpm.Driver.Options(), HastyClock(), place)
        rails.open()
        assert values(rails)["S2M_VDD_CPUCL2"] == pytest.approx(30.203502)
        program = place.open(["dumpsys", "battery"])
        assert program.exchange().data.endswith(b"Current Battery Service state:")
        (found,) = android_odpm.Driver.discover(place, None)
        assert found.name == "phone-7"
        for each in (program, meter, rails):
            each.close()


def _until_it_is_there(place: Adb) -> None:
    for attempt in range(50):
        try:
            place.files().close()
        except JoulelabError:
            if attempt == 49:
                raise
            time.sleep(0.1)
        else:
            return
