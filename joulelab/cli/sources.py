"""What the command line names: labs, runs, sessions, datasets, model files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulelab.errors import DataInvalid, UserError

if TYPE_CHECKING:
    from joulelab.analysis.dataset import Phases
    from joulelab.analysis.modelling.models import Model
    from joulelab.bench import Plan
    from joulelab.lab import Lab
    from joulelab.recording import RunDir


def open_lab(lab_file: Path | None) -> tuple[Path, Lab]:
    from joulelab.lab import find_lab, load_lab

    path = find_lab(lab_file)
    return path, load_lab(path)


def runs_folder(runs: Path | None, lab_file: Path | None) -> Path:
    """--runs, else the lab's; an analyst without a lab has the folder `runs` here."""
    from joulelab.lab import find_lab

    if runs is not None:
        return runs
    try:
        find_lab(lab_file)
    except UserError:
        return Path("runs")
    return open_lab(lab_file)[1].runs


def plans_of(lab: Lab, protocol: str | None, devices: Sequence[str] | None) -> list[Plan]:
    from joulelab.bench import Plan
    from joulelab.registry import nearest

    chosen = protocol or (next(iter(lab.protocols)) if len(lab.protocols) == 1 else "")
    if not chosen:
        raise UserError(f"which protocol? lab.yaml sets up {', '.join(lab.protocols) or 'none'}")
    if unknown := [name for name in devices or () if name not in lab.devices]:
        raise UserError(f"lab.yaml has no device {unknown[0]!r}{nearest(unknown[0], lab.devices)}")
    return [Plan.from_lab(lab, device, chosen) for device in devices or lab.devices]


def find(folder: Path, name: str) -> RunDir:
    from joulelab.recording import find_run

    return find_run(folder, name)


def paths_of(sources: Sequence[str] | None, folder: Path) -> list[Path]:
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
        elif inside := sorted(Path(source).glob("*/manifest.json")):
            paths += [manifest.parent for manifest in inside]
        else:
            paths.append(find(folder, source).path)
    return paths


def load(
    sources: Sequence[str] | None,
    runs: Path | None,
    lab_file: Path | None,
    certificates: Path | None,
    method: str | None = None,
) -> list[tuple[Path, Phases]]:
    paths = paths_of(sources, runs_folder(runs, lab_file))
    loaded = [(path, phases_of(path, certificates, method)) for path in paths]
    if empty := [path.name for path, phases in loaded if phases.table.empty]:
        raise DataInvalid(
            f"{empty[0]} holds no measured inference; 'joulelab run --resume' finishes an interrupted run, 'joulelab "
            "calibrate' reads a load, 'joulelab import --phases' says what happened when in another tool's recording"
        )
    return loaded


def pooled(loaded: Sequence[tuple[Path, Phases]], *, pool: bool) -> list[Phases]:
    """Each source by itself, or all of them as one."""
    from joulelab.analysis.phases import merge

    found = [phases for _, phases in loaded]
    return [merge(found)] if pool else found


def models_of(
    sources: Sequence[str] | None, runs: Path | None, lab_file: Path | None, certificates: Path | None
) -> list[Model]:
    """The models of model files, and those fitted to runs, sessions and datasets."""
    from joulelab.analysis.modelling.models import fit as fit_phases
    from joulelab.analysis.modelling.models import read_models

    files = [source for source in sources or () if source.endswith(".json")]
    others = [source for source in sources or () if source not in files]
    found = [model for file in files for model in read_models(Path(file))]
    if others or not files:
        loaded = load(others, runs, lab_file, certificates)
        found += [model for _, phases in loaded for model in fit_phases(phases)]
    return found


def phases_of(path: Path, certificates: Path | None, method: str | None = None) -> Phases:
    from joulelab.analysis.phases import load_phases
    from joulelab.calibration.certificate import Store

    if certificates and not certificates.is_dir():
        raise UserError(f"--certificates {certificates} is no folder")
    return load_phases(path, Store(certificates) if certificates else None, method)


def summary(phases: Phases) -> dict[str, Any]:
    table = phases.table
    return {
        "devices": sorted(set(table["device"])),
        "rows": len(table),
        "rows_with_energy": int(table["energy_j"].notna().sum()),
        "channels": list(phases.channels),
        "certificates": [f"{row['kind']} of {row['channel']}: {row['state']}" for row in phases.certificates],
        "notes": phases.notes,
    }
