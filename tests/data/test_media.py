"""Pictures and sounds as cameras, phones and scanners leave them."""

import io
import os
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from qarm.data.catalog import Catalog
from qarm.data.media import MediaReport, check_media
from qarm.data.media_decoding import load_audio, load_image
from qarm.errors import InputError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def near(pixel: object, expected: tuple[int, int, int], *, by: int = 6) -> bool:
    return bool(np.abs(np.subtract(pixel, expected)).max() <= by)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "white")
    image.paste("red", (0, 0, 5, 10))  # the left edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left edge comes to the top
    found = load_image(saved(image, "JPEG", exif=exif, quality=95))
    assert found.size == (10, 20)
    assert near(found.getpixel((5, 1)), RED)
    assert near(found.getpixel((5, 18)), WHITE)


def test_cmyk_becomes_rgb() -> None:
    found = load_image(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert found.mode == "RGB"
    assert near(found.getpixel((4, 4)), RED)


def test_sixteen_bits_keep_their_shades() -> None:
    levels = np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)
    found = np.asarray(load_image(saved(Image.fromarray(levels), "PNG")))
    assert found[0, :, 0].tolist() == [0, 1, 100, 255]


@pytest.mark.parametrize(
    ("levels", "kind", "shades"),
    [
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 0.5, 1.05], np.float32, [0, 128, 255]),  # resampling overshoots
        ([0, 0.5, np.nan, 1], np.float32, [0, 128, 0, 255]),
        ([-np.inf, 0.5, np.inf, 1], np.float32, [0, 128, 255, 255]),
        ([np.nan, np.nan], np.float32, [0, 0]),
        ([0, 100, np.nan, 255], np.float32, [0, 100, 0, 255]),
        ([0, 25_700, 65_535], np.float32, [0, 100, 255]),
        ([0, 5e5, 1e6], np.float32, [0, 128, 255]),
        ([-7, 0, 100, 255], np.int32, [0, 0, 100, 255]),
        ([0, 1], np.int32, [0, 1]),
        ([0, 25_700, 65_535], np.int32, [0, 100, 255]),
        ([0, 2**30, 2**31 - 1], np.int32, [0, 128, 255]),
        ([0, 100, 255], np.uint16, [0, 100, 255]),
        ([0, 25_700, 65_535], np.uint16, [0, 100, 255]),
        ([0, 100, 255], np.uint8, [0, 100, 255]),
    ],
)
def test_grey_levels_of_any_type_keep_their_shades(
    levels: list[float], kind: type, shades: list[int]
) -> None:
    found = np.asarray(load_image(saved(Image.fromarray(np.array([levels], dtype=kind)), "TIFF")))
    assert found[0, :, 0].tolist() == found[0, :, 2].tolist() == shades


def chunk(name: bytes, content: bytes) -> bytes:
    ends = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + ends


def png(bits: int, colour: int, row: bytes, width: int, *, clear: bytes = b"") -> bytes:
    """A PNG of one row, of sample sizes and transparent colours that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    transparency = chunk(b"tRNS", clear) if clear else b""
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency + data + chunk(b"IEND", b"")


GREY16 = np.array([0, 25_700, 65_535], dtype=">u2").tobytes()
RGB16 = np.array([[0x1234, 0, 0], [0x3412, 0, 0], [0, 25_700, 65_535]], dtype=">u2").tobytes()


@pytest.mark.parametrize(
    ("content", "shades"),
    [
        (png(16, 0, GREY16, 3), [[0] * 3, [100] * 3, [255] * 3]),
        (png(16, 0, GREY16, 3, clear=b"\0\0"), [[255] * 3, [100] * 3, [255] * 3]),
        (png(16, 0, GREY16, 3, clear=b"\x64\x64"), [[0] * 3, [255] * 3, [255] * 3]),
        (png(16, 2, RGB16, 3), [[0x12, 0, 0], [0x34, 0, 0], [0, 100, 255]]),
        (png(16, 2, RGB16, 3, clear=b"\x12\x34\0\0\0\0"), [[255] * 3, [0x34, 0, 0], [0, 100, 255]]),
        (png(16, 4, GREY16[2:4] * 2, 1), [[194] * 3]),  # 100 of 255 at an opacity of 100 of 255, on white
        (png(8, 0, bytes([0, 100]), 2, clear=b"\0\x64"), [[0] * 3, [255] * 3]),
        (png(4, 0, b"\x07", 2, clear=b"\0\x07"), [[0] * 3, [255] * 3]),
        (png(2, 0, b"\x1b", 4, clear=b"\0\x01"), [[0] * 3, [255] * 3, [170] * 3, [255] * 3]),
        (png(1, 0, b"\x40", 2), [[0] * 3, [255] * 3]),
        (png(1, 0, b"\x40", 2, clear=b"\0\0"), [[255] * 3, [255] * 3]),
    ],
)
def test_png_samples_of_any_size_and_transparency(content: bytes, shades: list[list[int]]) -> None:
    assert np.asarray(load_image(content))[0].tolist() == shades


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    content = saved(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    assert near(load_image(content).getpixel((4, 4)), RED)
    last = content.rindex(b"\xff\xda")
    bomb = content[:last] + content[last:-2] * 30_000 + content[-2:]
    with pytest.raises(InputError, match="scans, need at most 200"):
        load_image(bomb)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as here:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        here.bind("socket.png")
    (tmp_path / "null.png").symlink_to(os.devnull)
    kinds = {"pipe": "a named pipe", "folder": "a folder", "socket": "a socket", "null": "a device"}
    for name, kind in kinds.items():
        with pytest.raises(InputError, match=f"{name}.png: {kind}, need a regular file"):
            load_image(tmp_path / f"{name}.png")
    frame = pl.DataFrame({"item_id": ["a"], "text": ["a"], "image": ["pipe.png"], "audio": [None]})
    report = check_media(Catalog(frame.cast({"audio": pl.String}), tmp_path))
    assert report.images == {"a": "pipe.png: a named pipe, need a regular file"}


def test_the_first_frame_of_a_palette_animation() -> None:
    frames = [Image.new("P", (6, 6), 1), Image.new("P", (6, 6), 0)]
    for frame in frames:
        frame.putpalette([0, 0, 255, *RED])
    found = load_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert near(found.getpixel((3, 3)), RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode: str) -> None:
    clear = Image.new(mode, (4, 4), (0,) * len(mode))
    assert load_image(saved(clear, "PNG")).getpixel((0, 0)) == WHITE


def test_transparent_palette_lies_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, *RED])
    assert load_image(saved(image, "PNG", transparency=0)).getpixel((0, 0)) == WHITE


def test_damaged_unknown_and_huge_pictures_are_refused(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = saved(noise, "PNG")
    for content, reason in (
        (whole[: len(whole) // 2], "damaged picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not a picture in a known format"),
        (b"", "not a picture in a known format"),
    ):
        with pytest.raises(InputError, match=reason) as error:
            load_image(content)
        assert "0x" not in str(error.value)  # an address would differ from run to run
    with pytest.raises(InputError, match="picture of 4,096 pixels, need at most 4,000"):
        load_image(whole, max_pixels=4000)
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        load_image(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_before_it_goes_off() -> None:
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match="scale it down"):
            load_image(bomb)


def tone(rate: int, seconds: float, *, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int, **options: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", **options)
    return stream.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_any_rate_is_resampled_and_stereo_mixed(rate: int) -> None:
    left = tone(rate, 1.0)
    found = load_audio(wav(np.stack([2 * left, np.zeros_like(left)], axis=1), rate), 16_000, seconds=1.0)
    assert (found.shape, found.dtype) == ((16_000,), np.float32)
    expected = tone(16_000, 1.0)
    assert np.abs(found - expected)[500:-500].max() < 0.01


def test_long_sounds_are_cut_and_short_ones_repeated() -> None:
    samples = tone(16_000, 1.0)
    assert np.allclose(load_audio(wav(samples, 16_000), 16_000, seconds=0.25), samples[:4_000], atol=1e-4)
    repeated = load_audio(wav(samples[:1_000], 16_000), 16_000, seconds=0.25)
    assert np.array_equal(repeated[:1_000], repeated[3_000:])


def test_no_sounds_are_refused() -> None:
    for content, reason in (
        (b"not a sound", "not a readable sound"),
        (wav(np.zeros(0, dtype=np.float32), 8_000), "a sound without samples"),
        (wav(np.full(9, np.nan, dtype=np.float32), 8_000, subtype="FLOAT"), "no finite numbers"),
        (wav(np.full((9, 2), 3e38, dtype=np.float32), 16_000, subtype="FLOAT"), "or too large"),
        (wav(np.tile([3e38, -3e38], 99).astype(np.float32), 8_000, subtype="FLOAT"), "or too large"),
        (wav(np.zeros(9, dtype=np.float32), 900_000), "sound at 900,000 Hz, need at most 768,000"),
        (wav(np.zeros(1, dtype=np.float32), 96_000), "1 samples at 96,000 Hz, too short to resample"),
    ):
        with pytest.raises(InputError, match=reason):
            load_audio(content, 16_000, seconds=1.0)


@pytest.mark.parametrize("second", [0.5, 1.5, 5.0])
def test_check_hears_all_that_an_encoder_may_hear(tmp_path: Path, second: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 9)
    stream = io.BytesIO()
    soundfile.write(stream, noise, 16_000, format="FLAC")
    content = bytearray(stream.getvalue())
    place = round(len(content) * second / 9)
    content[place : place + 4_000] = bytes(4_000)
    frame = pl.DataFrame({"item_id": ["a"], "text": ["a"], "image": [None], "audio": [bytes(content)]})
    report = check_media(Catalog(frame.cast({"image": pl.String}), tmp_path))
    assert "not a readable sound" in report.sounds["a"]


def test_more_unreadable_media_than_the_share_are_refused() -> None:
    found = MediaReport({"a": "a.png: no such file"}, {}, image_count=19, sound_count=0)
    found.require(most=0.05)
    with pytest.raises(InputError, match=r"1 of 20 pictures .* = 0.04 .*a.png: no such file"):
        found.require(most=0.04)
    lost = MediaReport({"a": "x", "b": "y"}, {"c": "z"}, image_count=0, sound_count=9)
    with pytest.raises(InputError, match="2 problems") as error:
        lost.require(most=0.05)
    assert [p.split(" cannot")[0] for p in error.value.problems] == ["2 of 2 pictures", "1 of 10 sounds"]


def test_check_names_every_file_that_cannot_be_used(tmp_path: Path) -> None:
    good = saved(Image.new("RGB", (4, 4)), "PNG")
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "c.wav").write_bytes(wav(tone(8_000, 0.1), 8_000))
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "text": ["x"] * 4,
            "image": ["a.png", "b.png", "gone.png", None],
            "audio": [None, "b.png", "c.wav", "x" * 300],
        }
    )
    found = check_media(Catalog(frame, tmp_path))
    assert (found.image_count, found.sound_count) == (1, 1)
    assert "b.png: not a picture" in found.images["b"]
    assert found.images["c"] == "gone.png: no such file"
    assert found.sounds.keys() == {"b", "d"}
    assert "b.png: not a readable sound" in found.sounds["b"]
    assert Catalog(frame, tmp_path).without_media(images=found.images, sounds=found.sounds).counts() == {
        "text": 4,
        "image": 1,
        "audio": 1,
    }


def test_check_refuses_items_that_have_nothing_but_a_bad_file(tmp_path: Path) -> None:
    columns = {"item_id": ["a"], "text": [None], "image": [b"junk"], "audio": [None]}
    frame = pl.DataFrame(columns, schema_overrides={"text": pl.String, "audio": pl.String})
    with pytest.raises(InputError, match="items a have nothing left"):
        check_media(Catalog(frame, tmp_path))
