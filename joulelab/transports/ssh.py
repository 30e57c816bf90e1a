"""A Linux host over the system's own `ssh`, with the user's keys, known hosts and configuration."""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.timebase import Clock
from joulelab.transports import agent
from joulelab.transports.base import Transport
from joulelab.transports.files import AgentFiles
from joulelab.transports.process import ProcessTransport

COMMAND = "JOULELAB_SSH"
"""The environment variable for another command line than `ssh`, such as `ssh -F lab_config`."""
OPTIONS = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
LOG_IN_S = 30.0
"""The longest that logging in and starting Python may take."""
_URL = re.compile(
    r"ssh://(?P<login>(?:[^\s@/:-][^\s@/:]*@)?(?:[^\s@/:\[-][^\s@/:]*|\[[^\s@/\]]+\]))(?::(?P<port>\d+))?"
)


class Ssh:
    """Each transport is a login of its own, so that commands never wait for readings."""

    def __init__(self, url: str, clock: Clock) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise UserError(f"{url!r} names no host: expected ssh://[user@]host[:port]")
        self.url = url
        self._clock = clock
        self._port = ["-p", match["port"]] if match["port"] else []
        self._login = re.sub(r"[\[\]]", "", match["login"])

    def open(self, argv: Sequence[str]) -> Transport:
        return self._start(argv[0], ["open", *argv])

    def files(self) -> Transport:
        return AgentFiles(self._start("files", ["files"]))

    def _start(self, what: str, arguments: Sequence[str]) -> ProcessTransport:
        """The agent's lines from after its greeting."""
        command = [*shlex.split(os.environ.get(COMMAND, "ssh")), *OPTIONS, *self._port, self._login, _sent(arguments)]
        lines = ProcessTransport(command, self._clock, f"{self.url}: {what}", LOG_IN_S)
        try:
            while not (line := lines.exchange().data).startswith(agent.HELLO):
                pass
        except InstrumentFault as fault:
            lines.close()
            reason = lines.complaint.decode(errors="replace")
            raise HardwareMissing(f"{self.url}: {self._why(reason) or fault}") from None
        lines.timeout_s = ProcessTransport.TIMEOUT_S
        if refusal := line.removeprefix(agent.HELLO):
            lines.close()
            raise HardwareMissing(f"{self.url}{refusal.decode(errors='replace')}")
        return lines

    def _why(self, complaint: str) -> str:
        """The mending of a login that failed, empty where its own words have to do."""
        login = shlex.join([*self._port, self._login])
        if "IDENTIFICATION HAS CHANGED" in complaint:
            return f"its host key is another than before: find out why, then follow what `ssh {login}` says"
        if "Host key verification failed" in complaint:
            return f"its host key is not known yet: run `ssh {login}` once and accept it"
        if "Permission denied" in complaint:
            return f"it takes none of your keys: run `ssh-copy-id {login}`"
        if re.search(r"python3: (command )?not found|[Uu]nknown command:? .?python3", complaint):
            return "it has no python3: install it there (Debian: `sudo apt install python3`)"
        if reason := re.search(r"(?:ssh: |connect to )\S.*: (.*)", complaint):
            return f"it cannot be reached ({reason[1].strip()}): see whether `ssh {login}` works"
        return ""


def _sent(arguments: Sequence[str]) -> str:
    """The command that runs the agent: its text in letters that every login shell leaves alone, and no file there."""
    text = base64.b64encode(Path(agent.__file__).read_bytes()).decode()
    return f"python3 -ISc \"import base64;exec(base64.b64decode('{text}'))\" {shlex.join(arguments)}"
