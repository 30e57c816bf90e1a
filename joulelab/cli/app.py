"""The command line's app, the options that verbs share, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXIT_USAGE = 1
EXIT_VERDICT = 6
EXIT_BUG = 70

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="One verb for each thing a person does.",
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
IdleOthers = Annotated[
    Literal["sleep", "awake"], typer.Option(help="Whether the idle power of the other devices counts.")
]
EnergyChannel = Annotated[
    str | None, typer.Option(help="Energies of this channel or instrument; otherwise of the widest scope.")
]
LanguageModel = Annotated[str | None, typer.Option(help="The language model, where devices share several.")]
