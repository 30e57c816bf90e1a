"""Local time of log files as time since the epoch, where it is known whose local time it is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from joulelab.analysis.imports.source import Clock
from joulelab.errors import UserError
from joulelab.recording.formats.csv_log import date_ns

_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


def zone(name: str) -> tzinfo:
    """The zone of a name (`Europe/Berlin`, `UTC`) or of an offset (`+02:00`); UserError where there is none."""
    if name == "UTC":
        return UTC
    if match := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UserError(
            f"no time zone is called {name!r}; expected a name such as Europe/Berlin, UTC or +02:00"
        ) from None


def local_clock(name: str | None, coarse_ns: int) -> Clock:
    """The clock of stamps in local time; `name` is the zone's, None where nobody said."""
    about = f"local time in {name}" if name else "local time in a zone that nobody stated"
    return Clock(about, coarse_ns, "epoch" if name else "local")


class LocalClock:
    """Turns the local times of one log, in their order, into ns since the epoch.

    Without a zone they are taken as they stand, so that only differences mean something. Of the two instants that a
    local time has when summer time ends, the later one is meant where the earlier one would go back.
    """

    def __init__(self, name: str | None) -> None:
        self._zone = zone(name) if name else None
        self._last = -(2**63)

    def ns(self, stamp: datetime) -> int:
        """ValueError for a time that the zone leaves out when summer time begins."""
        if self._zone is None or stamp.tzinfo is not None:
            return date_ns(stamp)
        local = stamp.replace(tzinfo=self._zone)
        now = date_ns(local)
        if now < self._last and (later := date_ns(local.replace(fold=1))) >= self._last:
            now = later
        if local.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != stamp:
            raise ValueError(f"there was no {stamp} in {self._zone}: summer time began; is the time zone right?")
        self._last = now
        return now


def read_start(text: str, timezone: str | None) -> int:
    """The ns since 1970 of a date that a map gives for the start of a log; UserError where it says no instant."""
    try:
        start = datetime.fromisoformat(text)
        if start.tzinfo is None and timezone is None:
            raise ValueError("it has no offset from UTC, and no time zone is given")
        return LocalClock(timezone).ns(start)
    except (ValueError, OverflowError) as reason:
        raise UserError(f"start: {text!r} is no point in time: {reason}") from None
