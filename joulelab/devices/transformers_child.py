"""The process that runs a model with PyTorch (`python -m` this module, with its specification in JSON).

It says that it is ready, or why not, in one line of JSON; then each line that it reads is a request, answered by one.
It ends with its standard input.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulelab.devices.base import Request
from joulelab.devices.completion import draw
from joulelab.devices.transformers_model import (
    Spec,
    asked,
    build,
    describe,
    explained,
    is_out_of_memory,
    load,
    one_line,
    text_config,
)
from joulelab.devices.transformers_passes import Histories, decode, forward
from joulelab.devices.transformers_timing import CudaWatch, HostWatch, Watch, costs
from joulelab.errors import ConfigurationFault, HardwareMissing, JoulelabError
from joulelab.timebase import SECOND, MonotonicClock

if TYPE_CHECKING:
    import torch

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
        edges = [self._edge()]
        self.watch.mark()
        token = forward(self.model, cache, prompt)
        self.watch.mark()
        token.tolist()  # the first token is on the host
        edges.append(self._edge())
        if request.output > 1:
            decode(self.model, cache, token, request.output - 1, self.watch.mark)
            self.watch.synchronise()
            edges.append(self._edge())
        host, cpu_ns = zip(*edges, strict=True)
        told = {"received": received, "host": host, "cpu_ns": cpu_ns, "fill_s": fill_s}
        return told | {"cached": int(cache.get_seq_length()), **asdict(self.watch.end())}

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

    def _draw(self, request: Request) -> list[list[int]]:
        """Tokens of its own for each sequence of the batch."""
        vocabulary = text_config(self.model).vocab_size
        return [draw(replace(request, seed=request.seed + row), vocabulary) for row in range(request.batch)]

    def _history(self, history: list[list[int]]) -> tuple[Any, float | None]:
        """A cache of the history, and how long it took to fill [s]; None where it was kept."""
        before = self._clock.now()
        filled = self.histories.fill(history)
        self.watch.synchronise()
        after = self._clock.now()
        return self.histories.cache(history), (after - before) / SECOND if filled and history[0] else None

    def _edge(self) -> tuple[int, int]:
        return self._clock.now(), time.process_time_ns()


def answer(generator: Generator, request: Request) -> dict[str, Any]:
    """What the request yields, or the error where memory is short: the next one finds it freed."""
    import torch

    try:
        return generator.infer(request)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise SystemExit(one_line(error)) from error
        message = f"out of memory with history {request.history}, prompt {request.prompt}, output {request.output}"
        fault = ConfigurationFault(f"{message}, batch {request.batch}{asked(error)}")
    # Out here the traceback has let go of the inference's tensors.
    generator.histories.clear()
    torch.cuda.empty_cache()
    return failure(fault)


def failure(error: JoulelabError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "error": str(error)}


def start(spec: Spec) -> tuple[Generator, dict[str, Any]]:
    """The model, loaded and warm, and what the manifest says of it."""
    import torch

    torch.set_num_threads(spec.threads)
    card = take_card(torch.device(spec.device)) if spec.device != "cpu" else None
    with explained(spec):
        generator = Generator(model := load(spec), spec)
        timing = {**generator.costs(), **generator.warm_up()}
    return generator, {"pid": os.getpid(), "build": build(card), "architecture": describe(model), "timing": timing}


def take_card(device: torch.device) -> int:
    """The number of the CUDA card, which is made the current one; HardwareMissing where it cannot be used."""
    import torch

    card = device.index or 0
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        raise HardwareMissing(f"CUDA cannot be used: {one_line(error)}") from error
    if card >= (count := torch.cuda.device_count()):
        raise HardwareMissing(f"there is no cuda:{card}: cuda:{count - 1} is the last card that PyTorch sees")
    torch.cuda.set_device(card)
    return card


def confine(spec: Spec) -> None:
    """Keep to our cores and, on the CPU, to the memory that is free: the kernel would kill what takes more."""
    os.sched_setaffinity(0, spec.cores)
    os.environ |= {"OMP_NUM_THREADS": str(spec.threads), "HF_HUB_OFFLINE": "1"}
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's, by which the card was checked
    if spec.device == "cpu":
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
        limits = resource.getrlimit(resource.RLIMIT_DATA)
        least = min(limit for limit in (free, *limits) if limit != resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, (least, limits[1]))


def main() -> int:
    spec = Spec(**json.loads(sys.argv[1]))
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    confine(spec)

    import torch

    with torch.inference_mode():
        try:
            generator, ready = start(spec)
        except JoulelabError as error:
            print(json.dumps(failure(error)), file=wire, flush=True)
            return 1
        print(json.dumps(ready), file=wire, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(generator, Request(**json.loads(line)))), file=wire, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
