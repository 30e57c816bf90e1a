"""Meters that the Linux kernel publishes as text files, on this machine or on one behind a connection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.probes import Prober
from joulelab.options import Seconds
from joulelab.quantities import Channel
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection
from joulelab.transports.files import split

Source = tuple[Channel, Callable[[], float]]

DENIED = (b"!Permission denied", b"!Operation not permitted")


class HeldFile:
    """A file as the last reading found it; `owner` is the meter that its faults name."""

    record = b""

    def __init__(self, owner: str, path: PurePosixPath) -> None:
        self._owner, self.path = owner, path

    @property
    def readable(self) -> bool:
        return not self.record.startswith(b"!")

    @property
    def denied(self) -> bool:
        return self.record.startswith(DENIED)

    def text(self) -> str:
        """What it held, stripped; a transient InstrumentFault where it could not be read: its device may come back."""
        held = self.record.decode(errors="replace").strip()
        if held.startswith("!"):
            raise InstrumentFault(f"{self._owner}: {self.path} cannot be read: {held[1:]}", transient=True)
        return held

    def number(self, scale: float) -> float:
        """The integer that it held, times `scale`; a transient InstrumentFault where it held none."""
        try:
            return int(self.record) * scale
        except (ValueError, OverflowError):
            held = self.text()[:60]
        raise InstrumentFault(f"{self._owner}: {self.path} holds {held!r}, not an integer", transient=True)


class FileMeter(Meter):
    """A polled meter of which a reading is what some files of its place hold, all brought by one exchange.

    At the bench's usual rates their traffic is above the 1 kB/s up to which it is recorded unasked.
    """

    wire = False
    asked: BenchNs
    """When what the files hold was asked for last."""
    refusal = "", ""
    """Why the last opening failed, and the command that mends it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._prober = Prober(self, lambda: self._ask(b"clock")[:2])
        self.stop()

    def connect(self) -> Transport:
        return self.place.files()

    def stop(self) -> None:
        self._held: list[HeldFile] = []
        self._request = b"cat"

    def listed(self, *patterns: str) -> list[PurePosixPath]:
        """The files and folders that there are, sorted."""
        _, _, paths = self._ask(" ".join(["ls", *patterns]).encode())
        return sorted(PurePosixPath(path.decode(errors="replace")) for path in paths)

    def look(self, path: PurePosixPath) -> HeldFile:
        """A file as it is now, readable or not."""
        file = HeldFile(self.name, path)
        reply, _, records = self._ask(b"cat %s" % str(path).encode())
        if len(records) != 1:
            raise InstrumentFault(f"{self.name}: {len(records)} answers for {path}", transient=True)
        (file.record,), self.asked = records, reply.before
        return file

    def hold(self, path: PurePosixPath) -> HeldFile:
        """A file for `refresh` to bring; HardwareMissing where only root may read it, InstrumentFault as in `text`."""
        file = self.look(path)
        if file.denied:
            raise self.refuse(f"only root may read {path}, and this lets everybody", self.permit(path))
        file.text()
        self._held.append(file)
        self._request += b" %s" % str(path).encode()
        return file

    def permit(self, path: PurePosixPath) -> str:
        """The command that lets everybody read `path`."""
        return f"sudo chmod a+r {path}"

    def refuse(self, why: str, mend: str = "") -> HardwareMissing:
        """What to raise where the meter cannot be opened."""
        self.refusal = why, mend
        return HardwareMissing(f"{self.name}: {why}" + (f": `{mend}`" if mend else ""))

    def refresh(self) -> tuple[Reply, list[int] | None]:
        """Bring what the held files hold now, with the clock of another machine [ns]."""
        reply, stamp, records = self._ask(self._request)
        if len(records) != len(self._held):
            raise InstrumentFault(f"{self.name}: {len(records)} answers for {len(self._held)} files", transient=True)
        for file, record in zip(self._held, records, strict=True):
            file.record = record
        self.asked = reply.before
        if stamp is None:
            return reply, None
        self._prober.catch_up(reply.after)
        return reply, [stamp]

    def _ask(self, request: bytes) -> tuple[Reply, int | None, list[bytes]]:
        reply = self.tape.exchange(request)
        try:
            return reply, *split(reply.data)
        except ValueError as error:
            raise InstrumentFault(f"{self.name}: {self.place.url}: {error}", transient=True) from None


Root = Annotated[str, Field(pattern=r"^/\S*$")]


class SysfsOptions(BaseModel):
    """`root` is where the kernel's folder is mounted: a container may see the host's elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    interval: Seconds
    root: Root


class SysfsMeter(FileMeter):
    """A channel for each sensor of a kind. A driver says what is there (`find`) and what to say where nothing is."""

    missing: ClassVar[str]

    @property
    def root(self) -> PurePosixPath:
        return PurePosixPath(self.options["root"])

    @abstractmethod
    def find(self) -> Iterable[Source]:
        """The channels and what reads each in its unit, from files got with `hold`."""

    def absent(self) -> tuple[str, str]:
        """Why nothing was found, and the command that mends it."""
        return self.missing, ""

    def start(self) -> Sequence[Channel]:
        found = list(self.find())
        if not found:
            why, mend = self.absent()
            raise self.refuse(f"{why} (looked below {self.root})", mend)
        self._reads = tuple(read for _, read in found)
        return [channel for channel, _ in found]

    def read(self) -> Block:
        """One reading; a transient InstrumentFault where a file cannot be read now or holds no number."""
        reply, device = self.refresh()
        return Block([reply.before], [reply.after], device, [[read()] for read in self._reads])

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        if address is None:
            meter = cls._tried(place)
            if meter.channels:
                yield Found(cls.driver, {}, ", ".join(channel.name for channel in meter.channels))

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        meter = cls._tried(place)
        if meter.channels:
            yield Check(cls.driver, True, ", ".join(channel.name for channel in meter.channels))
        else:
            yield Check(cls.driver, False, *meter.refusal)

    @classmethod
    def _tried(cls, place: Connection) -> SysfsMeter:
        """A meter with its default options, opened and closed; `refusal` says why where it has no channels."""
        meter = cls(cls.driver, cls.Options(), MonotonicClock(), place)
        try:
            meter.open()
        except InstrumentFault as fault:
            meter.refusal = str(fault), ""
        except HardwareMissing:
            if not meter.refusal[0]:  # the place, not the sensor, is what is missing
                raise
        finally:
            meter.close()
        return meter
