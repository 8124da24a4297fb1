"""Audio tower: log-mel spectrograms, the fixed input of the small network that is trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qarm.core.atomic_io import digest, write_json
from qarm.data.media_decoding import load_audio

__all__ = ["LOGMEL", "LogMel", "mel_bands"]

LOGMEL = "logmel"
RATE, WINDOW, HOP, FRAMES, BANDS = 16_000, 1024, 512, 64, 64
LOWEST, FLOOR, QUIET = 40.0, 1e-6, 1e-4
SETTINGS = {
    "revision": 1,
    "rate": RATE,
    "window": WINDOW,
    "hop": HOP,
    "frames": FRAMES,
    "bands": BANDS,
    "lowest": LOWEST,
    "floor": FLOOR,
    "quiet": QUIET,
}


class LogMel:
    """Natural logarithm of the mel power spectrum of a sound's first 2 seconds: 64 frames x 64 bands.

    16 kHz mono at full scale, Hann windows of 64 ms every 32 ms, bands from 40 Hz to 8 kHz; a shorter
    sound is repeated.
    """

    name = LOGMEL
    fingerprint = digest(SETTINGS)

    def __init__(self) -> None:
        self._bands = mel_bands(RATE, WINDOW, bands=BANDS, lowest=LOWEST).astype(np.float32)
        self._taper = np.hanning(WINDOW + 1)[:-1].astype(np.float32)

    def load(self, content: bytes) -> npt.NDArray[np.float16]:
        """The spectrogram of one sound, float16 [64 frames, 64 bands]."""
        samples = load_audio(content, RATE, seconds=FRAMES * HOP / RATE)
        samples /= max(float(np.abs(samples).max()), QUIET)  # how loud a file is says how it was recorded
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, WINDOW - HOP)), WINDOW)[::HOP]
        power = np.abs(np.fft.rfft(frames * self._taper)) ** 2
        # Not through BLAS: its threads fight with the ones that call this.
        mel = np.einsum("fk,bk->fb", power, self._bands)
        return np.asarray(np.log(mel / WINDOW + FLOOR), dtype=np.float16)

    def encode(self, inputs: Sequence[npt.NDArray[np.float16]]) -> npt.NDArray[np.float16]:
        """Spectrograms, float16 [n, 64, 64]."""
        return np.stack(inputs)

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: its settings."""
        write_json(folder / "config.json", SETTINGS)


def mel_bands(rate: int, window: int, *, bands: int, lowest: float) -> npt.NDArray[np.float64]:
    """Triangles that overlap by half, evenly spaced on the mel scale (Stevens, 2595 log10(1 + f / 700)).

    Returns:
        float64 [bands, window // 2 + 1], the weight of each frequency bin in each band; each row sums
        to 1, so that bands of any width are on one scale.
    """
    low, high = (2595 * np.log10(1 + frequency / 700) for frequency in (lowest, rate / 2))
    edges_mel = np.linspace(low, high, bands + 2)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    bins = np.linspace(0, rate / 2, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    weights = np.clip(np.minimum(rising, falling), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
