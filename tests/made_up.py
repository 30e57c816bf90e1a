"""Models with known coefficients, as if they had been fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from joulelab.analysis.modelling.forms import Form
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import Coefficient, PhaseModel
from joulelab.analysis.modelling.terms import Term

SEEN = {"history": (0.0, 8192.0), "prompt": (16.0, 4096.0), "output": (2.0, 1024.0)}


def part(target: str, phase: str, beta: dict[Term, float], u_rel: float = 0.01, **seen: Any) -> PhaseModel:
    """A phase whose coefficients are uncertain by `u_rel`, each by itself."""
    form, values = Form(target, tuple(beta)), np.array([*beta.values()])
    valid = {name: ends for name, ends in (SEEN | seen).items() if (phase, name) != ("prefill", "output")}
    named = zip(form.names, form.units, values.tolist(), strict=True)
    known = tuple(Coefficient(name, unit, value, value, value) for name, unit, value in named)
    return PhaseModel(phase, form, known, np.diag((u_rel * values) ** 2).tolist(), 0.0, 36, valid, {}, "wls", ())


def model(device: str, target: str, phases: Sequence[PhaseModel], **changed: Any) -> Model:
    energy = target == "energy"
    subject = dict.fromkeys(("engine", "mode", "batch", "threads"))
    made = Model(
        device=device,
        subject={"device": device, "model": "m", "quant": "q8", **subject},
        session="s",
        target=target,
        channel="meter.power" if energy else None,
        scope="input" if energy else None,
        origin="measured",
        phases=tuple(phases),
        refused={},
        idle_w=2.0 if energy else None,
        idle_u_w=0.1 if energy else None,
        data_sha256="",
        gain_u_rel=0.0,
        measured=None,
        shape=None,
        peak=None,
    )
    return replace(made, **changed)


def device(name: str, start: float, token: float, each: float, watts: float, **seen: Any) -> list[Model]:
    """Seconds a request, a prompt token and a pass, at a constant power; the cache adds 1 % a thousand tokens."""
    prefill = {Term("start"): start, Term("tile", (64,)): token, Term("pair"): token * 1e-5}
    decode = {Term("pass"): each, Term("within", (512,)): each * 2e-5, Term("beyond", (512,)): each * 1e-5}
    both = []
    for target, factor in (("time", 1.0), ("energy", watts)):
        betas = [{term: factor * beta for term, beta in of.items()} for of in (prefill, decode)]
        both.append(
            model(name, target, [part(target, *of, **seen) for of in zip(("prefill", "decode"), betas, strict=True)])
        )
    return both


def with_moves(models: list[Model], start: float, token: float, loading_s: float) -> list[Model]:
    """The same device with what moving a cache takes, a start and a token, and loading, at 20 W."""
    moves = {"transfer": {Term("start"): start, Term("held"): token}, "load": {Term("start"): loading_s}}

    def added(model: Model) -> tuple[PhaseModel, ...]:
        factor = 20.0 if model.target == "energy" else 1.0
        scaled = {phase: {term: factor * beta for term, beta in of.items()} for phase, of in moves.items()}
        return tuple(part(model.target, phase, of) for phase, of in scaled.items())

    return [replace(model, phases=(*model.phases, *added(model))) for model in models]
