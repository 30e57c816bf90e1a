"""Whether a CUDA card is free to be measured, asked of NVML before an engine loads it."""

from __future__ import annotations

import os
from typing import Any

from joulelab.errors import HardwareMissing, UserError
from joulelab.timebase import SECOND, BenchNs, Clock, MonotonicClock
from joulelab.transports import nvml
from joulelab.transports.base import Transport
from joulelab.transports.call import answers, is_refusal

QUIET = 3
"""A card that is used for more than so many per cent of the time is loaded."""
LOOKS, QUIET_LOOKS, LOOK_NS = 25, 6, SECOND // 10
"""Half a second must be quiet; what the card's last user has left in NVML's mean is gone in two."""


def check_free(name: str, index: int) -> None:
    """UserError where another process computes on a card, or something keeps it busy; `name` is the device's.

    `index` is CUDA's, among the cards of CUDA_VISIBLE_DEVICES; its order of unlike cards is NVML's where
    CUDA_DEVICE_ORDER is PCI_BUS_ID. Silent where NVML is not there or does not tell: CUDA says what is wrong. In a
    container NVML may not see the processes of others, but it sees that the card is busy.
    """
    try:
        card = nvml.connect(name, clock := MonotonicClock())
    except HardwareMissing:
        return
    try:
        if (number := _number(card, index)) is not None:
            _check(f"{name}: GPU {number}", card, number, clock)
    finally:
        card.close()


def _number(card: Transport, index: int) -> int | None:
    """NVML's index of CUDA's; None where there is no such card."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return index
    named = dict(enumerate(visible.split(","))).get(index, "").strip()
    if named.isdigit():
        return int(named)
    count = _ask(card, "nvmlDeviceGetCount") or 0
    uuids = [_ask(card, f"nvmlDeviceGetUUID {number}") or "" for number in range(count)]
    return next((k for k, uuid in enumerate(uuids) if named and uuid.startswith(named)), None)


def _check(about: str, card: Transport, number: int, clock: Clock) -> None:
    if running := _ask(card, f"nvmlDeviceGetComputeRunningProcesses {number}"):
        pids = ", ".join(str(process["pid"]) for process in running)
        raise UserError(f"{about} is used by process {pids}: end that, or take another card")
    looks: list[int] = []
    for _ in range(LOOKS):
        if (rates := _ask(card, f"nvmlDeviceGetUtilizationRates {number}")) is None:
            return
        looks = [*looks, rates["gpu"]][-QUIET_LOOKS:]
        if len(looks) == QUIET_LOOKS and max(looks) <= QUIET:
            return
        clock.sleep_until(BenchNs(clock.now() + LOOK_NS))
    raise UserError(f"{about} is busy {max(looks)} % of the time with something else: wait, or take another card")


def _ask(card: Transport, call: str) -> Any:
    """What one call returned; None where NVML refuses."""
    (answer,) = answers(card.exchange(call.encode()).data)
    return None if is_refusal(answer) else answer
