"""Limits of a request, and of what the service holds at a time."""

from dataclasses import dataclass

from qarm.errors import InputError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What a request may hold; everything beyond is refused before work is done for it.

    connections: open at a time; head_seconds: time for a request's head to arrive; requests: in work at a
    time; tokens: strings, values and separators of a JSON body; body: bytes of one; bodies: bytes of all
    that are being read, and of all decoded media; body_seconds: time for a body to arrive; batch: items of a
    request; text: characters of an item's texts together; item_id: characters; pixels: of a picture;
    sound_seconds: length of a sound; media_seconds: processor time to decode a picture or a sound; history,
    candidates: items of a request to score; page: items of an answer; nearest: neighbours of an answer;
    waiting: items that wait for the encoder, and requests whose media are being decoded; together: items that
    the encoder gets at a time; batch_seconds: time that these may take; code_seconds: time after which it is
    started anew.
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
    media_seconds: float = 4.0
    history: int = 1_000
    candidates: int = 1_000
    page: int = 1_000
    nearest: int = 100
    waiting: int = 256
    together: int = 16
    batch_seconds: float = 0.25
    code_seconds: float = 60.0

    def __post_init__(self) -> None:
        bad = [f"{name}={value}" for name, value in vars(self).items() if value <= 0]
        if bad:
            raise InputError(f"got limits {', '.join(bad)}, need more than 0")

    @property
    def request_pixels(self) -> int:
        """Pixels of all pictures of a request."""
        return 4 * self.pixels

    @property
    def request_media_seconds(self) -> float:
        """Processor time to decode all media of a request."""
        return 2 * self.media_seconds
