"""SCPI meters by the real pyvisa-py against peers, and against what real meters were recorded to say."""

from __future__ import annotations

import gc
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError, UserError
from joulelab.instruments.base import Block
from joulelab.instruments.scpi import doctor, replies
from joulelab.instruments.scpi.meter import ScpiMeter
from joulelab.instruments.scpi.models import KeithleyDMM6500, SiglentSPD, YokogawaWT310E, YokogawaWT330E
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import connect
from joulelab.transports.tape import Cassette, Line
from joulelab.transports.visa import VisaTransport
from tests.peers.scpi import WT310E, Meter, dmm6500, hislip, honest, serial_line, spd1168x, tcp, vxi11

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "scpi-serial"
CLOCK = MonotonicClock()
SERVERS = {"socket": tcp, "hislip": hislip, "vxi11": vxi11, "serial": serial_line}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded data are not here")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(ScpiMeter, "timeout_s", 0.3)


def make(driver: type[ScpiMeter], resource: str, transport: Transport | None = None, **options: Any) -> ScpiMeter:
    return driver("wall", driver.Options(resource=resource, **options), CLOCK, transport=transport)


@contextmanager
def opened(driver: type[ScpiMeter], resource: str, **options: Any) -> Iterator[ScpiMeter]:
    meter = make(driver, resource, **options)
    meter.open()
    try:
        yield meter
    finally:
        meter.close()


def reading(meter: ScpiMeter) -> dict[str, float]:
    block = meter.read()
    assert block.before[0] <= block.after[0]
    return {channel.name: values[0] for channel, values in zip(meter.channels, block.values, strict=True)}


def told(meter: ScpiMeter, kind: str) -> list[dict[str, Any]]:
    return [fields for k, fields in meter.told if k == kind]


def sensor(meter: ScpiMeter, name: str) -> Any:
    return next(channel.sensor for channel in meter.channels if channel.name == name)


class TestReplies:
    @pytest.mark.parametrize(
        ("reply", "values"),
        [
            ("230.15E+00,0.4005E+00", [230.15, 0.4005]),
            ("1.2V", [1.2]),
            ("V2 1.2", [1.2]),
            ("A 10.5W", [10.5]),
            ("500 mA", [0.5]),
            ("+5.050, +1.100", [5.05, 1.1]),
            (":NUMERIC:NORMAL:VALUE 1,2\n", [1.0, 2.0]),
            ("NAN,9.91E+37,-----", [math.nan] * 3),
            ("INF,9.9E+37,-9.9E37,OL", [math.inf] * 4),
            ("-1.0", [-1.0]),
        ],
    )
    def test_numbers(self, reply: str, values: list[float]) -> None:
        assert replies.parse(reply) == pytest.approx(values, nan_ok=True)

    @pytest.mark.parametrize("reply", ["", "OK", "Error", "1,,2", "1.2furlong", "Thu Sep 21 09:06:41 2023", "1 2"])
    def test_what_is_no_number_is_refused(self, reply: str) -> None:
        with pytest.raises(ValueError, match="is no"):
            replies.parse(reply)

    def test_words(self) -> None:
        assert replies.data(":INTEGRATE:MODE NORMAL") == "NORMAL"
        assert replies.fields('0,"No error, none"') == ["0", "No error, none"]
        assert replies.error('113,"Undefined Header"') == (113, "Undefined Header")
        assert replies.error("0  No Error") == (0, "No Error")

    @pytest.mark.parametrize(
        ("asked", "answered", "same"),
        [
            ("0.1", "100.0E-03", True),
            ("NORMAL", ":INTEGRATE:MODE NORM", True),
            ("P,1", "P,1", True),
            ("P,1", "PHI,1", False),
            ("3", "6", False),
            ("0,0,0", "0,0", False),
        ],
    )
    def test_reading_back(self, asked: str, answered: str, same: bool) -> None:
        assert replies.same(asked, answered) is same

    @given(st.text() | st.from_regex(r"[-+0-9.eENAIF, \";:A-Z]*"))
    def test_any_text_gives_values_or_a_value_error(self, text: str) -> None:
        for parser in (replies.parse, replies.error, replies.identity):
            try:
                parser(text)
            except ValueError:
                continue
        replies.same(text, replies.data(text))


@needs_data
class TestRecorded:
    """Every reply that real meters were recorded to give."""

    WORDS = frozenset({"ONE", "CURR:DC", "CURR:AC", "SCPI", "REAR", "OK", "P", "V", "Thu Sep 21 09:06:41 2023"})
    OTHERS = ("SPEC PTDaemon",)

    @staticmethod
    def pairs() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / "pymeasure_pairs.jsonl").read_text().splitlines()]

    def test_pairs_parse_or_are_words(self) -> None:
        for pair in self.pairs():
            if pair["reply"] is not None:
                self.check(pair["cmd"], str(pair["reply"]).strip())

    def test_transcripts(self) -> None:
        for entry in json.loads((DATA / "scpi_transcripts.json").read_text()):
            if entry["reply"] and entry["provenance"] != "form only" and not entry["device"].startswith(self.OTHERS):
                self.check(entry["cmd"], entry["reply"])

    def check(self, request: str, reply: str) -> None:
        if request == "*IDN?":
            assert replies.identity(reply).model
        elif "ERR" in request.upper():
            assert replies.error(reply)[0] == 0
        elif replies.data(reply) in self.WORDS or reply in self.WORDS or "MODE" in request:
            assert "" not in replies.fields(reply)
        else:
            assert all(map(math.isfinite, [v for part in reply.split(";") for v in replies.parse(part)]))

    def test_dmm6500_driven_by_what_one_answered(self) -> None:
        recorded = [pair for pair in self.pairs() if pair["instrument"] == "KeithleyDMM6500"]
        meter = dmm6500()
        for pair in recorded:
            if pair["reply"] is not None and (header := pair["cmd"].removesuffix("?")) in meter.settings:
                meter.settings[header] = pair["reply"].strip()
        meter.answers |= {p["cmd"]: p["reply"].strip() for p in recorded if p["cmd"] in {":READ?", "*LANG?"}}
        with tcp(meter) as resource, opened(KeithleyDMM6500, resource) as instrument:
            assert reading(instrument) == {"current": 0.0}
        assert meter.settings["CURR:DC:APER"] == "0.0015"

    def test_spd_driven_by_what_one_answered(self) -> None:
        meter = spd1168x()
        meter.settings["CH1:CURR"] = next(
            p["reply"] for p in self.pairs() if p["instrument"] == "SPD1168X" and p["reply"]
        )
        with tcp(meter) as resource, opened(SiglentSPD, resource) as instrument:
            assert instrument.settings["current limit"] == "0.5"


class TestProtocols:
    @pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
    def test_a_meter_is_read_and_left_as_it_was(self, serve: Any) -> None:
        meter = WT310E()
        before = dict(meter.settings)
        with serve(meter) as resource:
            for _ in range(2):
                with opened(YokogawaWT310E, resource) as instrument:
                    values = reading(instrument)
                    assert instrument.identity["serial"] == "C3WA01001E"
                    assert instrument.settings["update interval"] == "0.1"
                assert meter.settings == before
        assert values["power"] == pytest.approx(82.8)
        assert values["power_factor"] == pytest.approx(0.9)
        assert math.isnan(values["energy"])  # nothing is integrated while the ranges are free
        assert meter.errors == []

    @pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
    def test_a_late_reply_answers_no_later_query(self, serve: Any) -> None:
        meter = WT310E()
        with serve(meter) as resource:
            transport = VisaTransport(resource, CLOCK, timeout_s=0.2)
            meter.manner = late_once(0.3)
            with pytest.raises(InstrumentFault, match=r"no reply within 0\.2 s") as fault:
                transport.exchange(b"*IDN?")
            assert fault.value.transient
            assert transport.exchange(b":STATUS:CONDITION?").data.strip() == b"0"
            transport.close()

    def test_another_terminator_is_named_as_a_likely_cause(self) -> None:
        meter = WT310E()
        meter.manner = lambda _, reply: reply.encode() + b"\r"
        with tcp(meter) as resource:
            with pytest.raises(HardwareMissing, match="another `terminator` than LF"):
                make(YokogawaWT310E, resource).open()
            with opened(YokogawaWT310E, resource, terminator="CR") as instrument:
                assert reading(instrument)["voltage"] == pytest.approx(230.0)

    def test_disconnected_and_connected_again(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            meter.manner = lambda *_: b""
            with pytest.raises(InstrumentFault, match=resource) as fault:
                instrument.read()
            assert fault.value.transient
            meter.manner = honest
            assert reading(instrument)["power"] == pytest.approx(82.8)

    def test_nobody_there(self) -> None:
        with tcp(WT310E()) as resource:
            pass
        with pytest.raises(HardwareMissing, match=resource):
            make(YokogawaWT310E, resource).open()
        with pytest.raises(HardwareMissing, match="switched on and connected"):
            make(YokogawaWT310E, "ASRL/dev/ttyNONE::INSTR").open()

    def test_no_such_backend(self) -> None:
        with pytest.raises(HardwareMissing, match="leave `backend` out"):
            make(YokogawaWT310E, "TCPIP0::127.0.0.1::9::SOCKET", backend="@none").open()

    def test_held_by_another_program(self) -> None:
        meter = WT310E()
        with (
            serial_line(meter) as resource,
            opened(YokogawaWT310E, resource),
            pytest.raises(HardwareMissing, match="fuser -v /dev/pts"),
        ):
            make(YokogawaWT310E, resource).open()

    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    def test_locked_by_another_program(self) -> None:
        meter = WT310E()
        meter.locked = True
        with vxi11(meter) as resource, pytest.raises(HardwareMissing, match="another program has locked"):
            make(YokogawaWT310E, resource).open()
        gc.collect()  # pyvisa-py leaves the socket of a link that is refused to the collector

    @pytest.mark.peers
    def test_another_client_reads_the_peer(self) -> None:
        if (lxi := shutil.which("lxi")) is None:
            pytest.skip("lxi-tools is not installed: `make peers`")
        with tcp(WT310E()) as resource:
            port = resource.split("::")[2]
            command = [lxi, "scpi", "--raw", "--address", "127.0.0.1", "--port", port, "*IDN?"]
            assert "WT310E" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def late_once(delay_s: float) -> Any:
    """The first reply comes after `delay_s`, the others at once."""
    waits = iter([delay_s])

    def manner(query: str, reply: str) -> bytes | None:
        time.sleep(next(waits, 0.0))
        return honest(query, reply)

    return manner


class TestSetUp:
    def test_another_model(self) -> None:
        with tcp(dmm6500()) as resource, pytest.raises(HardwareMissing, match=r"DMM6500.*yokogawa-wt310e"):
            make(YokogawaWT310E, resource).open()

    def test_garbage_for_an_identity(self) -> None:
        meter = WT310E()
        meter.identity = "\x00\xff?"
        with tcp(meter) as resource, pytest.raises(HardwareMissing, match="does not say what it is"):
            make(YokogawaWT310E, resource).open()

    def test_it_integrates_for_somebody(self) -> None:
        meter = WT310E()
        meter.integrating = "START"
        with tcp(meter) as resource, pytest.raises(HardwareMissing, match="integrating for somebody"):
            make(YokogawaWT310E, resource).open()
        assert meter.integrating == "START"

    def test_a_setting_that_the_meter_does_not_take(self) -> None:
        meter = WT310E()
        meter.set = lambda header, value: None  # type: ignore[method-assign]
        with tcp(meter) as resource, pytest.raises(InstrumentFault, match="header was set to 0, but reads back as"):
            make(YokogawaWT310E, resource).open()

    def test_an_error_in_the_queue_after_set_up_is_named(self) -> None:
        meter = dmm6500()
        del meter.settings["CURR:DC:REL:STAT"]
        meter.answers["CURR:DC:REL:STAT?"] = "0"
        with tcp(meter) as resource, pytest.raises(InstrumentFault, match="113 Undefined Header"):
            make(KeithleyDMM6500, resource).open()

    def test_an_error_from_before_is_not_ours(self) -> None:
        meter = WT310E()
        meter.errors.append('12,"Somebody\'s"')
        with tcp(meter) as resource, opened(YokogawaWT310E, resource):
            pass

    def test_settings_survive_a_crash(self, tmp_path: Path) -> None:
        meter = WT310E()
        before = dict(meter.settings)
        with tcp(meter) as resource:
            script = (
                "import time; from joulelab.instruments.scpi.models import YokogawaWT310E as Driver\n"
                "from joulelab.timebase import MonotonicClock\n"
                f"options = Driver.Options(resource={resource!r}, range={{'voltage': 300, 'current': 1}})\n"
                "meter = Driver('wall', options, MonotonicClock())\n"
                "meter.open(); meter.read(); print('running', flush=True); time.sleep(60)"
            )
            child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            assert child.stdout.readline() == "running\n"
            child.send_signal(signal.SIGKILL)
            child.communicate()
            assert meter.settings[":INPUT:CURRENT:AUTO"] == "0"
            assert meter.integrating == "START"
            with opened(YokogawaWT310E, resource):
                pass
        assert meter.settings == before
        assert meter.integrating == "RESET"
        assert not list(tmp_path.glob("joulelab/undo/*.json"))

    def test_options_are_strict(self) -> None:
        for wrong in ({"crest_factor": "4"}, {"element": "2"}, {"range": {"voltage": "300 A", "current": "1 A"}}):
            with pytest.raises(ValueError, match="validation error"):
                YokogawaWT310E.Options.model_validate({"resource": "x", **wrong})
        options = YokogawaWT310E.Options.model_validate(
            {"resource": "x", "update_rate": "250 ms", "range": {"voltage": "300 V", "current": "200 mA"}}
        )
        assert YokogawaWT310E.Options.model_validate(options.model_dump(mode="json")) == options

    def test_a_range_that_the_meter_has_not(self) -> None:
        with tcp(WT310E()) as resource, pytest.raises(UserError, match=r"0\.3 A is no current range.*0\.2, 0\.5"):
            make(YokogawaWT310E, resource, range={"voltage": 300.0, "current": 0.3}).open()


class TestRanges:
    def test_the_smallest_that_is_a_tenth_above_the_peak(self) -> None:
        meter = WT310E(amps=0.44)
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            widest = sensor(instrument, "power")
            instrument.range("auto")
            for amps in (0.44, 0.47, 0.2):
                meter.amps = amps
                instrument.read()
            instrument.range("fixed")
            assert meter.settings[":INPUT:CURRENT:AUTO"] == "0"
            assert instrument.settings["ranges"] == {"voltage": 300.0, "current": 1.0}  # 0.47 A x 1.1 is over 0.5 A
            fixed = sensor(instrument, "power")
            assert fixed.offset_u == pytest.approx(0.0005 * 300 / 3**0.5)
            assert sensor(instrument, "voltage").gain_u_rel == pytest.approx(0.001 / 3**0.5)
            assert fixed.offset_u < widest.offset_u
            assert (fixed.period_s, fixed.window_s) == (0.1, 0.1)
            (change, *_), last = told(instrument, "settings"), told(instrument, "settings")[-1]
            assert change["settings"]["ranges"] == "auto"
            assert last["channels"] == [channel.to_json() for channel in instrument.channels]

    def test_a_pulsed_current_needs_what_the_crest_factor_says(self) -> None:
        meter = WT310E(amps=0.4)
        meter.crest = 4.0  # 1.6 A at the peak: the 0.5 A range takes 1.5 A at crest factor 3
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            instrument.range("auto")
            instrument.read()
            instrument.range("fixed")
            assert instrument.settings["ranges"]["current"] == 1.0

    def test_crest_factor_6_halves_sizes_and_doubles_errors_of_range(self) -> None:
        sizes = {"voltage": 300.0, "current": 0.5}
        with tcp(WT310E()) as resource:
            with opened(YokogawaWT310E, resource, range=sizes) as instrument:
                three = sensor(instrument, "power").offset_u
            with opened(YokogawaWT310E, resource, range=sizes, crest_factor="6", line_filter="on") as instrument:
                assert sensor(instrument, "power").offset_u == pytest.approx(2 * three)
                assert sensor(instrument, "voltage").gain_u_rel == pytest.approx(0.004 / 3**0.5)
            with pytest.raises(UserError, match="20 A is no current range"):
                make(YokogawaWT310E, resource, crest_factor="6", range=sizes | {"current": 20.0}).open()

    def test_over_range_is_null_and_told_from_beginning_to_end(self) -> None:
        meter = WT310E()
        sizes = {"voltage": 300.0, "current": 0.5}
        with tcp(meter) as resource, opened(YokogawaWT310E, resource, range=sizes) as instrument:
            good = instrument.read()
            assert instrument.told == []
            meter.amps = 2.0
            assert all(math.isnan(values[0]) for values in instrument.read().values)
            bad = instrument.read()
            meter.amps = 0.4
            assert reading(instrument)["power"] == pytest.approx(82.8)
            begun, ended = told(instrument, "overrange")
        assert begun["start"] == ended["start"] == good.after[0]
        assert ended["stop"] >= bad.after[0]
        assert "current is over range" in begun["message"]

    def test_a_range_that_changes_by_itself_is_over_range(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource:
            with opened(YokogawaWT310E, resource, range={"voltage": 300.0, "current": 0.5}) as instrument:
                meter.settings[":INPUT:CURRENT:RANGE"] = "1.0E+00"
                assert math.isnan(reading(instrument)["power"])
                assert "went from 0.5 to 1 A" in told(instrument, "overrange")[0]["message"]
            with opened(YokogawaWT310E, resource) as instrument:  # ranges free, but nobody said that it may choose
                instrument.read()
                meter.amps = 3.0
                assert math.isnan(reading(instrument)["power"])
                assert reading(instrument)["power"] == pytest.approx(621.0)
                assert len(told(instrument, "overrange")) == 2

    def test_while_it_may_range_nothing_is_told(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            instrument.range("auto")
            instrument.read()
            meter.amps = 3.0
            assert math.isnan(reading(instrument)["power"])
            assert told(instrument, "overrange") == []

    def test_nothing_to_choose_by(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            instrument.range("auto")
            with pytest.raises(InstrumentFault, match="no voltage was read"):
                instrument.range("fixed")
            meter.amps = 19.0
            instrument.read()
            with pytest.raises(InstrumentFault, match="largest current range"):
                instrument.range("fixed")

    def test_ranges_chosen_hold_after_connecting_again(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            instrument.range("auto")
            instrument.read()
            instrument.range("fixed")
            channels = instrument.channels
            instrument.close()
            instrument.open()
            assert instrument.channels == channels
            assert meter.settings[":INPUT:CURRENT:AUTO"] == "0"

    def test_energy_is_counted_while_ranges_are_fixed(self) -> None:
        meter = WT310E()
        with tcp(meter) as resource:
            with opened(YokogawaWT310E, resource, range={"voltage": 300.0, "current": 0.5}) as instrument:
                first, second = (reading(instrument)["energy"] for _ in range(2))
                assert meter.integrating == "START"
            assert meter.integrating == "RESET"
        assert 0 < first < second
        assert first == pytest.approx(8.28)

    def test_an_element_of_three(self) -> None:
        meter = WT310E()
        meter.identity = "YOKOGAWA,WT333E,C2VL22012V,F1.04"
        with tcp(meter) as resource, opened(YokogawaWT330E, resource, element="2") as instrument:
            assert meter.settings[":NUMERIC:NORMAL:ITEM3"] == "P,2"
            meter.answers[":STATUS:CONDITION?"] = "0"
            assert instrument.settings["item 3"] == "P,2"


class TestReadings:
    @pytest.mark.parametrize("word", ["NAN", "9.91E+37", "-1.0"])
    def test_no_sentinel_becomes_a_number(self, word: str) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            instrument.read()
            meter.manner = lambda query, reply: honest(query, reply.replace("8.28000E+01", word))
            assert math.isnan(reading(instrument)["power"])
            instrument.read()
            assert [fault["message"] for fault in told(instrument, "fault")] == [
                "wall does not measure power: is it connected?"
            ]

    @pytest.mark.parametrize("cut", [5, 60, 100])
    def test_a_truncated_reply_is_a_transient_fault(self, cut: int) -> None:
        meter = WT310E()
        with tcp(meter) as resource, opened(YokogawaWT310E, resource) as instrument:
            meter.manner = lambda query, reply: honest(query, reply[:cut])
            with pytest.raises(InstrumentFault, match=resource) as fault:
                instrument.read()
            assert fault.value.transient
            meter.manner = honest

    @given(st.binary(max_size=200) | st.from_regex(rb"[0-9E+.,;NAIF]*"))
    def test_any_reply_gives_a_block_or_a_transient_fault(self, data: bytes) -> None:
        instrument = make(YokogawaWT310E, "TCPIP0::192.0.2.10::inst0::INSTR", transport=Saying(data))
        with pytest.raises(JoulelabError):
            instrument.open()
        instrument._trouble, instrument._last, instrument._faults = None, None, frozenset()
        try:
            outcome: Block | InstrumentFault = instrument.read()
        except InstrumentFault as fault:
            outcome = fault
        assert isinstance(outcome, Block) or outcome.transient

    def test_a_cassette_gives_the_same_blocks(self) -> None:
        lines: list[Line] = []
        meter = WT310E()

        def play(instrument: ScpiMeter) -> list[Any]:
            instrument.open()
            instrument.record(lines.append if instrument._transport is None else None)
            instrument.range("auto")
            blocks = [instrument.read()]
            instrument.range("fixed")
            blocks.append(instrument.read())
            instrument.close()
            instrument.tape.flush()
            return [blocks, instrument.channels, instrument.settings, instrument.told]

        with tcp(meter) as resource:
            live = play(make(YokogawaWT310E, resource))
        replayed = play(make(YokogawaWT310E, resource, transport=Cassette(lines)))
        assert repr(replayed) == repr(live)


class Saying:
    """A meter that answers everything alike."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def exchange(self, request: bytes = b"") -> Reply:
        return Reply(self._data, BenchNs(1), BenchNs(2))

    def close(self) -> None:
        pass


class TestFinding:
    @pytest.mark.parametrize(
        ("driver", "meter", "scope"),
        [(YokogawaWT310E, WT310E(), "wall"), (SiglentSPD, spd1168x(), "input"), (KeithleyDMM6500, dmm6500(), "input")],
    )
    def test_discover_prints_a_stanza_that_opens(self, driver: type[ScpiMeter], meter: Meter, scope: str) -> None:
        with tcp(meter) as resource:
            found = [list(d.discover(connect("local", CLOCK), resource)) for d in (driver, YokogawaWT330E)]
            ((name, stanza, note),) = found[0]
            assert found[1] == []
            assert (stanza.pop("scope"), stanza.pop("serial")) == (scope, meter.identity.split(",")[2])
            assert name in meter.identity.lower()
            assert "scope" in note
            with opened(driver, **stanza) as instrument:
                assert all(map(math.isfinite, list(reading(instrument).values())[:1]))

    def test_addresses_of_others_are_left_alone(self) -> None:
        assert list(YokogawaWT310E.discover(connect("local", CLOCK), "/dev/ttyUSB0")) == []

    def test_doctor_names_a_usb_meter_without_permission(self, tmp_path: Path) -> None:
        device = tmp_path / "sys/bus/usb/devices/1-2"
        interface = device.with_name("1-2:1.0")
        for folder, files in (
            (device, {"busnum": "1", "devnum": "7"}),
            (interface, {"bInterfaceClass": "fe", "bInterfaceSubClass": "03"}),
        ):
            folder.mkdir(parents=True)
            for name, text in files.items():
                (folder / name).write_text(f"{text}\n")
        checks = {check.what: check for check in doctor.checks(tmp_path)}
        assert checks["VISA backend pyvisa-py"].ok
        assert not checks["USB meter 1-2"].ok
        assert "udev" in checks["USB meter 1-2"].mend
