"""The verbs about recordings: list, describe, check, import, reduce."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joulelab import console
from joulelab.cli.app import AsJson, Certificates, LabFile, Method, OneRun, Out, RunsFolder, Sources, app
from joulelab.cli.sources import find, load, phases_of, runs_folder, summary
from joulelab.errors import DataInvalid, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from joulelab.recording import RunDir

SMALL_MB = 4
"""Files that are read before a progress bar would be seen."""


@app.command("runs")
def list_runs(lab_file: LabFile = None, runs: RunsFolder = None, as_json: AsJson = False) -> None:
    """List the runs, oldest first."""
    from joulelab.recording import find_runs

    rows = [
        {"session": r.path.parent.name, "run": r.path.name, "state": r.state, "inferences": len(r.records("inference"))}
        for r in find_runs(runs_folder(runs, lab_file))
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

    found = find(runs_folder(runs, lab_file), name)
    console.show(describe(found, phases_of(found.path, certificates)), as_json, console.fields)


@app.command()
def verify(name: OneRun = "last", lab_file: LabFile = None, runs: RunsFolder = None, as_json: AsJson = False) -> None:
    """Check a run's integrity, gaps and clocks; exit 5 where it is not what was recorded."""
    from joulelab.recording.seal import verify as findings_of

    found = find(runs_folder(runs, lab_file), name)
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
    return summary(phases) | {"dataset": str(out)}


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
    for path, phases in load(sources, runs, lab_file, certificates, method):
        if out:
            phases.save(out / path.name)
        rows[path.name] = summary(phases)
    console.show(rows, as_json, console.sections)
