"""How a measurement ends: models, verdicts and the report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulelab import console
from joulelab.cli.sources import phases_of

if TYPE_CHECKING:
    from joulelab.analysis.modelling.validation import Verdict
    from joulelab.recording import RunDir
    from joulelab.report.section import Section


def analysed(paths: Sequence[Path], certificates: Path | None = None) -> list[Section]:
    from joulelab.analysis.modelling.models import fit
    from joulelab.analysis.modelling.validation import across, validate
    from joulelab.recording import RunDir
    from joulelab.report.section import Section

    made = []
    with console.progress("analysis", len(paths), "runs") as advance:
        for done, path in enumerate(paths, start=1):
            phases = phases_of(path, certificates)
            verdicts = validate(phases)
            run = RunDir(path) if (path / "manifest.json").is_file() else None
            made.append(Section(phases, fit(phases), verdicts, run, across(phases, verdicts)))
            advance(done)
    return made


def report_path(paths: Sequence[Path]) -> Path:
    """Beside the runs of a session; beside a dataset."""
    return paths[0].parent / "report.html"


def write(sections: Sequence[Section], path: Path) -> Path:
    from joulelab.report.html import write_report

    return write_report(path, sections)


def conclude(finished: Sequence[RunDir], as_json: bool) -> bool:
    """Analyse and report a session's runs; whether every verdict is a pass."""
    if not any(run.records("inference") for run in finished):
        return _conclude_loads(finished, as_json)
    return tell([run.path for run in finished], as_json, {})


def tell(paths: Sequence[Path], as_json: bool, besides: dict[str, Any]) -> bool:
    """Print and report what runs or datasets tell; whether every verdict is a pass."""
    from joulelab.report.text import results

    sections = analysed(paths)
    written = write(sections, report_path(paths))
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    encoded = besides | {
        "runs": [str(path) for path in paths],
        "report": str(written),
        "models": [verdict.to_json() for verdict in verdicts],
    }
    console.show(sections, as_json, results, lambda _: encoded)
    if not as_json:
        print(f"report: {written}")
    return passed(verdicts)


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


def passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether what the targets are about passes: the totals, or the phases where there are no totals."""
    found = list(verdicts)
    judged = [verdict for verdict in found if verdict.phase == "total"] or found
    return bool(judged) and all(verdict.verdict == "pass" for verdict in judged)
