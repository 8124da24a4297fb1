"""Audio of the demo world: a synthesised tone that shows the audio factors, and noise."""

import numpy as np
import numpy.typing as npt

from qarm.demo.ground_truth import Array

__all__ = ["RATE", "play_sound"]

RATE = 16_000
HARMONICS = 10


def play_sound(factors: Array, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """One breathy tone, mono, 16 kHz, 0.5 to 0.8 s, int16 [samples].

    Args:
        factors: the item's audio factors, float64 [2]: pitch, and how much breath and overtones the
            tone has, and nothing else.
        random: loudness, length, onset, tremolo, decay, hum and hiss.
    """
    samples = int(RATE * random.uniform(0.5, 0.8))
    time = np.arange(samples) / RATE
    white = random.normal(size=(2, samples + 2))
    tone = _tone(time, 260.0 * 2.0 ** (0.4 * factors[0]), tilt=1.6 - 0.4 * factors[1])
    breath = 0.02 * 10.0 ** (0.35 * factors[1]) * (white[0, 2:] - 2.0 * white[0, 1:-1] + white[0, :-2])
    onset = random.uniform(0.0, 0.15)
    shape = np.clip((time - onset) / 0.02, 0.0, 1.0) * np.exp(-random.uniform(0.0, 2.0) * time)
    shape *= 1.0 + random.uniform(0.0, 0.4) * np.sin(2.0 * np.pi * random.uniform(3.0, 9.0) * time)
    hum = _tone(time, random.uniform(60.0, 600.0), tilt=random.uniform(0.5, 3.0))
    hiss = white[1, 2:] + random.uniform(-0.9, 0.9) * white[1, 1:-1]
    background = 10.0 ** random.uniform(-2.0, -0.5) * hum + 10.0 ** random.uniform(-3.3, -1.3) * hiss
    sound = 10.0 ** random.uniform(-1.2, 0.0) * (0.5 * shape * (tone + breath) + background)
    return np.asarray(np.rint(32_767.0 * np.clip(sound, -1.0, 1.0)), dtype=np.int16)


def _tone(time: Array, pitch: float, *, tilt: float) -> Array:
    """Harmonics falling as k**-tilt, loudest sample about 1, float64 [samples]."""
    turn = np.exp(2j * np.pi * pitch * time)
    power, tone = np.ones_like(turn), np.zeros_like(time)
    weights = np.arange(1, HARMONICS + 1) ** -tilt
    for weight in weights / weights.sum():
        power = power * turn
        tone += weight * power.imag
    return tone
