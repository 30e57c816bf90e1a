"""The models of SCPI meter that are known. Another one is a description here, or in a package of yours, and no code."""

from __future__ import annotations

from dataclasses import replace

from joulelab.instruments.scpi.description import (
    Accuracy,
    Column,
    Demand,
    Description,
    Integrator,
    Option,
    OverRange,
    Range,
    Setting,
    Variant,
)
from joulelab.instruments.scpi.meter import ScpiMeter
from joulelab.quantities import Kind

# Yokogawa WT300E series: commands by IM WT310E-17EN; accuracy (12 months, 45 to 66 Hz) by IM WT310E-02EN, chapter 7.
_RMS = Accuracy(0.001, 0.0005)
_POWER = Accuracy(0.001 + 0.001 * 1.73, 0.0005)
"""With the influence of the power factor, 0.1 % of S at 0, as it is at a power factor of 0.5 (tan phi = 1.73)."""
_ENERGY = Accuracy(_POWER.reading + 0.0002 + _POWER.range / 0.1)
"""With the timer's 0.02 %; the error of range is taken as it is at a tenth of the power range."""
_POWER_RANGE = ("voltage", "current")
_DISCONNECTED = (-1.0,)
"""What an unplugged WT300 was seen to read (mlcommons/power-dev issue 38)."""
_ITEMS = {
    "U": Column("voltage", "V", _RMS, ("voltage",), never=_DISCONNECTED),
    "I": Column("current", "A", _RMS, ("current",), never=_DISCONNECTED),
    "P": Column("power", "W", _POWER, _POWER_RANGE, never=_DISCONNECTED),
    "S": Column("apparent_power", "VA", Accuracy(0.002, 0.001), _POWER_RANGE, never=_DISCONNECTED),
    "Q": Column("reactive_power", "var", Accuracy(0.002, 0.021), _POWER_RANGE),
    "LAMBDA": Column("power_factor", "1", Accuracy(0.002, rest=0.001)),
    "FU": Column("frequency", "Hz", Accuracy(0.0006)),
    "IPPEAK": Column("current_max", "A", Accuracy(0.001, 0.03), ("current",)),
    "IMPEAK": Column("current_min", "A", Accuracy(0.001, 0.03), ("current",)),
    # Six digits of Wh: 1 mWh, or 3.6 J, below 1 kWh.
    "WH": Column("energy", "J", _ENERGY, kind=Kind.COUNTER, factor=3600.0, resolution=3.6),
}


def _switch(name: str, header: str, value: str = "0") -> Setting:
    return Setting(name, f"{header}?", f"{header} {{value}}", value)


def _wt_range(name: str, unit: str, sizes: tuple[float, ...], rms: str, waveform: tuple[str, ...] = ()) -> Range:
    header = f":INPUT:{name.upper()}"
    size, auto = _switch(name, f"{header}:RANGE"), _switch(f"{name} auto", f"{header}:AUTO")
    return Range(name, unit, sizes, size, auto, rms, waveform, crest=3.0)


_HIGH_CURRENTS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_RATES = {f"{ms} ms": str(ms / 1000) for ms in (100, 250, 500)} | {f"{s} s": str(s) for s in (1, 2, 5, 10, 20)}

WT310E = Description(
    driver="scpi/yokogawa-wt310e",
    meter="Yokogawa WT310E",
    identity=r"YOKOGAWA,WT310E,",
    scope="wall",
    reading=(":NUMERIC:NORMAL:VALUE?",),
    columns=tuple(_ITEMS.values()),
    errors=":STATUS:ERROR?",
    conditions=(
        "23 +- 5 degC, 12 months after calibration, after 30 min of warm-up, sine wave, power factor 0.5 and more; "
        "the meter compensates its zero at a change of range"
    ),
    options={
        "update_rate": Option(_RATES, "100 ms"),
        "crest_factor": Option({"3": "3", "6": "6"}, "3"),
        "mode": Option({"rms": "RMS", "dc": "DC"}, "rms"),
        "line_filter": Option({"off": "0", "on": "1"}, "off"),
        "frequency_filter": Option({"off": "0", "on": "1"}, "on"),
        "element": Option({"1": "1"}, "1"),
    },
    settings=(
        _switch("header", ":COMMUNICATE:HEADER"),
        _switch("hold", ":HOLD"),
        _switch("averaging", ":MEASURE:AVERAGING:STATE"),
        _switch("maximum hold", ":MEASURE:MHOLD"),
        _switch("mode", ":INPUT:MODE", "{mode}"),
        _switch("crest factor", ":INPUT:CFACTOR", "{crest_factor}"),  # sets the ranges to their largest: before them
        _switch("line filter", ":INPUT:FILTER:LINE", "{line_filter}"),
        _switch("frequency filter", ":INPUT:FILTER:FREQUENCY", "{frequency_filter}"),
        _switch("update interval", ":RATE", "{update_rate}"),
        _switch("integration mode", ":INTEGRATE:MODE", "NORMAL"),
        _switch("integration timer", ":INTEGRATE:TIMER", "0,0,0"),
        _switch("format", ":NUMERIC:FORMAT", "ASCII"),
        _switch("items", ":NUMERIC:NORMAL:NUMBER", str(len(_ITEMS))),
        *(
            _switch(f"item {number}", f":NUMERIC:NORMAL:ITEM{number}", f"{item},{{element}}")
            for number, item in enumerate(_ITEMS, start=1)
        ),
        Setting("wiring", ":INPUT:WIRING?"),
        Setting("synchronisation", ":INPUT:SYNC?"),
    ),
    ranges=(
        _wt_range("voltage", "V", (15.0, 30.0, 60.0, 150.0, 300.0, 600.0), "voltage"),
        _wt_range(
            "current",
            "A",
            (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, *_HIGH_CURRENTS),
            "current",
            ("current_max", "current_min"),
        ),
    ),
    variants=(
        Variant("crest_factor", "6", size=0.5, range_error=2.0),
        Variant("mode", "dc", range_error=4.0),
        Variant("line_filter", "on", reading_error=0.003),
    ),
    demands=(
        Demand(":INTEGRATE:STATE?", r"(?!STAR).*", "it is integrating for somebody: stop and reset that"),
        Demand(":INPUT:SCALING:STATE?", r"0|OFF", "it scales its readings (VT, CT): switch SCALING off"),
    ),
    over_range=OverRange(":STATUS:CONDITION?", "element", {"1": 0o700, "2": 0o7000, "3": 0o70000}),
    integrator=Integrator((":INTEGRATE:RESET", ":INTEGRATE:START"), (":INTEGRATE:STOP", ":INTEGRATE:RESET")),
    compound=True,
    period="{update_rate}",
    window="{update_rate}",
)

WT330E = replace(
    WT310E,
    driver="scpi/yokogawa-wt330e",
    meter="Yokogawa WT332E or WT333E",
    identity=r"YOKOGAWA,WT33[23]E,",
    options=dict(WT310E.options) | {"element": Option({"1": "1", "2": "2", "3": "3"}, "1")},
    ranges=(
        WT310E.ranges[0],
        replace(WT310E.ranges[1], sizes=_HIGH_CURRENTS),
    ),
)

SPD = Description(
    driver="scpi/siglent-spd",
    meter="Siglent SPD1168X or SPD1305X",
    identity=r"Siglent Technologies,SPD1(168|305)X,",
    scope="input",
    reading=("MEAS:POWE? CH1", "MEAS:VOLT? CH1", "MEAS:CURR? CH1"),
    columns=(
        # 30 V x 10 mA + 8 A x 10 mV: the supply multiplies what it reads back.
        Column("power", "W", Accuracy(0.0033, rest=0.38), resolution=0.001),
        Column("voltage", "V", Accuracy(0.0003, rest=0.01), resolution=0.001),
        Column("current", "A", Accuracy(0.003, rest=0.01), resolution=0.001),
    ),
    errors="SYST:ERR?",
    conditions="25 +- 5 degC, after 30 min of warm-up (data sheet SPD1000X, unconfirmed)",
    settings=(Setting("voltage", "CH1:VOLT?"), Setting("current limit", "CH1:CURR?")),
)

DMM6500 = Description(
    driver="scpi/keithley-dmm6500",
    meter="Keithley DMM6500",
    identity=r"KEITHLEY INSTRUMENTS,MODEL DMM6500,",
    scope="input",
    reading=(":READ?",),
    # The limits of alternating current, which are wider than those of direct current.
    columns=(Column("current", "A", Accuracy(0.0015, 0.0006), ("current",)),),
    errors="SYST:ERR?",
    conditions="calibration temperature +- 5 degC, 1 year after calibration, after 30 min of warm-up (unconfirmed)",
    options={"aperture": Option({"20 ms": "0.02", "100 ms": "0.1", "200 ms": "0.2"}, "100 ms")},
    settings=(
        Setting("function", ":SENS:FUNC?", ':SENS:FUNC "{value}"', "CURR:DC"),
        Setting("aperture", "CURR:DC:APER?", "CURR:DC:APER {value}", "{aperture}"),
        Setting("relative", "CURR:DC:REL:STAT?", "CURR:DC:REL:STAT {value}", "0"),
        Setting("auto zero", "CURR:DC:AZER?", "CURR:DC:AZER {value}", "1"),
    ),
    ranges=(
        Range(
            "current",
            "A",
            (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 3.0),
            Setting("current", "CURR:DC:RANG?", "CURR:DC:RANG {value}"),
            Setting("current auto", "CURR:DC:RANG:AUTO?", "CURR:DC:RANG:AUTO {value}"),
            rms="current",
        ),
    ),
    demands=(Demand("*LANG?", "SCPI", "it is set to another command set: choose SCPI in its menu"),),
    window="{aperture}",
)


class YokogawaWT310E(ScpiMeter, description=WT310E):
    """Single-phase power meter."""


class YokogawaWT330E(ScpiMeter, description=WT330E):
    """One element of a three-phase power meter."""


class SiglentSPD(ScpiMeter, description=SPD):
    """Direct-current supply that reads back what it gives."""


class KeithleyDMM6500(ScpiMeter, description=DMM6500):
    """Multimeter as an ammeter for direct current."""
