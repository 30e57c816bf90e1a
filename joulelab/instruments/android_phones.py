"""Which phones there are, and what keeps the others from being read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Check, Found
from joulelab.timebase import MonotonicClock
from joulelab.transports.adb import Adb
from joulelab.transports.adb_server import MEND, listed, serves
from joulelab.transports.connection import Connection
from joulelab.transports.files import split

ADB_INTERFACE = ("ff", "42", "01")
"""The class, subclass and protocol of ADB's USB interface."""
START = "adb start-server"


def find(place: Connection, address: str | None, pattern: str) -> Iterator[Found]:
    """The phones of this machine's adb server, or the one at `place`, that have a file that matches `pattern`.

    A server is started only if a phone is plugged in.
    """
    if isinstance(place, Adb):
        yield from _look(place, pattern, {})
    elif place.url == "local" and address is None and find_spec("adbutils") and (serves() or _plugged_in()):
        for serial, state in listed().items():
            if state == "device":
                url = f"adb://{serial}"
                yield from _look(Adb(url, MonotonicClock()), pattern, {"via": url})


def checks(place: Connection, usb: Path = Path("/sys/bus/usb/devices")) -> Iterator[Check]:
    """What phones need of this machine, and the state of each; `usb` is where the kernel lists USB interfaces."""
    if not (place.url == "local" or isinstance(place, Adb)):
        return
    if find_spec("adbutils") is None:
        yield Check("adbutils", False, "is missing, so no phone can be read", "pip install 'joulelab[android]'")
    elif not (serves() or _plugged_in(usb)):
        yield Check("adb server", False, "does not run, and no phone is plugged in", START)
    else:
        yield from _states()


def _states() -> Iterator[Check]:
    try:
        phones = listed()
    except HardwareMissing as missing:
        yield Check("adb server", False, str(missing), START)
        return
    if not phones:
        yield Check("adb server", False, "runs, but knows no phone: switch USB debugging on, plug it in", "adb devices")
    for serial, state in phones.items():
        yield Check(
            f"phone {serial}", state == "device", "may be read" if state == "device" else MEND.get(state, state)
        )


def _look(place: Adb, pattern: str, via: dict[str, str]) -> Iterator[Found]:
    try:
        with closing(place.files()) as files:
            _, (model,) = split(files.exchange(b"run getprop ro.product.model").data)
            _, paths = split(files.exchange(f"ls {pattern}".encode()).data)
    except (HardwareMissing, InstrumentFault, ValueError):  # `doctor` says why
        return
    if paths:
        text = model.decode(errors="replace").strip()
        yield Found(re.sub(r"\W+", "-", text).strip("-").lower() or "phone", dict(via), f"{text} at {place.url}")


def _plugged_in(usb: Path = Path("/sys/bus/usb/devices")) -> bool:
    names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    return any(
        tuple((interface / name).read_text().strip() for name in names) == ADB_INTERFACE
        for interface in usb.glob("*:*")
    )
