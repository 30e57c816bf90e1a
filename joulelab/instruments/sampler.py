"""The sampler: a process of its own (`python -m` this module) with a thread for each instrument.

It reads its specification as one JSON line on standard input, opens the instruments and answers with what it opened; a
second line names the run's folder and starts the sampling, further ones have ranges chosen or fixed. It ends when
standard input closes, so that it never outlives the runner, however that ended. Everything it says is a JSON line on
standard output.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from joulelab.errors import JoulelabError
from joulelab.instruments.base import Meter
from joulelab.instruments.build import Spec, build, describe
from joulelab.instruments.thread import Emit, Sampling
from joulelab.timebase import Clock, MonotonicClock

RANGE_S = 10.0
"""How long a meter may take to change its ranges."""


def main() -> int:
    spec = json.loads(sys.stdin.readline())
    lock = threading.Lock()

    def emit(event: str, **fields: Any) -> None:
        with lock, suppress(BrokenPipeError):  # the runner was killed: standard input says so
            print(json.dumps({"event": event, **fields}), flush=True)

    clock = MonotonicClock(spec["clock_offset_ns"])
    refused: dict[str, str] = {}
    made: list[tuple[Meter, Spec]] = []
    try:
        made = build(spec["instruments"], clock, refused)
        for instrument, _ in made:
            instrument.open()
    except JoulelabError as error:
        emit("error", message=str(error), exit_code=error.exit_code)
        _close(made, emit)
        return error.exit_code
    emit("opened", instruments=[describe(*one) for one in made], refused=refused)
    if line := sys.stdin.readline():
        _sample_until_closed(made, Path(json.loads(line)["folder"]), clock, emit)
    _close(made, emit)
    return 0


def _sample_until_closed(made: Sequence[tuple[Meter, Spec]], folder: Path, clock: Clock, emit: Emit) -> None:
    gc.disable()  # nothing here makes cycles, and a collection is a late reading
    threads = [Sampling(instrument, wiring, folder, clock, emit) for instrument, wiring in made]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        order = json.loads(line)
        for done in [thread.range(order["range"]) for thread in threads if thread.is_alive()]:
            done.wait(RANGE_S)
        emit("ranged")
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join()


def _close(made: Sequence[tuple[Meter, Spec]], emit: Emit) -> None:
    """Put back what was changed; one meter that does not answer keeps no other from it."""
    for instrument, _ in made:
        try:
            instrument.close()
        except JoulelabError as error:
            message = f"{error}; its settings are put back when it is opened next"
            emit("fault", source=instrument.name, message=message)


if __name__ == "__main__":
    sys.exit(main())
