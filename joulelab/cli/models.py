"""The verbs of the analyst: models, verdicts, maps, placements, reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from joulelab import console
from joulelab.cli.app import (
    EXIT_VERDICT,
    AsJson,
    Certificates,
    EnergyChannel,
    Gain,
    IdleOthers,
    LabFile,
    LanguageModel,
    Loss,
    MinPeriods,
    OfModels,
    Out,
    RunsFolder,
    Sources,
    Split,
    Valid,
    app,
)
from joulelab.cli.conclude import analysed, passed, report_path, write
from joulelab.cli.sources import load, models_of, paths_of, pooled, runs_folder
from joulelab.errors import UserError

if TYPE_CHECKING:
    from joulelab.analysis.placement.study import Study


@app.command()
def fit(  # noqa: PLR0913, PLR0917 an option each
    sources: Sources = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    out: Out = None,
    valid: Valid = None,
    gain: Gain = None,
    loss: Loss = "wls",
    min_periods: MinPeriods = 5.0,
    certificates: Certificates = None,
    as_json: AsJson = False,
) -> None:
    """Fit time and energy models; --out writes them as JSON."""
    from joulelab.analysis.modelling.models import fit as fit_phases
    from joulelab.analysis.modelling.physical import physical
    from joulelab.analysis.modelling.valid import parse
    from joulelab.recording.whole import write_whole
    from joulelab.report.text import coefficients

    asked: dict[str, Any] = {"min_periods": min_periods, "valid": [parse(bound) for bound in valid or ()], "gain": gain}
    sets = pooled(load(sources, runs, lab_file, certificates), pool=gain is not None)
    fitted = [(phases, fit_phases(phases, loss=loss, **asked)) for phases in sets]
    models = [model for _, own in fitted for model in own]
    energies = physical(fitted, **asked)
    encoded = {"models": [model.to_json() for model in models], "physical": [found.to_json() for found in energies]}
    if out:
        write_whole(out, json.dumps(encoded, indent=1) + "\n")
    console.show(models, as_json, lambda _: coefficients(models, energies), lambda _: encoded)


@app.command()
def validate(  # noqa: PLR0913, PLR0917 an option each
    sources: Sources = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    split: Split = "configuration",
    valid: Valid = None,
    gain: Gain = None,
    min_periods: MinPeriods = 5.0,
    certificates: Certificates = None,
    as_json: AsJson = False,
) -> None:
    """Held-out errors against the targets; exit 6 where a verdict fails or is undecided."""
    from joulelab.analysis.modelling.valid import parse
    from joulelab.analysis.modelling.validation import across
    from joulelab.analysis.modelling.validation import validate as validate_phases
    from joulelab.report.verdict_text import verdicts as as_text

    asked: dict[str, Any] = {"min_periods": min_periods, "valid": [parse(bound) for bound in valid or ()], "gain": gain}
    sets = pooled(load(sources, runs, lab_file, certificates), pool=gain is not None or split == "day")
    judged = [(phases, validate_phases(phases, split=split, **asked)) for phases in sets]
    both = [(found, across(phases, found, **asked)) for phases, found in judged]
    verdicts, splits = ([v for pair in both for v in pair[k]] for k in (0, 1))
    encoded = {"models": [v.to_json() for v in verdicts], "splits": [v.to_json() for v in splits]}
    console.show(both, as_json, as_text, lambda _: encoded)
    if not passed(verdicts):
        raise typer.Exit(EXIT_VERDICT)


@app.command("map")
def map_space(  # noqa: PLR0913, PLR0917 an option each
    sources: OfModels = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="latency, energy, power, edp or energy-capped (may be repeated); otherwise all."),
    ] = None,
    cap: Annotated[str | None, typer.Option(help="The longest latency for energy-capped, such as 5s.")] = None,
    history: Annotated[str | None, typer.Option(help="Histories to map, such as 0,1024; otherwise some.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt lengths, such as 16-4096; otherwise all measured.")] = None,
    decode: Annotated[str | None, typer.Option(help="Output lengths, such as 16-1024; otherwise all measured.")] = None,
    link: Annotated[
        str | None,
        typer.Option(help="What turns wait for whose history comes over it, too: '200 Mbit/s 5 ms'."),
    ] = None,
    idle: IdleOthers = "sleep",
    channel: EnergyChannel = None,
    model: LanguageModel = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    certificates: Certificates = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Pictures as .html, or every point as .csv, .parquet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which device is best over prompt and decode length, by how much, and what each device waits for."""
    from joulelab.analysis.space.aims import aims_of
    from joulelab.analysis.space.bottlenecks import bottlenecks
    from joulelab.analysis.space.boundaries import boundaries
    from joulelab.analysis.space.box import mapped, parse_histories, parse_range
    from joulelab.analysis.space.costs import device_costs
    from joulelab.analysis.space.link import parse_link
    from joulelab.analysis.space.regions import region_maps
    from joulelab.report import bottleneck_text
    from joulelab.report.map_page import check_name, write_maps
    from joulelab.report.map_text import as_text, rows

    if out:
        check_name(out)
    aims = aims_of(objective, idle, cap)
    links = [None, parse_link(link)] if link else [None]
    models = models_of(sources, runs, lab_file, certificates)
    costs = device_costs(models, channel, language_model=model, energy=any(aim.needs_energy for aim in aims))
    grid = mapped(costs, parse_histories(history), parse_range(prompt), parse_range(decode))
    maps = region_maps(costs, grid, aims)
    edges = [boundaries(found, costs) for found in maps]
    waits = [bottlenecks(costs, grid, each) for each in links]
    if out:
        write_maps(out, costs, maps, edges, waits)
    found = [row for one, its in zip(maps, edges, strict=True) for row in rows(one, its)]
    console.show(
        found,
        as_json,
        lambda found: as_text(found, maps, waits, costs),
        lambda found: {"maps": found, "bottlenecks": bottleneck_text.rows(waits)},
    )


@app.command()
def place(  # noqa: PLR0913, PLR0917 an option each
    sources: OfModels = None,
    sessions: Annotated[
        Path | None, typer.Option("--sessions", help="CSV with session, prompt and output: a row a turn.")
    ] = None,
    objective: Annotated[
        Literal["latency", "energy", "edp", "energy-capped"], typer.Option(help="What is to be the least.")
    ] = "latency",
    cap: Annotated[str | None, typer.Option(help="The longest a turn may take for energy-capped, such as 5s.")] = None,
    link: Annotated[
        str | None, typer.Option(help="Caches may move over it: '200 Mbit/s 5 ms 0.5 uJ/byte'; otherwise none does.")
    ] = None,
    copies: Annotated[
        Literal["keep", "drop"], typer.Option(help="Whether a device keeps its cache when a turn runs elsewhere.")
    ] = "keep",
    idle: IdleOthers = "sleep",
    channel: EnergyChannel = None,
    model: LanguageModel = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    certificates: Certificates = None,
    out: Annotated[Path | None, typer.Option("--out", help="The plot, as SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Where each turn of sessions should run, and what that gains over one device and over simple rules."""
    from joulelab.analysis.placement.ranges import Ranged, check_seen
    from joulelab.analysis.placement.study import study
    from joulelab.analysis.placement.tables import setting_of
    from joulelab.analysis.placement.turns import read_sessions
    from joulelab.analysis.space.costs import device_costs
    from joulelab.report import placement

    if sessions is None:
        raise UserError("--sessions names the turns to place: a CSV file with session, prompt and output")
    turns = read_sessions(sessions)
    setting = setting_of(objective, cap, link, copies=copies == "keep", idle=idle)
    models = models_of(sources, runs, lab_file, certificates)
    costs = device_costs(models, channel, language_model=model, energy=objective != "latency")
    devices = [Ranged(each) for each in costs]
    check_seen(devices, turns)
    found = study(devices, turns, setting)
    if out:
        _write_placement(out, found)
    console.show(
        found, as_json, lambda found: placement.as_text(found, costs), lambda found: placement.encoded(found, costs)
    )


def _write_placement(out: Path, found: Study) -> None:
    from joulelab.recording.whole import write_whole
    from joulelab.report.figures import svg
    from joulelab.report.placement_plot import plot

    write_whole(out, svg(plot(found)))


@app.command()
def report(
    sources: Sources = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    out: Out = None,
    certificates: Certificates = None,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of runs or datasets."""
    paths = paths_of(sources, runs_folder(runs, lab_file))
    written = write(analysed(paths, certificates), out or report_path(paths))
    console.show({"report": str(written)}, as_json, console.fields)
