"""The runner: plays steps on a device and journals what happened. It owns the clock and is the journal's one writer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from joulelab.devices.base import Engine, Inference, Mover, Request
from joulelab.errors import ConfigurationFault, InstrumentFault, RunAborted
from joulelab.instruments.sampling import Event, Sampler
from joulelab.protocols.steps import (
    Configuration,
    Idle,
    Infer,
    Load,
    Move,
    Range,
    Signature,
    Step,
    configuration,
    to_json,
)
from joulelab.recording.journal import Journal
from joulelab.timebase import SECOND, Anchor, BenchNs, Clock, jumps

ATTEMPTS = 3
ANCHOR_NS = 60 * SECOND
CHECKPOINT_NS = SECOND // 5
MOST_IN_A_LOAD = 10_000
"""Numbers of the inferences of a load, which decide their prompts: none is that of another load."""


@dataclass
class Runner:
    """One run in progress. `stop()` says whether the operator wants to end it; it is asked between and within steps.

    `skipped` are the configurations that cannot run, with the reason; more are added as they are found.
    """

    engine: Engine
    sampler: Sampler
    clock: Clock
    journal: Journal
    seed: int
    stop: Callable[[], bool]
    progress: Callable[[int], None]
    skipped: dict[Configuration, str] = field(default_factory=dict)

    def play(self, steps: Sequence[Step], done: frozenset[int] = frozenset()) -> None:
        """Play all steps but those `done` in an earlier, interrupted attempt.

        On the real clock those are left out, but for the warm-up and the ranges that it is for. A simulation starts
        over instead: its state after the done steps is what they make it, so they are played again and not journalled
        again. InstrumentFault where every configuration was skipped.
        """
        self._anchor = Anchor.read(self.clock)
        self.journal.append(self.clock.now(), "resume" if done else "start", anchor=vars(self._anchor))
        inference = 0
        for index, step in enumerate(steps):
            again = self.clock.virtual or isinstance(step, Range) or (isinstance(step, Infer) and step.warmup)
            if index not in done or again:
                self._check()
                self._step(index, step, inference, muted=index in done)
            inference += isinstance(step, Infer | Move)
            self.progress(index + 1)
        self._anchor_now()
        asked = {configuration(vars(step)) for step in steps if isinstance(step, Infer)}
        if asked and asked <= self.skipped.keys():
            raise InstrumentFault(next(iter(self.skipped.values())))
        self.journal.append(self.clock.now(), "stop", outcome="done")

    def _step(self, index: int, step: Step, inference: int, *, muted: bool) -> None:
        if not muted:
            self.journal.append(self.clock.now(), "step", step=index, what=to_json(step))
        kind, record = self._act(step, index, inference)
        events: Sequence[Event] = ()
        try:
            events = self.sampler.events()  # first, since on the virtual clock it writes the samples of this step
        finally:
            if not muted:
                self.journal.append(self.clock.now(), kind, step=index, **record)
        self.note(events)
        if self.clock.now() - self._anchor.bench >= ANCHOR_NS:
            self._anchor_now()
        self.journal.sync()

    def _act(self, step: Step, index: int, inference: int) -> tuple[str, dict[str, object]]:
        """Play a step; the kind and the fields of what is to be journalled."""
        if isinstance(step, Infer):
            return self._infer(step, inference)
        if isinstance(step, Move):
            return self._move(step, inference)
        if isinstance(step, Load | Signature):
            return step.kind, self._busy(step, itertools.count(index * MOST_IN_A_LOAD))
        return step.kind, self._idle(step) if isinstance(step, Idle) else self._range(step)

    def _range(self, step: Range) -> dict[str, object]:
        start = self.clock.now()
        self.sampler.range(step.mode)
        return {"start": start, "stop": self.clock.now()}

    def _idle(self, step: Idle) -> dict[str, object]:
        start = self.clock.now()
        self._rest(start + round(step.seconds * SECOND))
        return {"start": start, "stop": self.clock.now()}

    def _busy(self, step: Load | Signature, numbers: Iterator[int]) -> dict[str, object]:
        """Load and rest in turns; what is late does not shift what comes after it."""
        start = self.clock.now()
        pattern, history = ((step.seconds,), step.history) if isinstance(step, Load) else (step.pattern, 0)
        played: list[tuple[int, int, int]] = []
        for k, seconds in enumerate(itertools.accumulate(pattern)):
            stop = start + round(seconds * SECOND)
            if k % 2:
                self._rest(stop)
            else:
                played += self._load(Request(0, history, step.prompt, step.output, self.seed), numbers, stop)
        return {"start": start, "stop": self.clock.now(), "inferences": played}

    def _rest(self, stop: int) -> None:
        while (now := self.clock.now()) < stop:
            self._check()
            self.clock.sleep_until(BenchNs(min(stop, now + CHECKPOINT_NS)))

    def _load(self, request: Request, numbers: Iterator[int], stop: int) -> Iterator[tuple[int, int, int]]:
        """Inferences one after another, the last of which begins before `stop`; start, first token and stop of each."""
        while True:
            self._check()
            phases = self._attempt(partial(self.engine.infer, replace(request, number=next(numbers)))).phases
            yield phases[0].start, phases[0].stop, phases[-1].stop
            if self.clock.now() >= stop:
                return

    def _infer(self, step: Infer, number: int) -> tuple[str, dict[str, object]]:
        request = Request(number, step.history, step.prompt, step.output, self.seed, step.batch)
        told = {"repeat": step.repeat, "warmup": step.warmup}
        return self._timed("inference", step.gap_s, request, told, partial(self.engine.infer, request))

    def _move(self, step: Move, number: int) -> tuple[str, dict[str, object]]:
        assert isinstance(self.engine, Mover), "the plan refuses other engines"
        request = Request(number, step.history, 0, 0, self.seed)
        told = {"repeat": step.repeat, "warmup": False, "phase": step.phase}
        return self._timed("move", step.gap_s, request, told, partial(self.engine.move, step.phase, request))

    def _timed(
        self, kind: str, gap_s: float, request: Request, told: Mapping[str, object], act: Callable[[], Inference]
    ) -> tuple[str, dict[str, object]]:
        """What was asked for and what came of it, after the gap; or that it cannot run, from the first time on."""
        asked = {name: getattr(request, name) for name in ("history", "prompt", "output", "batch")}
        told = {"inference": request.number, **told, **asked}
        cell = configuration(asked)
        if cell not in self.skipped:
            self.clock.sleep_until(BenchNs(self.clock.now() + round(gap_s * SECOND)))
            try:
                return kind, told | self._attempt(act).to_json()
            except ConfigurationFault as fault:
                self.skipped[cell] = str(fault)
        return "skipped", told | {"message": self.skipped[cell]}

    def _attempt(self, act: Callable[[], Inference]) -> Inference:
        """Retry a transient fault, journalling each; a stable one, or the last, ends the run."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return act()
            except InstrumentFault as fault:
                self.journal.append(self.clock.now(), "fault", source="engine", message=str(fault), attempt=attempt)
                if not fault.transient or attempt == ATTEMPTS:
                    raise
        raise AssertionError

    def note(self, events: Sequence[Event]) -> None:
        """Journal what the sampler says."""
        for event in events:
            fields = {key: value for key, value in event.items() if key != "event"}
            self.journal.append(self.clock.now(), str(event["event"]), **fields)

    def _anchor_now(self) -> None:
        anchor = Anchor.read(self.clock)
        if found := jumps(self._anchor, anchor):
            self.journal.append(anchor.bench, "jump", **found)
        self.journal.append(anchor.bench, "anchor", anchor=vars(anchor))
        self._anchor = anchor

    def _check(self) -> None:
        if self.stop():
            raise RunAborted("stopped by the operator")
