"""What loads tell: phases held back to back, beside a sweep of the same device; by a signature how late a meter is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joulelab.analysis.means import Means, means
from joulelab.analysis.phases import reduce
from joulelab.analysis.steady import SIZE, agreement, steady
from joulelab.calibration.signature import lag
from joulelab.calibration.threads import one_thread
from joulelab.errors import DataInvalid
from joulelab.recording import RunDir
from joulelab.report.numbers import DASH, expanded, number
from joulelab.report.words import tokens

COVERAGE = 2.0
DIFFER = 3.0
"""So many standard uncertainties apart is no chance."""
RISING = (
    "A phase that begins at idle draws less than one in a row, by what its power takes to rise. A fast meter sees that "
    "difference; a slow one, deconvolved, has it in its budget as the ramp."
)


def held(run: RunDir, swept: RunDir | None) -> list[dict[str, str]]:
    """A row a channel, configuration and phase of a run of `steady`; `swept` is a run of single inferences.

    Where that has the same configuration: the ratio of its energy to the steady one, and how many standard
    uncertainties (z) lie between.
    """
    compared = means(reduce(swept)) if swept else None
    return [row for name in run.manifest.power for row in _on_channel(run, name, compared)]


def lags(run: RunDir) -> list[dict[str, str]]:
    """A row a power channel of a run with a signature: how old on average what it shows is, and how it averages."""
    with one_thread():
        return [_lag(run, name) for name in run.manifest.power]


def _lag(run: RunDir, name: str) -> dict[str, str]:
    names = ("channel", "lag (k = 2)", "averaging")
    try:
        found = lag(run, name)
    except DataInvalid as reason:
        return dict(zip(names, (name, DASH, str(reason)), strict=True))
    return dict(zip(names, (name, expanded(found.lag_s, COVERAGE * found.lag_u_s, "s"), found.averaging), strict=True))


def _on_channel(run: RunDir, name: str, compared: Means | None) -> list[dict[str, str]]:
    try:
        found = steady(run, name)
    except DataInvalid as reason:
        return [_row(name, str(reason))]
    rows = found.table
    if compared is not None:
        rows = rows.merge(agreement(found, compared, name), "left", [*SIZE, "phase"])
    return [_told(name, row) for row in rows.to_dict("records")]


def _told(name: str, row: Mapping[Any, Any]) -> dict[str, str]:
    configuration = tokens(row["history"], row["prompt"], row["output"])
    energy = expanded(row["energy_j"], COVERAGE * row["energy_u_j"], "J")
    z = row.get("z")
    verdict = DASH if z is None or z != z else "agree" if abs(z) < DIFFER else "differ"  # noqa: PLR0124 only NaN differs from itself
    return _row(name, configuration, row["phase"], energy, number(row.get("ratio")), number(z), verdict)


def _row(channel: str, *said: str) -> dict[str, str]:
    names = ("channel", "tokens", "phase", "steady (k = 2)", "sweep / steady", "z", "they")
    return dict(zip(names, (channel, *said, *[DASH] * (len(names) - 1 - len(said))), strict=True))
