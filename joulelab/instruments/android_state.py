"""What every meter on a phone shares: its shell, who it is, and its screen and radios, which draw what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.instruments.base import Meter
from joulelab.instruments.probes import Prober
from joulelab.timebase import SECOND
from joulelab.transports.adb import Adb
from joulelab.transports.base import Reply, Transport
from joulelab.transports.files import split

UNSURE_NS = 1_000_000
"""A phone's clock is told to about a millisecond (`transports.adb.Adb`)."""
STATE_S = 60.0
"""How often the state is looked at: it costs the phone some 100 ms of work."""
STATE = (
    "dumpsys power | grep -m 2 -E 'mWakefulness=|mHalInteractiveModeEnabled='; "
    "for s in 'system screen_brightness' 'global airplane_mode_on' 'global wifi_on' 'global mobile_data' "
    "'global bluetooth_on' 'global low_power'; do echo $s=$(settings get $s); done"
)
WHO = {
    "serial": "ro.serialno",
    "maker": "ro.product.manufacturer",
    "model": "ro.product.model",
    "android": "ro.build.version.release",
    "build": "ro.build.id",
}


class PhoneMeter(Meter):
    """A meter on a phone, `via: adb://SERIAL` or a device with such a connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.prober = Prober(self, lambda: self.records("clock")[:2], UNSURE_NS)

    def connect(self) -> Transport:
        if not isinstance(self.place, Adb):
            raise UserError(
                f"{self.name}: {self.driver} is read on a phone: say `via: adb://SERIAL` (see `adb devices`)"
            )
        return self.place.files()

    def identify(self) -> None:
        """Find out which phone it is; HardwareMissing where it is none."""
        try:
            lines = self.run("; ".join(f"echo $(getprop {name})" for name in WHO.values())).split("\n")
            self.identity = dict(zip(WHO, lines, strict=True))
        except (InstrumentFault, ValueError):
            raise HardwareMissing(f"{self.name}: what answers is no Android phone: it has no getprop") from None
        self.settings["state"] = self._state()

    def watch(self) -> None:
        """Look at the state, and tell of a change, unless that was done lately."""
        if self._now - self._looked_ns < STATE_S * SECOND:
            return
        state = self._state()
        if state != self.settings["state"]:
            self.settings["state"] = state
            self.tell(
                "settings",
                instrument=self.name,
                settings=self.settings,
                channels=[channel.to_json() for channel in self.channels],
            )

    def run(self, command: str) -> str:
        """What a shell command on the phone writes; InstrumentFault where it fails."""
        return self.ask(f"run {command}")

    def ask(self, request: str) -> str:
        """A request and its records; InstrumentFault where the phone refuses it."""
        text = "\n".join(self.records(request)[2]).strip()
        if text.startswith("!"):
            raise InstrumentFault(f"{self.name}: the phone refuses `{request[:60]}`: {text[1:200]}")
        return text

    def records(self, request: str) -> tuple[Reply, int, Sequence[str]]:
        """A reply, the phone's clock [ns since boot] and the records in it."""
        reply = self.exchange(request.encode())
        self._now = reply.after
        try:
            stamp, records = split(reply.data)
        except ValueError as error:
            raise InstrumentFault(f"{self.name}: {error}", transient=True) from None
        if stamp is None:
            raise InstrumentFault(f"{self.name}: a reply without the phone's clock", transient=True)
        return reply, stamp, [record.decode(errors="replace") for record in records]

    def _state(self) -> dict[str, str]:
        text = self.run(STATE)
        self._looked_ns = self._now
        return state(text)


def state(text: str) -> dict[str, str]:
    """Screen and radios from what STATE printed: Android's own names and words, what it does not know left out."""
    pairs = (line.strip().split(" ")[-1].partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs if name and value and value != "null"}
