"""The command line: one verb for each thing a person does. Heavy imports stand where a verb needs them."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from joulelab import console
from joulelab.errors import DataInvalid, HardwareMissing, JoulelabError, RunAborted, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from joulelab.analysis.modelling.models import Model
    from joulelab.analysis.modelling.validation import Verdict
    from joulelab.analysis.phases import Phases
    from joulelab.analysis.placement.study import Study
    from joulelab.bench import Plan
    from joulelab.lab import Lab
    from joulelab.recording import RunDir
    from joulelab.report.section import Section

EXIT_USAGE = 1
EXIT_VERDICT = 6
EXIT_BUG = 70
SMALL_MB = 4
"""Files that are read before a progress bar would be seen."""
USAGE_OF_TYPER = 2

app = typer.Typer(
    rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)

LabFile = Annotated[Path | None, typer.Option("--lab", help="The bench; otherwise lab.yaml here or in a parent.")]
RunsFolder = Annotated[Path | None, typer.Option("--runs", help="The runs folder; otherwise the one of lab.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Protocol = Annotated[str | None, typer.Argument(help="A protocol of lab.yaml; may be left out where it has one.")]
Device = Annotated[list[str] | None, typer.Option("--device", help="Only this device (may be repeated).")]
OneRun = Annotated[str, typer.Argument(help="A run: path, unique part of its name, or last.")]
Sources = Annotated[
    list[str] | None,
    typer.Argument(help="Runs, sessions or datasets; left out: those of the last session that measured."),
]
OfModels = Annotated[
    list[str] | None,
    typer.Argument(help="Runs, sessions, datasets or files of models; left out: those of the last session."),
]
Split = Annotated[
    Literal["configuration", "prompt", "decode", "corner", "day"],
    typer.Option(help="Hold out a tenth of the configurations, one length, what is longer than half, or a day."),
]
Valid = Annotated[
    list[str] | None,
    typer.Option("--valid", help="The range that is fitted and judged: output>=64, prompt<=4096 (may be repeated)."),
]
Gain = Annotated[
    Literal["session", "day", "run"] | None,
    typer.Option(help="Pool the sources: each session, day or run has a gain of its own."),
]
Loss = Annotated[
    Literal["wls", "huber", "quantile"],
    typer.Option(help="Minimise squares of relative errors, squares that spare outliers (huber), or the MAPE itself."),
]
MinPeriods = Annotated[float, typer.Option(help="Leave out energies of phases shorter than this many sensor periods.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write it.")]
Certificates = Annotated[
    Path | None, typer.Option("--certificates", help="Read runs with the certificates here; otherwise with their own.")
]
Method = Annotated[
    Literal["integrate", "counter", "deconvolve"] | None,
    typer.Option(help="How samples become energy; otherwise by the sensor and the length of the phases."),
]
SchemaOnly = Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of lab.yaml for editors.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with one of the documented exit codes."""
    try:
        app(arguments)
    except SystemExit as end:
        sys.exit(EXIT_USAGE if end.code == USAGE_OF_TYPER else end.code)
    except JoulelabError as error:
        print(f"joulelab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"joulelab: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except Exception:  # noqa: BLE001 the last line of defence: a bug keeps its traceback
        traceback.print_exc()
        sys.exit(EXIT_BUG)


@app.command()
def check(
    lab_file: LabFile = None,
    as_json: AsJson = False,
    schema: SchemaOnly = False,
    online: Annotated[bool, typer.Option("--online", help="Open every instrument and device, too.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Load each device in turn: which channels see it?")] = False,
) -> None:
    """Check lab.yaml: every mistake in it at once, offline unless --online or --load says otherwise."""
    from joulelab.lab.schema import schema as lab_schema

    if schema:
        console.show(lab_schema(), True, str)
        return
    path, lab = _lab(lab_file)
    found: dict[str, Any] = {
        "lab": str(path),
        "instruments": {name: stanza.driver for name, stanza in lab.instruments.items()},
        "devices": {name: stanza.driver for name, stanza in lab.devices.items()},
        "protocols": list(lab.protocols),
        "runs": str(lab.runs),
    }
    rows = _check_online(lab, online=online, load=load) if online or load else []
    if as_json:
        console.show(found | {"checks": rows}, True, str)
    else:
        console.show(found, False, console.fields)
        if rows:
            console.show(rows, False, console.findings)
    if failed := sum(not row["ok"] for row in rows):
        raise HardwareMissing(f"{failed} of {len(rows)} checks failed")


def _check_online(lab: Lab, *, online: bool, load: bool) -> list[dict[str, Any]]:
    from joulelab.online import check_devices, check_instruments, check_load

    rows = [*check_instruments(lab), *check_devices(lab)] if online else []
    if load and all(row["ok"] for row in rows):
        session = lab.runs / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-wiring"
        with console.interruptible() as stop:
            rows += check_load(lab, session, stop, console.progress)
    return rows


@app.command()
def discover(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(help="VISA resources, ports, ssh:// or adb:// connections; left out: all that is listed here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is plugged in or reachable, as stanzas ready for lab.yaml."""
    from joulelab.discovery import as_yaml
    from joulelab.discovery import discover as found_at

    found = list(found_at(addresses or ()))
    if found or as_json:
        console.show(found, as_json, as_yaml)
    else:
        print("nothing was found; 'joulelab doctor' says what each kind of meter needs", file=sys.stderr)


@app.command()
def doctor(
    connections: Annotated[
        list[str] | None, typer.Argument(help="ssh:// or adb:// connections; left out: this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every dependency and permission: found, or why not and the command that mends it."""
    from joulelab.discovery import doctor as findings

    checks = list(findings(connections or ()))
    console.show(
        checks,
        as_json,
        lambda checks: console.findings([check._asdict() for _, check in checks]),
        lambda checks: [{"driver": driver, **check._asdict()} for driver, check in checks],
    )


@app.command()
def plan(
    protocol: Protocol = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    device: Device = None,
    design: Annotated[
        bool, typer.Option("--design", help="Choose from the protocol's box what to measure next, by the last session.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="The design's measuring time, such as '10 min'; otherwise the protocol's own.")
    ] = None,
    criterion: Annotated[
        Literal["I", "D", "G"],
        typer.Option(help="What becomes small: the mean interval, those of coefficients, the largest interval."),
    ] = "I",
    as_json: AsJson = False,
) -> None:
    """The steps of a protocol, and how long and how precise they will be; no hardware touched."""
    from joulelab.planning import outlook

    plans = _plans(_lab(lab_file)[1], protocol, device)
    folder = _runs_folder(runs, lab_file)
    if design or budget:
        _design(plans, folder, budget, criterion, as_json)
        return
    rows = [outlook(plan, folder) for plan in plans]
    console.show(rows, as_json, lambda rows: console.sections({row["device"]: row for row in rows}))


def _design(
    plans: Sequence[Plan], folder: Path, budget: str | None, criterion: Literal["I", "D", "G"], as_json: bool
) -> None:
    from joulelab.proposal import described, encoded, known, propose
    from joulelab.quantities import parse_quantity

    seconds = parse_quantity(budget, "s") if budget else None
    found = [(plan, propose(plan, known(plan.device, folder), seconds, criterion=criterion)) for plan in plans]
    if as_json:
        console.show([encoded(*each) for each in found], True, str)
    else:
        print("\n\n".join(described(*each) for each in found))  # as it is: the stanza is to be copied


@app.command()
def run(
    protocol: Protocol = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    device: Device = None,
    resume: Annotated[str | None, typer.Option(help="Finish this interrupted run.")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Batches until the held-out errors' upper ends are under these targets: 2.7%,5.2%."),
    ] = None,
    require_pass: Annotated[
        bool, typer.Option("--require-pass", help="Exit 6 unless every verdict is a pass.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run, record, reduce, fit, validate and report."""
    folder = _runs_folder(runs, lab_file)
    faults: list[JoulelabError] = []
    if until:
        passed = _measure_until(until, _plans(_lab(lab_file)[1], protocol, device), folder, resume, as_json)
        if require_pass and not passed:
            raise typer.Exit(EXIT_VERDICT)
        return
    if resume:
        finished = _resume(_find(folder, resume))
    else:
        finished, faults = _record(_plans(_lab(lab_file)[1], protocol, device), folder)
    passed = _conclude(finished, as_json) if finished else True
    for fault in faults[1:]:
        print(f"joulelab: {fault}", file=sys.stderr)
    if faults:
        raise faults[0]
    if require_pass and not passed:
        raise typer.Exit(EXIT_VERDICT)


@app.command()
def calibrate(  # noqa: PLR0913, PLR0917 an option each
    what: Annotated[Literal["clock", "sensor", "gain", "closure"], typer.Argument(help="What to find out.")],
    channel: Annotated[str | None, typer.Argument(help="The channel, such as meter.power.")] = None,
    against: Annotated[str | None, typer.Option(help="The channel of the meter that it is compared with.")] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="From this recording (may be repeated); otherwise a load is played first.")
    ] = None,
    device: Device = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder; otherwise the lab's certificates.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find out what a meter really reads, and write it down as a certificate that later runs are read with."""
    from joulelab.calibrate import check_arguments, compute, described, encoded
    from joulelab.calibration.certificate import Store

    check_arguments(what, channel, against)
    folder = _runs_folder(runs, lab_file)
    sources = [_find(folder, name) for name in run or ()] or [_play(folder, lab_file, channel, device or ())]
    out = out or _lab(lab_file)[1].certificates
    found = [each for source in sources for each in compute(what, source, channel, against, Store(out))]
    written = [(made, made.write(out), rows) for made, rows in found]
    console.show(
        written,
        as_json,
        lambda written: console.sections({each[1].stem: described(*each) for each in written}),
        lambda written: [encoded(*each) for each in written],
    )


def _play(folder: Path, lab_file: Path | None, channel: str | None, device: Sequence[str]) -> RunDir:
    from joulelab.calibrate import device_of, play

    lab = _lab(lab_file)[1]
    session = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-calibration"
    chosen = device_of(lab, channel, device)
    with console.interruptible() as stop:
        return play(lab, chosen, session, stop, console.progress)


@app.command("runs")
def list_runs(lab_file: LabFile = None, runs: RunsFolder = None, as_json: AsJson = False) -> None:
    """List the runs, oldest first."""
    from joulelab.recording import find_runs

    rows = [
        {"session": r.path.parent.name, "run": r.path.name, "state": r.state, "inferences": len(r.records("inference"))}
        for r in find_runs(_runs_folder(runs, lab_file))
    ]
    console.show(rows, as_json, console.table)


@app.command()
def show(
    name: OneRun = "last",
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    certificates: Certificates = None,
    as_json: AsJson = False,
) -> None:
    """Describe a run: what ran on what, how it went, and where the uncertainty of its joules comes from."""
    from joulelab.report.describe import describe

    found = _find(_runs_folder(runs, lab_file), name)
    console.show(describe(found, _phases(found.path, certificates)), as_json, console.fields)


@app.command()
def verify(name: OneRun = "last", lab_file: LabFile = None, runs: RunsFolder = None, as_json: AsJson = False) -> None:
    """Check a run's integrity, gaps and clocks; exit 5 where it is not what was recorded."""
    from joulelab.recording.seal import verify as findings_of

    found = _find(_runs_folder(runs, lab_file), name)
    findings = findings_of(found)
    console.show([vars(finding) for finding in findings], as_json, console.table)
    if any(finding.bad for finding in findings):
        raise typer.Exit(DataInvalid.exit_code)
    if not as_json:
        print(f"{found.path.name}: every file is as it was sealed")


@app.command("import")
def import_source(
    kind: Annotated[
        str, typer.Argument(help="table, or of runs: android-log, csv, elmor-pmd, km003c, nvidia-smi, ptd, tegrastats.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What was recorded; of tables one.")],
    out: Annotated[Path, typer.Option(help="The runs folder; of a table the dataset's folder.")],
    mapping: Annotated[
        Path | None, typer.Option("--map", help="What the files do not say; a table or CSV needs it.")
    ] = None,
    device: Annotated[str, typer.Option(help="What was measured.")] = "unknown",
    timezone: Annotated[
        str | None, typer.Option(help="Where local stamps are local: Europe/Berlin, UTC, +02:00.")
    ] = None,
    phases: Annotated[
        Path | None, typer.Option(help="What happened when: CSV, JSON lines or MLPerf's server.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import somebody else's recordings as runs, or a table as a dataset that fit and validate take."""
    if kind == "table":
        console.show(_import_table(files, mapping, out), as_json, console.fields)
        return
    from joulelab.analysis.imports import import_runs
    from joulelab.recording import RunDir

    megabytes = sum(file.stat().st_size for file in files if file.exists()) // 10**6
    with (
        console.progress(kind, megabytes, "MB read") if megabytes > SMALL_MB else nullcontext(lambda _: None) as advance
    ):
        runs = import_runs(
            kind,
            files,
            out,
            device=device,
            mapping=mapping,
            timezone=timezone,
            phases=phases,
            advance=lambda read: advance(read // 10**6),
        )
    console.show([_imported(RunDir(run)) for run in runs], as_json, console.table)


def _import_table(files: Sequence[Path], mapping: Path | None, out: Path) -> dict[str, Any]:
    from joulelab.analysis.tables import import_table

    if mapping is None or len(files) > 1:
        raise UserError("import table takes one file, and with --map what each of its columns is")
    phases = import_table(files[0], mapping)
    phases.save(out)
    return _summary(phases) | {"dataset": str(out)}


def _imported(run: RunDir) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "begins": run.manifest.created,
        "readings": sum(run.seal["samples"].values()) if run.seal else 0,
        "faults": len(run.records("fault")),
        "gaps": len(run.records("gap")),
        "power": ", ".join(run.manifest.power) or "none: a map gives channels their scope",
    }


@app.command()
def reduce(
    sources: Sources = None,
    lab_file: LabFile = None,
    runs: RunsFolder = None,
    out: Out = None,
    certificates: Certificates = None,
    method: Method = None,
    as_json: AsJson = False,
) -> None:
    """Samples to the phases table; --out keeps it as a dataset a source."""
    rows = {}
    for path, phases in _load(sources, runs, lab_file, certificates, method):
        if out:
            phases.save(out / path.name)
        rows[path.name] = _summary(phases)
    console.show(rows, as_json, console.sections)


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
    sets = _pooled(_load(sources, runs, lab_file, certificates), pool=gain is not None)
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
    sets = _pooled(_load(sources, runs, lab_file, certificates), pool=gain is not None or split == "day")
    judged = [(phases, validate_phases(phases, split=split, **asked)) for phases in sets]
    both = [(found, across(phases, found, **asked)) for phases, found in judged]
    verdicts, splits = ([v for pair in both for v in pair[k]] for k in (0, 1))
    encoded = {"models": [v.to_json() for v in verdicts], "splits": [v.to_json() for v in splits]}
    console.show(both, as_json, as_text, lambda _: encoded)
    if not _passed(verdicts):
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
    idle: Annotated[
        Literal["sleep", "awake"], typer.Option(help="Whether the idle power of the other devices counts.")
    ] = "sleep",
    channel: Annotated[
        str | None, typer.Option(help="Energies of this channel or instrument; otherwise of the widest scope.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The language model, where devices share several.")] = None,
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
    from joulelab.analysis.space.boundaries import boundaries
    from joulelab.analysis.space.box import mapped, parse_histories, parse_range
    from joulelab.analysis.space.costs import device_costs
    from joulelab.analysis.space.regions import region_maps
    from joulelab.report.map_page import check_name, write_maps
    from joulelab.report.map_text import as_text, rows

    if out:
        check_name(out)
    aims = aims_of(objective, idle, cap)
    models = _models(sources, runs, lab_file, certificates)
    costs = device_costs(models, channel, language_model=model, energy=any(aim.needs_energy for aim in aims))
    grid = mapped(costs, parse_histories(history), parse_range(prompt), parse_range(decode))
    maps = region_maps(costs, grid, aims)
    edges = [boundaries(found, costs) for found in maps]
    if out:
        write_maps(out, costs, maps, edges)
    found = [row for one, its in zip(maps, edges, strict=True) for row in rows(one, its)]
    console.show(found, as_json, lambda found: as_text(found, maps), lambda found: {"maps": found})


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
    idle: Annotated[
        Literal["sleep", "awake"], typer.Option(help="Whether the idle power of the other devices counts.")
    ] = "sleep",
    channel: Annotated[
        str | None, typer.Option(help="Energies of this channel or instrument; otherwise of the widest scope.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The language model, where devices share several.")] = None,
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
    models = _models(sources, runs, lab_file, certificates)
    costs = device_costs(models, channel, language_model=model, energy=objective != "latency")
    devices = [Ranged(each) for each in costs]
    check_seen(devices, turns)
    found = study(devices, turns, setting)
    if out:
        _write_placement(out, found)
    console.show(found, as_json, lambda found: placement.as_text(found, costs), placement.encoded)


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
    paths = _paths(sources, _runs_folder(runs, lab_file))
    written = _report(_sections(paths, certificates), out or _report_path(paths))
    console.show({"report": str(written)}, as_json, console.fields)


def _lab(lab_file: Path | None) -> tuple[Path, Lab]:
    from joulelab.lab import find_lab, load_lab

    path = find_lab(lab_file)
    return path, load_lab(path)


def _runs_folder(runs: Path | None, lab_file: Path | None) -> Path:
    """--runs, else the lab's; an analyst without a lab has the folder `runs` here."""
    from joulelab.lab import find_lab

    if runs is not None:
        return runs
    try:
        find_lab(lab_file)
    except UserError:
        return Path("runs")
    return _lab(lab_file)[1].runs


def _plans(lab: Lab, protocol: str | None, devices: Sequence[str] | None) -> list[Plan]:
    from joulelab.bench import Plan
    from joulelab.registry import nearest

    chosen = protocol or (next(iter(lab.protocols)) if len(lab.protocols) == 1 else "")
    if not chosen:
        raise UserError(f"which protocol? lab.yaml sets up {', '.join(lab.protocols) or 'none'}")
    if unknown := [name for name in devices or () if name not in lab.devices]:
        raise UserError(f"lab.yaml has no device {unknown[0]!r}{nearest(unknown[0], lab.devices)}")
    return [Plan.from_lab(lab, device, chosen) for device in devices or lab.devices]


def _find(folder: Path, name: str) -> RunDir:
    from joulelab.recording import find_run

    return find_run(folder, name)


def _paths(sources: Sequence[str] | None, folder: Path) -> list[Path]:
    """Runs and datasets by what people call them; a session stands for its runs, nothing for the last that measured."""
    from joulelab.recording import sessions

    known = sessions(folder)
    if not sources:
        if not known:
            raise UserError(f"there are no runs in {folder}: 'joulelab run' makes one, 'joulelab import' a dataset")
        newest = sorted(known.values(), key=lambda runs: runs[0].path.parent.name, reverse=True)
        measured = (runs for runs in newest if any(run.records("inference") for run in runs))
        return [run.path for run in next(measured, newest[0])]
    paths: list[Path] = []
    for source in sources:
        if source in known:
            paths += [run.path for run in known[source]]
        elif source.endswith(".parquet") or (Path(source) / "phases.parquet").is_file():
            paths.append(Path(source))
        else:
            paths.append(_find(folder, source).path)
    return paths


def _load(
    sources: Sequence[str] | None,
    runs: Path | None,
    lab_file: Path | None,
    certificates: Path | None,
    method: str | None = None,
) -> list[tuple[Path, Phases]]:
    paths = _paths(sources, _runs_folder(runs, lab_file))
    loaded = [(path, _phases(path, certificates, method)) for path in paths]
    if empty := [path.name for path, phases in loaded if phases.table.empty]:
        raise DataInvalid(
            f"{empty[0]} holds no measured inference; 'joulelab run --resume' finishes an interrupted run, 'joulelab "
            "calibrate' reads a load, 'joulelab import --phases' says what happened when in another tool's recording"
        )
    return loaded


def _pooled(loaded: Sequence[tuple[Path, Phases]], *, pool: bool) -> list[Phases]:
    """Each source by itself, or all of them as one."""
    from joulelab.analysis.phases import merge

    found = [phases for _, phases in loaded]
    return [merge(found)] if pool else found


def _models(
    sources: Sequence[str] | None, runs: Path | None, lab_file: Path | None, certificates: Path | None
) -> list[Model]:
    """The models of model files, and those fitted to runs, sessions and datasets."""
    from joulelab.analysis.modelling.models import fit as fit_phases
    from joulelab.analysis.modelling.models import read_models

    files = [source for source in sources or () if source.endswith(".json")]
    others = [source for source in sources or () if source not in files]
    found = [model for file in files for model in read_models(Path(file))]
    if others or not files:
        loaded = _load(others, runs, lab_file, certificates)
        found += [model for _, phases in loaded for model in fit_phases(phases)]
    return found


def _phases(path: Path, certificates: Path | None, method: str | None = None) -> Phases:
    from joulelab.analysis.phases import load_phases
    from joulelab.calibration.certificate import Store

    if certificates and not certificates.is_dir():
        raise UserError(f"--certificates {certificates} is no folder")
    return load_phases(path, Store(certificates) if certificates else None, method)


def _summary(phases: Phases) -> dict[str, Any]:
    table = phases.table
    return {
        "devices": sorted(set(table["device"])),
        "rows": len(table),
        "rows_with_energy": int(table["energy_j"].notna().sum()),
        "channels": list(phases.channels),
        "certificates": [f"{row['kind']} of {row['channel']}: {row['state']}" for row in phases.certificates],
        "notes": phases.notes,
    }


def _record(plans: Sequence[Plan], folder: Path) -> tuple[list[RunDir], list[JoulelabError]]:
    """One run a device, in one session; what is wrong with one device does not keep the others from running."""
    from joulelab.bench import record

    session = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    finished: list[RunDir] = []
    faults: list[JoulelabError] = []
    with console.interruptible() as stop:
        for plan in plans:
            try:
                with console.progress(plan.device, len(plan.steps())) as advance:
                    finished.append(record(plan, session, stop, advance))
            except RunAborted:
                raise
            except JoulelabError as fault:
                faults.append(fault)
    return finished, faults


def _measure_until(text: str, plans: Sequence[Plan], folder: Path, resume: str | None, as_json: bool) -> bool:
    """Batches until each device's targets are reached, or cannot be; the session of the run `resume` goes on.

    Whether all were reached. The batches stay as runs; together they are a dataset a device, beside them.
    """
    from joulelab.proposal import pooled
    from joulelab.until import End, finished, measure, targets

    limits, session = targets(text), folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    if resume:
        run = _find(folder, resume)
        session, plans = run.path.parent, [plan for plan in plans if plan.device == run.manifest.device]
        if run.state == "interrupted":
            _resume(run)
    ends: dict[str, End] = {}
    with console.interruptible() as stop:
        for plan in plans:
            for said in measure(plan, session, limits, stop, console.progress):
                print(f"{plan.device}: {said.why if isinstance(said, End) else said}", file=sys.stderr, flush=True)
                if isinstance(said, End):
                    ends[plan.device] = said
    paths = [session / f"{device}-points" for device in ends]
    for path, device in zip(paths, ends, strict=True):
        pooled(finished(session, device)).save(path)
    _tell(paths, as_json, {"until": {device: end._asdict() for device, end in ends.items()}})
    return all(end.reached for end in ends.values())


def _resume(interrupted: RunDir) -> list[RunDir]:
    """Finish a run; all the runs of its session, since the report is about these."""
    from joulelab.bench import Plan, resume
    from joulelab.recording import sessions

    steps = len(Plan.from_run(interrupted).steps())
    with console.interruptible() as stop, console.progress(interrupted.manifest.device, steps) as advance:
        session = resume(interrupted, stop, advance).path.parent
    return sessions(session.parent)[session.name]


def _sections(paths: Sequence[Path], certificates: Path | None = None) -> list[Section]:
    from joulelab.analysis.modelling.models import fit as fit_phases
    from joulelab.analysis.modelling.validation import validate as validate_phases
    from joulelab.recording import RunDir
    from joulelab.report.section import Section

    made = []
    for path in paths:
        phases = _phases(path, certificates)
        run = RunDir(path) if (path / "manifest.json").is_file() else None
        made.append(Section(phases, fit_phases(phases), validate_phases(phases), run))
    return made


def _report_path(paths: Sequence[Path]) -> Path:
    """Beside the runs of a session; beside a dataset."""
    return paths[0].parent / "report.html"


def _report(sections: Sequence[Section], path: Path) -> Path:
    from joulelab.report.html import write_report

    return write_report(path, sections)


def _conclude(finished: Sequence[RunDir], as_json: bool) -> bool:
    """Analyse and report a session's runs; whether every verdict is a pass."""
    if not any(run.records("inference") for run in finished):
        return _conclude_loads(finished, as_json)
    return _tell([run.path for run in finished], as_json, {})


def _tell(paths: Sequence[Path], as_json: bool, besides: dict[str, Any]) -> bool:
    """Print and report what runs or datasets tell; whether every verdict is a pass."""
    from joulelab.report.text import results

    sections = _sections(paths)
    written = _report(sections, _report_path(paths))
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    encoded = besides | {
        "runs": [str(path) for path in paths],
        "report": str(written),
        "models": [verdict.to_json() for verdict in verdicts],
    }
    console.show(sections, as_json, results, lambda _: encoded)
    if not as_json:
        print(f"report: {written}")
    return _passed(verdicts)


def _conclude_loads(finished: Sequence[RunDir], as_json: bool) -> bool:
    """What was held back to back, beside the device's last sweep; or how late its meters show a load."""
    from joulelab.report.loads import RISING, held, lags

    is_steady = finished[0].manifest.protocol == "steady"
    print("reading what the load tells ...", file=sys.stderr)
    rows = {str(run.path): held(run, _last_sweep(run)) if is_steady else lags(run) for run in finished}
    if as_json:
        console.show({"runs": list(rows), "steady" if is_steady else "lags": rows}, True, str)
        return True
    for path, found in rows.items():
        print(path)
        console.show(found, False, console.table)
    print(RISING if is_steady else "'joulelab calibrate sensor CHANNEL --run RUN' makes a certificate of it")
    return True


def _last_sweep(held: RunDir) -> RunDir | None:
    """The device's last finished run of single inferences."""
    from joulelab.recording import find_runs

    runs = [run for run in find_runs(held.path.parent.parent) if run.manifest.device == held.manifest.device]
    return next((run for run in reversed(runs) if run.state == "done" and run.records("inference")), None)


def _passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether what the targets are about passes: the totals, or the phases where there are no totals."""
    found = list(verdicts)
    judged = [verdict for verdict in found if verdict.phase == "total"] or found
    return bool(judged) and all(verdict.verdict == "pass" for verdict in judged)
