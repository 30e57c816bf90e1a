"""What every instrument offers, and what those behind one transport share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel

from joulelab.errors import JoulelabError
from joulelab.instruments.undo import Undo
from joulelab.quantities import Channel
from joulelab.recording.block import Block
from joulelab.timebase import SECOND, Clock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection, connect
from joulelab.transports.tape import Sink, Tape

__all__ = ["Block", "Check", "Found", "Meter"]


class Found(NamedTuple):
    """A meter that `discover` found: its stanza in `lab.yaml` (without `driver`), and what to say of it."""

    name: str
    stanza: dict[str, Any]
    note: str


class Check(NamedTuple):
    """What `doctor` found: all is well with `what`, or why not, and the command that mends it where one does."""

    what: str
    ok: bool
    message: str
    mend: str = ""


class Meter(ABC):
    """A meter behind one transport: a driver says how to `connect`, what to do at the `start`, and how to `read`.

    Where its options have an `interval` [s] it is polled, otherwise it streams (`interval_ns` is None). `place` is the
    machine whose files and programs it uses; `transport` stands in for what `connect` would make, such as a cassette of
    an earlier run. `identity` says which meter it is and `settings` how it is set, both for the manifest. `told`
    collects what else there is to journal, as (kind, fields); whoever reads the meter empties it.
    """

    driver: ClassVar[str]
    bench_meter: ClassVar[bool] = False
    """Whether what is behind it is a fact of the wiring, so that `lab.yaml` must say its scope."""
    wire: ClassVar[bool] = True
    """Whether its traffic is recorded unless `lab.yaml` says otherwise: below 1 kB/s."""
    Options: ClassVar[type[BaseModel]]

    def __init__(
        self,
        name: str,
        options: Any,
        clock: Clock,
        place: Connection | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.name = name
        self.options: dict[str, Any] = options.model_dump(mode="json")
        self.channels: tuple[Channel, ...] = ()
        interval = getattr(options, "interval", None)
        self.interval_ns: int | None = None if interval is None else round(interval * SECOND)
        self.identity: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.clock = clock
        self.place = place or connect("local", clock)
        self._transport = transport
        self._sink: Sink | None = None
        self._recording = False

    def open(self) -> None:
        """Connect and set up; HardwareMissing where the meter is not there or not what it should be."""
        self.tape = Tape(self._transport or self.connect())
        self._load_tape()
        self.undo = Undo(self.resource, self.ask, kept=self._transport is None)
        try:
            self.undo.run()  # what a crashed run left changed
            self.channels = tuple(self.start())
        except BaseException:
            with suppress(JoulelabError):  # the first error is the one to tell
                self.close()
            raise

    def close(self) -> None:
        """Put changed settings back and disconnect."""
        if hasattr(self, "tape"):
            try:
                self.undo.run()
            finally:
                self.stop()
                self.tape.close()

    @property
    def resource(self) -> str:
        """What tells this meter from others of its kind: settings to put back are kept under it."""
        return f"{self.driver} {self.name}"

    @abstractmethod
    def connect(self) -> Transport:
        """The transport to the meter."""

    @abstractmethod
    def start(self) -> Sequence[Channel]:
        """Identify and set up the meter; its channels."""

    @abstractmethod
    def read(self) -> Block:
        """One reading of a polled meter, or the next of a stream; InstrumentFault where there is none."""

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        """The meters of this kind at an address (a VISA resource, a port), or all that the system at `place` lists."""
        yield from ()

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        """What this driver needs of the system at `place`: libraries, programs, permissions."""
        yield from ()

    def stop(self) -> None:  # noqa: B027 most meters need nothing but to be disconnected
        """What is to be done before disconnecting, the meter answering or not."""

    def range(self, mode: str) -> None:  # noqa: B027 most meters have one range
        """`auto`: choose ranges freely; `fixed`: keep them from now on, 1.1 times above the peak seen since `auto`.

        A meter that has changed its ranges tells `settings` with its new channels.
        """

    def ask(self, request: str) -> str:
        """A request in text and its reply, stripped."""
        return self.exchange(request.encode()).data.decode(errors="replace").strip()

    def exchange(self, request: bytes = b"") -> Reply:
        return self.tape.exchange(request)

    def tell(self, kind: str, **fields: Any) -> None:
        self.told.append((kind, fields))

    def record(self, sink: Sink | None) -> None:
        """Write the traffic to `sink` from now on, what `open` caused included; None: keep none of it."""
        self._sink, self._recording = sink, True
        if hasattr(self, "tape"):
            self._load_tape()

    def _load_tape(self) -> None:
        if self._recording:
            self.tape.sink = self._sink
            if self._sink is None:
                self.tape.off()
