"""Which channels of a run follow its load: how much power it adds on each, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulelab.calibration.clocks import clock_maps
from joulelab.calibration.integrals import NS, Floats, Ints, steps
from joulelab.calibration.readings import Readings, readings
from joulelab.quantities import Channel, Kind
from joulelab.recording import RunDir

LAGS_S = np.arange(0.0, 2.5, 0.05)
"""How late a sensor may show the load: twice the slowest averaging window there is, and some."""
SURE = 5.0
"""A response is one whose step is this many times its standard error."""
LEAST = 0.002
"""... and at least this share of the idle power: less is no load that anybody would look for."""


@dataclass(frozen=True)
class Response:
    """`step_w` is what the load adds on a channel, `step_u_w` its standard error, both None where nothing was read."""

    channel: str
    idle_w: float | None
    step_w: float | None
    step_u_w: float | None
    lag_s: float | None

    @property
    def sign(self) -> int:
        """1 or -1 where the channel follows the load, 0 where it does not."""
        if self.step_w is None or self.step_u_w is None or self.idle_w is None:
            return 0
        if abs(self.step_w) <= max(SURE * self.step_u_w, LEAST * abs(self.idle_w)):
            return 0
        return 1 if self.step_w > 0 else -1


def responses(run: RunDir) -> list[Response]:
    """The response of each power channel of a run of the protocol `wiring` to its load."""
    loads, rests = ([(r["start"], r["stop"]) for r in run.records(kind)] for kind in ("load", "idle"))
    spans = np.array(sorted(loads + rests), np.int64)
    intervals = {instrument.name: instrument.interval_ns for instrument in run.manifest.instruments}
    maps, found = clock_maps(run), []
    for name, channel in run.channels.items():
        if channel.gives_energy:
            meter = name.partition(".")[0]
            read = readings(channel, intervals[meter], run.samples(meter), maps.get(meter))
            t, watts = _power(channel, read)
            found.append(_response(name, t, watts, np.array(sorted(loads), np.int64), spans))
    return found


def _power(channel: Channel, read: Readings) -> tuple[Ints, Floats]:
    """Power [W] at times [ns]; of a counter, the mean power between its readings at the middle between them."""
    if channel.kind is Kind.GAUGE:
        return read.t_ns, read.values
    gained, apart = steps(read.values, channel.sensor.wrap), np.diff(read.t_ns)
    new = apart > 0
    return (read.t_ns[:-1] + apart // 2)[new], gained[new] / (apart[new] * NS)


def _response(name: str, t: Ints, watts: Floats, loads: Ints, spans: Ints) -> Response:
    """Fit power = idle + step * load at the lag that fits best, each span of the pattern being one observation."""
    fits = [fit for lag_s in LAGS_S if (fit := _fit(t - round(lag_s / NS), watts, loads, spans))]
    if not fits:
        return Response(name, None, None, None, None)
    best = int(np.argmin([squares for squares, *_ in fits]))
    _, idle_w, step_w, step_u_w = fits[best]
    return Response(name, idle_w, step_w, step_u_w, float(LAGS_S[best]) if len(fits) == len(LAGS_S) else None)


def _fit(t: Ints, watts: Floats, loads: Ints, spans: Ints) -> tuple[float, float, float, float] | None:
    """The residual sum of squares, idle power, step and its standard error; None with too few spans read."""
    which = np.searchsorted(spans[:, 0], t, side="right") - 1
    inside = (which >= 0) & (t < spans[which, 1])
    mean = np.full(len(spans), np.nan)
    for k in range(len(spans)):
        if (mine := inside & (which == k)).any():
            mean[k] = watts[mine].mean()
    load = np.isin(spans[:, 0], loads[:, 0])
    on, off = mean[load & ~np.isnan(mean)], mean[~load & ~np.isnan(mean)]
    if min(len(on), len(off)) < 3:
        return None
    squares = float(((on - on.mean()) ** 2).sum() + ((off - off.mean()) ** 2).sum())
    variance = squares / (len(on) + len(off) - 2)
    step_u = float(np.sqrt(variance * (1 / len(on) + 1 / len(off))))
    return squares, float(off.mean()), float(on.mean() - off.mean()), step_u
