"""A real sshd on loopback with keys of its own, and `ssh` command lines that trust it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROGRAM = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
MISSING = "no sshd on this system (Debian: apt install openssh-server)"

SERVER = """
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
"""
CLIENT = """
IdentityFile {key}
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile none
"""


class Sshd(NamedTuple):
    """`url` is what `lab.yaml` would say."""

    url: str
    folder: Path
    pid: int

    @property
    def sessions(self) -> list[int]:
        """The processes that serve a login."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def client(self, key: str, options: str | None = "") -> str:
        """The `ssh` command line with a new key, which the server takes under `options` of authorized_keys, if any."""
        path = self.folder / key
        _keygen(path)
        (self.folder / f"{key}.config").write_text(CLIENT.format(folder=self.folder, key=path))
        if options is not None:
            with (self.folder / "authorized_keys").open("a") as keys:
                keys.write(f"{options} {path.with_suffix('.pub').read_text()}")
        return f"ssh -F '{path}.config'"


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    assert PROGRAM is not None
    port = _configure(folder)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # root's sshd insists on it; Debian makes it where sshd is a service
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "-D", "-e", "-f", folder / "server", "-p", str(port)], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        yield Sshd(url, folder, process.pid)
    finally:
        process.terminate()
        process.wait()


def _configure(folder: Path) -> int:
    _keygen(folder / "host_key")
    (folder / "server").write_text(SERVER.format(folder=folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    return port


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        else:
            return
