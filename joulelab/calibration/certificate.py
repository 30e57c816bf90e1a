"""Certificates: what a calibration found, where it holds, and which of them a run's readings are read with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from joulelab.calibration.conditions import conditions, mismatch
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel
from joulelab.recording import Manifest, RunDir
from joulelab.recording.seal import sha256
from joulelab.recording.whole import write_whole

FORMAT = 1
"""The version of the certificate's format that this program writes, and the newest that it reads."""
FOLDER = "certificates"
"""Where a run keeps the certificates that it names."""
VALIDITY = timedelta(days=365)
VALID, EXPIRED, REFUSED, MISSING = "valid", "expired", "refused", "missing"
GAIN = ("gain", "offset", "pivot", "gain_u_rel", "offset_u")
SENSOR = (
    "period_s",
    "window_s",
    "window_u_s",
    "lowpass_s",
    "lowpass_u_s",
    "delay_s",
    "delay_u_s",
    "resolution",
    "noise_u",
)
CORRECTING = {"gain": GAIN, "sensor": SENSOR}
"""The kinds that change how a channel is read, and the fields of its sensor model that they set."""


@dataclass(frozen=True)
class Certificate:
    """The stored result of a calibration.

    `kind`: clock, sensor, gain or closure; a clock has the instrument's name as `channel`. `conditions`: where it
    holds, as `conditions` has it, and what else is worth knowing. `result`: figures in SI units. `covariance`:
    {"names": [...], "matrix": [[...]]} of some of them. `made` and `valid_until` are ISO times in UTC. `run` is
    "session/run", `run_sha256` the hash of its seal.
    """

    kind: str
    channel: str
    method: str
    conditions: dict[str, Any]
    result: dict[str, float]
    covariance: dict[str, Any]
    made: str
    valid_until: str
    run: str
    run_sha256: str | None
    simulated: bool
    format: int = FORMAT

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: sorted keys, no spaces."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Put it into `folder` as a file of its own, whole or not at all."""
        path = folder / f"{self.kind}-{self.channel}-{self.hash[:12]}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**asdict(self), "sha256": self.hash}, indent=1, allow_nan=False) + "\n")
        return path


def read(path: Path) -> Certificate:
    """A certificate; DataInvalid where the file is none, was changed, or is newer than this program."""
    try:
        data = json.loads(path.read_text())
        if (found := data["format"]) > FORMAT:
            raise DataInvalid(f"{path} has format {found}, this joulelab reads up to {FORMAT}: update joulelab")
        sealed = data.pop("sha256")
        certificate = Certificate(**data)
        whole = certificate.hash == sealed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DataInvalid(f"{path} is no certificate, or was changed after it was written: remove it")
    return certificate


def certificate(
    run: RunDir,
    kind: str,
    channel: str,
    method: str,
    result: Mapping[str, float],
    covariance: dict[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Certificate:
    """What was found in `run` about `channel`, made now and valid for a year. `about` is added to the conditions."""
    made, seal = datetime.now(UTC), run.path / "seal.json"
    return Certificate(
        kind,
        channel,
        method,
        {**(about or {}), **conditions(run.manifest, channel)},
        {name: float(value) for name, value in result.items()},
        covariance or {"names": [], "matrix": []},
        made.isoformat(timespec="seconds"),
        (made + VALIDITY).isoformat(timespec="seconds"),
        f"{run.manifest.session}/{run.manifest.run}",
        sha256(seal) if seal.is_file() else None,
        run.manifest.simulated,
    )


@dataclass(frozen=True)
class Store:
    """The certificates in a folder, oldest first; a folder that is not there holds none."""

    folder: Path

    def __iter__(self) -> Iterator[Certificate]:
        found = [read(path) for path in sorted(self.folder.glob("[!.]*.json"))]
        return iter(sorted(found, key=lambda certificate: certificate.made))


@dataclass(frozen=True)
class Calibrated:
    """The channels of a run, corrected by the certificates in `used`. `rows` are for the report, a certificate each.

    A row's `state` is valid (then it was applied), expired, refused (made for something else) or missing; `note` says
    why.
    """

    channels: dict[str, Channel]
    used: dict[str, list[Certificate]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def certified(self, channel: str, kind: str) -> Certificate | None:
        """The certificate of a kind that was applied to a channel."""
        return next((each for each in self.used.get(channel, ()) if each.kind == kind), None)


def calibrated(run: RunDir, store: Store | None = None, without: Set[str] = frozenset()) -> Calibrated:
    """Read a run with the certificates of `store` that fit its meters, but those of some kinds; None: its own."""
    kept = Store(run.path / FOLDER) if store is None else store
    made = Calibrated(dict(run.channels))
    judged = [each for each in chosen(run.manifest, kept) if each[2].kind not in without]
    for state, note, found in sorted(judged, key=lambda each: each[2].kind, reverse=True):  # the sensor before its gain
        made.rows.append(_row(found) | {"state": state, "note": note})
        if state == VALID:
            made.used.setdefault(found.channel, []).append(found)
            made.channels[found.channel] = _corrected(made.channels[found.channel], found)
    if store is None:
        made.rows.extend(_missing(run.manifest, {row["hash"] for row in made.rows}))
    return made


def chosen(manifest: Manifest, store: Store) -> list[tuple[str, str, Certificate]]:
    """Of each kind and channel of a run the best certificate there is for the meter's driver, its state and why."""
    best: dict[tuple[str, str], tuple[str, str, Certificate]] = {}
    for found in store:
        key = found.kind, found.channel
        if found.channel in manifest.channels and _same_driver(found, manifest):
            judged = *_judge(found, manifest), found
            if key not in best or judged[0] == VALID or best[key][0] != VALID:
                best[key] = judged
    return list(best.values())


def _same_driver(found: Certificate, manifest: Manifest) -> bool:
    return bool(found.conditions.get("driver") == conditions(manifest, found.channel)["driver"])


def _judge(found: Certificate, manifest: Manifest) -> tuple[str, str]:
    if why := mismatch(found.conditions, conditions(manifest, found.channel)):
        return REFUSED, why
    until, day = found.valid_until[:10], manifest.created[:10]
    if day > until:
        return EXPIRED, f"it was valid until {until}, the run is of {day}"
    return VALID, ""


def _row(found: Certificate) -> dict[str, Any]:
    shown = ("channel", "kind", "hash", "made", "valid_until", "method", "run", "simulated")
    return {name: getattr(found, name) for name in shown}


def _missing(manifest: Manifest, there: Set[str]) -> Iterator[dict[str, Any]]:
    note = "the run names it, and does not hold it any more: --certificates names a folder that has it"
    for key, named in manifest.certificates.items():
        kind, _, channel = key.partition(" ")
        if named not in there:
            unknown = dict.fromkeys(("made", "valid_until", "method", "run", "simulated"))
            yield {"channel": channel, "kind": kind, "hash": named, **unknown, "state": MISSING, "note": note}


def _corrected(channel: Channel, found: Certificate) -> Channel:
    fields = {name: found.result[name] for name in CORRECTING.get(found.kind, ()) if name in found.result}
    sensor = replace(channel.sensor, **fields)
    if found.kind == "gain":  # what is stated of raw readings holds of corrected ones
        scaled = {name: getattr(sensor, name) / sensor.gain for name in ("resolution", "noise_u")}
        sensor = replace(sensor, **scaled, wrap=sensor.wrap and sensor.wrap / sensor.gain)
    return replace(channel, sensor=sensor)
