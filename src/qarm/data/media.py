"""Media: pictures and sounds of any common format and rate, decoded and checked; never trusted."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from PIL import Image, ImageOps, UnidentifiedImageError

from qarm.data.catalog import Catalog
from qarm.errors import InputError

__all__ = [
    "FORMATS",
    "UNREADABLE",
    "MediaReport",
    "blame",
    "check_media",
    "load_audio",
    "load_image",
    "read_media",
]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none of these decoders runs another program
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
MAX_RATE = 768_000
MAX_CHANNELS = 32
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# Exceptions of Pillow's decoders on damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, LookupError, struct.error, zlib.error)
ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def read_media(catalog: Catalog, source: str | bytes) -> bytes:
    """Content of a media file, from the catalogue's folder or from the table itself.

    Raises:
        InputError: the file is missing, unreadable or over 256 MiB.
    """
    if isinstance(source, bytes):
        return source
    return _read(catalog.path(source), name=source)


def _read(path: Path, *, name: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{name}: got {size:,} bytes, need at most {MAX_BYTES:,}; make it smaller")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None


def blame(source: str | bytes, error: InputError) -> str:
    """Message of an error, with the name of the media file in the table."""
    name = source if isinstance(source, str) else "file in the table"
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def load_image(source: Path | str | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Picture as 8-bit RGB: first frame, upright, transparency on white.

    Args:
        source: a path, or the content of a file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        InputError: no file, no known format, damaged, or too many pixels.
    """
    content = source if isinstance(source, bytes) else _read(Path(source), name=str(source))
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise InputError(f"picture of {pixels:,} pixels, need at most {max_pixels:,}; scale it down")
            return _rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except BOMBS:
        raise InputError(f"picture of far more than {max_pixels:,} pixels; scale it down") from None
    except UnidentifiedImageError:
        raise InputError(f"not a picture in a known format ({', '.join(FORMATS)})") from None
    except UNREADABLE as error:
        raise InputError(f"damaged picture ({error})") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        deep = image.mode != "F"
        image = Image.fromarray(_eight_bits(np.asarray(image, dtype=np.float64), deep=deep))
    if image.mode in ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _eight_bits(values: npt.NDArray[np.float64], *, deep: bool) -> npt.NDArray[np.uint8]:
    """Grey levels to 0..255: from 16 bits where `deep`, else from the range that the values span."""
    top = values.max(initial=0.0)
    scale = 1 / 257 if deep or top > 255 else 255.0 if top <= 1 else 1.0
    return np.clip(np.nan_to_num(values) * scale, 0, 255).round().astype(np.uint8)


class _Bytes(BytesIO):
    """File for libsndfile, which seeks before the start of damaged files; soundfile would print an error."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Position after a move, as of `io.RawIOBase.seek`."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def load_audio(source: Path | str | bytes, rate: int, *, seconds: float) -> npt.NDArray[np.float32]:
    """First `seconds` of a sound, mono, at `rate` samples a second, repeated if shorter.

    Args:
        source: a path, or the content of a WAV, FLAC, Ogg, MP3 or any file libsndfile reads.

    Returns:
        float32 [round(rate * seconds)], full scale at 1.

    Raises:
        InputError: no file, not a sound, damaged, empty, or samples that are no numbers.
    """
    content = source if isinstance(source, bytes) else _read(Path(source), name=str(source))
    try:
        with soundfile.SoundFile(_Bytes(content)) as sound:
            if not 0 < sound.samplerate <= MAX_RATE:
                raise InputError(f"sound at {sound.samplerate:,} Hz, need at most {MAX_RATE:,}; resample it")
            if sound.channels > MAX_CHANNELS:
                raise InputError(f"sound of {sound.channels:,} channels, need at most {MAX_CHANNELS}; mix it")
            frames = sound.read(round(sound.samplerate * seconds) + 1, dtype="float32", always_2d=True)
            native_rate = sound.samplerate
    except InputError:
        raise
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise InputError(f"not a readable sound ({reason})") from None
    if len(frames) == 0:
        raise InputError("a sound without samples")
    with np.errstate(over="ignore", invalid="ignore"):
        mono = frames.mean(axis=1, dtype=np.float32)
    length = round(rate * seconds)
    samples = (mono if native_rate == rate else soxr.resample(mono, native_rate, rate))[:length]
    if len(samples) == 0:
        raise InputError(f"a sound of {len(frames)} samples at {native_rate:,} Hz, too short to resample")
    if not np.isfinite(samples).all():  # mixing or resampling of huge samples can overflow
        raise InputError("a sound with samples that are no finite numbers, or too large for single precision")
    return np.resize(samples, length).astype(np.float32, copy=False)


# ---- the check --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MediaReport:
    """Unreadable media, item id to reason, and the number of readable ones of each kind."""

    images: dict[str, str]
    sounds: dict[str, str]
    image_count: int
    sound_count: int


def check_media(catalog: Catalog) -> MediaReport:
    """Report on the media of a catalogue; every picture and sound is decoded, in threads.

    `catalog.without_media(images=report.images, sounds=report.sounds)` leaves the unreadable ones out.

    Raises:
        InputError: items that have no content without their unreadable media.
    """
    images, sounds = (dict(_unreadable(catalog, kind)) for kind in ("image", "audio"))
    catalog.without_media(images=images, sounds=sounds)
    counts = catalog.counts()
    return MediaReport(images, sounds, counts["image"] - len(images), counts["audio"] - len(sounds))


def _unreadable(catalog: Catalog, kind: str) -> Iterator[tuple[str, str]]:
    def reason(source: str | bytes) -> str | None:
        try:
            content = read_media(catalog, source)
            load_image(content) if kind == "image" else load_audio(content, 16_000, seconds=1.0)
        except InputError as error:
            return blame(source, error)
        return None

    rows = catalog.frame.select("item_id", kind).drop_nulls()
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about odd but readable files
        yield from (
            (item, why)
            for item, why in zip(rows["item_id"], pool.map(reason, rows[kind]), strict=True)
            if why is not None
        )
