"""Everything random, drawn by a key that names what it is for, and so independent of what was drawn before."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from joulelab.simulation.profile import Noise

BLOCK = 4096
Key = tuple[int, ...]


def key(seed: int, *names: str | int) -> Key:
    """A key of a run's seed and names (texts by their CRC-32)."""
    return (seed, *(zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names))


def generator(of: Key) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(of))


def normals(of: Key, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard normal numbers by index (ascending, at least 0): the same index gives the same number in any call."""
    blocks = range(int(index[0]) // BLOCK, int(index[-1]) // BLOCK + 1) if len(index) else range(0)
    drawn = [_block((*of, block)) for block in blocks]
    return np.concatenate(drawn)[index - blocks.start * BLOCK] if drawn else np.empty(0)


def normal(of: Key, index: int) -> float:
    """The one of `normals` at `index`."""
    return float(_block((*of, index // BLOCK))[index % BLOCK])


@lru_cache(maxsize=64)
def _block(of: Key) -> NDArray[np.float64]:
    return generator(of).standard_normal(BLOCK)


@dataclass(frozen=True)
class Luck:
    """What chance does to one inference: a stall [s], and factors of mean 1 on durations and dynamic power."""

    stall_s: float
    prefill_time: float
    decode_time: float
    prefill_power: float
    decode_power: float


def luck(noise: Noise, of: Key) -> Luck:
    rng = generator(of)
    cv = np.array([noise.prefill_cv, noise.decode_cv, noise.power_cv, noise.power_cv])
    return Luck(stall(noise, rng), *lognormal(cv, rng.standard_normal(4)))


def lognormal(cv: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors of mean 1 and coefficient of variation `cv`."""
    sigma = np.sqrt(np.log1p(cv**2))
    return np.exp(sigma * z - sigma**2 / 2)


def stall(noise: Noise, rng: np.random.Generator) -> float:
    """Now and then the allocator keeps the prefill waiting, exponentially distributed."""
    happens, length = rng.random() < noise.stall_probability, rng.exponential(noise.stall_mean_s)
    return float(length) if happens else 0.0
