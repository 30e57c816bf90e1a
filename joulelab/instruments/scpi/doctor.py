"""What SCPI meters need of this machine: pyvisa's backends, and the permission to talk to USB meters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from joulelab.errors import HardwareMissing
from joulelab.instruments.base import Check
from joulelab.transports.visa import PYVISA_PY, manager

UDEV_RULE = 'SUBSYSTEM=="usb", ENV{ID_USB_INTERFACES}=="*:fe03??:*", TAG+="uaccess"'
"""USBTMC: interface class FE, subclass 03."""


def checks(root: Path = Path("/")) -> Iterator[Check]:
    """Below `root`, the machine's file system."""
    yield _backend(PYVISA_PY, "pyvisa-py", "pip install pyvisa-py")
    yield _usb_library()
    yield from _usb_permissions(root)
    yield _gpib()


def _backend(backend: str, name: str, mend: str) -> Check:
    try:
        manager(backend)
    except HardwareMissing as missing:
        return Check(f"VISA backend {name}", False, str(missing), mend)
    return Check(f"VISA backend {name}", True, "sockets, VXI-11, HiSLIP and serial ports work")


def _usb_library() -> Check:
    if find_spec("usb") is None:
        return Check("USB meters (USBTMC)", False, "pyusb is missing; other connections work", "pip install pyusb")
    return Check("USB meters (USBTMC)", True, "pyusb is there")


def _usb_permissions(root: Path) -> Iterator[Check]:
    for interface in sorted(root.glob("sys/bus/usb/devices/*:*")):
        if _read(interface / "bInterfaceClass") != "fe" or _read(interface / "bInterfaceSubClass") != "03":
            continue
        device = interface.parent / interface.name.partition(":")[0]
        node = root / "dev/bus/usb" / f"{int(_read(device / 'busnum')):03}" / f"{int(_read(device / 'devnum')):03}"
        allowed = os.access(node, os.R_OK | os.W_OK)
        mend = f"echo '{UDEV_RULE}' | sudo tee /etc/udev/rules.d/70-usbtmc.rules && sudo udevadm trigger"
        message = "may be used" if allowed else f"no permission on {node}"
        yield Check(f"USB meter {device.name}", allowed, message, "" if allowed else mend)


def _gpib() -> Check:
    found = any(find_spec(name) for name in ("gpib", "gpib_ctypes"))
    message = "the library is there" if found else "no GPIB library; other connections work"
    return Check("GPIB meters", found, message, "" if found else "pip install gpib-ctypes (and install linux-gpib)")


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
