"""A figure, what it must keep to, and what its alternative reaches."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One figure. `limit` None: shown, not judged. `value` None: not measurable on this machine, for the `reason`.

    `alternative` has the same figure of other ways to do it, by their names.
    """

    what: str
    value: float | None
    unit: str
    limit: float | None
    better: Literal["lower", "higher"]
    alternative: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the limit is kept; None where there is nothing to judge."""
        if self.value is None or self.limit is None:
            return None
        keeps = operator.le if self.better == "lower" else operator.ge
        return bool(keeps(self.value, self.limit))

    def to_json(self, topic: str) -> dict[str, Any]:
        fields = {"topic": topic, **asdict(self), "ok": self.ok}
        if self.value is not None:
            del fields["reason"]
        return fields


Benchmark = Callable[[], Iterable[Row]]
