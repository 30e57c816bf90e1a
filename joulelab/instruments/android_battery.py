"""A phone's battery by its fuel gauge: what the phone draws while nothing feeds it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault
from joulelab.instruments import android_phones
from joulelab.instruments.android_rules import Rules
from joulelab.instruments.android_state import PhoneMeter
from joulelab.instruments.base import Block, Check, Found
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording.formats import android
from joulelab.recording.formats.android import GAUGES, Battery
from joulelab.recording.formats.android_rule import UNITS, Rule, learn
from joulelab.timebase import SECOND, BenchNs
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection

SUPPLIES = "/sys/class/power_supply"
FILES = ("status", "current_now", "voltage_now", "charge_counter", "temp")
SUSPEND = f"{SUPPLIES}/*/input_suspend /sys/class/qcom-battery/input_suspend"
LOAD = "timeout 6 sh -c 'while :; do :; done' >/dev/null 2>&1 &"
"""One busy core, to learn from."""
GAIN_U_REL = 0.1 / 3**0.5
"""No maker states the accuracy of a phone's gauge. Assumed here: 10 % either way, rectangular."""
UNPLUG = (
    "read it over Wi-Fi (`adb tcpip 5555; adb connect PHONE`), switch the hub's port off (uhubctl), or `suspend_input`"
)


class Driver(PhoneMeter):
    """Power and current [W, A], positive when drawn; no reading (NaN) while something feeds the phone.

    By sysfs, or by `dumpsys battery` where the phone forbids that; Android then looks at the gauge only now and then.
    A phone that tells no current has an energy counter instead, from its charge counter, whose steps are coarse.
    """

    driver = "android-battery"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=0.25, gt=0)
        current_unit: Literal["auto", "mA", "uA"] = "auto"
        current_sign: Literal["auto", "positive-discharging", "negative-discharging"] = "auto"
        suspend_input: bool = False

    def connect(self) -> Transport:
        return Rules(super().connect(), self.clock)

    def start(self) -> Sequence[Channel]:
        self.identify()
        self._files, self._online = self._find()
        self.settings["source"] = "sysfs" if self._files else "dumpsys"
        self._fed, self._energy = "", 0.0
        if self.options["suspend_input"]:
            self._suspend()
        reading, _, _ = self._take()
        if reason := self._why_not(reading) or self._faked():
            raise HardwareMissing(f"{self.name}: {reason}: this measures no discharge; {UNPLUG}")
        self._charge = reading.charge
        self._rule = None if reading.current is None else self._known_rule()
        self.settings["current"] = self._rule and self._rule._asdict()
        return list(self._channels(reading))

    def read(self) -> Block:
        self.watch()
        reading, reply, stamp = self._take()
        self.prober.catch_up(reply.after)
        reason = self._why_not(reading)
        if reason and reason != self._fed:
            self.tell("fault", source=self.name, message=f"{self.name}: {reason}: no power until that ends")
        self._fed = reason
        values = self._values(reading, bool(reason))
        row = [[math.nan if values[each.name] is None else values[each.name]] for each in self.channels]
        return Block([reply.before], [reply.after], [stamp], row)  # type: ignore[arg-type]

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        yield from android_phones.find(place, address, "/proc/uptime")

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from android_phones.checks(place)

    def _find(self) -> tuple[dict[str, str], list[str]]:
        """The gauge's files that can be read, by name, and those that say whether something is plugged in."""
        gauges = [f"{SUPPLIES}/{gauge}/{name}" for name in FILES for gauge in GAUGES]
        there = self.records(f"ls {' '.join(gauges)} {SUPPLIES}/*/online")[2]
        _, _, texts = self.records(f"cat {' '.join(there)}")
        readable = [path for path, text in zip(there, texts, strict=True) if not text.startswith("!")]
        files: dict[str, str] = {}
        for path in (path for path in readable if path in gauges):
            files.setdefault(path.rpartition("/")[2], path)
        online = [path for path in readable if path.endswith("/online") and path.split("/")[-2] not in GAUGES]
        return (files, online) if {"status", "voltage_now"} <= files.keys() else ({}, [])

    def _take(self) -> tuple[Battery, Reply, int]:
        """A reading, the reply that it came with, and the phone's clock [ns since boot]."""
        if self._files:
            reading, reply, stamp = self._by_sysfs()
        else:
            reply, stamp, (text,) = self.records("run dumpsys battery")
            reading = android.dumpsys(f"{text}\n")  # a shell leaves the last newline out
        return (replace(reading, feeds=()) if self.options["suspend_input"] else reading), reply, stamp

    def _by_sysfs(self) -> tuple[Battery, Reply, int]:
        reply, stamp, texts = self.records(f"cat {' '.join([*self._files.values(), *self._online])}")
        reading = android.sysfs(dict(zip(self._files, texts, strict=False)))
        plugged = zip(self._online, texts[len(self._files) :], strict=True)
        feeds = tuple(path.split("/")[-2] for path, text in plugged if text.strip() == "1")
        return replace(reading, feeds=feeds), reply, stamp

    def _why_not(self, reading: Battery) -> str:
        """Why a reading tells nothing of what the phone draws; empty where it does."""
        if reading.faked:
            return "Android was told that it is unplugged (`dumpsys battery reset` ends that)"
        if reading.status != "Discharging":
            return f"its battery says {reading.status or 'not whether it discharges'}"
        if reading.feeds:
            return f"it is fed ({', '.join(reading.feeds)})"
        return ""

    def _faked(self) -> str:
        return self._why_not(Battery(status="Discharging", faked=android.dumpsys(self.run("dumpsys battery")).faked))

    def _values(self, reading: Battery, fed: bool) -> dict[str, float | None]:
        current = None if fed or self._rule is None else self._rule.drawn(reading)
        if current is not None and current < 0:
            message = f"{self.name}: current flows into the battery, though it says Discharging: {current:.3f} A"
            self.tell("fault", source=self.name, message=message)
            current = None
        power = None if current is None or reading.voltage is None else current * reading.voltage
        return {
            "power": power,
            "current": current,
            "energy": self._used(reading, fed),
            "voltage": reading.voltage,
            "charge": reading.charge,
            "temperature": reading.temperature,
        }

    def _used(self, reading: Battery, fed: bool) -> float | None:
        """The energy since `start` [J], by the charge counter; what came in while it was fed does not count."""
        if reading.charge is None or reading.voltage is None or self._charge is None:
            return None
        spent, self._charge = self._charge - reading.charge, reading.charge
        if fed:
            return None
        self._energy += spent * reading.voltage
        return self._energy

    def _channels(self, reading: Battery) -> Iterator[Channel]:
        volts = reading.voltage or 3.85
        if self._rule:
            step = UNITS[self._rule.unit]
            power = SensorModel(resolution=step * volts, gain_u_rel=GAIN_U_REL)
            yield Channel("power", "W", scope=Scope.BATTERY, sensor=power)
            yield Channel("current", "A", sensor=SensorModel(resolution=step, gain_u_rel=GAIN_U_REL))
        elif reading.charge is not None:
            step = 3.6 * volts  # 1 mAh, what most gauges count in
            sensor = SensorModel(resolution=step, gain_u_rel=GAIN_U_REL)
            yield Channel("energy", "J", Kind.COUNTER, Scope.BATTERY, sensor=sensor)
        else:
            raise HardwareMissing(f"{self.name}: this phone tells neither its battery's current nor its charge")
        yield Channel("voltage", "V", sensor=SensorModel(resolution=1e-3))
        if reading.charge is not None:
            yield Channel("charge", "C", Kind.COUNTER, sensor=SensorModel(resolution=3.6))
        if reading.temperature is not None:
            yield Channel("temperature", "degC", sensor=SensorModel(resolution=0.1))

    def _suspend(self) -> None:
        """Stop drawing from the cable, until `close`; this takes root."""
        paths = self.records(f"ls {SUSPEND}")[2]
        if not paths:
            raise HardwareMissing(f"{self.name}: this phone has no input_suspend: {UNPLUG.rpartition(',')[0]}")
        path = paths[0]
        as_root = "{}" if self.run("id -u") == "0" else "su -c '{}'"
        try:
            self.run(as_root.format(f"[ -w {path} ]"))
        except InstrumentFault as fault:
            raise HardwareMissing(f"{self.name}: suspend_input takes a rooted phone: {fault}") from None
        was = self.run(as_root.format(f"cat {path}"))
        self.undo.remember(["run " + as_root.format(f"echo {was} > {path}")])
        self.run(as_root.format(f"echo 1 > {path}"))
        self.settings["input_suspend"] = path
        self._wait_for_discharge()

    def _wait_for_discharge(self) -> None:
        for _ in range(20):
            if self._take()[0].status == "Discharging":
                return
            self._pause(0.5)

    def _known_rule(self) -> Rule:
        """The rule of `lab.yaml`, the one that was learned of this phone, or one learned now."""
        unit, sign = (
            None if self.options[key] == "auto" else self.options[key] for key in ("current_unit", "current_sign")
        )
        if unit and sign:
            return Rule(unit, sign, "lab.yaml")
        phone = quote(self.identity["serial"] or self.identity["model"], safe="")
        if text := self.exchange(f"rule {phone}".encode()).data:
            stored = Rule(**json.loads(text))
            return stored._replace(unit=unit or stored.unit, sign=sign or stored.sign)
        idle = self._some()
        self.run(LOAD)
        try:
            rule = learn([*idle, *self._some()], unit, sign)
        except DataInvalid as error:
            raise HardwareMissing(f"{self.name}: {error}") from None
        self.exchange(f"keep {phone} {json.dumps(rule._asdict())}".encode())
        return rule

    def _some(self) -> list[Battery]:
        readings = []
        for _ in range(10):
            self._pause(0.3)
            readings.append(self._take()[0])
        return readings

    def _pause(self, seconds: float) -> None:
        self.clock.sleep_until(BenchNs(self.clock.now() + round(seconds * SECOND)))
