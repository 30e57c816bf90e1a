"""What meters on serial ports share: how they are looked for, and what they need of the system."""

from __future__ import annotations

import getpass
import grp
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joulelab.errors import DataInvalid, InstrumentFault, JoulelabError
from joulelab.instruments.base import Check, Found, Meter
from joulelab.timebase import MonotonicClock
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import GROUP, is_port, ports


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """What a parser refuses is a fault of the meter `name`, which the next reading may not have."""
    try:
        yield
    except DataInvalid as error:
        raise InstrumentFault(f"{name}: {error}", transient=True) from None


def probe(driver: type[Meter], name: str, place: Connection, address: str | None) -> Iterator[Found]:
    """The meter at a port, if it answers as that kind: an adapter's USB identity does not tell what is behind it."""
    if place.url != "local" or address is None or not is_port(address):
        return
    meter = driver("probe", driver.Options(port=address), MonotonicClock())
    try:
        meter.open()
        meter.close()
    except JoulelabError:
        return
    yield Found(name, {"port": address}, ", ".join(str(value) for value in meter.identity.values()))


def check_ports(place: Connection) -> Iterator[Check]:
    """Whether the serial ports that are plugged in may be opened."""
    if place.url != "local":
        return
    for port, _, _ in ports():
        may = os.access(port, os.R_OK | os.W_OK)
        yield Check(port, may, "can be opened" if may else _why_not(Path(port)), "" if may else GROUP)


def _why_not(port: Path) -> str:
    group = grp.getgrgid(port.stat().st_gid).gr_name
    return f"{getpass.getuser()} may not open it: it belongs to the group {group}; log in again afterwards"
