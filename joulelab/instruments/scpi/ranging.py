"""The ranges of a meter: which are in use, which are needed, whether they held, and the accuracy that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from joulelab.errors import InstrumentFault, UserError
from joulelab.instruments.scpi.description import Column, Description, Range
from joulelab.quantities import Kind, SensorModel

MARGIN = 1.1
"""A fixed range is at least so many times the peak (MLPerf power rules)."""
RECTANGULAR = 3**-0.5
"""From a limit of error to a standard uncertainty (GUM 4.3.7)."""


class Ranging:
    """`fixed` are the sizes in use by name, None while the meter ranges by itself; `choosing` that it is meant to.

    `name` is the meter's in `lab.yaml`, `options` are its options.
    """

    def __init__(self, name: str, about: Description, options: Mapping[str, Any]) -> None:
        self._name = name
        self._about = about
        self._options = options
        self._words = {key: option.choices[options[key]] for key, option in about.options.items()}
        self._variants = [v for v in about.variants if options[v.option] == v.choice]
        self._scale = math.prod(v.size for v in self._variants)
        self._seen: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self.fixed: dict[str, float] | None = options.get("range")
        self.choosing = False

    def check(self) -> None:
        """UserError where a range that the options give is none of the meter's."""
        for r in self._about.ranges:
            if self.fixed and self.fixed[r.name] not in self._sizes(r):
                listed = ", ".join(f"{size:g}" for size in self._sizes(r))
                raise UserError(
                    f"{self._name}: {self.fixed[r.name]:g} {r.unit} is no {r.name} range of the "
                    f"{self._about.meter} as it is set; there are {listed}"
                )

    def restart(self) -> None:
        """The meter was connected anew: what range it had before says nothing."""
        self._seen = {}

    def begin(self) -> None:
        """From now on the meter ranges by itself, and peaks count."""
        self.fixed, self.choosing, self._peaks = None, True, {}

    def fix(self) -> None:
        """Choose the smallest ranges that are `MARGIN` times the peaks; InstrumentFault where there are none."""
        self.fixed = {r.name: self._smallest(r) for r in self._about.ranges}
        self.choosing = False

    def note_peaks(self, values: Sequence[float]) -> None:
        for column, value in zip(self._about.columns, values, strict=True):
            if math.isfinite(value):
                self._peaks[column.name] = max(self._peaks.get(column.name, 0.0), abs(value))

    def excess(self, values: Sequence[float], watched: Sequence[float]) -> str:
        """What there is against a reading: over-range, or another range than before; empty if nothing.

        `watched` are the answers to `queries`.
        """
        over = zip(self._about.columns, values, strict=True)
        found = [f"{column.name} is over range" for column, value in over if column.ranges and math.isinf(value)]
        rest = list(watched)
        if self._about.over_range is not None:
            mask = self._about.over_range.masks[self._options[self._about.over_range.option]]
            found += ["it reports over-range"] if int(rest.pop(0)) & mask else []
        for r, size, auto in zip(self._about.ranges, rest[::2], rest[1::2], strict=True):
            found += self._changed(r, size, auto)
        return ", ".join(found)

    def queries(self) -> list[str]:
        """What to ask with each reading."""
        register = self._about.over_range
        ranges = [setting.query for r in self._about.ranges for setting in (r.size, r.auto)]
        return [register.query, *ranges] if register else ranges

    def sensor(self, column: Column) -> SensorModel:
        """A column's sensor model, with the accuracy in the ranges in use, or in the largest while none is fixed."""
        about, limits = self._about, column.accuracy
        sizes = self.fixed or {r.name: self._sizes(r)[-1] for r in about.ranges}
        span = math.prod(sizes[name] for name in column.ranges)
        range_error = limits.range * math.prod(v.range_error for v in self._variants) * span
        return SensorModel(
            period_s=float(about.period.format(**self._words)) if about.period else None,
            window_s=0.0 if column.kind is Kind.COUNTER else float(about.window.format(**self._words)),
            resolution=column.resolution,
            gain_u_rel=(limits.reading + sum(v.reading_error for v in self._variants)) * RECTANGULAR,
            offset_u=(range_error + limits.rest) * RECTANGULAR,
        )

    def _sizes(self, r: Range) -> list[float]:
        return [size * self._scale for size in r.sizes]

    def _smallest(self, r: Range) -> float:
        if r.rms not in self._peaks:
            raise InstrumentFault(f"{self._name}: no {r.rms} was read while it ranged, so that no range can be chosen")
        crest = r.crest / self._scale
        needed = MARGIN * max(self._peaks[r.rms], *(self._peaks.get(name, 0.0) / crest for name in r.waveform), 0.0)
        for size in self._sizes(r):
            if size >= needed:
                return size
        raise InstrumentFault(f"{self._name}: {needed:g} {r.unit} is more than its largest {r.name} range")

    def _changed(self, r: Range, size: float, auto: float) -> list[str]:
        last = self.fixed[r.name] if self.fixed else self._seen.get(r.name, size)
        self._seen[r.name] = size
        if not math.isclose(size, last, rel_tol=1e-6):
            return [f"its {r.name} range went from {last:g} to {size:g} {r.unit}"]
        return [f"its {r.name} range is no longer fixed"] if self.fixed and auto else []
