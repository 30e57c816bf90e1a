"""Devices that are only asked what their models have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from joulelab.analysis.placement.turns import Turn, histories
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid


@dataclass(frozen=True)
class Ranged:
    """A device whose inferences outside the range of its models cost infinitely much: they are no choice."""

    costs: DeviceCosts

    @property
    def device(self) -> str:
        return self.costs.device

    @property
    def idle_w(self) -> float | None:
        return self.costs.idle_w

    @property
    def kv_bytes_per_token(self) -> float | None:
        return self.costs.kv_bytes_per_token

    def seconds(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return self._seen(self.costs.seconds(history, prompt, output), history, prompt, output)

    def joules(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return self._seen(self.costs.joules(history, prompt, output), history, prompt, output)

    def moving_seconds(self, tokens: ArrayLike) -> Floats:
        return self.costs.moving_seconds(tokens)

    def moving_joules(self, tokens: ArrayLike) -> Floats:
        return self.costs.moving_joules(tokens)

    def _seen(self, cost: Floats, *point: ArrayLike) -> Floats:
        seen = np.ones(cost.shape, bool)
        for part in (part for model in self.costs.models for part in model.parts("total")):
            own = np.ones(cost.shape, bool)
            for name, x in zip(("history", "prompt", "output"), point, strict=True):
                low, high = part.valid.get(name, (0.0, np.inf))
                own &= (np.asarray(x) > low - 1) & (np.asarray(x) < high + 1)
            # One token is not decoded.
            seen &= own | ((part.phase == "decode") & (np.asarray(point[2]) == 1))
        return np.where(seen, cost, np.inf)


def check_seen(devices: Sequence[Ranged], sessions: Mapping[str, Sequence[Turn]]) -> None:
    """DataInvalid, with the first turn and a model's reason, where a turn lies outside the range of every device."""
    for name, turns in sessions.items():
        h, (p, o) = np.array(histories(turns)[:-1]), np.array(turns).T
        unseen = np.all([np.isinf(device.seconds(h, p, o)) for device in devices], axis=0)
        if unseen.any():
            k = int(unseen.argmax())
            found = (model.outside(h[k], p[k], o[k]) for device in devices for model in device.costs.models)
            reason = next(text for outside in found for text in outside if text)
            raise DataInvalid(f"turn {k + 1} of session {name} lies outside every device's range: {reason}")
