"""The lab file: what is on the bench, read strictly, and the registered drivers that it may name."""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SerializeAsAny

from joulelab.errors import UserError
from joulelab.lab.tree import LabError, Loc, Tree
from joulelab.lab.validation import validate
from joulelab.lab.wiring import check_wiring
from joulelab.options import LabPath, Peak, Seconds
from joulelab.quantities import Scope
from joulelab.registry import DEVICES, ENGINES, INSTRUMENTS, PROTOCOLS, drivers, load_driver, nearest

__all__ = ["DeviceStanza", "InstrumentStanza", "Lab", "LabError", "find_lab", "load_lab"]

NAME = "[a-z0-9][a-z0-9_-]{0,39}"
"""What an instrument or a device may be called: it becomes the name of files and folders on any system."""

_REFERENCES: dict[tuple[str | int, str | int], str] = {
    ("instruments", "feeds"): "devices",
    ("instruments", "upstream_of"): "instruments",
    ("instruments", "via"): "devices",
    ("devices", "power"): "instruments",
}
"""Which section the name or names of a key belong to."""


def _connection(url: str) -> str:
    if not re.fullmatch(r"ssh://([^/\s@]+@)?[^/\s@]+|adb://[^/\s]+", url):
        raise ValueError(f"{url!r} names no connection; expected ssh://[user@]host[:port] or adb://serial")
    return url


def _via(way: str) -> str:
    return _connection(way) if "://" in way else way


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DriverKeys(Strict):
    driver: str


class InstrumentKeys(DriverKeys):
    """What every instrument may say beside its driver's own options.

    `feeds`: the devices behind it; `via`: the device that reads it, over that device's connection, or a connection;
    `wire`: whether its traffic is recorded, otherwise the driver decides.
    """

    feeds: tuple[str, ...] = ()
    upstream_of: tuple[str, ...] = ()
    via: Annotated[str, AfterValidator(_via)] | None = None
    serial: str | None = None
    calibrated: date | None = None
    wire: bool | None = None


class InstrumentStanza(InstrumentKeys):
    """An instrument; `options` is an instance of its driver's `Options`. Only a bench meter has a `scope` here."""

    scope: Scope | None = None
    options: SerializeAsAny[BaseModel]


class DeviceKeys(Strict):
    """What every device may say.

    `connect`: the way to a machine other than this one; `power`: "instrument.channel" or "instrument", widest scope
    first; None: all; `peak`: what its data sheet promises; `settle`: how long its power takes to come to rest after an
    inference, which the next one then waits for.
    """

    connect: Annotated[str, AfterValidator(_connection)] | None = None
    power: tuple[str, ...] | None = None
    peak: Peak | None = None
    settle: Annotated[Seconds, Ge(0)] = 0.0


class EngineDeviceKeys(DeviceKeys):
    """A device that an engine drives, as the lab file has it."""

    engine: dict[str, Any]


class DeviceStanza(DeviceKeys):
    """A device; `options` is an instance of the `Options` of its driver, which is an entry point of `group`."""

    group: str
    driver: str
    options: SerializeAsAny[BaseModel]


class Lab(Strict):
    """A whole lab file. `protocols` has the options of each protocol that it sets up; the paths are absolute."""

    model_config = ConfigDict(validate_default=True)

    version: Annotated[Literal[1], BeforeValidator(lambda text: 1 if text == "1" else text)]
    instruments: dict[str, InstrumentStanza] = {}
    devices: dict[str, DeviceStanza] = {}
    protocols: dict[str, SerializeAsAny[BaseModel]] = {}
    certificates: LabPath = Path("certificates")
    runs: LabPath = Path("runs")


def find_lab(explicit: Path | None) -> Path:
    """The lab file that was named, else `lab.yaml` in this folder or in its nearest parent that has one."""
    if explicit is not None:
        return explicit
    for folder in (Path(), *Path.cwd().parents):
        if (folder / "lab.yaml").is_file():
            return folder / "lab.yaml"
    raise UserError("no lab.yaml in this folder or above it: change to the bench's folder, or name the file with --lab")


def load_lab(path: Path) -> Lab:
    """Read a lab file; LabError with everything that is wrong in it."""
    tree = Tree(path)
    parts = {
        "instruments": _section(tree, "instruments", _instrument),
        "devices": _section(tree, "devices", _device),
        "protocols": _section(tree, "protocols", _protocol),
    }
    _check_references(tree)
    check_wiring(tree, parts["instruments"], parts["devices"])
    return tree.finish(validate(tree, Lab, {**tree.data, **parts}, ()))


def _section(tree: Tree, section: str, read: Callable[[Tree, Loc, Any], Any]) -> dict[str, BaseModel]:
    parts = {}
    for name, data in (tree.mapping((section,), tree.data.get(section, {})) or {}).items():
        stanza = tree.mapping((section, name), data)
        part = None if stanza is None else read(tree, (section, name), stanza)
        if part is not None:
            parts[name] = part
    return parts


def _instrument(tree: Tree, loc: Loc, stanza: dict[str, Any]) -> InstrumentStanza | None:
    _check_name(tree, loc)
    common = InstrumentStanza.model_fields.keys() - {"options"}
    shared = {key: value for key, value in stanza.items() if key in common}
    driver = _driver(tree, INSTRUMENTS, loc, stanza)
    _check_scope(tree, loc, stanza, driver)
    return validate(tree, InstrumentStanza, {**shared, "options": _options(tree, driver, loc, stanza, common)}, loc)


def _device(tree: Tree, loc: Loc, stanza: dict[str, Any]) -> DeviceStanza | None:
    _check_name(tree, loc)
    if ("engine" in stanza) == ("driver" in stanza):
        tree.error(loc, "expected one of 'engine: {driver: ...}' and 'driver: simulated'")
        return None
    part: Any = stanza
    group, at, common = DEVICES, loc, {"driver", *DeviceKeys.model_fields}
    if "engine" in stanza:
        validate(tree, EngineDeviceKeys, stanza, loc)
        group, at, part, common = ENGINES, (*loc, "engine"), stanza["engine"], {"driver"}
    if not isinstance(part, dict):
        return None
    options = _options(tree, _driver(tree, group, at, part), at, part, common)
    named = {key: stanza[key] for key in DeviceKeys.model_fields.keys() & stanza.keys()}
    mine = {"group": group, "driver": str(part.get("driver")), "options": options}
    return validate(tree, DeviceStanza, named | mine, loc)


def _protocol(tree: Tree, loc: Loc, stanza: dict[str, Any]) -> BaseModel | None:
    try:
        protocol = load_driver(PROTOCOLS, str(loc[-1]))
    except UserError as error:
        tree.error(loc, str(error), at_key=True)
        return None
    return validate(tree, protocol.Options, stanza, loc)


def _driver(tree: Tree, group: str, loc: Loc, stanza: dict[str, Any]) -> type[Any] | None:
    name = stanza.get("driver")
    try:
        if isinstance(name, str):
            return load_driver(group, name)
        tree.error((*loc, "driver"), f"names no driver{nearest('', drivers(group))}")
    except UserError as error:
        tree.error((*loc, "driver"), str(error))
    return None


def _options(tree: Tree, driver: type[Any] | None, loc: Loc, stanza: dict[str, Any], common: Set[str]) -> BaseModel:
    """The driver's own keys; where they are wrong a stand-in, so that the other keys are checked as well."""
    if driver is None:
        return Strict()
    own = {key: value for key, value in stanza.items() if key not in common}
    options: BaseModel | None = validate(tree, driver.Options, own, loc, common)
    return options or Strict()


def _check_name(tree: Tree, loc: Loc) -> None:
    if not re.fullmatch(NAME, str(loc[-1])):
        rule = "a name has up to 40 of a-z, 0-9, '-' and '_', a letter or digit first: files are called after it"
        tree.error(loc, rule, at_key=True)


def _check_scope(tree: Tree, loc: Loc, stanza: dict[str, Any], driver: type[Any] | None) -> None:
    at = (*loc, "scope")
    if driver is None:
        return
    is_bench_meter = getattr(driver, "bench_meter", False)
    if is_bench_meter and "scope" not in stanza:
        tree.error(at, f"missing: the scope of a bench meter is a fact of its wiring{nearest('', Scope)}")
    if not is_bench_meter and "scope" in stanza:
        tree.error(at, "unknown key: this driver knows the scope of its channels", at_key=True)


def _check_references(tree: Tree) -> None:
    """Every name that a stanza refers to is that of another one, whether that can be read or not."""
    for loc, text in tree.texts():
        section = _REFERENCES.get((loc[0], loc[2])) if len(loc) in {3, 4} else None
        name = text.partition(".")[0] if loc[2:3] == ("power",) else text
        if loc[2:3] == ("via",) and "://" in text:
            continue
        if section and name not in (known := tree.names(section)):
            tree.error(loc, f"no {section[:-1]} is called {name!r}{nearest(name, known)}")
