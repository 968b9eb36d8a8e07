from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import resample_poly

from petra_optuna.errors import DataError
from petra_optuna.tasks.wav import FULL_SCALE, read_clip

SIGNAL = 0.8 * np.sin(np.arange(400) / 7)
BITS = {"uint8": 8, "int16": 16, "int24": 24, "int32": 32, "float32": 24, "float64": 53}


def _clip(path: Path, length: int = 8000) -> np.ndarray:
    return read_clip(str(path), rate_hz=8000, length=length)


def _write(path: Path, values: np.ndarray, kind: str, rate: int = 8000) -> Path:
    """Write values of [-1, 1] as integers or floats of that kind."""
    if kind.startswith("float"):
        wavfile.write(path, rate, values.astype(kind))
    elif kind == "uint8":
        wavfile.write(path, rate, np.rint(values * 128 + 128).astype(np.uint8))
    elif kind == "int24":
        integers = np.rint(values * 2**23).astype("<i4")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 3, rate, 0, "NONE", ""))
            file.writeframes(integers.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    else:
        wavfile.write(path, rate, np.rint(values * 2.0 ** (BITS[kind] - 1)).astype(kind))
    return path


def test_a_file_of_the_clips_own_kind_is_unchanged_and_zeros_follow(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-FULL_SCALE, FULL_SCALE, 5000).astype(np.int16)
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    clip = _clip(tmp_path / "a.wav")
    assert clip.dtype == np.int16
    assert np.array_equal(clip[:5000], samples)
    assert len(clip) == 8000
    assert not clip[5000:].any()
    assert np.array_equal(_clip(tmp_path / "a.wav", 1000), samples[:1000])


@pytest.mark.parametrize("kind", BITS)
def test_every_kind_of_number_holds_the_same_signal(tmp_path: Path, kind: str) -> None:
    clip = _clip(_write(tmp_path / "a.wav", SIGNAL, kind))
    step = max(2.0 ** (1 - BITS[kind]), 1 / FULL_SCALE)
    np.testing.assert_allclose(clip[:400] / FULL_SCALE, SIGNAL, atol=step)


@pytest.mark.parametrize("rate", [6000, 16000, 44100])
def test_a_tone_sounds_the_same_at_every_rate(tmp_path: Path, rate: int) -> None:
    def tone(rate: int) -> np.ndarray:
        return 0.7 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)

    clip = _clip(_write(tmp_path / "a.wav", tone(rate), "float64", rate))
    np.testing.assert_allclose(clip[200:-200] / FULL_SCALE, tone(8000)[200:-200], atol=0.01)


def test_a_long_file_is_cut_as_if_all_of_it_had_been_resampled(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 5 * 16000)
    clip = _clip(_write(tmp_path / "a.wav", noise, "float64", 16000))
    whole = resample_poly(noise, 1, 2)[:8000]
    np.testing.assert_allclose(clip / FULL_SCALE, whole, atol=1 / FULL_SCALE)


def test_channels_are_averaged_and_loud_values_are_clipped(tmp_path: Path) -> None:
    channels = np.stack([np.full(10, 0.5), np.full(10, -0.25)], axis=1)
    wavfile.write(tmp_path / "a.wav", 8000, channels)
    assert (_clip(tmp_path / "a.wav")[:10] == 0.125 * FULL_SCALE).all()
    clip = _clip(_write(tmp_path / "loud.wav", np.array([3.0, -3.0]), "float64"))
    assert clip[:2].tolist() == [FULL_SCALE - 1, -FULL_SCALE]


def test_chunks_of_tags_are_skipped(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", SIGNAL, "int16")
    plain = _clip(path)
    data = path.read_bytes() + b"tags" + (4).to_bytes(4, "little") + b"text"
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert np.array_equal(_clip(path), plain)


def _text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(_write(path, SIGNAL, "int16").read_bytes()[:500])


def _header(path: Path) -> None:
    data = _write(path, SIGNAL, "int16").read_bytes()[:36]
    path.write_bytes(data[:4] + (28).to_bytes(4, "little") + data[8:])


def _no_sample(path: Path) -> None:
    wavfile.write(path, 8000, np.zeros(0, np.int16))


def _endless(path: Path) -> None:
    wavfile.write(path, 8000, np.array([0.0, np.inf]))


def _slow(path: Path) -> None:
    wavfile.write(path, 10, np.zeros(10, np.int16))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_text, "is not a readable WAV file"),
        (_nothing, "is not a readable WAV file"),
        (_cut, "is not a readable WAV file .*prematurely"),
        (_header, "WAV file without samples"),
        (_no_sample, "holds no sample;"),
        (_endless, "not finite"),
        (_slow, "sample rate of 10 Hz"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(tmp_path / "seven.wav")
    with pytest.raises(DataError, match=rf"seven\.wav .*{message}") as caught:
        _clip(tmp_path / "seven.wav")
    assert "\n" not in str(caught.value)
