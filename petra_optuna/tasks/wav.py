"""Reading WAV files as clips of one channel, one sample rate and one length."""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.reading import UNREADABLE

FULL_SCALE = 32768
"""Divisor that maps the int16 samples of a clip to [-1, 1]."""

LEAST_RATE_HZ, LARGEST_RATE_HZ = 1_000, 1_000_000
"""Sample rates outside are those of damaged headers; the filter of a resampling grows with the rate."""


def read_clip(path: str, *, rate_hz: int, length: int) -> np.ndarray:
    """Decode a WAV file of integers of 8, 16, 24 or 32 bits or of floats.

    Channels are averaged, and the clip is resampled by a polyphase filter. It is cut at the end, or padded
    there with zeros. Values are rounded to 16 bits; 16 bits of one channel at that rate do not change.

    Args:
        path: File to read.
        rate_hz: Sample rate of the clip.
        length: Number of samples of the clip.

    Returns:
        int16 (length,); divided by ``FULL_SCALE`` it lies in [-1, 1].

    Raises:
        DataError: When the file is no WAV file, is cut short, is empty or has another sample rate than 1 kHz
            to 1 MHz.
    """
    rate, samples = _read(path)
    if not LEAST_RATE_HZ <= rate <= LARGEST_RATE_HZ:
        raise DataError(f"{path} has a sample rate of {rate} Hz, not of 1 kHz to 1 MHz; mend it or remove it")
    if not len(samples):
        raise DataError(f"{path} holds no sample; remove it")
    needed = -(-length * rate // rate_hz)
    values = _in_unit_range(samples[: needed + rate])  # a second more than needed, for the filter
    mono = values.reshape(len(values), -1).mean(axis=1)
    if not np.isfinite(mono).all():
        raise DataError(f"{path} holds samples that are not finite; remove it")
    common = math.gcd(rate, rate_hz)
    resampled = resample_poly(mono, rate_hz // common, rate // common)[:length]
    clip = np.zeros(length, np.int16)
    clip[: len(resampled)] = np.clip(np.rint(resampled * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return clip


def _read(path: str) -> tuple[int, np.ndarray]:
    """Sample rate in Hz and samples (N,) or (N, channels) as the file holds them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of tags
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            return wavfile.read(BytesIO(Path(path).read_bytes()))  # type: ignore[no-any-return]
    except UnboundLocalError as error:  # scipy's, of a header without samples
        raise DataError(f"{path} is a WAV file without samples; mend it or remove it") from error
    except (*UNREADABLE, wavfile.WavFileWarning) as error:
        raise DataError(
            f"{path} is not a readable WAV file ({one_line(error)}); mend it or remove it"
        ) from error


def _in_unit_range(samples: np.ndarray) -> np.ndarray:
    """Samples as float64: full scale is [-1, 1], and 24 bits come in the upper bytes of 32."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples / half - (1.0 if samples.dtype.kind == "u" else 0.0)
