"""Limits of a request, and of what the service holds at a time."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import soundfile

from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image
from qarm.errors import InputError

__all__ = ["Limits", "check_media_of"]

CHECKED_RATE = 16_000


@dataclass(frozen=True)
class Limits:
    """What a request may hold; everything beyond is refused before work is done for it.

    connections: open at a time; head_seconds: time for a request's head to arrive; requests: in work at a
    time; tokens: strings, values and separators of a JSON body; body: bytes of one; bodies: bytes of all
    that are being read; body_seconds: time for a body to arrive; batch: items of a request; text:
    characters of an item's texts together; item_id: characters; pixels: of a picture; sound_seconds:
    length of a sound; history, candidates: items of a request to score; page: items of an answer;
    nearest: neighbours of an answer; waiting: items that wait for the encoder; together: items that it
    gets at a time; code_seconds: time for these, after which it is started anew.
    """

    connections: int = 1_000
    head_seconds: float = 10.0
    requests: int = 1_000
    tokens: int = 50_000
    body: int = 16 * 2**20
    bodies: int = 256 * 2**20
    body_seconds: float = 30.0
    batch: int = 64
    text: int = 20_000
    item_id: int = 256
    pixels: int = 16_000_000
    sound_seconds: float = 600.0
    history: int = 1_000
    candidates: int = 1_000
    page: int = 1_000
    nearest: int = 100
    waiting: int = 256
    together: int = 16
    code_seconds: float = 60.0

    def __post_init__(self) -> None:
        bad = [f"{name}={value}" for name, value in vars(self).items() if value <= 0]
        if bad:
            raise InputError(f"got limits {', '.join(bad)}, need more than 0")


def check_media_of(row: Mapping[str, Any], limits: Limits) -> None:
    """Decode an item's picture and sound as the encoder will.

    Args:
        row: an item; `image` and `audio` bytes or None.

    Raises:
        InputError: one of them cannot be read, or is too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about odd but readable files
        if row.get("image") is not None:
            _told("image", load_image, row["image"], max_pixels=limits.pixels)
    if row.get("audio") is not None:
        _told("audio", _check_sound, row["audio"], most=limits.sound_seconds)


def _told(field: str, function: Any, *given: Any, **settings: Any) -> None:
    try:
        function(*given, **settings)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None


def _check_sound(content: bytes, *, most: float) -> None:
    load_audio(content, CHECKED_RATE, seconds=HEARD_SECONDS)
    with soundfile.SoundFile(BytesIO(content)) as sound:
        seconds = sound.frames / sound.samplerate
    if seconds > most:
        raise InputError(f"sound of {seconds:,.1f} seconds, need at most {most:,.0f}; cut it")
