"""What a device did over a run, by its journal: idle, the phases of every inference, loads; all that drew power."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulelab.calibration.integrals import NS, Floats, Ints

Label = tuple[Hashable, ...]
Span = tuple[int, int, Label]
IDLE: Label = ("idle",)
KINDS = ("idle", "prefill", "decode", "load")
"""The first word of a label: powers of one kind differ alike from one instance to another."""
MOST_PIECES = 8


@dataclass(frozen=True)
class Timeline:
    """The m + 1 stretches between `edges_ns` [m], ascending: which of the `labels` each has. Nothing known is idle."""

    edges_ns: Ints
    label: Ints
    labels: tuple[Label, ...]

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Timeline:
        """From spans that do not overlap, in any order."""
        spans = sorted(span for span in spans if span[0] < span[1])
        start, stop = np.array([span[:2] for span in spans], np.int64).reshape(-1, 2).T
        labels = list(dict.fromkeys([IDLE, *(span[2] for span in spans)]))
        number = {label: k for k, label in enumerate(labels)}
        edges = np.unique(np.concatenate([start, stop]))
        own = np.array([number[span[2]] for span in spans], np.int64)
        at = np.searchsorted(start, edges, "right") - 1
        inside = stop[at] > edges
        return cls(edges, np.concatenate([[0], np.where(inside, own[at], 0)]), tuple(labels))

    def merged(self) -> Timeline:
        """The same without the edges between stretches of one label."""
        differs = self.label[1:] != self.label[:-1]
        return Timeline(self.edges_ns[differs], np.concatenate([self.label[:1], self.label[1:][differs]]), self.labels)

    def cut(self, most_s: float) -> Timeline:
        """The same with stretches of more than `most_s` cut into equal pieces, `MOST_PIECES` at most.

        Pieces of idle time stay idle; the pieces of a phase have labels of their own, the same for all its instances.
        """
        length = np.diff(self.edges_ns) * NS
        label = self.label[1:-1]
        longest = np.zeros(len(self.labels))
        np.maximum.at(longest, label, length)
        many = np.ceil(np.where(label == 0, length, longest[label]) / most_s).clip(1, MOST_PIECES).astype(np.int64)
        piece = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        start, width, own = (np.repeat(x, many) for x in (self.edges_ns[:-1], np.diff(self.edges_ns) / many, label))
        names = np.stack([own, np.where((own > 0) & (np.repeat(many, many) > 1), piece, -1)], axis=1)
        unique, number = np.unique(np.concatenate([[[0, -1]], names]), axis=0, return_inverse=True)
        labels = (self.labels[name] if k < 0 else (*self.labels[name], k) for name, k in unique.tolist())
        edges = np.concatenate([start + np.rint(piece * width).astype(np.int64), self.edges_ns[-1:]])
        return Timeline(edges, np.append(number, 0), tuple(labels))

    @property
    def kind(self) -> Ints:
        """The kind [m + 1] of each stretch, by its place in `KINDS`."""
        return np.array([KINDS.index(str(label[0])) for label in self.labels])[self.label]


def timeline(records: Sequence[dict[str, Any]]) -> Timeline:
    """The timeline of a run's journal. Inferences that nobody analyses, in loads and signatures, have own labels, and
    so have the lasting marks of an imported run.
    """
    asked = {record["step"]: record["what"] for record in records if record["kind"] == "step"}
    return Timeline.of([span for record in records for span in _spans(record, asked.get(record.get("step"), {}))])


def _spans(record: dict[str, Any], what: dict[str, Any]) -> Iterator[Span]:
    """The spans of a record of the journal, whose step was asked for as `what`."""
    kind = record["kind"]
    if kind == "inference":
        prompt = record["history"], record["prompt"], record.get("batch", 1)
        for phase in record["phases"]:
            asked = prompt if phase["name"] == "prefill" else (*prompt, record["output"])
            yield phase["start"], phase["stop"], (phase["name"], *asked)
    elif kind == "move":
        yield record["phases"][0]["start"], record["phases"][0]["stop"], ("load", record["phase"], record["history"])
    elif kind in {"load", "signature"} and "inferences" in record:
        size = what.get("history", 0), what.get("prompt"), what.get("output")
        for start, first, stop in record["inferences"]:
            yield start, first, ("prefill", kind, *size)
            yield first, stop, ("decode", kind, *size)
    elif kind == "load":
        yield record["start"], record["stop"], ("load",)
    elif kind == "step" and what.get("kind") == "mark":
        yield what["start"], what["stop"], ("load", what["name"])


def seconds(t_ns: Ints, origin_ns: int) -> Floats:
    """Seconds after an origin, subtracted as integers because a float at 1e18 ns is 128 ns coarse."""
    return np.asarray((t_ns - origin_ns) * NS)
