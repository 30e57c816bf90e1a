"""A sensor on the true power: its own clock, window, delay, gain, offset, noise and resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulelab.quantities import Kind
from joulelab.simulation import chance
from joulelab.simulation.profile import Meter
from joulelab.simulation.trace import FADED, Trace
from joulelab.timebase import SECOND

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CLOCK_ORIGIN_NS = 1000 * SECOND
"""A sensor's clock was started up to this long before the bench's."""


class Sensor:
    """One specimen of a meter; its errors are drawn once, from their stated uncertainties.

    It updates whenever its own clock has gone on by its period, and holds the value in between. What it reports is
    gain x (truth after its low-pass, averaged over its window, some delay ago) + offset + noise, in whole counts. A
    counter adds up what its converter sees before any low-pass.
    """

    def __init__(self, meter: Meter, key: chance.Key) -> None:
        model = meter.channel.sensor
        rng = chance.generator((*key, 0))
        gain, offset, delay, rate = rng.standard_normal(4) * (
            model.gain_u_rel,
            model.offset_u,
            model.delay_u_s,
            meter.clock_u_rel,
        )
        self._meter, self._model, self._noise_key = meter, model, (*key, 1)
        self._gain, self._offset = model.gain + gain, model.offset + offset - gain * model.pivot
        self._rate = 1 + rate
        self._origin_ns = rng.uniform(0, CLOCK_ORIGIN_NS)
        self._period_ns = round((model.period_s or 0.0) * SECOND)
        wider, slower = rng.standard_normal(2) * (model.window_u_s, model.lowpass_u_s)
        self._window_s = max(model.window_s + wider, 0.0)
        self._lowpass_s = max(model.lowpass_s + slower, 0.0)
        # `delay_u_s` is of the mean age, so that a wider window begins to look later.
        late = (self._window_s - model.window_s) / 2 + self._lowpass_s - model.lowpass_s
        self._delay_ns = max(model.delay_s + delay - late, 0.0) * SECOND

    @property
    def reach_ns(self) -> int:
        """How far back in time a reading looks, at most."""
        seen_s = self._window_s + FADED * self._lowpass_s
        return int(self._delay_ns + seen_s * SECOND + 2 * self._period_ns)

    def read(self, trace: Trace, t_ns: Ints) -> tuple[Ints, Floats]:
        """Its own stamps [ns] and values of the last updates before times [n], ascending, on the bench clock."""
        ticks = ((t_ns * self._rate + self._origin_ns) // self._period_ns).astype(np.int64)
        stamps = ticks * self._period_ns
        updated = (stamps - self._origin_ns) / self._rate - self._delay_ns
        see = self._counted if self._meter.channel.kind is Kind.COUNTER else self._averaged
        noise = self._model.noise_u * chance.normals(self._noise_key, ticks)
        return stamps, self._in_counts(self._gain * see(trace, updated) + self._offset + noise)

    def _averaged(self, trace: Trace, t_ns: Floats) -> Floats:
        """The mean power [W] over the window that ends at `t_ns`; without a window, the power then."""
        window_s, lowpass_s = self._window_s, self._lowpass_s
        if window_s == 0:
            watts = trace.lowpassed(t_ns, lowpass_s) if lowpass_s else trace.power(t_ns)
        else:
            before = t_ns - window_s * SECOND
            watts = (trace.energy(t_ns) - trace.energy(before)) / window_s
            if lowpass_s:  # what a low-pass has not shown yet of the energy is its constant times what it shows
                held = trace.lowpassed(t_ns, lowpass_s) - trace.lowpassed(before, lowpass_s)
                watts -= held * lowpass_s / window_s
        return self._meter.share * watts + self._meter.offset_w

    def _counted(self, trace: Trace, t_ns: Floats) -> Floats:
        """The energy [J] since bench time 0, when the counter started."""
        t_ns = np.maximum(t_ns, 0.0)
        return self._meter.share * trace.energy(t_ns) + self._meter.offset_w * t_ns / SECOND

    def _in_counts(self, values: Floats) -> Floats:
        model = self._model
        if model.resolution:
            values = np.rint(values / model.resolution) * model.resolution
        return values % model.wrap if model.wrap else values
