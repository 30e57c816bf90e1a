"""Models in words: what their symbols mean, how old they are, what the fit did, and which rates they imply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from joulelab.analysis.modelling.efficiency import efficiencies
from joulelab.analysis.modelling.models import Model
from joulelab.report.numbers import DASH, rate

SYMBOLS = {
    "load": "a load of the model",
    "held": "tokens of history, whose cache moves",
    "token": "prompt tokens",
    "tile": "prompt tokens, rounded up to whole tiles of so many",
    "roofline": "prompt tokens, and what reading the weights takes at least: by tile, tokens whose arithmetic takes as "
    "long as that reading, and micro-batch",
    "microbatch": "micro-batches of so many prompt tokens",
    "cache": "tokens of history, read once, or once a micro-batch of so many prompt tokens",
    "pair": "pairs of tokens attended in the prefill, history included",
    "tiled_pair": "the same, of prompt tokens rounded up to whole tiles of so many",
    "tokens": "prompt tokens from the one to the other",
    "step": "1 where the prompt is longer, else 0",
    "onset": "1 where there is a decode, else 0",
    "onset_token": "prompt tokens where there is a decode, else 0",
    "risen": "how far the power has risen when the decode begins, from 0 to 1, with this time constant",
    "pass": "passes of the decode; the first of the o output tokens ends the prefill",
    "context": "pairs of tokens attended in the decode, history included",
    "within": "pairs attended in the passes of the decode that attend at most so many tokens each",
    "beyond": "pairs attended in its other passes",
    "contexts": "pairs attended in the decode with the tokens of the context from the one to the other",
    "seconds": "seconds that the time model predicts",
    "ramped": "these seconds, less what the power takes to rise, with this time constant",
}
"""What the symbol of each kind of term stands for."""
LOSSES = {"huber": "Huber's loss", "quantile": "the least mean absolute percentage error"}


def symbols(models: Sequence[Model]) -> dict[str, str]:
    """The symbols in the forms of models, and what they mean."""
    terms = dict.fromkeys(term for model in models for part in model.phases for term in part.form.terms)
    used: dict[str, list[str]] = {}
    for term in terms:
        used.setdefault(term.kind, []).append(term.symbol)
    return {", ".join(dict.fromkeys(used[kind])): said for kind, said in SYMBOLS.items() if kind in used}


def remarks(model: Model, today: date) -> Iterator[str]:
    """When it was measured, and what its fit did, in sentences."""
    if model.measured:
        age = (today - date.fromisoformat(model.measured[1])).days
        yield f"Data of {' to '.join(dict.fromkeys(model.measured))}, {age} {'day' if age == 1 else 'days'} old."
    for part in model.phases:
        if part.loss != "wls":
            yield f"{part.phase}: fitted for {LOSSES[part.loss]}."
        if part.bounds:
            yield f"{part.phase}: held at 0, as the data would have it negative: {', '.join(part.bounds)}."
        if part.caveat:
            yield f"{part.phase}: it {part.caveat}."
    for phase, reason in model.refused.items():
        yield f"{phase}: no model, because {reason}."


def implied(model: Model) -> list[dict[str, Any]]:
    """The rates that its terms imply, and their shares of the device's peak."""
    return [
        {
            "phase": found.phase,
            "work": found.what,
            "coefficients": found.terms,
            "rate": rate(found.rate, found.unit),
            "share": DASH if found.share is None else f"{100 * found.share:.0f} %",
            "impossible": found.impossible,
        }
        for found in efficiencies(model)
    ]
