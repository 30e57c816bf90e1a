"""The lab file: what it may say, and that each mistake in it is named where it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from joulelab.errors import HardwareMissing, UserError
from joulelab.lab import Lab, LabError, Strict, find_lab, load_lab
from joulelab.lab.schema import schema
from joulelab.options import Celsius, LabPath, Seconds, Watts
from joulelab.quantities import UNITS, Scope
from joulelab.registry import drivers, load_driver


class Meter:
    """A bench meter of these tests."""

    bench_meter = True

    class Options(Strict):
        resource: str
        interval: Seconds = Field(0.1, gt=0)


class Probe:
    class Options(Strict):
        ceiling: Celsius | None = None


class RandomModel(Strict):
    random: str
    seed: int = 1


class Engine:
    class Options(Strict):
        model: RandomModel | LabPath
        threads: int = 1


class Simulated:
    class Options(Strict):
        profile: Literal["edge-box", "handset"]


class Sweep:
    class Options(Strict):
        prompt: list[int]
        idle: Seconds = 5.0


ENTRY_POINTS = f"""
[joulelab.instruments]
test-meter = {__name__}:Meter
test-probe = {__name__}:Probe
test-broken = a_library_that_is_not_there:Driver
[joulelab.engines]
test-engine = {__name__}:Engine
[joulelab.devices]
test-device = {__name__}:Simulated
[joulelab.protocols]
test-sweep = {__name__}:Sweep
"""

LAB = """\
version: 1
instruments:
  wall:
    driver: test-meter
    resource: TCPIP0::192.0.2.10::INSTR
    interval: 20 ms
    scope: wall
    feeds: [host, box]
    upstream_of: [probe]
    calibrated: 2026-03-02
    serial: C3WA01001E
  probe: {driver: test-probe, feeds: [host], ceiling: 55 degC}
devices:
  host:
    engine: {driver: test-engine, model: {random: small}, threads: 2}
    power: [wall.power, probe]
  box: {driver: test-device, profile: edge-box}
protocols:
  test-sweep: {prompt: [16, 64], idle: 1 min}
runs: elsewhere/
"""


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site")
    metadata = site / "bench_of_tests-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-of-tests\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        drivers.cache_clear()
        yield
    drivers.cache_clear()


def read(folder: Path, text: str) -> Lab:
    path = folder / "lab.yaml"
    path.write_text(text)
    return load_lab(path)


def errors_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(LabError) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_lab_is_read(tmp_path: Path) -> None:
    lab = read(tmp_path, LAB)
    wall, host = lab.instruments["wall"], lab.devices["host"]
    assert wall.options == Meter.Options(resource="TCPIP0::192.0.2.10::INSTR", interval=0.02)
    assert (wall.scope, wall.feeds, wall.upstream_of, wall.serial) == (
        Scope.WALL,
        ("host", "box"),
        ("probe",),
        "C3WA01001E",
    )
    assert wall.calibrated == date(2026, 3, 2)
    assert lab.instruments["probe"].options == Probe.Options(ceiling=55.0)
    assert (host.group, host.driver, host.power) == ("joulelab.engines", "test-engine", ("wall.power", "probe"))
    assert host.options == Engine.Options(model=RandomModel(random="small"), threads=2)
    assert (lab.devices["box"].group, lab.devices["box"].power) == ("joulelab.devices", None)
    assert lab.protocols["test-sweep"] == Sweep.Options(prompt=[16, 64], idle=60.0)


def test_paths_stand_beside_the_lab_file(tmp_path: Path) -> None:
    lab = read(tmp_path, LAB.replace("{random: small}", "tiny.gguf"))
    assert lab.runs == tmp_path / "elsewhere"
    assert lab.certificates == tmp_path / "certificates"
    assert lab.devices["host"].options == Engine.Options(model=tmp_path / "tiny.gguf", threads=2)


def test_the_smallest_lab(tmp_path: Path) -> None:
    assert read(tmp_path, "version: 1").devices == {}


def test_options_survive_json(tmp_path: Path) -> None:
    for stanza in read(tmp_path, LAB).instruments.values():
        options = load_driver("joulelab.instruments", stanza.driver).Options
        assert options.model_validate_json(stanza.options.model_dump_json()) == stanza.options
        assert options.model_validate(stanza.model_dump(mode="json")["options"]) == stanza.options


MISTAKES = """
threads: 2 -> thread: 2
    15:59: devices.host.engine.thread: unknown key; did you mean 'threads'?
threads: 2 -> threads: two
    15:68: devices.host.engine.threads: expected a whole number, not 'two'
threads: 2 -> threads: 2, threads: 3
    15:71: devices.host.engine.threads: given twice, first in line 15
threads: 2 -> threads:
    15:67: devices.host.engine.threads: has no value; give it one or leave it out
threads: 2 -> scope: wall
    15:59: devices.host.engine.scope: unknown key; expected one of driver, model, threads
{random: small} -> {rndom: small}
    15:43: devices.host.engine.model.rndom: unknown key; did you mean 'random'?
{random: small} -> []
    15:42: devices.host.engine.model: expected a mapping or a path, not a list
model: {random: small}, ->
    15:13: devices.host.engine.model: missing
engine: { -> engin: {
    15:5: devices.host: expected one of 'engine: {driver: ...}' and 'driver: simulated'
power: [ -> powr: [
    16:5: devices.host.powr: unknown key; did you mean 'power'?
wall.power -> wal.power
    16:13: devices.host.power[0]: no instrument is called 'wal'; did you mean 'wall'?
edge-box -> edge-bx
    17:39: devices.box.profile: expected 'edge-box' or 'handset', not 'edge-bx'; did you mean 'edge-box'?
test-device -> test-devise
    17:17: devices.box.driver: no device driver is called 'test-devise'; did you mean 'test-device'?
driver: test-meter -> driver: [test-meter]
    4:13: instruments.wall.driver: names no driver
20 ms -> 20
    6:15: instruments.wall.interval: '20' is not a quantity with a unit
20 ms -> 20 mW
    6:15: instruments.wall.interval: 'mW' is not a unit of s; expected one of ns, us, ms, s, min, h
20 ms -> 0 ms
    6:15: instruments.wall.interval: expected a value greater than 0, not '0 ms'
scope: wall -> scope: wal
    7:12: instruments.wall.scope: expected 'wall', 'input'
scope: wall -> serial: 1
    4:5: instruments.wall.scope: missing: the scope of a bench meter is a fact of its wiring; expected one of battery,
ceiling: -> scope: rail, ceiling:
    12:46: instruments.probe.scope: unknown key: this driver knows the scope of its channels
[host, box] -> [host, bx]
    8:19: instruments.wall.feeds[1]: no device is called 'bx'; did you mean 'box'?
[host, box] -> host
    8:12: instruments.wall.feeds: expected a list, not 'host'
[probe] -> [prob]
    9:19: instruments.wall.upstream_of[0]: no instrument is called 'prob'; did you mean 'probe'?
2026-03-02 -> 2026-13-02
    10:17: instruments.wall.calibrated: expected a date like 2026-03-02, not '2026-13-02'
serial: C3WA01001E -> serial: [1]
    11:13: instruments.wall.serial: expected text, not a list
box: {driver -> Box: {driver
    17:3: devices.Box: a name has up to 40 of a-z, 0-9, '-' and '_', a letter or digit first: files are called after it
test-sweep -> test-swep
    19:3: protocols.test-swep: no protocol is called 'test-swep'; did you mean 'test-sweep'?
[16, 64] -> [16, many]
    19:29: protocols.test-sweep.prompt[1]: expected a whole number, not 'many'
{prompt: [16, 64], idle: 1 min} -> often
    19:15: protocols.test-sweep: expected a mapping
runs: -> run:
    20:1: run: unknown key; did you mean 'runs'?
version: 1 -> version: 2
    1:10: version: expected 1, not '2'
version: 1 ->
    2:1: version: missing
"""


@pytest.mark.parametrize("mistake", re.findall(r"(.+) ->(.*)\n    (.+)", MISTAKES), ids=lambda m: m[0] + m[1])
def test_each_mistake_is_named_where_it_stands(tmp_path: Path, mistake: tuple[str, str, str]) -> None:
    old, new, expected = mistake
    assert old in LAB
    errors = errors_of(tmp_path, LAB.replace(old, new.removeprefix(" "), 1))
    assert any(error.startswith(f"lab.yaml:{expected}") for error in errors), errors


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[wall.power, probe]", "wall"),
        ("{driver: test-engine, model: {random: small}, threads: 2}", "fast"),
        ("driver: test-engine", "driver: test-engin"),
        ("20 ms", "20"),
        ("55 degC", "55"),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    assert len(errors_of(tmp_path, LAB.replace(old, new, 1))) == 1


def test_all_the_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = LAB.replace("20 ms", "20").replace("threads: 2", "thread: 2").replace("runs:", "run:")
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(LabError) as caught:
        load_lab(path)
    assert [e["path"] for e in caught.value.errors] == [
        "instruments.wall.interval",
        "devices.host.engine.thread",
        "run",
    ]
    assert caught.value.errors[2] == {
        "file": str(path),
        "line": 20,
        "column": 1,
        "path": "run",
        "message": "unknown key; did you mean 'runs'?",
    }
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "holds no mapping"),
        (b"- version", "holds no mapping"),
        (b"version: [1", ":1:12: not YAML: expected ',' or ']'"),
        (b"version: 1\n---\nversion: 1", ":2:1: not YAML: but found another document"),
        (b"version: \xff", "is not UTF-8 text"),
        (b"version: \x00", "not YAML: unacceptable character"),
        (b'version: "\\UFFFFFFFF"', "not YAML"),
        (b'version: "\\ud800"', ":1:10: version: holds a control character"),
        (b"version: &one 1", ":1:10: an anchor (&) is not read here"),
        (b"<<: *one", ":1:5: an alias (*) is not read here"),
        (b"version: !!int 1", ":1:10: a tag (!) is not read here"),
        (b"version: " + 5000 * b"[", ":1:29: nested deeper than 20"),
        (b"version: 1\n? [a]\n: 1", ":2:3: expected a plain word as key"),
        (b"version: 1\n'a\\n': 1", "unknown key"),
        (b"version: 1\ndevices: []", ":2:10: devices: expected a mapping"),
    ],
)
def test_what_is_no_lab_file_is_one_line(tmp_path: Path, text: bytes, error: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(text)
    with pytest.raises(LabError, match=re.escape(error)) as caught:
        load_lab(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_lab(tmp_path / "nowhere.yaml")
    with pytest.raises(LabError, match="cannot be read: Is a directory"):
        load_lab(tmp_path)


def loads_or_says_why(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
    try:
        load_lab(path)
    except LabError as error:
        said = error
    else:
        return
    assert len(str(said).split("\n")) == len(said.errors)
    assert str(said).encode()


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_loads_or_says_why(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    loads_or_says_why(tmp_path_factory.getbasetemp() / "any.yaml", text)


SNIPPETS = [
    "\n",
    " ",
    "  ",
    ":",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "#",
    "|",
    "? ",
    "&a ",
    "*a",
    "!",
    "~",
    "%YAML",
]
SNIPPETS += ["\\", "\t", "\r", "\x85", "\ufeff", "host", "driver", "wall", "power", "1e999 s", "nan", "0", "\\x07"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(LAB)), st.integers(0, 30), st.sampled_from(SNIPPETS)), max_size=4))
def test_any_damaged_lab_loads_or_says_why(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int, str]]
) -> None:
    text = LAB
    for start, cut, snippet in damage:
        text = text[:start] + snippet + text[start + cut :]
    loads_or_says_why(tmp_path_factory.getbasetemp() / "damaged.yaml", text)


def test_the_lab_is_found_here_or_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    with pytest.raises(UserError, match="--lab"):
        find_lab(None)
    (tmp_path / "lab.yaml").touch()
    assert find_lab(None) == tmp_path / "lab.yaml"
    (inner / "lab.yaml").touch()
    assert find_lab(None) == Path("lab.yaml")
    assert find_lab(Path("other.yaml")) == Path("other.yaml")


def test_a_driver_without_its_library_is_missing_hardware() -> None:
    with pytest.raises(HardwareMissing, match="'test-broken' cannot be loaded: No module named 'a_library"):
        load_driver("joulelab.instruments", "test-broken")


class Quantities(BaseModel):
    time: Seconds = 0.0
    power: Watts = 0.0


@settings(deadline=None)
@given(st.floats(0, 1e9), st.sampled_from([u for u in UNITS if UNITS[u][0] == "s"]))
def test_a_quantity_is_read_in_si_and_survives_json(number: float, unit: str) -> None:
    read = Quantities.model_validate({"time": f"{number!r} {unit}"})
    assert read.time == number * UNITS[unit][1]
    assert Quantities.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize("text", ["5", "5 s", "W", "", "1e400 W", "nan W", "5 W 5", "5 watts"])
def test_a_power_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"write it like '5 W'|finite"):
        Quantities.model_validate({"power": text})


def resolve(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = root["$defs"][node["$ref"].rpartition("/")[2]]
    return found


def test_the_schema_knows_every_drivers_options() -> None:
    root = schema()
    found = [resolve(one, root) for one in root["properties"]["instruments"]["additionalProperties"]["oneOf"]]
    stanzas = {stanza["properties"]["driver"]["const"]: stanza for stanza in found}
    meter, probe = stanzas["test-meter"], stanzas["test-probe"]
    assert set(meter["required"]) == {"driver", "scope", "resource"}
    assert "scope" not in probe["properties"]
    assert meter["additionalProperties"] is False
    assert meter["description"] == "A bench meter of these tests."
    interval = meter["properties"]["interval"]
    assert interval["type"] == "string"
    assert "default" not in interval
    assert re.search(interval["pattern"], "20 ms")
    assert not re.search(interval["pattern"], "20")


def test_the_schema_names_devices_and_protocols() -> None:
    root = schema()
    with_engine, *simulated = root["properties"]["devices"]["additionalProperties"]["oneOf"]
    engines = [resolve(one, root) for one in with_engine["properties"]["engine"]["oneOf"]]
    assert "test-engine" in [engine["properties"]["driver"]["const"] for engine in engines]
    assert "test-device" in [resolve(one, root)["properties"]["driver"]["const"] for one in simulated]
    assert "test-sweep" in root["properties"]["protocols"]["properties"]
    assert root["properties"].keys() == Lab.model_fields.keys()


def test_reading_a_lab_loads_no_science() -> None:
    heavy = {"numpy", "pandas", "pyarrow", "scipy", "statsmodels", "matplotlib", "httpx", "pynvml"}
    code = f"import sys, joulelab.lab; print(sorted({heavy!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"


CONNECTED = LAB.replace(
    "  box: {", "  orin: {connect: 'ssh://lab@orin-01', driver: test-device, profile: edge-box}\n  box: {"
)


def with_probe(text: str) -> str:
    return CONNECTED.replace("  probe: {driver: test-probe, feeds: [host]", f"  probe: {{driver: test-probe, {text}")


@pytest.mark.parametrize(
    "wiring",
    [
        "via: orin, wire: off",
        "via: 'ssh://root@10.0.0.2:2222'",
        "via: 'adb://192.0.2.7:5555'",
    ],
)
def test_an_instrument_is_read_on_another_machine(tmp_path: Path, wiring: str) -> None:
    probe = read(tmp_path, with_probe(wiring)).instruments["probe"]
    assert probe.via == re.findall(r"via: '?([^',]+)", wiring)[0]
    assert probe.wire is (False if "wire" in wiring else None)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("feeds: [host], ceiling", "via: orni, ceiling", "12:36: instruments.probe.via: no device is called 'orni'"),
        ("feeds: [host], ceiling", "via: box, ceiling", "12:36: instruments.probe.via: devices.box has no 'connect'"),
        ("feeds: [host], ceiling", "via: 'scp://x', ceiling", "12:36: instruments.probe.via: 'scp://x' names no conn"),
        ("feeds: [host], ceiling", "wire: maybe, ceiling", "12:37: instruments.probe.wire: expected true or false"),
        ("ssh://lab@orin-01", "ssh://lab@", "17:19: devices.orin.connect: "),
        ("ssh://lab@orin-01", "orin-01", "17:19: devices.orin.connect: 'orin-01' names no connection; expected ssh:"),
        ("2026-03-02", "2199-01-01", "10:17: instruments.wall.calibrated: 2199-01-01 is in the future"),
        ("[probe]", "[wall]", "9:19: instruments.wall.upstream_of[0]: wall is upstream of itself"),
        ("[host], ceiling", "[host], upstream_of: [wall], ceiling", "12:60: instruments.probe.upstream_of[0]: wall is"),
        ("feeds: [host, box]", "feeds: [box]", "16:13: devices.host.power[0]: wall.power feeds box, not host"),
    ],
)
def test_wiring_that_cannot_be_is_named(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert old in CONNECTED
    errors = errors_of(tmp_path, CONNECTED.replace(old, new, 1))
    assert any(line.startswith(f"lab.yaml:{error}") for line in errors), errors


TWO_METERS = CONNECTED.replace(
    "  probe:", "  dc:\n    driver: test-meter\n    resource: TCPIP0::192.0.2.11::INSTR\n    scope: input\n  probe:"
)


def test_two_meters_are_two(tmp_path: Path) -> None:
    assert read(tmp_path, TWO_METERS).instruments["dc"].scope == "input"
    (error,) = errors_of(tmp_path, TWO_METERS.replace("192.0.2.11", "192.0.2.10"))
    assert "instruments.dc.resource: is that of instruments.wall, too: they would be the same meter" in error


def test_a_narrow_meter_is_not_upstream_of_a_wide_one(tmp_path: Path) -> None:
    text = TWO_METERS.replace("    scope: input", "    scope: input\n    upstream_of: [wall]").replace("[probe]", "[]")
    (error,) = errors_of(tmp_path, text)
    assert "a meter of scope input cannot be upstream of wall, whose scope wall is wider" in error
