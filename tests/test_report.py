"""Reports of runs that are written as the recorder writes them; idle, prefill and decode have a power each."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.trust.pictures import FOLDER, draw
from joulelab.analysis.deconvolution import Deconvolved
from joulelab.analysis.means import means
from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import PHASES
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.sessions import Gains
from joulelab.analysis.modelling.validation import validate
from joulelab.analysis.phases import reduce
from joulelab.analysis.shapes import Peak, Shape
from joulelab.calibration.kernel import Timing
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Kind, Origin, Scope, SensorModel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.block import Block
from joulelab.recording.journal import Journal
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import create_run, seal_run
from joulelab.recording.samples import SampleWriter
from joulelab.report.budget import ABOVE, COMBINED, MEAN, budgets
from joulelab.report.certificates import certificates
from joulelab.report.describe import describe
from joulelab.report.energies import mean_energies
from joulelab.report.figures import round_numbers, style
from joulelab.report.html import write_report
from joulelab.report.models import SYMBOLS, remarks
from joulelab.report.numbers import DASH, bounded, error, expanded, interval, number, percent, quantity
from joulelab.report.plots import in_order
from joulelab.report.power import MEANS, read_power
from joulelab.report.section import Section, uncertified
from joulelab.report.slow import slow_channels, unfolded
from joulelab.report.space import spaces
from joulelab.report.text import results
from joulelab.report.trace import stretch, trace
from joulelab.report.words import NO_METER, dropped, why
from joulelab.timebase import SECOND, BenchNs

MS = SECOND // 1000
IDLE_W, PREFILL_W, DECODE_W = 4.0, 21.0, 14.0
WRAP_J = 40.0
HOLE = (4 * SECOND, 4300 * MS)
REPEATS = 2
SHAPE = Shape(
    weights=1000, weight_bytes=1e12, layers=1, heads=1, head_dim=1, hidden=1, kv_bytes_per_token=1, vocabulary=1
)
ODD, ODD_MODEL = '<b>"Orin" & $co$</b>', "<script>alert(1)</script>"
CONFIGURATIONS = list(product((0, 512), (16, 64, 128, 256), (1, 16, 64))) * REPEATS
WALL = Channel("power", "W", scope=Scope.WALL)
RAIL = Channel("VDD_GPU", "W", scope=Scope.RAIL, sensor=SensorModel(period_s=1.0, window_s=1.0))
PACKAGE = Channel("package", "J", Kind.COUNTER, Scope.PACKAGE, sensor=SensorModel(period_s=0.01, wrap=WRAP_J))
MANIFEST = Manifest(
    session="20260102T030405",
    run="orin-sweep-030405",
    device="orin",
    protocol="sweep",
    arguments={"prompt": [16, 64, 128, 256], "decode": [1, 16, 64], "repeats": REPEATS},
    seed=1,
    created="2026-01-02T03:04:05+00:00",
    clock="monotonic",
    clock_offset_ns=0,
    simulated=False,
    stanza={"driver": "host", "engine": {"driver": "llama-server"}},
    engine={"model": "llama-100m", "quant": "q8_0", "threads": 1, "batch": 1},
    instruments=(
        Instrument("wall", "scpi/test", {}, 5 * MS, (WALL,)),
        Instrument("rails", "tegrastats", {}, 200 * MS, (RAIL,)),
        Instrument("rapl", "powercap", {}, 10 * MS, (PACKAGE,)),
    ),
    power=("wall.power", "rapl.package", "rails.VDD_GPU"),
    host={"cpu": "a CPU", "cores": 2, "refused sensors": {}},
    versions={"joulelab": "0.1.0"},
    certificates={},
)


def write_run(folder: Path, manifest: Manifest = MANIFEST, outcome: str | None = "done") -> RunDir:
    """A run; sealed as `outcome`, or left without a seal as a kill leaves it."""
    path = folder / manifest.session / manifest.run
    journal = create_run(path, manifest)
    journal.append(BenchNs(0), "start", anchor={"bench": 0, "boot": 0, "wall": 0, "boot_id": "x"})
    journal.append(BenchNs(2 * SECOND), "idle", step=0, start=0, stop=2 * SECOND)
    edges = infer(journal)
    end = edges[-1][1]
    journal.append(BenchNs(end + 2 * SECOND), "idle", step=99, start=end, stop=end + 2 * SECOND)
    for instrument in manifest.instruments:
        sample(path, instrument, edges)
    journal.append(BenchNs(5 * SECOND), "gap", instrument="wall", start=HOLE[0], stop=HOLE[1], missed=2)
    journal.append(BenchNs(6 * SECOND - MS), "anchor", anchor={"bench": 6 * SECOND - MS})
    journal.append(BenchNs(6 * SECOND), "jump", suspend=7 * SECOND)
    journal.append(BenchNs(7 * SECOND), "fault", source="wall", message="no answer in 1 s", attempt=1)
    if outcome:
        cost = {"lateness_p50_us": 61.2, "lateness_p99_us": 113.0, "cpu_s": 0.4, "wall_s": 30.0}
        journal.append(BenchNs(8 * SECOND), "sampler", instrument="wall", readings=300, missed=2, **cost)
        seal_run(path, journal, outcome)
    else:
        journal.close()
    return RunDir(path)


def infer(journal: Journal) -> list[tuple[int, int, float]]:
    """Journal the inferences; hand over their phases as (start, stop, power)."""
    rng = np.random.default_rng(1)
    edges, now = [], 2 * SECOND
    for k, (history, prompt, output) in enumerate(CONFIGURATIONS):
        first = now + round((50 + 4 * prompt) * MS * rng.normal(1, 0.01))
        last = first + round(20 * (output - 1) * MS * rng.normal(1, 0.01))
        phases = [{"name": "prefill", "start": now, "stop": first}, {"name": "decode", "start": first, "stop": last}]
        asked = {"history": history, "prompt": prompt, "output": output}
        known = {"inference": k, "repeat": k * REPEATS // len(CONFIGURATIONS), "warmup": False, "temperature_c": None}
        said = {"throttled": None, "phases": [{**p, "boundary_u_s": None, "cpu_s": None} for p in phases[:output]]}
        journal.append(BenchNs(last), "inference", step=k + 1, **known, **asked, **said)
        edges += [(now, first, PREFILL_W), (first, last, DECODE_W)]
        now = last + 300 * MS
    return edges


def sample(run: Path, instrument: Instrument, edges: Sequence[tuple[int, int, float]]) -> None:
    """Readings of what the device draws, as the sensor averages and holds it; there are none in the hole."""
    (channel,) = instrument.channels
    assert instrument.interval_ns
    sensor, period = channel.sensor, round((channel.sensor.period_s or 1e-3) * SECOND)
    fine = np.arange(0, edges[-1][1] + 2 * SECOND, MS)
    power = np.full(len(fine), IDLE_W)
    for start, stop, watts in edges:
        power[(fine >= start) & (fine < stop)] = watts
    joules = np.cumsum(power) * MS / SECOND
    time = fine[:: instrument.interval_ns // MS]
    until, window = time // period * period // MS, round(max(sensor.window_s, 1e-3) * SECOND) // MS
    values = (joules[until] - joules[np.maximum(until - window, 0)]) / (window * MS / SECOND)
    values += 0.1 * np.random.default_rng(1).standard_normal(len(fine))[until]
    if channel.kind is Kind.COUNTER:
        values = joules[until] % WRAP_J
    kept = (time <= HOLE[0]) | (time >= HOLE[1])
    writer = SampleWriter(run / "samples" / f"{instrument.name}.arrows", [channel.name])
    writer.append(Block(time[kept], time[kept] + 1000, None, values[None, kept]))
    writer.close()


def conclude(run: RunDir) -> Section:
    phases = reduce(run)
    return Section(phases, fit(phases), validate(phases), run)


class Page(HTMLParser):
    """A page as a browser sees it: its text, its pictures and where it leads; a tag that is not closed is an error."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += f" {data.strip()}"

    @property
    def pictures(self) -> list[str]:
        sources = [str(attributes["src"]) for tag, attributes in self.seen if tag == "img"]
        return [base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode() for source in sources]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return conclude(write_run(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """An interrupted run without a power channel, of a device and a model with names that HTML could trip over."""
    manifest = replace(MANIFEST, device=ODD, engine={"model": ODD_MODEL}, power=(), instruments=())
    return conclude(write_run(tmp_path_factory.mktemp("runs"), manifest, outcome=None))


@pytest.fixture(scope="module")
def page(section: Section, timed: Section, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A report of a run, of an interrupted run, of a dataset without a recording, and of a run that hardly began."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / MANIFEST.session / MANIFEST.run
    create_run(path, replace(MANIFEST, device="early", power=(), instruments=())).close()
    sections = [section, timed, replace(timed, run=None), conclude(RunDir(path))]
    return Page(write_report(folder / "report.html", sections, ["a <note>"]))


def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    ids = {f"#{attributes['id']}" for _, attributes in page.seen if "id" in attributes}
    for tag, attributes in page.seen:
        assert tag not in {"script", "link", "iframe"}
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert attributes.get("href") in {None, *ids}
    assert not re.search(r"url\(|@import|https?:", page.source)


def test_pictures_are_whole_and_said_in_words(page: Page) -> None:
    assert len(page.pictures) == 5 + 3 + 3 + 1
    for picture in page.pictures:
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert not re.search(r'href="(?!#|data:)', picture)
    assert all(attributes["alt"] for tag, attributes in page.seen if tag == "img")


def test_plots_name_axes_units_phases_and_channels(page: Page) -> None:
    said = (
        ("power [W]", "time since the start of the run [s]", "prefill", "decode", "wall.power [W], wall, measured"),
        ("rails.VDD_GPU, measured", "read", "deconvolved", "time since the inference began [s]", "power [W]"),
        ("measured time [s]", "predicted energy [J]", "1:1", "within the limit", "history 0", "history 512"),
        ("prompt length [tokens]", "output length [tokens]", "inference, in the order that they ran"),
        ("total time, measured", "prompt [tokens], output 16", "output [tokens], prompt 128", "95 % prediction band"),
    )
    for picture, texts in zip(page.pictures, said, strict=False):
        assert all(f"<!-- {text} -->" in picture for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "a <note>",
        "llama-100m",
        "every step was played",
        "wall: no readings for 300 ms, 2 missed",
        "the host slept for 7.00 s",
        "wall: no answer in 1 s",
        "61.2 µs",
        "absolute joules uncertified",
        "✗ none",
        "Mean energies",
        "how slowly the power follows the load",
        "Fitted with the power: a lag of",
        "24 configurations, 32 needed",
        "combined",
        "interrupted: it has no seal",
        "The run ended before sampling could say what it cost.",
        "no power was recorded",
        "a dataset has phases and their energies, but no readings",
        "no inference was recorded",
        "Data of 2026-01-02,",
        "days old.",
        "Over the inference space",
        "no map, because <b>",
    ],
)
def test_page_says(page: Page, text: str) -> None:
    assert text in page.text


@pytest.fixture(scope="module")
def remarkable(timed: Section, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A report of all that may be said of verdicts and models: gains, a range, held out in two ways, an old fit."""
    days = pd.DataFrame({"group": ["2026-01-02", "2026-01-09"], "gain": [1.02, 0.98], "low": 0.97, "high": 1.03})
    more: dict[str, Any] = {
        "valid": ["output>=16"],
        "outside_mape_percent": 12.34,
        "gains": Gains("day", days, 7, 0.01),
    }
    verdicts = [replace(verdict, **more) for verdict in timed.verdicts]
    no_corner: dict[str, Any] = {
        "split": "corner",
        "mape_percent": None,
        "reason": "nothing is left",
        "origin": "measured",
    }
    across = [*verdicts, *(replace(v, split="prompt", mape_percent=88.8) for v in verdicts)]
    across += [replace(v, **no_corner) for v in verdicts]
    known: dict[str, Any] = {
        "shape": SHAPE,
        "peak": Peak(bandwidth=1e9, source="data sheet"),
        "measured": ("2020-01-01", "2020-01-02"),
    }
    models = [replace(m, **known, phases=tuple(map(doubtful, m.phases))) for m in timed.models]
    section = replace(timed, models=models, verdicts=verdicts, across=across)
    return Page(write_report(tmp_path_factory.mktemp("report") / "report.html", [section]))


def doubtful(part: PhaseModel) -> PhaseModel:
    return replace(part, loss="huber", bounds=("t_pair",))


@pytest.mark.parametrize(
    "text",
    [
        "Declared valid for output>=16",
        "1 run outside configurations",
        "12.3",
        "88.8",
        "by corner: Nothing is left.",
        "7 configurations in common",
        "2026-01-09 -2.00 % [-3.00, 3.00]",
        "Data of 2020-01-01 to 2020-01-02,",
        "decode: held at 0, as the data would have it negative: t_pair.",
        "prefill: fitted for Huber's loss.",
        "reading the weights t_pass 50.2 TB/s 5019388 %  ✗ impossible",
    ],
)
def test_page_remarks(remarkable: Page, text: str) -> None:
    assert text in remarkable.text


def test_names_are_escaped(page: Page) -> None:
    assert f" {ODD} " in page.text
    assert ODD_MODEL in page.text


def test_what_is_unknown_is_a_dash(page: Page) -> None:
    assert DASH in page.text
    assert not re.search(r"\b(nan|None|NaT|inf)\b", page.text)


def test_each_section_has_its_rows_in_the_summary(page: Page, section: Section, timed: Section) -> None:
    links = [attributes["href"] for tag, attributes in page.seen if tag == "a"]
    rows = {"#s1": len(section.totals), "#s2": len(timed.totals), "#s3": len(timed.totals), "#s4": 1}
    assert links == [link for link, count in rows.items() for _ in range(count)]


def test_origins_stand_beside_what_they_are_of(page: Page) -> None:
    badges = [str(attributes["class"]) for tag, attributes in page.seen if tag == "span"]
    assert badges.count("badge simulated") == 1  # the one that explains the word
    assert badges.count("badge measured") > 20


def test_the_same_section_gives_the_same_file(timed: Section, tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name, [timed]).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_estimate_asks_for_a_meter(tmp_path: Path) -> None:
    cpu = Channel("energy", "J", Kind.COUNTER, Scope.ESTIMATE, Origin.ESTIMATED)
    instrument = Instrument("cpu", "cpu-time", {}, 10 * MS, (cpu,))
    section = conclude(write_run(tmp_path, replace(MANIFEST, instruments=(instrument,), power=("cpu.energy",))))
    assert {why(verdict) for verdict in section.verdicts if verdict.target == "energy"} == {NO_METER}


@pytest.mark.parametrize(
    ("verdict", "origin", "reason", "said"),
    [
        ("pass", "measured", None, "Even the interval's upper end, 1.50 %, is within the limit."),
        ("fail", "measured", None, "Even the interval's lower end, 0.500 %, is over the limit."),
        ("undecided", "measured", "the interval spans the limit", "The interval spans the limit."),
    ],
)
def test_why(section: Section, verdict: str, origin: str, reason: str | None, said: str) -> None:
    made = replace(section.verdicts[0], verdict=verdict, origin=origin, reason=reason, ci95_percent=(0.5, 1.5))
    assert why(made) == said


def test_dropped_rows_are_all_counted(section: Section) -> None:
    short = [verdict for verdict in section.verdicts if verdict.channel == "rails.VDD_GPU"]
    for verdict in short:
        assert sum(rows for _, rows, _ in dropped(verdict)) == verdict.dropped_rows > 0


def test_stretch_holds_whole_inferences_of_both_phases(section: Section) -> None:
    assert section.run
    start, stop = stretch(section.run.records("inference"))
    assert 10 * SECOND <= stop - start <= 20 * SECOND
    inside = [
        p["name"]
        for i in section.run.records("inference")
        for p in i["phases"]
        if start < p["start"] < p["stop"] < stop
    ]
    assert inside.count("prefill") > 3 < inside.count("decode")


def test_stretch_widens_for_slow_inferences() -> None:
    edges = [(k * 100 * SECOND, (k * 100 + 60) * SECOND, (k * 100 + 90) * SECOND) for k in range(4)]
    names = ("prefill", "decode")
    slow = [
        {
            "warmup": False,
            "phases": [{"name": n, "start": a, "stop": b} for n, a, b in zip(names, e[:2], e[1:], strict=True)],
        }
        for e in edges
    ]
    start, stop = stretch(slow)
    assert 290 * SECOND <= stop - start <= 320 * SECOND


def test_trace_of_nothing_gives_the_reason() -> None:
    with pytest.raises(DataInvalid, match="no readings"):
        trace(None)


def test_power_of_a_counter_keeps_its_energy(section: Section) -> None:
    assert section.run
    line = read_power(section.run, "rapl.package", 0, 60 * SECOND)
    expected = read_power(section.run, "wall.power", 0, 60 * SECOND)
    seconds = np.diff(line.t_ns) / SECOND
    mean = (line.watts[:-1] * seconds).sum() / seconds.sum()
    assert len(line.t_ns) <= MEANS + 1
    assert mean == pytest.approx(np.nanmean(expected.watts), rel=0.02)


def test_power_is_not_drawn_over_a_hole(section: Section) -> None:
    assert section.run
    line = read_power(section.run, "wall.power", 0, 10 * SECOND)
    (broken,) = np.flatnonzero(np.isnan(line.watts))
    assert line.t_ns[broken - 1] < HOLE[0] + MS < HOLE[1] < line.t_ns[broken + 1]


def test_errors_in_order_are_of_every_inference(section: Section) -> None:
    total = next(verdict for verdict in section.verdicts if (verdict.target, verdict.phase) == ("time", "total"))
    numbers, errors = in_order(total, section.phases.table)
    assert sorted(numbers) == list(range(len(CONFIGURATIONS)))
    assert np.abs(errors).mean() == pytest.approx(total.single_run_mape_percent, rel=0.1)


def test_budget_has_the_largest_cause_first(section: Section) -> None:
    found = budgets(section.phases, means(section.phases))
    (wall,) = (budget for budget in found if budget.channel == "wall.power")
    causes = wall.terms.drop(COMBINED)
    assert causes.max(axis=1).is_monotonic_decreasing
    assert (wall.terms.loc[COMBINED] >= causes.median()).all()
    assert (causes.T["baseline"] > 0).tolist() == [of == ABOVE for of, _ in wall.columns]
    assert wall.coverage[MEAN, "total"] > 1.96


def test_describe_is_json(section: Section) -> None:
    assert section.run
    told = json.dumps(describe(section.run, section.phases), allow_nan=False)
    assert "wall: no answer in 1 s" in told
    assert "wall.power, total, one inference:" in told
    assert "for 95 %), from " in told


def test_terms_of_a_budget_stand_largest_first(section: Section) -> None:
    assert section.run
    for line in describe(section.run, section.phases)["Uncertainty"]:
        figures = [float(x) for x in re.findall(r"([0-9.]+) %", line.partition("from ")[2])]
        assert figures == sorted(figures, reverse=True)


def test_means_have_an_interval_and_its_factor(section: Section) -> None:
    found = mean_energies(means(section.phases))["wall.power"]
    assert list(found) == ["prefill", "decode", "total"]
    (prefill,) = (row for row in found["prefill"] if row["tokens"] == "512+256")
    assert re.fullmatch(r"[0-9.]+ ± [0-9.]+ J", prefill["energy"])
    assert prefill["repeats"] == str(3 * REPEATS)
    assert float(prefill["k"]) >= 1.96


CERTIFICATE = {
    "channel": "wall.power",
    "kind": "gain",
    "hash": "ab" * 32,
    "made": "2026-01-01T00:00:00+00:00",
    "valid_until": "2027-01-01T00:00:00+00:00",
    "simulated": False,
    "note": "",
}
EXPIRED = {"state": "expired", "note": "it was valid until 2026-01-01, the run is of 2026-01-02"}
LOST = {"state": "missing", "note": "the run does not hold it", "made": None, "valid_until": None, "simulated": None}


@pytest.mark.parametrize(
    ("changed", "said", "certified"),
    [
        ({"state": "valid"}, ["✓ valid", "abababababab", "2027-01-01", "measured"], True),
        ({"state": "valid", "simulated": True}, ["✓ valid", "simulated"], True),
        ({"state": "valid", "kind": "clock"}, ["✓ valid", "✗ none"], False),
        (EXPIRED, ["✗ expired", EXPIRED["note"]], False),
        (LOST, ["✗ missing", LOST["note"]], False),
    ],
)
def test_certificates_say_whether_they_hold(
    section: Section, changed: dict[str, Any], said: list[str], certified: bool
) -> None:
    phases = replace(section.phases, certificates=[CERTIFICATE | changed])
    its = [text for row in certificates(phases) if row["channel"] == "wall.power" for text in row.values()]
    assert set(said) <= set(its)
    assert ("wall.power" not in uncertified(phases)) == certified
    assert "rails.VDD_GPU" in uncertified(phases)


def deconvolved(readings: int) -> Deconvolved:
    """What a fit could have found of the run: noise of standard deviation 1 W about a steady power."""
    t_ns = np.linspace(0, 60 * SECOND, readings).astype(np.int64)
    fitted = np.full(readings, DECODE_W)
    read = fitted + np.random.default_rng(1).standard_normal(readings)
    steps = np.arange(0, 61, 3) * SECOND
    noise, power = np.ones(readings), np.full(len(steps) - 1, DECODE_W)
    return Deconvolved(t_ns, read, fitted, noise, steps, power, Timing(0.1, 1.0), 0.0031, 0.02)


def test_slow_channel_shows_readings_steps_and_residuals(section: Section) -> None:
    assert section.run
    picture = unfolded(section.run, "rails.VDD_GPU", deconvolved(2500))
    drawn = base64.b64decode(picture.uri.partition(",")[2]).decode()
    assert "<!-- read minus fitted" in drawn
    assert len(drawn) < 400_000
    assert "lag of 600.0 ± 3.1 ms, an averaging window of 1.000 ± 0.020 s" in picture.caption
    assert "One residual in 3 is drawn." in picture.caption
    assert int(re.findall(r"here (\d+) %", picture.caption)[0]) == pytest.approx(95, abs=2)


def test_slow_channels_are_those_deconvolved(section: Section) -> None:
    assert slow_channels(section.phases) == ["rails.VDD_GPU"]


def printed(sections: Sequence[Section], width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(results(sections))
    return file.getvalue()


def test_terminal_says_how_a_run_ended(timed: Section) -> None:
    assert "interrupted: it has no seal" in printed([timed], 100)


def test_nothing_is_cut_on_the_terminal(section: Section) -> None:
    text = printed([section], 100)
    assert "…" not in text
    assert all(interval(verdict.ci95_percent) in text for verdict in section.verdicts)
    for c in (c for model in section.models for part in model.phases for c in part.coefficients):
        value, ends, unit = bounded(c.value, (c.low, c.high), c.unit)
        assert re.search(rf" {c.name} +{re.escape(value)} +{re.escape(ends)} {unit} *\n", text)


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.012345, "s", "12.3 ms"),
        (7.15e-7, "s/token", "715 ns/token"),
        (1234.5, "s", "1234 s"),
        (1234.5, "J", "1.23 kJ"),
        (0.9996, "W", "1.00 W"),
        (-0.5, "J", "-500 mJ"),
        (0.0, "s", "0.00 s"),
        (55.04, "degC", "55.0 degC"),
        (None, "s", DASH),
        (float("nan"), "J", DASH),
    ],
)
def test_quantity(value: float | None, unit: str, written: str) -> None:
    assert quantity(value, unit) == written


@pytest.mark.parametrize(
    ("value", "half_width", "written"),
    [(12.345, 0.123, "12.35 ± 0.12 J"), (0.5, 0.0312, "500 ± 31 mJ"), (2.0, float("nan"), "2.00 J"), (None, 1.0, DASH)],
)
def test_expanded_has_the_digits_of_its_uncertainty(value: float | None, half_width: float, written: str) -> None:
    assert expanded(value, half_width, "J") == written


def test_bounded_shows_the_width_of_a_narrow_interval() -> None:
    assert bounded(0.0131534, (0.0131349, 0.0131718), "s/pass") == ("13.153", "[13.135, 13.172]", "ms/pass")
    assert bounded(None, None, "s") == (DASH, DASH, "s")
    assert interval((0.284, 1.554)) == "[0.28, 1.55]"


@pytest.mark.parametrize(
    ("value", "written"), [(12.345, "12.3"), (0.0977, "0.098"), (-6e-4, "-0.001"), (-1e-5, "0.000")]
)
def test_error(value: float, written: str) -> None:
    assert error(value) == written
    assert percent(value) == f"{written} %"
    assert percent(float("nan")) == percent(None) == DASH


@given(st.floats(min_value=1e-12, max_value=1e9))
def test_number_keeps_three_digits(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=5.1e-3)
    assert "e" not in number(value)


def places(drawn: str) -> tuple[str, list[float]]:
    """A picture without its places, sizes and names of parts; and places and sizes."""
    drawn = re.sub(r"\b[mp][0-9a-f]{10}\b", "part", drawn)
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    return re.sub(number, "#", drawn), [float(x) for x in re.findall(number, drawn)]


def test_pictures_of_the_docs_are_what_is_drawn_now(tmp_path: Path) -> None:
    for path in draw(tmp_path):
        committed = (FOLDER / path.name).read_text()
        says = f"{path.name} changed: look at what 'python -m benchmarks.trust.pictures' draws, and commit it"
        form, values = places(path.read_text())
        expected_form, expected = places(committed)
        assert form == expected_form, says
        assert values == pytest.approx(expected, abs=0.1), says
        assert len(committed) < 80_000
        assert f"pictures/{path.name}" in (FOLDER.parent / "slow-sensors.md").read_text()


def test_age_is_counted_from_the_last_day(timed: Section) -> None:
    assert next(remarks(timed.models[0], date(2026, 1, 3))) == "Data of 2026-01-02, 1 day old."


def test_every_term_that_a_form_may_have_is_explained() -> None:
    lengths = [16, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
    points = pd.DataFrame(list(product((0, 512), lengths, (1, 16, 64))), columns=["history", "prompt", "output"])
    points = points.assign(seconds=1.0, y=1.0)
    forms = [f for target, phase in product(("time", "energy"), PHASES) for f in candidates(target, phase, points)]
    kinds = {term.kind for form in forms for term in form.terms}
    assert kinds - SYMBOLS.keys() == {"start"}
    assert len(kinds) > 10


@given(st.floats(min_value=1e-6, max_value=1e6), st.floats(min_value=1.001, max_value=1e5))
def test_an_axis_has_round_numbers_on_it(low: float, ratio: float) -> None:
    marks = round_numbers(low, low * ratio)
    assert len(marks) > 1
    assert all(low <= mark <= low * ratio for mark in marks)


def elsewhere(models: Sequence[Model], device: str, **subject: str) -> list[Model]:
    """The same models of another device."""
    return [replace(m, device=device, subject=m.subject | {"device": device} | subject) for m in models]


def test_devices_with_one_language_model_are_mapped(section: Section) -> None:
    both = [*section.models, *elsewhere(section.models, "other")]
    with style():
        (space,) = spaces(both)
    assert space.title == "llama-100m/q8_0"
    assert [note.partition(",")[0] for note in space.notes] == ["orin: wall.power", "other: wall.power"]
    titles = ("Least latency", "Least energy", "Least energy-delay product", "What takes most of the time, measured")
    for picture, title in zip(space.pictures, titles, strict=False):
        assert f"<!-- {title} -->" in base64.b64decode(picture.uri.partition(",")[2]).decode()


def test_devices_that_cannot_be_compared_say_why(timed: Section) -> None:
    with style():
        same, other = spaces([*timed.models, *elsewhere(timed.models, "a"), *elsewhere(timed.models, "b", model="m")])
    assert [note.partition(":")[0] for note in same.notes] == ["Only latency is compared"]
    assert (other.title, other.notes, len(other.pictures)) == ("m", [], 1)
