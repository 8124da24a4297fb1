"""Hostile pictures and sounds: damaged, spliced, with headers that declare too much."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import soundfile
from hypothesis import strategies as st
from PIL import Image

from hardening.fuzz_tables import damaged
from qarm.data.media_decoding import load_audio, load_image
from qarm.errors import InputError

__all__ = ["check_picture", "check_sound", "pictures", "sounds"]


def _picture(kind: str, mode: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def _sound(kind: str, subtype: str, channels: int = 1) -> bytes:
    samples = np.random.default_rng(0).normal(size=(2_000, channels)) * 0.1
    stream = io.BytesIO()
    soundfile.write(stream, samples, 8_000, format=kind, subtype=subtype)
    return stream.getvalue()


PICTURES = {
    "png": _picture("PNG", "RGB"),
    "png palette": _picture("PNG", "P", transparency=3),
    "jpeg": _picture("JPEG", "RGB"),
    "gif": _picture("GIF", "P"),
    "bmp": _picture("BMP", "RGB"),
    "tiff": _picture("TIFF", "RGB", compression="tiff_lzw"),
    "webp": _picture("WEBP", "RGB"),
    "ppm": _picture("PPM", "RGB"),
}
SOUNDS = {
    "wav": _sound("WAV", "PCM_16", 2),
    "wav float": _sound("WAV", "FLOAT"),
    "flac": _sound("FLAC", "PCM_16"),
    "ogg": _sound("OGG", "VORBIS"),
    "mp3": _sound("MP3", "MPEG_LAYER_III"),
    "aiff": _sound("AIFF", "PCM_16"),
}
SIZES = st.sampled_from([0, 1, 255, 4_000, 8_000, 65_535, 2**31 - 1, 2**32 - 1])


@st.composite
def _png_bomb(draw: st.DrawFn) -> bytes:
    """A PNG whose header, with a right checksum, declares any size and kind of pixel."""
    made = bytearray(PICTURES["png"])
    header = struct.pack(">II", draw(SIZES), draw(SIZES))
    header += bytes(
        [
            draw(st.sampled_from([1, 8, 16])),
            draw(st.sampled_from([0, 2, 3, 4, 6])),
            0,
            0,
            draw(st.integers(0, 1)),
        ]
    )
    made[16:29], made[29:33] = header, struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return bytes(made)


@st.composite
def _wav_bomb(draw: st.DrawFn) -> bytes:
    """A WAV whose header declares any rate, number of channels, width and length."""
    made = bytearray(SOUNDS["wav"])
    made[22:24] = struct.pack("<H", draw(st.integers(0, 65_535)))
    made[24:28] = struct.pack("<I", draw(SIZES))
    made[34:36] = struct.pack("<H", draw(st.sampled_from([0, 1, 8, 16, 24, 32, 64, 65_535])))
    made[40:44] = struct.pack("<I", draw(SIZES))
    return bytes(made)


def _from(seeds: dict[str, bytes], bomb: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    seed = st.sampled_from(sorted(seeds)).map(seeds.__getitem__)
    spliced = st.tuples(seed, seed, st.integers(1, 200)).map(
        lambda made: made[0][: made[2]] + made[1][made[2] :]
    )
    return st.one_of((seed | spliced).flatmap(damaged), bomb, st.binary(max_size=64))


pictures, sounds = _from(PICTURES, _png_bomb()), _from(SOUNDS, _wav_bomb())


def check_picture(content: bytes) -> bool:
    """A picture to work with, or an `InputError`; true for the former."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow tells of odd but readable files
        try:
            picture = load_image(content)
        except InputError:
            return False
    assert picture.mode == "RGB"
    return True


def check_sound(content: bytes) -> bool:
    """Finite samples, as many as were asked for, or an `InputError`; true for the former."""
    try:
        samples = load_audio(content, 16_000, seconds=0.5)
    except InputError:
        return False
    assert samples.shape == (8_000,)
    assert np.isfinite(samples).all()
    return True
