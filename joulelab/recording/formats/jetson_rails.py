"""The power rails of Jetson modules: which one is the input, which are parts of which, and what may be added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from joulelab.errors import UserError
from joulelab.quantities import Scope


class Sense(NamedTuple):
    """The resistor over which a rail's current is measured [ohm], and the rail's nominal voltage [V]."""

    shunt_ohm: float
    volts: float


class Module(NamedTuple):
    """A kind of module. Rails are known by their exact names: VDD_CPU_GPU_CV is no CPU's.

    `fed_by` names for each rail the one whose reading contains it, empty where none does. `models` are words of the
    device tree's model that only this module has. `inputs` are the rails through which all of the module's power
    comes; there may be none.
    """

    name: str
    models: tuple[str, ...]
    inputs: tuple[str, ...]
    fed_by: dict[str, str]
    sense: dict[str, Sense] = {}  # noqa: RUF012 never changed


def _parts(feed: str, *rails: str) -> dict[str, str]:
    return dict.fromkeys(rails, feed)


def _sensed(milliohm: float, volts: float, *rails: str) -> dict[str, Sense]:
    return dict.fromkeys(rails, Sense(milliohm * 1e-3, volts))


_ORIN = _parts("", "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0") | _parts("VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
_NX = _parts("", "VDD_IN") | _parts("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
_ORIN_SENSE = _sensed(2, 20, "VDD_GPU_SOC", "VDD_CPU_CV") | _sensed(2, 5, "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
_NX_SENSE = _sensed(5, 5, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
_CARRIER = _parts("", "VDD_MUX") | _parts("VDD_MUX", "VDD_IN", "VDD_3V3_SYS", "VDD_3V3_IO_SLP", "VDD_1V8_IO")

MODULES = (
    Module(
        "TX1",
        ("jetson_tx1", "Jetson TX1"),
        ("VDD_IN",),
        _CARRIER | _parts("VDD_MUX", "VDD_5V_IO_SYS", "VDD_M2_IN") | _parts("VDD_IN", "VDD_CPU", "VDD_GPU"),
    ),
    Module(
        "TX2",
        ("quill", "Jetson TX2"),
        ("VDD_IN",),
        _CARRIER
        | _parts("VDD_MUX", "VDD_5V0_IO_SYS", "VDD_3V3_SYS_M2")
        | _parts("VDD_IN", "VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_SYS_CPU", "VDD_SYS_DDR")
        | _parts("VDD_IN", "VDD_GPU", "VDD_SOC", "VDD_WIFI", "VDD_CPU", "VDD_DDR"),
    ),
    Module(
        "Nano",
        ("Jetson Nano", "jetson-nano"),
        ("POM_5V_IN",),
        _parts("", "POM_5V_IN") | _parts("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"),
        _sensed(5, 5, "POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"),
    ),
    Module("Xavier NX", ("Xavier NX",), ("VDD_IN",), _NX, _NX_SENSE),
    Module(
        "AGX Xavier",
        ("AGX Xavier", "Jetson-AGX"),
        (),
        _parts("", "GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        _sensed(5, 20, "GPU", "CPU", "SOC", "CV", "VDDRQ") | _sensed(5, 5, "SYS5V"),
    ),
    Module("Orin NX or Orin Nano", ("Orin NX", "Orin Nano"), ("VDD_IN",), _NX, _NX_SENSE),
    Module("AGX Orin", ("AGX Orin",), (), _ORIN, _ORIN_SENSE),
    Module(
        "IGX Orin",
        ("IGX Orin",),
        (),
        _ORIN | _parts("", "CVB_ATX_12V", "CVB_ATX_3V3", "CVB_ATX_5V"),
        _ORIN_SENSE,
    ),
    Module(
        "Thor",
        ("Thor",),
        ("VIN",),
        _parts("", "VIN") | _parts("VIN", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    ),
)
"""Rails and feeds: NVIDIA's Jetson Linux developer guides, "Power Monitor"; AGX Xavier's feeds and shunts: its design
guide DG-09840, 5.6.2; shunts of Orin: the kernel's tegra234-p3701 and -p3767; those of Nano and Xavier NX follow from
the 40 mW steps of their 5 V readings. On AGX Xavier and AGX Orin some power passes no monitor, so that no rail and no
sum is the total; SYS5V and VIN_SYS_5V0 are only what comes in at 5 V. IGX Orin's CVB rails lie on the carrier board.
So does Thor's VIN, which includes what that board draws.
"""
UNKNOWN = Module("unknown Jetson", (), (), {})


def identify(model: str, rails: Iterable[str]) -> Module:
    """The module of a board, by its device tree's model or, where that tells nothing, by the rails that it has."""
    for module in MODULES:
        if any(word in model for word in module.models):
            return module
    found = set(rails)
    fitting = [module for module in MODULES if found and found <= set(module.fed_by)]
    if not fitting:
        return UNKNOWN
    return fitting[0]._replace(name=" or ".join(module.name for module in fitting))


def scope(module: Module, rail: str) -> Scope:
    """What a rail includes; a rail that is in no list is a part."""
    return Scope.INPUT if rail in module.inputs else Scope.RAIL


def unknown(module: Module, rails: Iterable[str]) -> list[str]:
    """The rails of which it is not known what they feed."""
    return [rail for rail in rails if rail not in module.fed_by]


def check_addable(module: Module, there: Sequence[str], rails: Sequence[str]) -> None:
    """UserError where a rail is not `there`, or where the readings of two would count some power twice, or might."""
    if missing := [rail for rail in rails if rail not in there]:
        raise UserError(f"{module.name} has no rail {missing[0]} to add up; it has {', '.join(there)}")
    for rail in unknown(module, rails):
        raise UserError(f"{rail} of {module.name}: not known which rails it feeds, so it cannot be added to others")
    for one, other in combinations(rails, 2):
        if one == other or one in _feeds(module, other) or other in _feeds(module, one):
            raise UserError(f"{one} and {other} of {module.name} overlap: their sum would count power twice")


def _feeds(module: Module, rail: str) -> list[str]:
    """The rails upstream of one, nearest first."""
    feed = module.fed_by[rail]
    return [feed, *_feeds(module, feed)] if feed else []
