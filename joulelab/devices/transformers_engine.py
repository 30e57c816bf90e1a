"""PyTorch and transformers as an engine: the model runs in a child process, on the CPU or on a CUDA card."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, ClassVar

from joulelab.devices.architectures import RandomModel
from joulelab.devices.base import Inference, Phase, Request
from joulelab.devices.cuda_card import check_free
from joulelab.devices.page_cache import evict
from joulelab.devices.transformers_model import Spec, weight_files
from joulelab.devices.transformers_options import TransformersOptions
from joulelab.errors import ConfigurationFault, HardwareMissing, InstrumentFault, UserError
from joulelab.timebase import SECOND, BenchNs, MonotonicClock
from joulelab.transports.base import Transport
from joulelab.transports.process import ProcessTransport
from joulelab.transports.tape import Line, Tape

CHILD = "joulelab.devices.transformers_child"
TIMEOUT_S = 3600.0
"""A long prompt on one core takes minutes, and the child says nothing meanwhile."""
FAILURES = {kind.__name__: kind for kind in (ConfigurationFault, HardwareMissing, UserError)}
"""What the child may answer instead of a result."""


class Transformers:
    """A model in a child process of ours, pinned to cores of its own.

    `wire` receives the exchanges of an inference once it has ended. `transport` stands in for the child: a cassette
    recorded with the same options gives the same inferences again. `sampler_cores` are those that the child leaves to
    others.
    """

    Options = TransformersOptions
    batches: ClassVar[bool] = True
    moves: ClassVar[tuple[str, ...]] = ("load", "transfer")

    def __init__(
        self,
        name: str,
        options: TransformersOptions,
        clock: MonotonicClock,
        wire: Callable[[Line], None] | None = None,
        transport: Transport | None = None,
    ) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.name = name
        self.sampler_cores = cores[: -options.threads] or cores
        self._cores = cores
        self._options = options
        self._clock = clock
        self._wire = wire or (lambda line: None)
        self._transport = transport

    def open(self) -> None:
        """Start the child, which loads the model and runs it until it is warm."""
        self._ended = False
        self._tape = Tape(self._transport or self._start(), self._wire)
        try:
            self._ready = self._ask()
        except BaseException:
            self.close()
            raise

    def describe(self) -> dict[str, Any]:
        """What runs, and how, for the manifest; `timing` is what the child measured of itself [s]."""
        ready, o = self._ready, self._options
        return {
            "model": o.label,
            "quant": ready["architecture"]["quant"],
            "batch": 1,
            "context": o.context,
            "weights": "random" if isinstance(o.model, RandomModel) else "from the file",
            "architecture": ready["architecture"],
            "threads": o.threads,
            "settings": asdict(self._spec()),
            "pid": ready["pid"],
            "build": ready["build"],
            "timing": ready["timing"],
        }

    def infer(self, request: Request) -> Inference:
        """One inference, in a new child where the last one has ended.

        ConfigurationFault where memory is short, InstrumentFault where the model did not do exactly the asked numbers
        of tokens; UserError where they do not fit into the context.
        """
        return self._inference(request, self._answer(request))

    def move(self, phase: str, request: Request) -> Inference:
        """`load` the model from its files into a new child, or `transfer` the cache of a history to the host and back.

        Faults are those of `infer`, and ConfigurationFault where the weights have no files.
        """
        return self._load() if phase == "load" else self._transfer(request)

    def close(self) -> None:
        self._tape.close()

    def _start(self) -> Transport:
        if not all(map(find_spec, ("torch", "transformers"))):
            raise HardwareMissing(f"{self.name}: PyTorch is not installed: run 'make torch' or install joulelab[torch]")
        if self._options.threads > len(self._cores):
            limit = f"the {len(self._cores)} cores that may be used"
            raise UserError(f"{self.name}: {self._options.threads} threads are more than {limit}")
        if self._options.card is not None:
            check_free(self.name, self._options.card)
        argv = [sys.executable, "-m", CHILD, json.dumps(asdict(self._spec()))]
        return ProcessTransport(argv, self._clock, f"{self.name}: transformers", TIMEOUT_S)

    def _load(self) -> Inference:
        """From the start of a child to its own stamp when the model is on its device."""
        if isinstance(self._options.model, RandomModel):
            raise ConfigurationFault(f"{self.name}: its weights are made up, there is nothing to load")
        self._tape.flush()
        self.close()
        evict(weight_files(self._spec()))
        try:
            self.open()
        finally:
            self._tape.flush()
        ready = self._ready
        phase = Phase("load", ready["awaited"], BenchNs(ready["loaded"]), cpu_s=ready["cpu_ns"] / SECOND)
        return Inference((phase,), extra={"bytes": ready["bytes"]})

    def _transfer(self, request: Request) -> Inference:
        told = self._answer(request, move="transfer")
        if not told["equal"]:
            raise InstrumentFault(f"{self.name}: a cache of {request.history} tokens did not come back as it was")
        start, stop = map(BenchNs, told["marks"])
        before, after = told["cpu_ns"]
        phase = Phase("transfer", start, stop, cpu_s=(after - before) / SECOND)
        return Inference((phase,), extra={"bytes": told["bytes"], **_extra(told, [start, stop])})

    def _spec(self) -> Spec:
        o = self._options
        random = o.model.random if isinstance(o.model, RandomModel) else None
        checkpoint = None if random else str(o.model)
        cores = tuple(self._cores[-o.threads :])
        return Spec(
            random,
            checkpoint,
            o.device,
            o.dtype,
            o.attention,
            o.cache,
            o.threads,
            o.context,
            cores,
            self._clock.offset_ns,
        )

    def _answer(self, request: Request, **also: str) -> dict[str, Any]:
        """The answer to a request, of a new child where the last one has ended."""
        asked = request.history + request.prompt + request.output
        if asked > self._options.context:
            raise UserError(
                f"{self.name}: an inference of {asked} tokens is over the context of {self._options.context}"
            )
        if self._ended:
            self.open()
        try:
            return self._ask(json.dumps(asdict(request) | also).encode())
        finally:
            self._tape.flush()

    def _ask(self, request: bytes = b"") -> dict[str, Any]:
        """The child's answer, and since when it was `awaited`; what it says when it has started needs no request."""
        try:
            if request:
                self._tape.exchange(request)
            reply = self._tape.exchange()
        except InstrumentFault:
            self._ended = True
            self.close()
            raise
        told: dict[str, Any] = json.loads(reply.data)
        if "error" in told:
            raise FAILURES[told["kind"]](f"{self.name}: {told['error']}")
        return told | {"awaited": reply.before}

    def _inference(self, request: Request, told: dict[str, Any]) -> Inference:
        self._check_counts(request, told)
        start, *tokens = map(BenchNs, told["marks"])
        first, *last = (b - a for a, b in zip(told["cpu_ns"], told["cpu_ns"][1:], strict=False))
        u_s = told["limit_s"] / math.sqrt(3)
        phases = [Phase("prefill", start, tokens[0], u_s, first / SECOND)]
        phases += [Phase("decode", tokens[0], tokens[-1], u_s, cpu / SECOND) for cpu in last]
        return Inference(tuple(phases), tuple(tokens), extra=_extra(told, [start, tokens[0], tokens[-1]]))

    def _check_counts(self, request: Request, told: dict[str, Any]) -> None:
        counts = {"marks": (len(told["marks"]), 1 + request.output)}
        counts["cached"] = told["cached"], request.history + request.prompt + request.output - 1
        for name, (count, asked) in counts.items():
            if count != asked:
                raise InstrumentFault(f"{self.name}: the model's {name} are {count}, where {asked} were asked for")


def _extra(told: dict[str, Any], edges: list[int]) -> dict[str, Any]:
    """What the journal keeps beside the phases: `edge_difference_s` is how much later the host saw each edge."""
    seen = [(host - edge) / SECOND for host, edge in zip(told["host"], edges, strict=False)]
    kept = {name: told[name] for name in ("received", "fill_s", "limit_s", "drift") if told[name] is not None}
    return {**kept, "edge_difference_s": seen}
