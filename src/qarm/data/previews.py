"""Previews of an item: title, small picture and short sound, embedded in pages."""

from base64 import b64encode
from io import BytesIO

import soundfile
from PIL import Image

from qarm.core.text_tables import picture_cell
from qarm.data.catalog import Catalog
from qarm.data.media import read_media
from qarm.data.media_columns import MediaCell
from qarm.data.media_decoding import load_audio, load_image
from qarm.errors import InputError

__all__ = ["preview_rows", "short_sound", "small_picture", "title_of"]

SIDE, QUALITY = 96, 60
RATE, SECONDS = 16_000, 2.0
TITLE = 60


def title_of(text: str | None) -> str | None:
    """First line of an item's text, at most 60 characters."""
    return None if text is None else text.strip().split("\n")[0][:TITLE]


def small_picture(content: bytes) -> str:
    """Data URI of a WebP picture of at most 96 x 96 pixels.

    Raises:
        InputError: not a readable picture.
    """
    picture = load_image(content)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    small = BytesIO()
    picture.save(small, format="WEBP", quality=QUALITY)
    return _uri("image/webp", small)


def short_sound(content: bytes) -> str:
    """Data URI of an MP3 of at most the first two seconds, mono, at 16 kHz.

    Raises:
        InputError: not a readable sound.
    """
    samples = load_audio(content, RATE, seconds=min(SECONDS, _length(content)))
    small = BytesIO()
    soundfile.write(small, samples, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return _uri("audio/mpeg", small)


def preview_rows(catalog: Catalog, count: int) -> list[tuple[str, str | None, str | None, str | None]]:
    """Id, title, first picture and whether there is a sound, of the first items; or why it is unreadable."""
    rows = []
    for item, text, image, audio in (
        catalog.frame.select("item_id", "text", "image", "audio").head(count).iter_rows()
    ):
        picture = None if image is None else _picture_or_reason(catalog, image)
        rows.append((item, title_of(text), picture, None if audio is None else "yes"))
    return rows


def _picture_or_reason(catalog: Catalog, cell: MediaCell) -> str:
    try:
        return picture_cell(small_picture(read_media(catalog, cell)))
    except InputError as error:
        return str(error)


def _length(content: bytes) -> float:
    """Length of a sound in seconds; for an unreadable one the longest, so that decoding reports the error."""
    try:
        with soundfile.SoundFile(BytesIO(content)) as sound:
            return float(len(sound) / sound.samplerate)
    except (soundfile.LibsndfileError, ZeroDivisionError):
        return SECONDS


def _uri(kind: str, content: BytesIO) -> str:
    return f"data:{kind};base64,{b64encode(content.getvalue()).decode('ascii')}"
