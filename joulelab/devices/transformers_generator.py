"""A loaded model that answers requests: what is done between the edges, and nothing else there."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from dataclasses import asdict, replace
from typing import Any

from joulelab.devices.base import Request
from joulelab.devices.completion import draw
from joulelab.devices.transformers_model import Spec, text_config
from joulelab.devices.transformers_passes import Histories, decode, filled, forward, move, room
from joulelab.devices.transformers_timing import CudaWatch, HostWatch, Watch, costs
from joulelab.timebase import SECOND, MonotonicClock

WARM_UP = Request(number=0, history=0, prompt=16, output=9, seed=0)
WARM_UP_S = 20.0
SETTLED = 0.02
"""The model is warm when the median passes of two warm-up inferences in a row differ by less than this share."""


class Generator:
    """A loaded model that answers requests."""

    def __init__(self, model: Any, spec: Spec) -> None:
        self.model = model
        self._clock = MonotonicClock(spec.clock_offset_ns)
        self.watch: Watch = HostWatch(self._clock) if spec.device == "cpu" else CudaWatch(self._clock)
        self.histories = Histories(model, static=spec.cache == "static", context=spec.context)

    def infer(self, request: Request) -> dict[str, Any]:
        """One inference.

        `marks` are the bench times [ns] of the start and of each token, off by at most `limit_s`; `host` those of the
        edges as the host saw them after it had waited for the device, `cpu_ns` this process's CPU time there; `cached`
        the tokens in the cache at the end.
        """
        import torch

        received = self._clock.now()
        drawn = self._draw(request)
        cache, fill_s = self._history([tokens[: request.history] for tokens in drawn])
        prompt = torch.tensor([tokens[request.history :] for tokens in drawn], device=self.model.device)
        self.watch.begin(1 + request.output)
        edges = [self.edge()]
        self.watch.mark()
        token = forward(self.model, cache, prompt)
        self.watch.mark()
        token.tolist()  # the first token is on the host
        edges.append(self.edge())
        if request.output > 1:
            decode(self.model, cache, token, request.output - 1, self.watch.mark)
            self.watch.synchronise()
            edges.append(self.edge())
        told = {"received": received, "fill_s": fill_s, "cached": int(cache.get_seq_length())}
        return told | self._timing(edges)

    def transfer(self, request: Request) -> dict[str, Any]:
        """The cache of a history moved to the host's memory and back, as `infer` tells it.

        `bytes` were moved each way; `equal` says whether they came back as they were.
        """
        import torch

        received = self._clock.now()
        cache, fill_s = self._history(self._draw(request))
        out = filled(cache, request.history)
        host, back = room(out)
        self.watch.begin(2)
        edges = [self.edge()]
        self.watch.mark()
        move(out, host)
        move(host, back)
        self.watch.mark()
        self.watch.synchronise()
        edges.append(self.edge())
        equal = all(map(torch.equal, out, back))
        told = {"received": received, "fill_s": fill_s, "bytes": sum(tensor.nbytes for tensor in back), "equal": equal}
        return told | self._timing(edges)

    def warm_up(self) -> dict[str, Any]:
        """Infer until the passes take as long as before, or for `WARM_UP_S`; how many passes that took."""
        until, medians, settled = self._clock.now() + WARM_UP_S * SECOND, [math.inf], False
        while not settled and self._clock.now() < until:
            marks = self.infer(WARM_UP)["marks"]
            medians.append(statistics.median(b - a for a, b in itertools.pairwise(marks[1:])) / SECOND)
            settled = abs(medians[-1] - medians[-2]) < SETTLED * medians[-1]
        passes = (len(medians) - 1) * (WARM_UP.output - 1)
        return {"warmup_passes": passes, "settled": settled, "pass_s": medians[-1]}

    def costs(self) -> dict[str, float]:
        return costs(self.watch, self._clock)

    def edge(self) -> tuple[int, int]:
        """The bench time and this process's CPU time [ns]."""
        return self._clock.now(), time.process_time_ns()

    def _draw(self, request: Request) -> list[list[int]]:
        """Tokens of its own for each sequence of the batch."""
        vocabulary = text_config(self.model).vocab_size
        return [draw(replace(request, seed=request.seed + row), vocabulary) for row in range(request.batch)]

    def _history(self, history: list[list[int]]) -> tuple[Any, float | None]:
        """A cache of the history, and how long it took to fill [s]; None where it was kept."""
        before = self._clock.now()
        new = self.histories.fill(history)
        self.watch.synchronise()
        after = self._clock.now()
        return self.histories.cache(history), (after - before) / SECOND if new and history[0] else None

    def _timing(self, edges: list[tuple[int, int]]) -> dict[str, Any]:
        host, cpu_ns = zip(*edges, strict=True)
        return {"host": host, "cpu_ns": cpu_ns, **asdict(self.watch.end())}
