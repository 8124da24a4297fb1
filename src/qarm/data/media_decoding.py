"""Decoding of media: pictures and sounds of any common format and rate; content is never trusted."""

import stat
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from PIL import Image, ImageOps, UnidentifiedImageError

from qarm.errors import InputError

__all__ = [
    "FORMATS",
    "HEARD_SECONDS",
    "MAX_PIXELS",
    "UNREADABLE",
    "load_audio",
    "load_image",
    "read_file",
    "read_sound",
    "squeezed",
]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none of these decoders runs another program
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
MAX_RATE = 768_000
MAX_CHANNELS = 32
HEARD_SECONDS = 10.0  # the most of a sound that an encoder reads
MAX_SCANS = 200  # of a progressive JPEG, which is decoded once for each; encoders write about ten
SCAN = b"\xff\xda"  # marker that starts a scan; within compressed data a byte 255 is followed by 0
BLOCK = 65_536  # frames of a sound that are read at a time
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# Exceptions of Pillow's decoders on damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, LookupError, struct.error, zlib.error)
ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def read_file(path: Path, *, name: str) -> bytes:
    """Content of a regular file.

    Args:
        name: of the file in messages.

    Raises:
        InputError: the file is missing, no regular file, unreadable or over 256 MiB.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a named pipe would wait for its writer
            raise InputError(f"{name}: {_kind(found.st_mode)}, need a regular file")
        if found.st_size > MAX_BYTES:
            raise InputError(
                f"{name}: got {found.st_size:,} bytes, need at most {MAX_BYTES:,}; make it smaller"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((kind for matches, kind in kinds.items() if matches(mode)), "a device")


def load_image(source: Path | str | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Picture as 8-bit RGB: first frame, upright, transparency on white.

    Args:
        source: a path, or the content of a file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        InputError: no file, no known format, damaged, or too many pixels.
    """
    content = source if isinstance(source, bytes) else read_file(Path(source), name=str(source))
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise InputError(f"picture of {pixels:,} pixels, need at most {max_pixels:,}; scale it down")
            scans = content.count(SCAN) if image.format == "JPEG" else 0
            if scans > MAX_SCANS:
                raise InputError(f"JPEG of {scans:,} scans, need at most {MAX_SCANS}; save it anew")
            upright = ImageOps.exif_transpose(image)
            upright.format = image.format
            return _rgb(upright, bits=_bits(image, content))
    except InputError:
        raise
    except BOMBS:
        raise InputError(f"picture of far more than {max_pixels:,} pixels; scale it down") from None
    except UnidentifiedImageError:
        raise InputError(f"not a picture in a known format ({', '.join(FORMATS)})") from None
    except UNREADABLE as error:
        raise InputError(f"damaged picture ({error})") from None


def _rgb(image: Image.Image, *, bits: int) -> Image.Image:
    """A decoded picture as RGB.

    Args:
        bits: of a sample in the file, of which Pillow may keep fewer.
    """
    clear = image.info.get("transparency")
    if image.mode == "F" or image.mode.startswith("I"):
        levels: npt.NDArray[np.float32 | np.int32]
        levels = np.asarray(image, dtype=np.float32 if image.mode == "F" else np.int32)
        shades = _eight_bits(levels, deep=image.format in ("PNG", "PPM") and image.mode != "F")
        if isinstance(clear, int):
            shades[levels == clear] = 255
        return Image.fromarray(shades).convert("RGB")
    if isinstance(clear, int) and image.mode == "L":  # Pillow spreads samples of 2 and 4 bits, not this value
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif isinstance(clear, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in ALPHA or clear is not None:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _bits(image: Image.Image, content: bytes) -> int:
    return content[24] if image.format == "PNG" else 8


def _eight_bits(values: npt.NDArray[np.float32 | np.int32], *, deep: bool) -> npt.NDArray[np.uint8]:
    """Grey levels to 0..255; values that are no numbers, or less than 0, to 0.

    Args:
        values: levels; the largest finite one tells their range: 1 (fractions, which may overshoot), 255,
            65,535 or itself.
        deep: whether the range is 65,535 whatever the values, as the format says.
    """
    finite = values[np.isfinite(values)]
    top = float(finite.max(initial=0))
    if deep or 255 < top <= 65_535:
        scale = 1 / 257
    elif top > 255:
        scale = 255 / top
    else:
        scale = 255.0 if top < 2 and values.dtype.kind == "f" else 1.0
    scaled = np.nan_to_num(values.astype(np.float64) * scale, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(scaled, 0, 255).round().astype(np.uint8)


class _Bytes(BytesIO):
    """File for libsndfile, which seeks before the start of damaged files; soundfile would print an error."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Position after a move, as of `io.RawIOBase.seek`."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def squeezed(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture in a square, however wide it was; one of that size stays as it is."""
    return picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)


def load_audio(source: Path | str | bytes, rate: int, *, seconds: float) -> npt.NDArray[np.float32]:
    """First `seconds` of a sound, mono, at `rate` samples a second, repeated if shorter.

    Args:
        source: a path, or the content of a WAV, FLAC, Ogg, MP3 or any file libsndfile reads.

    Returns:
        float32 [round(rate * seconds)], full scale at 1.

    Raises:
        InputError: no file, not a sound, damaged, empty, or samples that are no numbers.
    """
    mono, native_rate = read_sound(source, seconds=seconds)
    length = round(rate * seconds)
    samples = (mono if native_rate == rate else soxr.resample(mono, native_rate, rate))[:length]
    if len(samples) == 0:
        raise InputError(f"a sound of {len(mono)} samples at {native_rate:,} Hz, too short to resample")
    if not np.isfinite(samples).all():  # mixing or resampling of huge samples can overflow
        raise InputError("a sound with samples that are no finite numbers, or too large for single precision")
    return np.resize(samples, length).astype(np.float32, copy=False)


def read_sound(source: Path | str | bytes, *, seconds: float) -> tuple[npt.NDArray[np.float32], int]:
    """First `seconds` of a sound, and a sample more, mono, and its samples a second.

    Raises:
        InputError: no file, not a sound, damaged, or empty.
    """
    content = source if isinstance(source, bytes) else read_file(Path(source), name=str(source))
    try:
        with soundfile.SoundFile(_Bytes(content)) as sound:
            if not 0 < sound.samplerate <= MAX_RATE:
                raise InputError(f"sound at {sound.samplerate:,} Hz, need at most {MAX_RATE:,}; resample it")
            if sound.channels > MAX_CHANNELS:
                raise InputError(f"sound of {sound.channels:,} channels, need at most {MAX_CHANNELS}; mix it")
            mono = _mixed(sound, round(sound.samplerate * seconds) + 1)
            rate = int(sound.samplerate)
    except InputError:
        raise
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise InputError(f"not a readable sound ({reason})") from None
    if len(mono) == 0:
        raise InputError("a sound without samples")
    return mono, rate


def _mixed(sound: soundfile.SoundFile, frames: int) -> npt.NDArray[np.float32]:
    """Mean of the channels over the first frames, read in blocks: a second may hold 24 million samples."""
    blocks = []
    while frames > 0:
        block = sound.read(min(frames, BLOCK), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            blocks.append(block.mean(axis=1, dtype=np.float32))
        frames -= len(block)
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)
