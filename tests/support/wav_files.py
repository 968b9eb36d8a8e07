"""Folders of small WAV files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.io import wavfile

RATE_HZ = 8_000


def level(path: str) -> int:
    """Sample value that says which file a clip came from."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:2], "big", signed=True)


def write_flat(root: Path, paths: Iterable[str]) -> Path:
    """Files of 40 equal samples at 8 kHz, int16, each with the ``level`` of its path under ``root``."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(root / path, RATE_HZ, np.full(40, level(path), np.int16))
    return root


def write_tones(root: Path, frequencies_hz: tuple[int, ...], count: int) -> Path:
    """A class of noisy tones for each frequency, half a second each."""
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE_HZ // 2) / RATE_HZ
    for frequency in frequencies_hz:
        folder = root / str(frequency)
        folder.mkdir(parents=True)
        for number in range(count):
            tone = np.sin(2 * np.pi * (frequency * time_s + rng.random()))
            noisy = 0.2 * tone + 0.06 * rng.normal(size=len(tone))
            wavfile.write(folder / f"{number}_{frequency}.wav", RATE_HZ, noisy.astype(np.float32))
    return root
