"""What devices cost that are compared: a time and an energy model each, of one language model, by one scope."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from joulelab.analysis.dataset import SUBJECT, name_of
from joulelab.analysis.modelling.models import Model
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid
from joulelab.quantities import Scope

Objective = Literal["latency", "energy", "power", "edp", "energy-capped"]
OBJECTIVES: dict[Objective, str] = {
    "latency": "s",
    "energy": "J",
    "power": "W",
    "edp": "Js",
    "energy-capped": "J",
}
"""What may be minimised, and its unit: `power` is the average over an inference, `edp` the energy-delay product, and
`energy-capped` the energy of those that keep to a latency.
"""
Idle = Literal["sleep", "awake"]
"""Whether the devices that do not work draw nothing, or their idle power."""
_WIDEST_FIRST = [*Scope]


@dataclass(frozen=True)
class DeviceCosts:
    """A device with its models of one language model. `idle_w` is None where nothing measured it."""

    device: str
    time: Model
    energy: Model | None
    idle_w: float | None
    kv_bytes_per_token: float | None

    def seconds(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        """The time [s] of inferences; broadcasts."""
        return self.time.predict(history, prompt, output)

    def joules(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        """The energy [J] of inferences at the meter's scope; broadcasts. DataInvalid where there is no energy model."""
        if self.energy is None:
            raise DataInvalid(f"{self.device} has no energy model")
        return self.energy.predict(history, prompt, output)

    def moving_seconds(self, tokens: ArrayLike) -> Floats:
        """The time [s] that a device itself takes to move a cache of so many tokens, out of the engine and back in.

        That of the receiver stands for both ends: the sender's half and the receiver's. What was measured of other
        lengths is extrapolated; 0 where nothing was measured.
        """
        return _moving(self.time, tokens)

    def moving_joules(self, tokens: ArrayLike) -> Floats:
        """The energy [J] of that, at the meter's scope."""
        return _moving(self.energy, tokens)

    @property
    def loading_s(self) -> float | None:
        """The time [s] that it takes to load the language model; None where nothing measured it."""
        return float(self.time.predict(0, 0, 0, "load")[0]) if knows(self.time, "load") else None

    @property
    def models(self) -> list[Model]:
        return [model for model in (self.time, self.energy) if model]


def knows(model: Model | None, phase: str) -> bool:
    """Whether a phase was measured that is no part of an inference."""
    return model is not None and any(part.phase == phase for part in model.phases)


def _moving(model: Model | None, tokens: ArrayLike) -> Floats:
    if model is None or not knows(model, "transfer"):
        return np.zeros(np.shape(tokens))
    return np.maximum(model.predict(tokens, 0, 0, "transfer"), 0.0)


def device_costs(
    models: Sequence[Model], channel: str | None = None, *, language_model: str | None = None, energy: bool = True
) -> list[DeviceCosts]:
    """The costs of the devices that `models` are of, in their order.

    Each device's energy is that of the widest scope, or of `channel`, which may be the instrument's name alone. Of
    several language models `language_model` names one; devices without it are left out, and models of several sequences
    at once. DataInvalid, in one line, where the devices cannot be compared: nothing in common, two sessions of one
    device, energies missing or of mixed scope.
    """
    models = [model for model in models if model.subject["batch"] in {None, 1}]
    common = _common(models, language_model)
    chosen = [model for model in models if _what(model) == common]
    found = [_costs(name, own, channel, energy) for name, own in _by_device(chosen).items()]
    scopes = {costs.device: costs.energy.scope for costs in found if costs.energy}
    if len(set(scopes.values())) > 1:
        said = ", ".join(f"{device}'s is {scope}" for device, scope in scopes.items())
        raise DataInvalid(f"energies of mixed scope say nothing about which device is better: {said}; see --channel")
    return found


def cost(objective: Objective, seconds: Floats, joules: Floats | None, cap_s: float = math.inf) -> Floats:
    """What is minimised, of inferences that take `seconds` and `joules`; infinite where they take over `cap_s`."""
    if objective == "latency":
        return seconds
    assert joules is not None
    if objective == "power":
        return np.asarray(joules / seconds)
    if objective == "edp":
        return np.asarray(joules * seconds)
    return np.where(seconds <= cap_s, joules, np.inf) if objective == "energy-capped" else joules


def others_w(costs: Sequence[DeviceCosts], idle: Idle) -> list[float]:
    """What the other devices draw [W] while one works, in the order of `costs`. DataInvalid where that is unknown."""
    if idle == "sleep":
        return [0.0] * len(costs)
    watts = []
    for each in costs:
        if each.idle_w is None:
            raise DataInvalid(f"nothing measured the idle power of {each.device}: --idle sleep leaves it out")
        watts.append(each.idle_w)
    return [sum(watts) - own for own in watts]


def _what(model: Model) -> tuple[Any, Any]:
    return model.subject["model"], model.subject["quant"]


def _common(models: Sequence[Model], language_model: str | None) -> tuple[Any, Any]:
    """The (model, quant) that all devices have in common, or that of a name."""
    if not models:
        raise DataInvalid("there are no models of single sequences: 'joulelab fit' says why")
    if language_model:
        named = {what: None for what in map(_what, models) if language_model in {what[0], _named(what)}}
        return _single(named, f"no device has a model of {language_model}; there are {_listed(map(_what, models))}")
    own: dict[str, set[tuple[Any, Any]]] = {}
    for model in models:
        own.setdefault(model.subject["device"], set()).add(_what(model))
    said = "; ".join(f"{device} runs {_listed(its)}" for device, its in own.items())
    return _single(dict.fromkeys(set.intersection(*own.values())), f"the devices have no model in common: {said}")


def _single(found: Iterable[tuple[Any, Any]], none: str) -> tuple[Any, Any]:
    several = list(found)
    if not several:
        raise DataInvalid(none)
    if len(several) > 1:
        raise DataInvalid(f"which language model? --model takes one of {_listed(several)}")
    return several[0]


def _named(what: tuple[Any, Any]) -> str:
    return "/".join(str(part) for part in what if part is not None) or "an unknown model"


def _listed(several: Iterable[tuple[Any, Any]]) -> str:
    return ", ".join(sorted(set(map(_named, several))))


def _by_device(models: Sequence[Model]) -> dict[str, list[Model]]:
    """The models of each device under its name, which says also what else differs among those of the same name."""
    also = [name for name in SUBJECT if name not in {"device", "model", "quant"}]
    found: dict[str, list[Model]] = {}
    for model in models:
        kin = [other.subject for other in models if other.subject["device"] == model.subject["device"]]
        telling = [n for n in also if len({subject[n] for subject in kin}) > 1]
        found.setdefault(name_of(model.subject, telling), []).append(model)
    return found


def _costs(device: str, models: Sequence[Model], channel: str | None, energy: bool) -> DeviceCosts:
    times = [model for model in models if model.target == "time"]
    if len(times) > 1:
        raise DataInvalid(f"{device} has {len(times)} time models: name the run or the session that counts")
    if not times:
        raise DataInvalid(f"{device} has no time model")
    chosen = _energy(device, models, channel) if energy else None
    shape = times[0].shape
    idle_w = chosen.idle_w if chosen else None
    found = DeviceCosts(device, times[0], chosen, idle_w, shape.kv_bytes_per_token if shape else None)
    for model in found.models:
        model.predict(0, 1, 2)  # says which phase it lacks
    return found


def _energy(device: str, models: Sequence[Model], channel: str | None) -> Model:
    """The energy model of a channel, or of the widest scope."""
    own = [model for model in models if model.target == "energy" and model.scope != Scope.ESTIMATE]
    if channel:
        own = [model for model in own if channel in {model.channel, str(model.channel).partition(".")[0]}]
    if not own:
        raise DataInvalid(f"{device} has no energy model of {channel or 'a meter'}: only latency can be compared")
    return min(own, key=lambda model: _WIDEST_FIRST.index(model.scope or Scope.ESTIMATE))
