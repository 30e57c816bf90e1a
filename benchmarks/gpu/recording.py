"""`python -m benchmarks.gpu.recording OUT` records a card, or other devices of a lab file, for tests to replay.

`python -m benchmarks.gpu.recording expect FOLDER` writes down what the replay of the recording there gives.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.archive import CERTIFICATES, pack, unpack
from benchmarks.gpu.limit import GRACE_S, Ended, limited
from benchmarks.gpu.replay import results
from joulelab import calibrate
from joulelab.bench import Plan, Stop, record
from joulelab.errors import JoulelabError, UserError
from joulelab.lab import Lab, load_lab
from joulelab.quantities import Scope
from joulelab.recording.whole import write_whole

LAB = Path(__file__).parents[2] / "examples" / "cuda.yaml"
MOST_S = 480.0
CALIBRATION = 0.35
"""The share of the time for the ladder and for what is computed of it."""
PACKING_S = 20.0
ARCHIVE, EXPECTED = "recording.tar.xz", "expected.json"


class Part(NamedTuple):
    """A part of a recording; `share` is what it may take of the time that is left."""

    title: str
    share: float
    play: Callable[[Stop], None]


def parts(lab: Lab, session: Path, notes: list[str]) -> Iterator[Part]:
    """The calibration on the first device, where the lab sets up a ladder; then the other protocol on each device."""
    devices = list(lab.devices)
    protocols = [name for name in lab.protocols if name != calibrate.PROTOCOL]
    if len(protocols) != 1:
        raise UserError(f"a recording plays one protocol beside the ladder, the lab sets up {len(protocols)}")
    if calibrate.PROTOCOL in lab.protocols:
        yield Part("calibration", CALIBRATION, partial(_calibrate, lab, devices[0], session, notes))
    else:
        notes.append("no calibration: the lab sets up no ladder")
    for k, device in enumerate(devices):
        yield Part(device, 1 / (len(devices) - k), partial(_measure, lab, device, protocols[0], session))


def _calibrate(lab: Lab, device: str, session: Path, notes: list[str], stop: Stop) -> None:
    """Play the ladder and write a certificate for each power channel that can be told."""
    plan = Plan.from_lab(lab, device, calibrate.PROTOCOL)
    if not (plan.instruments or plan.simulated):
        raise UserError(f"no meter feeds {device}: there is nothing to calibrate")
    run = calibrate.play(lab, device, session, stop, progress)
    channels = [
        name for name, channel in run.channels.items() if channel.gives_energy and channel.scope != Scope.ESTIMATE
    ]
    for meter in dict.fromkeys(name.partition(".")[0] for name in channels):
        found, untold = calibrate.compute("sensor", run, meter)
        notes.extend(f"no certificate: {why}" for why in untold.values())
        for made, _ in found:
            say(f"certificate {made.write(lab.certificates).name}")


def _measure(lab: Lab, device: str, protocol: str, session: Path, stop: Stop) -> None:
    plan = Plan.from_lab(lab, device, protocol)
    with progress(device, len(plan.steps())) as advance:
        record(plan, session, stop, advance)


def make(lab: Lab, out: Path, runs: Path, seconds: float) -> Path:
    """Record all parts within so many seconds, and pack what there is after each of them; the archive.

    What goes wrong in a part is noted, and the next one begins. UserError where nothing was recorded.
    """
    out.mkdir(parents=True, exist_ok=True)
    session, notes = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%S}", list[str]()
    lab = lab.model_copy(update={"certificates": session / CERTIFICATES})
    end = time.monotonic() + seconds - PACKING_S - GRACE_S
    try:
        for part in parts(lab, session, notes):
            with noted(part.title, notes), limited((end - time.monotonic()) * part.share) as stop:
                part.play(stop)
            with suppress(UserError, OSError):  # the end will tell; but the next part may be this process's last
                pack(out, session, notes)
    except Ended as ended:
        notes.append(str(ended))
    say("\n".join(["noted:", *notes]) if notes else "nothing went wrong")
    return pack(out, session, notes)


@contextmanager
def noted(title: str, notes: list[str]) -> Iterator[None]:
    """An error is noted and told, unless it is to end the recording."""
    try:
        yield
    except Ended:
        raise
    except Exception as error:  # noqa: BLE001 a bug in one part must not cost the others their time on the card
        said = str(error) if isinstance(error, JoulelabError) else repr(error)
        notes.append(f"{title}: {said.removeprefix(f'{title}: ')}")
        say(notes[-1])


@contextmanager
def progress(title: str, steps: int) -> Iterator[Callable[[int], None]]:
    """A line at every tenth of the steps: bars are for terminals, and cards are often elsewhere."""
    start = time.monotonic()
    say(f"{title}: {steps} steps")

    def told(done: int) -> None:
        if done * 10 // steps > (done - 1) * 10 // steps:
            say(f"{title}: {done} of {steps} steps after {time.monotonic() - start:.0f} s")

    yield told


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def expect(folder: Path) -> Path:
    """Replay the recording in `folder`, and write beside it what it gives."""
    with tempfile.TemporaryDirectory() as scratch:
        found = results(unpack(folder / ARCHIVE, Path(scratch)))
    path = folder / EXPECTED
    write_whole(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        print(_expect(given[1:]) if given[:1] == ["expect"] else _record(given))
    except JoulelabError as error:
        say(f"recording: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.exit(f"recording: {error.filename}: {error.strerror}")


def _expect(given: Sequence[str]) -> Path:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.recording expect")
    parser.add_argument("folder", type=Path, help=f"has {ARCHIVE}")
    return expect(parser.parse_args(given).folder)


def _record(given: Sequence[str]) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.recording", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder for the archive")
    parser.add_argument("--lab", type=Path, default=LAB, help="what is recorded (%(default)s)")
    parser.add_argument("--runs", type=Path, help="the folder for the runs as they were recorded (OUT/runs)")
    parser.add_argument(
        "--limit", type=float, default=MOST_S, help="the longest that it may take in seconds (%(default)g)"
    )
    asked = parser.parse_args(given)
    archive = make(load_lab(asked.lab), asked.out, asked.runs or asked.out / "runs", asked.limit)
    return f"{archive}: {archive.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    main()
