"""llama.cpp's server as an engine: in a child process of ours, or one that runs already."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from joulelab.devices.architectures import RandomModel
from joulelab.devices.base import Inference, Phase, Request
from joulelab.devices.completion import complete, draw, move, phases, stream
from joulelab.devices.llama_child import SAVED, LlamaChild, Spec
from joulelab.devices.llama_options import LlamaOptions
from joulelab.devices.page_cache import evict
from joulelab.devices.random_model import describe_gguf, model_cache, need_llama_cpp, random_gguf
from joulelab.errors import ConfigurationFault, InstrumentFault, UserError
from joulelab.timebase import SECOND, Clock
from joulelab.transports.base import Transport
from joulelab.transports.cpu import CPU, CpuClock
from joulelab.transports.http import HttpTransport
from joulelab.transports.tape import Line, Tape

SLOTS = 2
"""One for inferences without history and one for those with, so that the first never clear the cache of the second."""


class LlamaServer:
    """A child process of ours, pinned to cores of its own, or the server at `options.url`.

    `wire` receives the exchanges of an inference once it has ended. `transport` stands in for the server: a cassette
    recorded with the same options gives the same inferences again. After `open`, `sampler_cores` are those that the
    server leaves to others.
    """

    Options = LlamaOptions
    moves: ClassVar[tuple[str, ...]] = ("load", "transfer")

    def __init__(
        self,
        name: str,
        options: LlamaOptions,
        clock: Clock,
        wire: Callable[[Line], None] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.name = name
        self._cores = self.sampler_cores = sorted(os.sched_getaffinity(0))
        self._options = options
        self._clock = clock
        self._wire = wire or (lambda line: None)
        self._transport = transport
        self._child: LlamaChild | None = None

    def open(self) -> None:
        """Start the child, or reach the server, and ask what it serves."""
        self._tape = Tape(self._transport or self._connect(), self._wire)
        # The prompt that each slot was last given, which is what its KV cache begins with.
        self._held: dict[int, list[int]] = {}
        try:
            self._ask_server()
        except BaseException:
            self.close()
            raise

    def describe(self) -> dict[str, Any]:
        """What is served, and how, for the manifest; what a server elsewhere does not tell is None."""
        told = {
            "model": self._options.label,
            "quant": self._properties.get("model_ftype"),
            "batch": 1,  # sequences at once; the batch of the settings is llama.cpp's, in tokens
            "context": self._context,
        }
        if self._child is None:
            return told | {"url": self._options.url, "threads": None, "build": self._properties.get("build_info")}
        return told | self._describe_child(self._child)

    def infer(self, request: Request) -> Inference:
        """One inference; InstrumentFault where the server did not do exactly the asked numbers of tokens.

        UserError where they do not fit into the context.
        """
        self._check_fits(request)
        try:
            return self._infer(request)
        finally:
            self._tape.flush()

    def move(self, phase: str, request: Request) -> Inference:
        """A load in a new child, from the disk to the first answer; or a transfer of a history's cache, out to memory
        and back. `bytes` is the size of what moved.

        ConfigurationFault for a server that is not ours, InstrumentFault where it did not move just the history;
        UserError where that does not fit into the context.
        """
        self._check_fits(request)
        if self._options.url:
            raise ConfigurationFault(f"{self.name}: {self._options.url} is not ours: no {phase} of it can be timed")
        try:
            return self._load() if phase == "load" else self._transfer(request)
        finally:
            self._tape.flush()

    def close(self) -> None:
        self._tape.close()
        if self._child is not None:
            self._child.close()
            self._child = None

    def _connect(self) -> Transport:
        if self._options.url:
            return HttpTransport(self._options.url, self._clock)
        self._child = LlamaChild(self._spec())
        return CpuClock(HttpTransport(self._child.url, self._clock), self._child.pid, self._clock)

    def _spec(self) -> Spec:
        need_llama_cpp()
        o, cores = self._options, self._cores
        if o.threads > len(cores):
            raise UserError(f"{self.name}: {o.threads} threads are more than the {len(cores)} cores that may be used")
        self.sampler_cores = cores[: -o.threads] or cores
        ours = tuple(cores[-o.threads :])
        return Spec(str(self._model_file()), o.threads, o.context, SLOTS, o.batch, o.ubatch, ours, o.port)

    def _model_file(self) -> Path:
        if isinstance(self._options.model, RandomModel):
            return random_gguf(self._options.model.random, model_cache())
        if not (path := Path(self._options.model)).is_file():
            raise UserError(f"{self.name}: there is no model file {path}")
        return path

    def _describe_child(self, child: LlamaChild) -> dict[str, Any]:
        path = Path(child.spec.model)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "weights": "random" if isinstance(self._options.model, RandomModel) else "from the file",
            "architecture": describe_gguf(path),
            "sha256": digest,
            "threads": child.spec.threads,
            "settings": asdict(child.spec),
            "pid": child.pid,
            "build": child.build,
        }

    def _ask_server(self) -> None:
        try:
            self._properties = json.loads(self._tape.exchange(b"GET /props").data)
            self._context = int(self._properties["default_generation_settings"]["n_ctx"])
            self._slots = int(self._properties["total_slots"])
            models = json.loads(self._tape.exchange(b"GET /v1/models").data)
            self._vocabulary = int(models["data"][0]["meta"]["n_vocab"])
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.name}: {self._options.url} does not answer as llama.cpp's server does") from error

    def _infer(self, request: Request) -> Inference:
        tokens = draw(request, self._vocabulary)
        slot = min(1, self._slots - 1) if request.history else 0
        filled = self._fill(slot, tokens, request.history)
        own = self._options.url is None
        seen = stream(self._tape, slot, tokens, request.output, cache_prompt=request.history > 0, cpu=own)
        self._check_counts(request, seen.timings)
        self._held[slot] = tokens
        return Inference(phases(seen), tuple(seen.tokens), extra={"timings": seen.timings, **filled})

    def _check_fits(self, request: Request) -> None:
        asked = request.history + request.prompt + request.output
        if asked > self._context:
            raise UserError(f"{self.name}: an inference of {asked} tokens is over the context of {self._context}")

    def _load(self) -> Inference:
        path = self._model_file()
        self.close()
        evict([path])
        start = self._clock.now()
        self.open()
        loaded = Phase("load", start, self._clock.now(), cpu_s=int(self._tape.exchange(CPU).data) / SECOND)
        return Inference((loaded,), extra={"bytes": path.stat().st_size})

    def _transfer(self, request: Request) -> Inference:
        slot, tokens = self._slots - 1, draw(request, self._vocabulary)
        self._held.pop(slot, None)
        filled = complete(self._tape, slot, tokens, output=0, cache_prompt=True)
        moved, told = move(self._tape, slot, SAVED)
        if (count := told.get("n_restored")) != request.history:
            raise InstrumentFault(
                f"{self.name}: the server moved {count} tokens, where {request.history} were asked for"
            )
        fill_s = (filled.after - filled.before) / SECOND
        return Inference((moved,), extra={"bytes": told["n_read"], "fill_s": fill_s})

    def _fill(self, slot: int, tokens: list[int], history: int) -> dict[str, float]:
        """Make the slot's cache share just the history with `tokens`; the time that took [s], if there was need."""
        held = self._held.pop(slot, [])
        shared = held[:history] == tokens[:history] and held[history : history + 1] != tokens[history : history + 1]
        if shared or not history:
            return {}
        reply = complete(self._tape, slot, tokens[:history], output=0, cache_prompt=True)
        return {"fill_s": (reply.after - reply.before) / SECOND}

    def _check_counts(self, request: Request, timings: dict[str, Any]) -> None:
        counts = {"cache_n": request.history, "prompt_n": request.prompt, "predicted_n": request.output}
        for name, asked in counts.items():
            if (told := timings.get(name)) != asked:
                message = f"{self.name}: the server's {name} is {told}, where {asked} was asked for"
                # The next attempt fills the cache anew, which may mend this one.
                raise InstrumentFault(message, transient=name == "cache_n")
