"""Setting a meter up as its description says, and what puts it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.scpi import replies
from joulelab.instruments.scpi.description import Description, Range, Setting

MOST_ERRORS = 20
"""Entries read from an error queue before it is left as it is."""


class Setup:
    """One connection to a meter, `name` in `lab.yaml`, at `resource`; `ask` sends it a request."""

    def __init__(self, name: str, resource: str, about: Description, ask: Callable[[str], str]) -> None:
        self._name, self._resource = name, resource
        self._about = about
        self._ask = ask
        self._integrating = False

    def identify(self) -> dict[str, Any]:
        """Who it is; HardwareMissing where it is another model, or does not say."""
        try:
            reply = self._ask("*IDN?")
            who = replies.identity(reply)
        except (InstrumentFault, ValueError) as error:
            raise HardwareMissing(f"{self._name}: {self._resource} does not say what it is: {error}") from error
        if not re.match(self._about.identity, reply):
            raise HardwareMissing(
                f"{self._name}: {self._resource} is a {who.name}, but its driver {self._about.driver} is for a "
                f"{self._about.meter}; `joulelab discover {self._resource}` prints the stanza for it"
            )
        return who._asdict() | {"resource": self._resource}

    def check_usable(self) -> None:
        """HardwareMissing where what the description demands does not hold."""
        for demand in self._about.demands:
            if not re.fullmatch(demand.pattern, replies.data(self._ask(demand.query)).upper()):
                raise HardwareMissing(f"{self._name} ({self._resource}) cannot be used: {demand.otherwise}")

    def restoring(self) -> list[str]:
        """What puts all settings that will be changed back as they are now; the reply at the end says that it has."""
        about = self._about
        changed = [setting for setting in about.settings if setting.value is not None]
        changed += [setting for r in about.ranges for setting in (r.size, r.auto)]
        stop = about.integrator.stop if about.integrator else ()
        back = [s.command.format(value=replies.data(self._ask(s.query)).strip('"')) for s in changed]
        # To stop what does not run is an error, but none to leave behind.
        return [*stop, *back, "*CLS", about.errors]

    def set_all(self, words: Mapping[str, str]) -> None:
        """Set everything but the ranges; `words` are the meter's own for the options chosen."""
        self._ask("*CLS")
        for setting in self._about.settings:
            if setting.value is not None:
                self._set(setting, setting.value.format(**words))

    def set_ranges(self, fixed: Mapping[str, float] | None) -> None:
        """Fix the ranges and start the integrator; or stop it, and let the meter range by itself."""
        integrator = self._about.integrator
        if integrator and self._integrating:
            self._command(integrator.stop)
        for r in self._about.ranges:
            self._set_range(r, fixed)
        self._integrating = bool(integrator and fixed)
        if integrator and fixed:
            self._command(integrator.start)
        if errors := self._errors():
            raise InstrumentFault(f"{self._name} ({self._resource}) reports after its set-up: {errors}")

    def settings(self) -> dict[str, Any]:
        """All settings of the description, as they are."""
        return {setting.name: replies.data(self._ask(setting.query)) for setting in self._about.settings}

    def _set_range(self, r: Range, fixed: Mapping[str, float] | None) -> None:
        if fixed is None:
            self._set(r.auto, "1")
        else:
            self._set(r.auto, "0")
            self._set(r.size, f"{fixed[r.name]:g}")

    def _set(self, setting: Setting, value: str) -> None:
        self._ask(setting.command.format(value=value))
        answered = self._ask(setting.query)
        if not replies.same(value, answered):
            raise InstrumentFault(
                f"{self._name} ({self._resource}): {setting.name} was set to {value}, but reads back as {answered}; "
                f"its error queue: {self._errors() or 'empty'}"
            )

    def _command(self, commands: Sequence[str]) -> None:
        for command in commands:
            self._ask(command)

    def _errors(self) -> str:
        """Empty the error queue; what was in it, oldest first."""
        found = []
        for _ in range(MOST_ERRORS):
            number, text = self._error(self._ask(self._about.errors))
            if number == 0:
                break
            found.append(f"{number} {text}")
        return "; ".join(found)

    def _error(self, reply: str) -> tuple[int, str]:
        try:
            return replies.error(reply)
        except ValueError as error:
            raise InstrumentFault(f"{self._name} ({self._resource}): {error}", transient=True) from error
