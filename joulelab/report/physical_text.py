"""The physical form of energies on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from joulelab.analysis.modelling.physical import Physical
from joulelab.report.layout import note, table
from joulelab.report.numbers import bounded, percent


def as_text(found: Sequence[Physical]) -> Group:
    """What arithmetic, bytes and time cost on each channel with 95 % intervals, or why they cannot be told apart."""
    return Group(*(part for one in found for part in _one(one)))


def _one(found: Physical) -> Iterator[RenderableType]:
    where = f"{found.device} {found.channel}"
    if found.refused:
        yield note(f"{where}: no energy per FLOP, byte and second: {found.refused}")
        return
    rows = table(["coefficient"], ["value", "95 % interval"], ["unit"])
    for c in found.coefficients:
        rows.add_row(c.name, *bounded(c.value, (c.low, c.high), c.unit))
    yield Text(f"\n{where}: energy per FLOP, byte and second", style="bold")
    yield rows
    beyond = "P_static is on top of the idle power" if found.idle else "P_static includes the idle power"
    yield note(
        f"{' and '.join(found.subjects)}: mean error {percent(found.error_percent)}, condition number "
        f"{found.condition:.3g}; {beyond}"
    )
