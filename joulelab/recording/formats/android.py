"""What Android phones say of their power: fuel gauges in many spellings, ODPM rails, the log of `android_log.sh`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

GAUGES = ("battery", "bms", "MainBattery", "main-battery", "maxfg", "max170xx_battery", "Battery", "BAT0", "BATC")
"""Power supplies that are the battery or its gauge, the first that has a file before the others."""
STATUS = {"1": "Unknown", "2": "Charging", "3": "Discharging", "4": "Not charging", "5": "Full"}
"""BatteryManager.BATTERY_STATUS_*; sysfs writes the words."""
CHARGERS = {"a": "AC", "u": "USB", "w": "WIRELESS", "d": "DOCK"}
"""What feeds the phone, by the letters of healthd."""
ERRNOS = frozenset({1, 2, 5, 6, 11, 12, 16, 19, 22, 34, 38, 61, 71, 95, 110, 121, 524})
"""What kernel drivers return instead of a reading, negative."""
EXTREMES = frozenset({-(2.0**31), 2.0**31 - 1, -(2.0**63), 2.0**63})
"""What BatteryManager returns where a property is not supported."""
PLAUSIBLE_W = (0.05, 50.0)
"""The battery power of a phone that is awake or charges. Its ends are a factor 1000 apart, like mA and uA, so that at
most one of the two units is plausible."""

_NUMBER = re.compile(r"([-+]?\d{1,20}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)
_HEALTHD = re.compile(r"healthd: battery\s+([^\r\n]*)")
_UEVENT = re.compile(r"[A-Z][A-Z0-9_]*=")
_ENERGY = re.compile(r"CH\d{1,3}(?:\(T=(\d{1,18})\))?\[([^\]\n]+)\],\s*(\d{1,20})", re.ASCII)
_RAIL = re.compile(r"CH\d{1,3}\[([^\]\n]+)\]:\s*(.*)", re.ASCII)


@dataclass(frozen=True)
class Battery:
    """One reading of a fuel gauge; None is unknown.

    `voltage` [V], `charge` [C] above some zero, `temperature` [degC]. `current` is the gauge's own number and `unit`
    the amperes that one of it is: stated by the text, by the kernel's ABI, or the only one that gives a plausible
    power; phones break the ABI, so what is learned of the phone (`android_rule`) goes before it. The sign means
    nothing by itself. `feeds` names what is plugged in; `faked`: Android was told to stop looking (`dumpsys battery
    unplug`).
    """

    voltage: float | None = None
    current: float | None = None
    unit: float | None = None
    charge: float | None = None
    temperature: float | None = None
    status: str | None = None
    feeds: tuple[str, ...] = ()
    faked: bool = False

    @property
    def amperes(self) -> float | None:
        """The current [A] with the gauge's own sign."""
        return None if self.current is None or self.unit is None else self.current * self.unit

    @property
    def drawn(self) -> float | None:
        """The power that is drawn from it [W], whatever the sign of its current; None unless it says Discharging."""
        known = self.amperes is not None and self.voltage is not None and self.status == "Discharging"
        return abs(self.amperes) * self.voltage if known else None  # type: ignore[arg-type, operator]


class Rail(NamedTuple):
    """An energy counter of ODPM: since boot [J], when it was read [ms of CLOCK_BOOTTIME]."""

    energy: float
    t_ms: int


class Odpm(NamedTuple):
    """`energy_value` of one power monitor: when it was refreshed [ms of CLOCK_BOOTTIME], its rails by name."""

    t_ms: int
    rails: dict[str, Rail]


def parse(text: str) -> Battery | Odpm | dict[str, str]:
    """A text of any of these forms; ValueError with the reason where it is none: prose is no measurement."""
    start = text.lstrip()
    if re.match(r"t=\d", start):
        return energy_value(text)
    if _RAIL.match(start):
        return enabled_rails(text)
    if "charge counter delta 0" in text:
        raise ValueError("its charge counter did not move: the phone was on its charger, nothing was measured")
    reading = healthd(text) if _HEALTHD.search(text) else uevent(text) if _UEVENT.match(start) else dumpsys(text)
    if reading == Battery():
        raise ValueError("this holds no reading of a battery or a power monitor")
    return reading


def uevent(text: str) -> Battery:
    """A power supply's `uevent`, in lines or as one logged line with commas, or the information of ACC.

    Units are those of the kernel's ABI (sysfs-class-power): uA, uV, uAh, tenths of a degree.
    """
    pairs = re.split(r",\s*(?=[A-Z][A-Z0-9_]*=)", text) if "\n" not in text.strip() else _lines(text)
    return _battery(_once(pair.partition("=") for pair in pairs), lambda number, _: 1e-6)


def dumpsys(text: str) -> Battery:
    """`dumpsys battery` and what vendors made of it: mV or uV, mA or uA, several spellings."""
    values = _once(line.partition(":") for line in _lines(text))
    feeds = tuple(key.removesuffix("_powered").upper() for key in values if key.endswith("_powered"))
    fed = tuple(feed for feed in feeds if values[f"{feed.lower()}_powered"] == "true")
    return replace(_battery(values, plausible_unit), feeds=fed, faked="UPDATES STOPPED" in text)


def healthd(line: str) -> Battery:
    """A line that healthd wrote to the kernel's log; ValueError where it holds none."""
    match = _HEALTHD.search(line)
    if match is None:
        raise ValueError("healthd wrote no reading of a battery here")
    raw = _once(word.partition("=") for word in match[1].split())
    names = {"v": "voltage", "c": "current_now", "st": "status"}
    reading = _battery({names[key]: value for key, value in raw.items() if key in names}, plausible_unit)
    degrees = _number(raw.get("t", ""))
    feeds = tuple(CHARGERS.get(letter, letter) for letter in raw.get("chg", ""))
    return replace(reading, temperature=degrees, feeds=feeds)


def sysfs(files: Mapping[str, str]) -> Battery:
    """A power supply's files by name (`current_now`, `status` ...), units as in `uevent`."""
    return _battery({name: text.strip() for name, text in files.items()}, lambda number, _: 1e-6)


def energy_value(text: str) -> Odpm:
    """ODPM's counters, in uWs since boot; ValueError where it is torn or holds something else."""
    head, *lines = text.splitlines()
    if not re.fullmatch(r"t=\d{1,18}", head, re.ASCII) or not text.endswith("\n"):
        raise ValueError("energy_value begins with t=<ms> and ends with a whole line: this was cut off")
    t_ms = int(head[2:])
    rails: dict[str, Rail] = {}
    for line in lines:
        match = _ENERGY.fullmatch(line.strip())
        if match is None or match[2] in rails:
            raise ValueError(f"{line[:60]!r} is no counter of ODPM")
        rails[match[2]] = Rail(int(match[3]) * 1e-6, int(match[1] or t_ms))
    return Odpm(t_ms, rails)


def enabled_rails(text: str) -> dict[str, str]:
    """ODPM's rails and the subsystem that each feeds; ValueError where a line says something else."""
    matches = [_RAIL.fullmatch(line.strip()) for line in _lines(text)]
    if None in matches:
        raise ValueError("a line of enabled_rails reads CH0[RAIL]:subsystem")
    return {match[1]: match[2] for match in matches if match}


def volts(number: float) -> float | None:
    """A battery's voltage, whether told in V, mV or uV: one or two cells of 2.5 to 5 V; None for anything else."""
    return next((number * scale for scale in (1.0, 1e-3, 1e-6) if 2.5 <= number * scale <= 10.0), None)


def plausible_unit(number: float, voltage: float | None) -> float | None:
    """The amperes that one of `number` is, 1e-3 or 1e-6, whichever gives a power in PLAUSIBLE_W; None if neither."""
    low, high = PLAUSIBLE_W
    return next((unit for unit in (1e-3, 1e-6) if low <= abs(number) * unit * (voltage or 3.85) < high), None)


def _battery(values: Mapping[str, str], unit: Callable[[float, float | None], float | None]) -> Battery:
    def first(*names: str) -> float | None:
        return next((number for name in names if (number := _number(values.get(name, ""))) is not None), None)

    level, current = first("voltage_now", "voltage"), first("current_now", "current")
    voltage = None if level is None else volts(level)
    stated = _stated(values.get("current_now", ""))
    counter, tenths = first("charge_counter"), first("temp", "temperature")
    status = values.get("status") or values.get("charge_status")
    return Battery(
        voltage,
        current,
        None if current is None else stated or unit(current, voltage),
        None if counter is None else counter * 3.6e-3,
        None if tenths is None or not -400 <= tenths <= 1500 else tenths / 10,
        STATUS.get(status, status) if status else None,
    )


def _number(text: str) -> float | None:
    """The number of a value, unless it is an error's; None where there is none."""
    match = _NUMBER.fullmatch(text.strip())
    number = float(match[1]) if match else None
    return None if number is None or number in EXTREMES or -number in ERRNOS else number


def _stated(text: str) -> float | None:
    """The unit of a current that has one written after it."""
    match = _NUMBER.fullmatch(text.strip())
    return {"ua": 1e-6, "ma": 1e-3}.get(match[2].lower()) if match else None


def _once(pairs: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Values by key, in lower case; a key that has two different values has none: nobody knows which one is true."""
    values: dict[str, str] = {}
    doubtful: set[str] = set()
    for name, separator, value in pairs:
        key = name.strip().lower().removeprefix("power_supply_").replace(" ", "_")
        if separator and values.setdefault(key, value.strip()) != value.strip():
            doubtful.add(key)
    return {key: value for key, value in values.items() if key not in doubtful}


def _lines(text: str) -> list[str]:
    """The lines of a text; of several, a last one without its end is torn, and is left out."""
    lines = text.split("\n")
    return [line for line in (lines if len(lines) == 1 else lines[:-1]) if line.strip()]


@dataclass(frozen=True)
class Logged:
    """One reading of `android_log.sh`: wall-clock time and CLOCK_BOOTTIME [ns], the battery, the power monitors."""

    wall_ns: int
    boot_ns: int
    battery: Battery
    odpm: tuple[Odpm, ...]


def log(lines: Iterable[str]) -> Iterator[Logged]:
    """The readings of a log that `android_log.sh` wrote, its last one only if it is whole.

    ValueError where it is no such log, or a reading in it is none. A file that could not be read when its time came is
    missing from its reading; of several gauges each file counts where it is first.
    """
    lines = iter(lines)
    if next(lines, "").rstrip("\n") != "# joulelab android log 1":
        raise ValueError("a log of android_log.sh begins with '# joulelab android log 1'")
    stamp, files = "", dict[str, str]()
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "@":
            stamp, files = rest, {}
        elif line == ".\n" and stamp:
            yield _logged(stamp, files)
            stamp = ""
        elif name != "#":
            files[name] = files.get(name, "") + rest


def _logged(stamp: str, files: Mapping[str, str]) -> Logged:
    wall, boot = (nanoseconds(word) for word in stamp.split())
    paths = [(*name.rpartition("/")[::2], text) for name, text in files.items()]
    gauge: dict[str, str] = {}
    for _, file, text in paths:
        gauge.setdefault(file, text)
    feeds = tuple(supply for supply, file, text in paths if file == "online" and text == "1\n" and supply not in GAUGES)
    monitors = tuple(energy_value(text) for _, file, text in paths if file == "energy_value")
    return Logged(wall, boot, replace(sysfs(gauge), feeds=feeds), monitors)


def nanoseconds(text: str) -> int:
    """Seconds with up to nine decimals, exactly; ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,12})(?:[.,](\d{1,9}))?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no time in seconds")
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))
