"""The meter in the supply lines: a TI INA228 on a 15 mOhm shunt, polled by a microcontroller."""

from __future__ import annotations

from joulelab.quantities import SensorModel

POWER_LSB_W = 66.7e-6
"""3.2 x (163.84 mV / 15 mOhm) / 2^19."""
SOURCE = (
    "TI INA228: power error 0.5 % max, offset 1 uV max, 3.2 current counts a power count, energy "
    "register of 40 bits with 16 power counts a count; noise of 3 uV rms a conversion, delay and "
    "latency assumed; rate of the clock: 9 ppm in the KM003C recording of "
    "okhsunrog/km003c-protocol-research"
)
CLOCK_U_REL = 10e-6
LATENCY_NS = 150_000
SENSOR = SensorModel(
    period_s=1e-3,
    window_s=0.56e-3,  # one conversion each of shunt and bus voltage, 280 us
    delay_s=0.5e-3,
    delay_u_s=0.2e-3,
    resolution=POWER_LSB_W,
    gain_u_rel=0.005 / 3**0.5,
)


def offset_u(volts: float) -> float:
    """Standard uncertainty of the offset [W] on a supply of so many volts."""
    return 1e-6 / 15e-3 * volts / 3**0.5


def noise_u(volts: float, conversions: int) -> float:
    """Noise [W rms] of the mean of so many conversions on a supply of so many volts."""
    return float(3e-6 / 15e-3 * volts / conversions**0.5)
