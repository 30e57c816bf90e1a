"""The adb server of this machine, and the phones that it knows."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any
from urllib.parse import urlsplit

from joulelab.errors import HardwareMissing

CONNECT_S = 10.0
"""The longest that joining a phone over Wi-Fi may take."""
MEND = {
    "unauthorized": "does not trust this computer: unlock it and accept its question, then `adb reconnect`",
    "authorizing": "has not decided whether to trust this computer: unlock it and accept its question",
    "offline": "is offline: `adb reconnect offline`, or plug it in again",
    "no": "may not be opened: `sudo apt install android-sdk-platform-tools-common` brings the udev rules, "
    "`sudo usermod -aG plugdev $USER` the group; log in and plug it in again",
}
"""What to do about a phone by the state that `adb devices` tells (`no` begins `no permissions`)."""


def serves() -> bool:
    """Whether the adb server of the environment answers."""
    try:
        socket.create_connection(_server(), timeout=1.0).close()
    except OSError:
        return False
    return True


def listed() -> dict[str, str]:
    """The phones that the adb server knows, serial -> state; HardwareMissing where none can be started."""
    adbutils = library()
    try:
        if not serves():
            command = [adbutils.adb_path(), "start-server"]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20, check=True)
        return {phone.serial: phone.state for phone in adbutils.AdbClient().list()}
    except (adbutils.AdbError, OSError, subprocess.SubprocessError) as error:
        where, mend = ":".join(map(str, _server())), "`adb start-server`, or `sudo apt install adb`"
        raise HardwareMissing(f"no adb server answers at {where} ({error}): {mend}") from None


def _server() -> tuple[str, int]:
    host, port = (os.environ.get(f"ANDROID_ADB_SERVER_{name}") for name in ("HOST", "PORT"))
    return host or "127.0.0.1", int(port or 5037)


def find(url: str) -> tuple[str, Any]:
    """A phone's serial and adbutils' device; HardwareMissing, with the mending, where it is not to be had."""
    adbutils, serial = library(), urlsplit(url).netloc
    client, phones = adbutils.AdbClient(), listed()
    if ":" in serial and phones.get(serial) != "device":
        _join(serial)
        phones = listed()
    if not serial and len(phones) == 1:
        serial = next(iter(phones))
    state = phones.get(serial)
    if state is None:
        there = ", ".join(f"adb://{each}" for each in phones) or "none; switch USB debugging on, and see `adb devices`"
        raise HardwareMissing(f"{url}: names no phone that the adb server knows; it knows {there}")
    if state != "device":
        raise HardwareMissing(f"adb://{serial}: the phone {MEND.get(state, f'is in state {state!r}: start Android')}")
    return serial, client.device(serial)


def _join(address: str) -> None:
    """Have the server connect to a phone over Wi-Fi; the list of its phones tells whether it could."""
    adbutils = library()
    try:
        adbutils.AdbClient().connect(address, timeout=CONNECT_S)
    except (adbutils.AdbError, OSError):
        return


def library() -> Any:
    """The module, which ships no types."""
    try:
        import adbutils  # type: ignore[import-untyped]
    except ImportError:
        raise HardwareMissing("phones need adbutils: pip install 'joulelab[android]'") from None
    return adbutils
