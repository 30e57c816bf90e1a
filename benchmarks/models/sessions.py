"""The box and the sessions that the Mapper is judged on, laid down before any device was fitted to them.

`python -m benchmarks.models.sessions` drew `sessions.csv`; it is read, never drawn again: a generator may change
with NumPy, and a workload that moves with the results proves nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name("sessions.csv")
HISTORY, PROMPT, OUTPUT = (0, 8192), (16, 4096), (16, 1024)
"""The box [token], ends included."""
SESSIONS, SEED = 200, 20261121
LEAST_TURNS, MOST_TURNS = 2, 16


class Turn(NamedTuple):
    """One turn: new prompt tokens and output tokens; the history follows from the turns before it."""

    prompt: int
    output: int


class Kind(NamedTuple):
    """A kind of session: ranges of the first prompt, the later prompts and the outputs, each log-uniform [token]."""

    first: tuple[int, int]
    later: tuple[int, int]
    output: tuple[int, int]


KINDS = {
    "chat": Kind((16, 512), (16, 256), (32, 512)),
    "agent": Kind((512, 4096), (64, 2048), (16, 128)),
    "document": Kind((1024, 4096), (16, 128), (32, 512)),
    "writing": Kind((16, 256), (16, 64), (256, 1024)),
}


def sessions() -> dict[str, list[Turn]]:
    """The committed sessions by name, which begins with their kind."""
    found: dict[str, list[Turn]] = {}
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["session"], []).append(Turn(int(row["prompt"]), int(row["output"])))
    return found


def _draw() -> Iterator[tuple[str, int, int]]:
    rng = np.random.default_rng(SEED)
    for number in range(SESSIONS):
        name, kind = list(KINDS.items())[number % len(KINDS)]
        history = 0
        for turn in range(int(rng.integers(LEAST_TURNS, MOST_TURNS, endpoint=True))):
            prompt, output = (_log_uniform(rng, kind.later if turn else kind.first), _log_uniform(rng, kind.output))
            if history > HISTORY[1]:
                break
            yield f"{name}-{number:03d}", prompt, output
            history += prompt + output - 1


def _log_uniform(rng: np.random.Generator, ends: tuple[int, int]) -> int:
    return round(float(np.exp(rng.uniform(*np.log(ends)))))


if __name__ == "__main__":
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("session", "prompt", "output"))
        writer.writerows(_draw())
