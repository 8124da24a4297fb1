"""Build of a demo world on disk: tables, pictures, sounds and the ground truth."""

import wave
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from qarm.core.atomic_io import flush, make_folder, read_json, write_json
from qarm.core.atomic_io import write_text as write_file
from qarm.core.parallel.progress import Progress
from qarm.core.scratch import remove
from qarm.core.tables.parquet import write_parquet
from qarm.demo.audio import RATE, play_sound
from qarm.demo.click_simulation import SPLIT_TIME, Events, choose
from qarm.demo.ground_truth import SOURCES, Array, GroundTruth, Tastes, WorldSpec, draw_ground_truth, stream
from qarm.demo.image import draw_picture
from qarm.demo.text import write_text
from qarm.errors import InputError, shown

__all__ = ["SIZES", "DemoWorld", "build_world"]

SIZES = {"small": WorldSpec(), "large": WorldSpec(items=20_000, users=33_333)}
FORMAT = 1  # raise it when the same spec and seed come to give other bytes
TABLES = ("items.parquet", "interactions.parquet", "truth.parquet", "truth_users.parquet")
MEDIA, DONE, BUILDING = "media", "world.json", "world.building"


@dataclass(frozen=True)
class DemoWorld:
    """A finished world: where it lies and what it holds.

    split_time: Unix seconds; exactly `events_before` of the `events` lie before it, and no event of the
    `cold_items` does.
    """

    folder: Path
    seed: int
    items: int
    cold_items: int
    users: int
    events: int
    events_before: int
    split_time: int


def build_world(
    folder: Path,
    *,
    size: Literal["small", "large"] = "small",
    tastes: Tastes = "directions",
    seed: int = 0,
    spec: WorldSpec | None = None,
) -> DemoWorld:
    """Generate a seeded world of items with text, picture and sound, and users who choose among them.

    Writes `items.parquet` (item_id, title, description, image_path, audio_path), `interactions.parquet`
    (user_id, item_id, timestamp; in the order of time), `media/`, the planted truth (`truth.parquet`,
    `truth_users.parquet`) and, last, `world.json`. A folder that already holds this very world is left
    alone; another world, or the rest of an interrupted build, is replaced.

    Args:
        folder: is made if need be.
        size: small is 2,000 items, 1,000 users and about 60,000 events; large is 20,000 items, 33,333
            users and about 2 million events.
        tastes: what users like, as of `WorldSpec`.
        seed: 0 or more; the same seed gives the same bytes.
        spec: a world of one's own, in place of `size` and `tastes`.

    Raises:
        InputError: a setting is out of range, or the folder holds tables that are not a demo world.
    """
    if size not in SIZES:
        raise InputError(f"size = {size!r}, need one of {shown(SIZES)}")
    spec = replace(SIZES[size], tastes=tastes) if spec is None else spec
    purpose = {"format": FORMAT, "seed": seed, "spec": spec.settings()}
    if _is_built(folder, purpose, spec.items):
        return _world(folder)
    _refuse_foreign(folder)
    planted = draw_ground_truth(spec, seed=seed)
    events = choose(spec, planted, seed=seed)
    _clear(folder)
    _write_tables(folder, planted, events, seed)
    _write_media(folder, planted, seed)
    counts = {"items": spec.items, "cold_items": int(planted.cold.sum()), "users": spec.users}
    counts |= {"events": len(events), "events_before": events.before}
    write_json(folder / DONE, {**purpose, "split_time": SPLIT_TIME, "counts": counts})
    remove(folder / BUILDING)
    flush(folder)
    return _world(folder)


def _world(folder: Path) -> DemoWorld:
    content = read_json(folder / DONE)
    return DemoWorld(folder, content["seed"], split_time=content["split_time"], **content["counts"])


def _is_built(folder: Path, purpose: dict[str, Any], items: int) -> bool:
    if not (folder / DONE).is_file():
        return False
    content = read_json(folder / DONE)
    media = [folder / MEDIA / kind for kind in ("images", "audio")]
    return (
        all(content.get(key) == value for key, value in purpose.items())
        and all((folder / name).is_file() for name in TABLES)
        and all(path.is_dir() and sum(1 for _ in path.iterdir()) == items for path in media)
    )


def _refuse_foreign(folder: Path) -> None:
    """A build replaces only what a build has written."""
    ours = (folder / DONE).is_file() or (folder / BUILDING).is_file()
    foreign = [name for name in (*TABLES, MEDIA) if (folder / name).exists()]
    if foreign and not ours:
        raise InputError(f"{folder} holds {shown(foreign)}, but no demo world; give an empty folder")


def _clear(folder: Path) -> None:
    make_folder(folder)
    write_file(folder / BUILDING, "")
    remove(folder / DONE)
    remove(folder / MEDIA)


def _write_tables(folder: Path, planted: GroundTruth, events: Events, seed: int) -> None:
    items, users = _ids("i", len(planted.cold)), _ids("u", planted.tastes.shape[1])
    texts = [write_text(factors, stream(seed, "text", i)) for i, factors in enumerate(planted.factors[0])]
    catalog = pl.DataFrame({"item_id": items}).with_columns(
        pl.Series("title", [title for title, _ in texts]),
        pl.Series("description", [description for _, description in texts]),
        pl.format("media/images/{}.png", "item_id").alias("image_path"),
        pl.format("media/audio/{}.wav", "item_id").alias("audio_path"),
    )
    chosen = {
        "user_id": users.gather(events.user),
        "item_id": items.gather(events.item),
        "timestamp": events.time,
    }
    truth = {"item_id": items, **_columns(planted.factors)}
    if planted.by_group:
        truth |= {f"{source}_group": pl.Series(planted.groups[k]) for k, source in enumerate(SOURCES)}
    truth |= {"popularity": pl.Series(planted.popularity), "cold": pl.Series(planted.cold)}
    tastes = {"user_id": users, **_columns(planted.tastes)}
    frames = (catalog, pl.DataFrame(chosen), pl.DataFrame(truth), pl.DataFrame(tastes))
    for name, frame in zip(TABLES, frames, strict=True):
        write_parquet(folder / name, frame)


def _ids(letter: str, count: int) -> pl.Series:
    digits = max(5, len(str(count)))
    return pl.Series([f"{letter}{number:0{digits}d}" for number in range(1, count + 1)])


def _columns(values: Array) -> dict[str, pl.Series]:
    """text_0, text_1, image_0, ... from float64 [4, rows, dims]."""
    return {
        f"{source}_{dim}": pl.Series(values[k, :, dim])
        for k, source in enumerate(SOURCES)
        for dim in range(values.shape[2])
    }


def _write_media(folder: Path, planted: GroundTruth, seed: int) -> None:
    images, sounds = folder / MEDIA / "images", folder / MEDIA / "audio"
    make_folder(images)
    make_folder(sounds)
    _, image_factors, audio_factors, _ = planted.factors
    names = _ids("i", len(planted.cold))
    for i, name in enumerate(Progress(names, desc="pictures and sounds", unit="item")):
        picture = draw_picture(image_factors[i], stream(seed, "picture", i))
        Image.fromarray(picture).save(images / f"{name}.png", compress_level=1)
        _write_sound(sounds / f"{name}.wav", play_sound(audio_factors[i], stream(seed, "sound", i)))
    for path in (*images.iterdir(), *sounds.iterdir(), images, sounds):
        flush(path)


def _write_sound(path: Path, samples: npt.NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as stream_out:
        stream_out.setnchannels(1)
        stream_out.setsampwidth(2)
        stream_out.setframerate(RATE)
        stream_out.writeframes(samples.astype("<i2").tobytes())
