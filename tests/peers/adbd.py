"""A phone for tests: a prepared tree of files and commands, behind an adb server in this process or the real adbd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SERIAL = "R5CT10ABCDE"
ROOT = Path(os.environ.get("JOULELAB_ADBD", "/usr/local/lib/joulelab-adbd"))
"""Where `tools/peers` unpacks adbd of Debian trixie, mksh and toybox."""
ADBD = "/usr/lib/android-sdk/platform-tools/adbd"
REAL_ADDRESS = "127.0.0.1:5555"
MISSING = f"no adbd below {ROOT} (make peers), no adb, or not root"
PROPERTIES = {
    "ro.serialno": SERIAL,
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "Phone 7",
    "ro.build.version.release": "15",
    "ro.build.id": "AP3A",
}
DUMPSYS = """Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Charge counter: 2448973
  status: 3
  level: 94
  voltage: 4000
  temperature: 280
"""


class Phone:
    """Files below `root`; `supply` and `odpm` write what the kernel would, `battery` what `dumpsys battery` says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("sys/class/power_supply", "sys/bus/iio/devices", "bin"):
            (root / folder).mkdir(parents=True)
        self._commands()
        self.battery(DUMPSYS)

    def supply(self, name: str, **files: object) -> Path:
        folder = self.root / "sys/class/power_supply" / name
        folder.mkdir(exist_ok=True)
        for file, value in files.items():
            (folder / file).write_text(f"{value}\n")
        return folder

    def discharging(self, **files: object) -> Path:
        """A battery that gives 0.5 A at 4 V, told in uA, negative when discharging."""
        self.supply("usb", online=0, type="USB")
        common = {"status": "Discharging", "current_now": -500000, "voltage_now": 4000000, "charge_counter": 2448973}
        return self.supply("battery", **{**common, "temp": 301, **files})

    def odpm(self, number: int, text: str, rails: str = "") -> None:
        folder = self.root / f"sys/bus/iio/devices/iio:device{number}"
        folder.mkdir(exist_ok=True)
        (folder / "energy_value").write_text(text)
        (folder / "enabled_rails").write_text(rails)

    def battery(self, text: str) -> None:
        self._say("battery", text)

    def screen(self, word: str) -> None:
        self._say("power", f"  mWakefulness={word}\n")

    def _say(self, what: str, text: str) -> None:
        draft = self.root / "bin" / "draft"
        draft.write_text(text)
        draft.rename(self.root / "bin" / f"{what}.txt")

    def _commands(self) -> None:
        cases = "\n".join(f"{name}) echo '{value}';;" for name, value in PROPERTIES.items())
        self._command("getprop", f"case $1 in\n{cases}\nesac")
        self._command("dumpsys", "cat ${0%/*}/$1.txt")
        self._command("settings", "case $3 in screen_brightness) echo 40;; wifi_on) echo 1;; *) echo null;; esac")
        self.screen("Asleep")

    def _command(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


class Server(socketserver.ThreadingTCPServer):
    """The adb server's protocol as far as clients use it; its shell is this machine's `sh` on the phone's files.

    `states` is what `adb devices` says; `garble` changes what the phone says; `drop` breaks all connections.
    """

    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, phone: Phone) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.phone = phone
        self.states = {SERIAL: "device"}
        self.garble: Callable[[bytes], bytes] = lambda data: data
        self.live: set[socket.socket] = set()

    def drop(self) -> None:
        for live in list(self.live):
            with suppress(OSError):  # it may have ended meanwhile
                live.shutdown(socket.SHUT_RDWR)


class Connection(socketserver.BaseRequestHandler):
    server: Server
    request: socket.socket

    def handle(self) -> None:
        self.server.live.add(self.request)
        try:
            while head := self.request.recv(4, socket.MSG_WAITALL):
                self._serve(self.request.recv(int(head, 16), socket.MSG_WAITALL).decode())
        except OSError:  # the client is gone
            pass
        finally:
            self.server.live.discard(self.request)

    def _serve(self, service: str) -> None:
        states = self.server.states
        serial = service.rpartition("serial:")[2]
        if service == "host:version":
            self._okay(b"0029")
        elif service == "host:devices":
            self._okay("".join(f"{name}\t{state}\n" for name, state in states.items()).encode())
        elif service.startswith("host:connect:"):
            self._okay(b"failed to connect")
        elif service.startswith("host:tport:") and states.get(serial) == "device":
            self.request.sendall(b"OKAY" + bytes(8))
        elif service.startswith("shell:"):
            self.request.sendall(b"OKAY")
            self._shell(service.removeprefix("shell:"))
        else:
            self.request.sendall(b"FAIL" + _counted(b"device not found"))

    def _okay(self, text: bytes) -> None:
        self.request.sendall(b"OKAY" + _counted(text))

    def _shell(self, script: str) -> None:
        root = self.server.phone.root
        path = f"{root / 'bin'}:{os.environ['PATH']}"
        shell = subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": path},
            start_new_session=True,
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        below = f"{root}/sys/".encode()
        writer = threading.Thread(target=self._pump, args=(shell.stdout.fileno(), below))
        writer.start()
        with suppress(OSError):  # the client is gone, or the shell is
            while data := self.request.recv(4096):
                os.write(shell.stdin.fileno(), data.replace(b"/sys/", below))
        shell.stdin.close()
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        writer.join()
        shell.stdout.close()

    def _pump(self, said: int, below: bytes) -> None:
        with suppress(OSError):
            while data := os.read(said, 65536):
                self.request.sendall(self.server.garble(data.replace(below, b"/sys/")))
            self.request.shutdown(socket.SHUT_RDWR)


def _counted(text: bytes) -> bytes:
    return b"%04x%s" % (len(text), text)


@contextmanager
def serving(phone: Phone) -> Iterator[Server]:
    """An adb server in this process that knows the phone."""
    with Server(phone) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.drop()
            server.shutdown()
            thread.join()


def can_run() -> bool:
    return (ROOT / ADBD[1:]).exists() and shutil.which("adb") is not None and os.geteuid() == 0


@contextmanager
def real(phone: Phone) -> Iterator[int]:
    """The port of the real adb server, which knows the real adbd on the phone's files as REAL_ADDRESS.

    adbd listens on every address, so both run in a network of their own; only the server's listening socket, which is
    handed down to it, belongs to this one. Where the machine forbids that, the port never answers: CalledProcessError.
    """
    script = f"""
        set -e
        ip link set lo up
        cd {ROOT}
        mount --rbind /dev dev
        mount -t proc proc proc
        mount --bind {phone.root}/sys sys
        mount --bind {phone.root}/bin usr/local/bin
        chroot . /usr/bin/env PATH=/usr/local/bin:/usr/bin {ADBD} &
        exec adb -L acceptfd:$1 nodaemon server
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, (phone.root / "log").open("wb") as log:
        fd = listener.fileno()
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*apart, "sh", "-c", script, "sh", str(fd)]
        process = subprocess.Popen(command, pass_fds=[fd], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.wait()
