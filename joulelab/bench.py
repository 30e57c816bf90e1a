"""From `lab.yaml`, or from the manifest of an interrupted run, to live objects; and the recording of one run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from joulelab.calibration.certificate import FOLDER, VALID, Store, chosen
from joulelab.devices.base import Engine
from joulelab.errors import InstrumentFault, JoulelabError, RunAborted, UserError
from joulelab.instruments.sampling import InlineSampler, ProcessSampler, Sampler
from joulelab.instruments.simulated import meters
from joulelab.lab import Lab
from joulelab.protocols.runner import Runner
from joulelab.protocols.steps import Infer, Move, Step, configuration
from joulelab.quantities import Scope
from joulelab.recording import Manifest, RunDir
from joulelab.recording.journal import Journal
from joulelab.recording.manifest import Instrument
from joulelab.recording.recorder import Wire, create_run, seal_run
from joulelab.recording.seal import lost_gaps
from joulelab.registry import DEVICES, ENGINES, PROTOCOLS, load_driver
from joulelab.timebase import Anchor, Clock, MonotonicClock, VirtualClock

ENDED = {"idle", "inference", "load", "move", "range", "signature", "skipped"}
"""The records of the journal that a step leaves when it has ended."""
Stop = Callable[[], bool]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Plan:
    """All that decides a run, as plain data: the device, the instruments that feed it, the protocol's arguments.

    `certificates` is the folder of the lab's.
    """

    device: str
    stanza: dict[str, Any]
    instruments: dict[str, dict[str, Any]]
    protocol: str
    arguments: dict[str, Any]
    certificates: Path | None = None

    @classmethod
    def from_lab(cls, lab: Lab, device: str, protocol: str) -> Plan:
        """A protocol that the lab file does not set up is played as it is by default."""
        stanza = lab.devices[device].model_dump(mode="json")
        named = {channel.partition(".")[0] for channel in stanza["power"] or ()}
        ways = {device, stanza["connect"]} - {None}
        instruments = {
            name: instrument_spec(lab, name)
            for name, instrument in lab.instruments.items()
            if ways & {*instrument.feeds, instrument.via} or name in named
        }
        options = lab.protocols.get(protocol) or _default(protocol)
        return cls(device, stanza, instruments, protocol, options.model_dump(mode="json"), lab.certificates)

    @classmethod
    def from_run(cls, run: RunDir) -> Plan:
        """The same bench again: each instrument as it was opened then, whatever `lab.yaml` says now."""
        m = run.manifest
        instruments = {i.name: {"driver": i.driver, "options": i.options, "wiring": i.wiring} for i in m.instruments}
        return cls(m.device, m.stanza, instruments, m.protocol, m.arguments)

    @property
    def simulated(self) -> bool:
        return bool(self.stanza["group"] == DEVICES)

    @property
    def seed(self) -> int:
        return int(self.arguments["seed"])

    @property
    def settle_s(self) -> float:
        """How long the device is left alone before each gap; runs of before it had a name had none."""
        return float(self.stanza.get("settle", 0.0))

    def steps(self) -> list[Step]:
        """The protocol's steps; no hardware is touched. UserError where the engine cannot play them."""
        driver = load_driver(PROTOCOLS, self.protocol)
        played = driver(driver.Options.model_validate(self.arguments)).steps()
        steps = [
            replace(step, gap_s=step.gap_s + self.settle_s) if isinstance(step, Infer | Move) else step
            for step in played
        ]
        largest = max((step.batch for step in steps if isinstance(step, Infer)), default=1)
        name = self.stanza["driver"]
        engine = load_driver(self.stanza["group"], name)
        if largest > 1 and not getattr(engine, "batches", False):
            raise UserError(
                f"{self.device}: {name} runs one sequence at a time, {self.protocol} asks for a batch of {largest}"
            )
        if beyond := {step.phase for step in steps if isinstance(step, Move)} - {*getattr(engine, "moves", ())}:
            raise UserError(f"{self.device}: {name} cannot time a {min(beyond)}, which {self.protocol} asks for")
        return steps


def _default(protocol: str) -> BaseModel:
    options: type[BaseModel] = load_driver(PROTOCOLS, protocol).Options
    if needed := [name for name, field in options.model_fields.items() if field.is_required()]:
        raise UserError(f"lab.yaml does not set up the protocol {protocol!r}: it needs {', '.join(needed)}")
    return options()


def instrument_spec(lab: Lab, name: str) -> dict[str, Any]:
    """An instrument for the sampler: driver and options apart from the wiring, with the connection that reads it."""
    wiring = lab.instruments[name].model_dump(mode="json", exclude_none=True)
    if via := wiring.get("via"):
        wiring["connect"] = via if "://" in via else lab.devices[via].connect
    return {"driver": wiring.pop("driver"), "options": wiring.pop("options"), "wiring": wiring}


@dataclass
class Bench:
    """The live objects of one run."""

    clock: Clock
    engine: Engine
    sampler: Sampler


@contextmanager
def open_bench(plan: Plan, wire: Wire, clock_offset_ns: int = 0) -> Iterator[Bench]:
    """Open the engine, then sampling; close both at the end, whatever happened."""
    plan.steps()  # what the engine cannot play is refused before it is opened
    affinity = os.sched_getaffinity(0)
    bench = _simulated(plan) if plan.simulated else _real(plan, wire, clock_offset_ns)
    try:
        yield bench
    finally:
        with suppress(OSError):  # samples that cannot be written ended the run, and were told of
            bench.sampler.close()
        bench.engine.close()
        os.sched_setaffinity(0, affinity)


def _simulated(plan: Plan) -> Bench:
    clock = VirtualClock()
    driver = load_driver(DEVICES, plan.stanza["driver"])
    device = driver(plan.device, driver.Options.model_validate(plan.stanza["options"]), clock, plan.seed)
    return Bench(clock, device.engine, InlineSampler(meters(device.bench)))


def _real(plan: Plan, wire: Wire, clock_offset_ns: int) -> Bench:
    """The engine takes its cores first; the runner and the sampler keep to those that it leaves."""
    clock = MonotonicClock(clock_offset_ns)
    driver = load_driver(ENGINES, plan.stanza["driver"])
    engine = driver(plan.device, driver.Options.model_validate(plan.stanza["options"]), clock, wire)
    engine.open()
    try:
        os.sched_setaffinity(0, engine.sampler_cores)
        sampler = ProcessSampler(plan.instruments, clock_offset_ns)
    except BaseException:
        engine.close()
        raise
    return Bench(clock, engine, sampler)


def record(plan: Plan, session: Path, stop: Stop, progress: Progress) -> RunDir:
    """Play a protocol on a device into a new run directory below `session`, and seal it."""
    now = datetime.now(UTC)
    path = session / f"{plan.device}-{plan.protocol}-{now:%H%M%S}"
    with open_bench(plan, Wire(path, "engine")) as bench:
        manifest = _manifest(plan, bench, path, now)
        found = chosen(manifest, Store(plan.certificates)) if plan.certificates else []
        used = {f"{each.kind} {each.channel}": each.hash for state, _, each in found if state == VALID}
        journal = create_run(path, replace(manifest, certificates=used))
        for _, _, each in found:  # with those that do not hold: the report says so
            each.write(path / FOLDER)
        _play(plan, bench, path, journal, stop, progress, frozenset())
    return RunDir(path)


def resume(run: RunDir, stop: Stop, progress: Progress) -> RunDir:
    """Play the steps that an interrupted run still lacks, and seal it."""
    if run.state != "interrupted":
        raise UserError(f"{run.path.name} cannot be resumed: it is sealed as {run.state}")
    plan = Plan.from_run(run)
    done = frozenset(record["step"] for record in run.journal if record["kind"] in ENDED)
    with open_bench(plan, Wire(run.path, "engine"), _resumed_offset(run)) as bench:
        journal = Journal(run.path / "journal.jsonl")
        lost = [] if plan.simulated else lost_gaps(run)  # a simulation tells its own again
        for gap in lost:
            journal.append(bench.clock.now(), **gap)
        _play(plan, bench, run.path, journal, stop, progress, done)
    return RunDir(run.path)


def _resumed_offset(run: RunDir) -> int:
    """The clock of a run goes on where it was; after a reboot it is set ahead by the wall-clock time that went by."""
    offset = run.manifest.clock_offset_ns
    anchors = [Anchor(**record["anchor"]) for record in run.journal if "anchor" in record]
    now = Anchor.read(MonotonicClock(offset))
    if run.manifest.simulated or not anchors or now.boot_id == anchors[-1].boot_id:
        return offset
    last = anchors[-1]
    resumed = max(last.bench + now.wall - last.wall, int(run.journal[-1]["t"]))
    return offset + resumed - now.bench


def _play(
    plan: Plan, bench: Bench, path: Path, journal: Journal, stop: Stop, progress: Progress, done: frozenset[int]
) -> None:
    """Play and seal. What ends without an outcome (a full disk, a kill, a bug) stays unsealed, to be resumed."""
    skipped = {configuration(record): record["message"] for record in RunDir(path).records("skipped")}
    runner = Runner(bench.engine, bench.sampler, bench.clock, journal, plan.seed, stop, progress, skipped)
    outcome = ""
    try:
        try:
            bench.sampler.record(path)
            runner.play(plan.steps(), done)
            runner.note(bench.sampler.close())  # the last samples may be the ones that cannot be written
            outcome = "done"
        except RunAborted:
            outcome = "aborted"
            raise
        except InstrumentFault as fault:
            outcome = "failed"
            journal.append(bench.clock.now(), "fault", source=plan.device, message=str(fault))
            raise
        finally:
            if outcome:
                runner.note(bench.sampler.close())
                seal_run(path, journal, outcome)
    except OSError as error:
        raise JoulelabError(
            f"{path.name} cannot be written on: {error.strerror}; what was recorded is intact"
        ) from error
    finally:
        journal.close()


def _manifest(plan: Plan, bench: Bench, path: Path, now: datetime) -> Manifest:
    instruments = tuple(Instrument.from_json(i) for i in bench.sampler.instruments)
    return Manifest(
        session=path.parent.name,
        run=path.name,
        device=plan.device,
        protocol=plan.protocol,
        arguments=plan.arguments,
        seed=plan.seed,
        created=now.isoformat(timespec="seconds"),
        clock="virtual" if plan.simulated else "monotonic",
        clock_offset_ns=0,
        simulated=plan.simulated,
        stanza=plan.stanza,
        engine=bench.engine.describe(),
        instruments=instruments,
        power=_power_channels(plan, instruments),
        host=_host() | {"refused sensors": bench.sampler.refused},
        versions={name: version(name) for name in ("joulelab", "numpy", "pyarrow")},
        certificates={},
    )


def _power_channels(plan: Plan, instruments: tuple[Instrument, ...]) -> tuple[str, ...]:
    """The device's power channels by "instrument.channel": as its stanza lists them, else all, widest scope first."""
    found = {f"{i.name}.{c.name}": c for i in instruments for c in i.channels if c.gives_energy}
    if plan.stanza["power"]:
        return tuple(_resolve(name, found, plan.device) for name in plan.stanza["power"])
    widest = list(Scope)
    return tuple(sorted(found, key=lambda name: widest.index(found[name].scope or Scope.RAIL)))


def _resolve(name: str, found: Mapping[str, object], device: str) -> str:
    """A channel by its full name, or by its instrument's where that has one power channel."""
    matches = [channel for channel in found if name in {channel, channel.partition(".")[0]}]
    if len(matches) != 1:
        known = ", ".join(found) or "none"
        raise UserError(f"devices.{device}.power: {name!r} names {len(matches)} power channels; there are: {known}")
    return matches[0]


def _host() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
    }
