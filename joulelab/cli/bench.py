"""The verbs of the lab operator: what is on the bench, measuring, calibrating."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from joulelab import console
from joulelab.cli.app import EXIT_VERDICT, AsJson, Device, LabFile, Protocol, RunsFolder, SchemaOnly, app
from joulelab.cli.conclude import conclude, tell
from joulelab.cli.sources import find, open_lab, plans_of, runs_folder
from joulelab.errors import HardwareMissing, JoulelabError, RunAborted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from joulelab.bench import Plan
    from joulelab.calibration.certificate import Certificate
    from joulelab.lab import Lab
    from joulelab.recording import RunDir
    from joulelab.until import End


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
    path, lab = open_lab(lab_file)
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

    plans = plans_of(open_lab(lab_file)[1], protocol, device)
    folder = runs_folder(runs, lab_file)
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
    folder = runs_folder(runs, lab_file)
    faults: list[JoulelabError] = []
    if until:
        passed = _measure_until(until, plans_of(open_lab(lab_file)[1], protocol, device), folder, resume, as_json)
        if require_pass and not passed:
            raise typer.Exit(EXIT_VERDICT)
        return
    if resume:
        finished = _resume(find(folder, resume))
    else:
        finished, faults = _record(plans_of(open_lab(lab_file)[1], protocol, device), folder)
    passed = conclude(finished, as_json) if finished else True
    for fault in faults[1:]:
        print(f"joulelab: {fault}", file=sys.stderr)
    if faults:
        raise faults[0]
    if require_pass and not passed:
        raise typer.Exit(EXIT_VERDICT)


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
        run = find(folder, resume)
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
    tell(paths, as_json, {"until": {device: end._asdict() for device, end in ends.items()}})
    return all(end.reached for end in ends.values())


def _resume(interrupted: RunDir) -> list[RunDir]:
    """Finish a run; all the runs of its session, since the report is about these."""
    from joulelab.bench import Plan, resume
    from joulelab.recording import sessions

    steps = len(Plan.from_run(interrupted).steps())
    with console.interruptible() as stop, console.progress(interrupted.manifest.device, steps) as advance:
        session = resume(interrupted, stop, advance).path.parent
    return sessions(session.parent)[session.name]


@app.command()
def calibrate(  # noqa: PLR0913, PLR0917 an option each
    what: Annotated[Literal["clock", "sensor", "gain", "closure"], typer.Argument(help="What to find out.")],
    channel: Annotated[
        str | None, typer.Argument(help="The channel, such as meter.power; of a sensor the instrument will do.")
    ] = None,
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
    folder = runs_folder(runs, lab_file)
    sources = [find(folder, name) for name in run or ()] or [_play(folder, lab_file, channel, device or ())]
    out = out or open_lab(lab_file)[1].certificates
    written: list[tuple[Certificate, Path, list[dict[str, Any]]]] = []
    untold: dict[str, str] = {}
    for source in sources:
        found, why = compute(what, source, channel, against, Store(out))
        written += [(made, made.write(out), rows) for made, rows in found]
        untold |= why
    if as_json:
        console.show([encoded(*each) for each in written], True, str)
    elif what == "sensor" and len(written) + len(untold) > 1:
        _show_sensors([made for made, _, _ in written], out)
    else:
        console.show({each[1].stem: described(*each) for each in written}, False, console.sections)
    for reason in untold.values():
        print(f"joulelab: no certificate: {reason}", file=sys.stderr)


def _show_sensors(made: Sequence[Certificate], folder: Path) -> None:
    from joulelab.calibrate import reading_cost, sensor_table

    console.show(sensor_table(made), False, console.table)
    print(f"\n{reading_cost(made[0])}\ncertificates: {folder}")


def _play(folder: Path, lab_file: Path | None, channel: str | None, device: Sequence[str]) -> RunDir:
    from joulelab.calibrate import device_of, play

    lab = open_lab(lab_file)[1]
    session = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-calibration"
    chosen = device_of(lab, channel, device)
    with console.interruptible() as stop:
        return play(lab, chosen, session, stop, console.progress)
