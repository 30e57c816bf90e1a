"""Closure: meters of one scope agree within their uncertainty, and no meter reads less than what lies below it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from joulelab.calibration.certificate import Certificate, Store, calibrated, certificate
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.levels import Means, Signal, level_means, levels, signal
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Scope
from joulelab.recording import RunDir

METHOD = "mean powers of levels of the load, differences within three standard uncertainties"
COVERAGE = 3.0
ABOVE = (Scope.WALL, Scope.INPUT, Scope.BATTERY)
"""The scopes that include a whole device; what else is above what, `upstream_of` says."""

Row = dict[str, Any]


class Claim(NamedTuple):
    """That `upper` reads what the `lower` ones together do (`equal`), or more."""

    equal: bool
    upper: str
    lower: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.upper} {'=' if self.equal else '>='} {' + '.join(self.lower)}"


def closure(run: RunDir, store: Store | None = None) -> tuple[Certificate, list[Row]]:
    """A row a claim: what, difference_w and u_w at the lowest and the highest level, ok, message; and the certificate.

    Its `result` has the mean difference of each claim [W]. DataInvalid where the run has nothing to compare.
    """
    channels = {n: c for n, c in calibrated(run, store).channels.items() if c.gives_energy and c.scope in _MEASURED}
    found = claims(run, channels)
    if not found:
        raise DataInvalid(f"{run.path.name} has no two power channels that include the same or one another")
    names = list(dict.fromkeys(name for claim in found for name in (claim.upper, *claim.lower)))
    signals = [signal(run, name, channels[name]) for name in names]
    means = level_means(signals, _spans(run, names))
    if not len(means.watts):
        raise DataInvalid(f"{run.path.name} has no level of the load that is long enough for all of {', '.join(names)}")
    signs = np.array([[(name == c.upper) - (name in c.lower) for name in names] for c in found], float)
    covariance = means.covariance + _systematic(signals, means)
    differences = means.watts @ signs.T
    spread = signs @ covariance @ signs.T
    u = np.sqrt(np.diagonal(spread, axis1=1, axis2=2))
    rows = [_row(claim, differences[:, k], u[:, k], means.watts[:, 0]) for k, claim in enumerate(found)]
    matrix = {"names": [str(claim) for claim in found], "matrix": spread.mean(axis=0).tolist()}
    result = dict(zip(matrix["names"], differences.mean(axis=0).tolist(), strict=True))
    return certificate(run, "closure", names[0], METHOD, result, matrix), rows


_MEASURED = set(Scope) - {Scope.ESTIMATE}


def claims(run: RunDir, channels: Mapping[str, Channel]) -> list[Claim]:
    """What must hold between the power channels of a run, by scope, wiring and names."""
    ordered = sorted(channels, key=lambda name: _depth(channels[name]))
    equal = [Claim(True, a, (b,)) for a, b in combinations(ordered, 2) if _same(channels, a, b)]
    return equal + [claim for name in ordered for claim in _orders(run, channels, name)]


def _depth(channel: Channel) -> int:
    return list(Scope).index(channel.scope or Scope.RAIL)


def _part(name: str) -> str:
    """What of the instrument's subject a channel is of: "gpu0" for "gpu0_energy", "" for a meter's "power"."""
    return re.sub(r"_?(power|energy)(_instant|_average)?$", "", name.partition(".")[2])


def _same(channels: Mapping[str, Channel], a: str, b: str) -> bool:
    """Channels of the same part, or of two meters of which one has only one part: it is that of the whole."""
    if channels[a].scope != channels[b].scope:
        return False
    one_meter = a.partition(".")[0] == b.partition(".")[0]
    return _part(a) == _part(b) or (not one_meter and "" in (_part(a), _part(b)))


def _orders(run: RunDir, channels: Mapping[str, Channel], upper: str) -> Iterator[Claim]:
    """`upper` over the sum of the narrower channels of each instrument and scope, each part counted once."""
    meters = {meter.name: meter for meter in run.manifest.instruments}
    mine = upper.partition(".")[0]
    below: dict[tuple[str, int], dict[str, str]] = {}
    for name, channel in channels.items():
        meter = name.partition(".")[0]
        stated = meter in meters[mine].wiring.get("upstream_of", ())
        narrower = _depth(channel) > _depth(channels[upper])
        if narrower and (stated or channels[upper].scope in ABOVE):
            below.setdefault((meter, _depth(channel)), {}).setdefault(_part(name), name)
    return (Claim(False, upper, tuple(parts.values())) for parts in below.values())


def _spans(run: RunDir, names: Sequence[str]) -> Ints:
    """The levels of a run, and of one with inferences all the time from the first to the last of them."""
    spans = levels(run, [name.partition(".")[0] for name in names])
    records = run.records("inference")
    if not records:
        return spans
    ends = records[0]["phases"][0]["start"], records[-1]["phases"][-1]["stop"]
    return np.concatenate([spans, np.array([ends], np.int64)])


def _systematic(signals: Sequence[Signal], means: Means) -> Floats:
    """The covariance [levels, meters, meters] that gains and offsets give the means; meters err independently."""
    sensors = [each.channel.sensor for each in signals]
    gain_u, pivot, offset_u = np.array([(s.gain_u_rel, s.pivot, s.offset_u) for s in sensors]).T
    variance = (gain_u * (means.watts - pivot)) ** 2 + offset_u**2
    return np.asarray(variance[:, :, None] * np.eye(len(sensors)))


def _row(claim: Claim, difference: Floats, u: Floats, watts: Floats) -> Row:
    low, high = int(watts.argmin()), int(watts.argmax())
    beyond = np.abs(difference) if claim.equal else -difference
    ok = bool(np.all(beyond <= COVERAGE * u))
    shown = [f"{difference[k]:.4g} +- {u[k]:.2g} W at {watts[k]:.4g} W" for k in (low, high)]
    said = "agree" if ok and claim.equal else "leaves a loss of" if ok else "disagree" if claim.equal else "cannot be"
    return {
        "what": str(claim),
        "low_w": float(difference[low]),
        "low_u_w": float(u[low]),
        "high_w": float(difference[high]),
        "high_u_w": float(u[high]),
        "ok": ok,
        "message": f"{said}: {', '.join(dict.fromkeys(shown))}",
    }
