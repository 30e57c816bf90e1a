"""The error family: what a person can mend, what an instrument did, and (uncaught) what is a bug."""

from __future__ import annotations


class JoulelabError(Exception):
    """The base. `exit_code` is what the command line ends with; the message is one line that names the thing."""

    exit_code = 3


class UserError(JoulelabError):
    """Something that a person can mend: usage or configuration. Shown without a traceback."""

    exit_code = 1


class HardwareMissing(UserError):
    """A device, sensor or optional library that the bench names is not there."""

    exit_code = 2


class DataInvalid(UserError):
    """Recorded or imported data that cannot support what was asked of it."""

    exit_code = 5


class RunAborted(JoulelabError):
    """The operator stopped the run."""

    exit_code = 4


class InstrumentFault(JoulelabError):
    """An instrument or engine misbehaved. A transient fault may be retried; a stable one ends the run."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ConfigurationFault(InstrumentFault):
    """One configuration cannot run, for want of memory; it is skipped, and the others go on."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
