"""The pictures of maps and bottlenecks, for the report and as a page of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from joulelab.analysis.space.bottlenecks import over_session
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.regions import Regions
from joulelab.analysis.space.surface import Grid
from joulelab.errors import UserError
from joulelab.recording.whole import write_whole
from joulelab.report.bottleneck_maps import bottleneck_map, session_shift
from joulelab.report.bottleneck_text import Waits, over_link
from joulelab.report.figures import Picture, style
from joulelab.report.map_text import points
from joulelab.report.maps import cost_curves, region_map

TURNS = 8
_TABLES: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def pictures(
    costs: Sequence[DeviceCosts], maps: Sequence[Regions], edges: Sequence[pd.DataFrame], waits: Waits
) -> Iterator[Picture]:
    """A picture a map, what each device waits for, and how that shifts over a session. To be drawn in the `style`."""
    grid = maps[0].grid
    flat = min(grid.shape[1:]) == 1
    for found, its in zip(maps, edges, strict=True):
        yield cost_curves(found, costs) if flat else region_map(found, its)
    if not flat:
        yield from map(bottleneck_map, waits)
    if turns := _turns(costs, grid):
        sessions = {each.device: over_session(each.time, turns) for each in costs}
        yield session_shift(sessions, "time", costs[0].time.origin)


def _turns(costs: Sequence[DeviceCosts], grid: Grid) -> list[tuple[int, int]]:
    """Equal turns that fill the longest history; none where there is no history, or such turns were not measured."""
    last = int(grid.history[-1])
    length = last // (2 * TURNS)
    if not length or any(each.time.outside([0, last], length, length).warning for each in costs):
        return []
    return [(length, length)] * TURNS


def check_name(path: Path) -> None:
    """UserError where the name says of no kind of file that a map is written as."""
    if path.suffix not in {".html", *_TABLES}:
        raise UserError(f"--out {path}: a map is written as .html, .csv or .parquet")


def write_maps(
    path: Path, costs: Sequence[DeviceCosts], maps: Sequence[Regions], edges: Sequence[pd.DataFrame], waits: Waits
) -> None:
    """Write every point as a table, or a page of pictures. UserError where it cannot be written."""
    if path.suffix in _TABLES:
        _TABLES[path.suffix](points(maps, waits), path)
        return
    environment = Environment(loader=PackageLoader("joulelab.report", "."), autoescape=True, undefined=StrictUndefined)
    with style():
        drawn = [*pictures(costs, maps, edges, waits)]
    title = f"Maps of {', '.join(each.device for each in costs)}"
    said = [*notes(costs), *over_link(waits, costs)]
    write_whole(path, environment.get_template("map.html.j2").render(title=title, notes=said, pictures=drawn))


def notes(costs: Sequence[DeviceCosts]) -> list[str]:
    """What was compared: the language model, and by which meter of which scope."""
    model = "/".join(str(costs[0].time.subject[name]) for name in ("model", "quant") if costs[0].time.subject[name])
    return [f"Language model: {model or 'not known'}. Origin: {costs[0].time.origin}.", *meters(costs)]


def meters(costs: Sequence[DeviceCosts]) -> list[str]:
    """What each device's energy was measured with."""
    return [f"{each.device}: {each.energy.channel}, scope {each.energy.scope}" for each in costs if each.energy]
