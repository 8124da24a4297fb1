"""Strategies for hostile tables, configs, pictures and sounds, and what must hold for each: a result or an InputError."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
import yaml
from hypothesis import strategies as st
from PIL import Image
from polars.testing.parametric import column, dataframes

from qarm.cli import main
from qarm.config import Config
from qarm.content.media import load_audio, load_image
from qarm.errors import InputError

__all__ = ["check_command", "check_config", "check_media", "configs", "pictures", "sounds", "tables"]

HOSTILE = ["", " ", "\0", "a\0b", "../../etc/passwd", "/dev/zero", "\U0001f600", "é", "‮", "=1+1", "a" * 300]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8))
PLAIN = st.sampled_from(["a", "b", "c", "d"])
LAYOUT = """\
data:
  items: {path: items.%s, text: [title], image: image_path, audio: null}
  interactions: {path: interactions.%s, label: label}
"""

# ---- tables -------------------------------------------------------------------------------------


def _columns(names: dict[str, Any]) -> st.SearchStrategy[pl.DataFrame]:
    """Tables with those columns, each of its own type and content, or of any other; some left out."""

    @st.composite
    def draw_frame(draw: st.DrawFn) -> pl.DataFrame:
        chosen = []
        for name, (dtype, strategy) in names.items():
            kind = draw(st.sampled_from(["right", "right", "right", "any", "absent"]))
            if kind == "right":
                chosen.append(column(name, dtype=dtype, strategy=strategy, allow_null=draw(st.booleans())))
            elif kind == "any":
                chosen.append(column(name, allow_null=True))
        extra = draw(st.integers(0, 1))
        size = draw(st.integers(0, 6))
        lazy = (
            dataframes(chosen, min_size=size, max_size=size) if chosen else dataframes(extra, max_size=size)
        )
        return draw(lazy)

    return draw_frame()


ITEMS = {"item_id": (pl.String, TEXT | PLAIN), "title": (pl.String, TEXT), "image_path": (pl.String, TEXT)}
EVENTS = {
    "user_id": (pl.String, TEXT | PLAIN),
    "item_id": (pl.String, PLAIN),
    "timestamp": (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "label": (pl.Int64, st.integers(0, 1)),
}
SUFFIXES = ("parquet", "csv", "jsonl")


def _written(frame: pl.DataFrame, suffix: str) -> bytes:
    """The table as a file; as Parquet where a format cannot hold its types."""
    stream = io.BytesIO()
    try:
        if suffix == "csv":
            frame.write_csv(stream)
        elif suffix == "jsonl":
            frame.write_ndjson(stream)
        else:
            frame.write_parquet(stream)
    except (pl.exceptions.PolarsError, TypeError, pl.exceptions.PanicException):
        return b"\xff\xfe" * 8
    return stream.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes as they are, or with some flipped, cut off, doubled or put in their place."""
    made = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        if not made:
            break
        place = draw(st.integers(0, len(made) - 1))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "huge", "drop"]))
        if kind == "flip":
            made[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del made[place:]
        elif kind == "insert":
            made[place:place] = draw(st.binary(max_size=6) | st.sampled_from([b"\0", b'"\\ud800"', b"\xff"]))
        elif kind == "huge":
            made[place : place + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]))
        else:
            del made[place : place + draw(st.integers(1, 9))]
    return bytes(made)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Suffix, and the bytes of a table of items and one of interactions."""
    suffix = draw(st.sampled_from(SUFFIXES))
    items, events = (_written(draw(_columns(names)), suffix) for names in (ITEMS, EVENTS))
    if draw(st.booleans()):
        items, events = draw(damaged(items)), draw(damaged(events))
    return suffix, items, events


def check_command(folder: Path, *arguments: str) -> int:
    """`qarm check` on the folder's config ends with 0, or with 2 and one message without a traceback."""
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()) as out:
            main(["check", str(folder / "config.yaml"), "--data.root", str(folder), *arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out.getvalue().encode()  # a terminal would be sent it
    assert code in (0, 2), (code, err.getvalue())
    assert code == 0 or err.getvalue().startswith("qarm: "), err.getvalue()
    assert len(err.getvalue()) < 20_000, len(err.getvalue())
    return code


def check_tables(folder: Path, made: tuple[str, bytes, bytes]) -> int:
    suffix, items, events = made
    (folder / "config.yaml").write_text(LAYOUT % (suffix, suffix))
    (folder / f"items.{suffix}").write_bytes(items)
    (folder / f"interactions.{suffix}").write_bytes(events)
    return check_command(folder)


# ---- configs ------------------------------------------------------------------------------------


def _keys(model: Any = Config, depth: int = 0) -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(name)
        below = field.annotation
        if depth < 3 and hasattr(below, "model_fields"):
            found += _keys(below, depth + 1)
    return sorted(set(found))


KEYS = st.sampled_from(_keys()) | TEXT
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.dates(),
    st.binary(max_size=3),
    st.just(10**30),
)
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4),
    max_leaves=12,
)
ODD_YAML = st.sampled_from(
    ["2026-99-99", "!!int 0x", "!!float x", "1" * 5000, "0x" + "f" * 5000, "[" * 3000, "{a: " * 3000, "&a [*a]", "!!timestamp x",
     "!!python/object:os.system {}", '"\\ud800"', "<<: 3", "? [1, 2]\n: 3", "\t", "%YAML 9.9\n---\n", "a: &a {b: *a}"]
)  # fmt: skip
SECTIONS = sorted(Config.model_fields)


@st.composite
def configs(draw: st.DrawFn) -> str:
    """YAML of known keys with any values, of anything at all, or text that is hardly YAML."""
    kind = draw(st.sampled_from(["sections", "any", "odd", "text"]))
    if kind == "odd":
        section = draw(st.sampled_from(["", "seed: ", "data:\n  root: ", "encoder: {text: "]))
        return section + draw(ODD_YAML)
    if kind == "text":
        return draw(st.text(max_size=40))
    content = draw(
        st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=3) if kind == "sections" else VALUES
    )
    return yaml.safe_dump(content, allow_unicode=draw(st.booleans()))


def check_config(folder: Path, text: str) -> int:
    (folder / "config.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    return check_command(folder)


# ---- pictures and sounds ------------------------------------------------------------------------


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


def check_media(kind: str, content: bytes) -> bool:
    """A picture of bounded size or finite samples of the length asked for, or an `InputError` in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow tells of odd but readable files
        try:
            if kind == "picture":
                assert load_image(content).mode == "RGB"
            else:
                samples = load_audio(content, 16_000, seconds=0.5)
                assert samples.shape == (8_000,)
                assert np.isfinite(samples).all()
        except InputError as error:
            return not str(error)
    return True
