"""Media columns as tables have them: paths, contents, structs of both, lists of any of them."""

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from qarm.core.atomic_io import read_model
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.media import check_media, read_media
from qarm.data.media_columns import sources_of
from qarm.errors import InputError
from qarm.schemas.base import Check

STRUCT = pl.Struct({"bytes": pl.Binary, "path": pl.String})
A, B = {"bytes": b"a", "path": "a.png"}, {"bytes": None, "path": "b.png"}
NOTHING: dict[str, Any] = {"bytes": None, "path": None}


def catalog_of(cells: list[Any], dtype: Any, folder: Path = Path(), kind: str = "image") -> Catalog:
    columns = {
        "item_id": [f"i{n}" for n in range(len(cells))],
        "title": "x",
        "medium": pl.Series(cells, dtype=dtype),
    }
    named = dict.fromkeys(("image", "audio"), None) | {kind: "medium"}
    return read_catalog(pl.DataFrame(columns), text="title", folder=folder, **named)


def sources(cells: list[Any], dtype: Any) -> list[list[str | bytes] | None]:
    frame = catalog_of(cells, dtype).frame
    return [None if cell is None else sources_of(cell) for cell in frame["image"].to_list()]


@pytest.mark.parametrize(
    ("cells", "dtype", "expected", "kept"),
    [
        (["a.png", "", None], pl.String, [["a.png"], None, None], pl.String),
        ([b"a", b"", None], pl.Binary, [[b"a"], None, None], pl.Binary),
        # as `datasets` has pictures and sounds: the content where there is one, else the path
        ([A, None, {"bytes": b"c", "path": None}], STRUCT, [[b"a"], None, [b"c"]], pl.Binary),
        ([B, NOTHING, {"bytes": b"", "path": "c.png"}], STRUCT, [["b.png"], None, ["c.png"]], pl.String),
        ([A, B, NOTHING], STRUCT, [[b"a"], ["b.png"], None], pl.List(STRUCT)),
        ([{"path": "a.png"}, {"path": None}], pl.Struct({"path": pl.String}), [["a.png"], None], pl.String),
        # several pictures of an item
        (
            [["a.png", "b.png"], [], None],
            pl.List(pl.String),
            [["a.png", "b.png"], None, None],
            pl.List(STRUCT),
        ),
        ([["a.png"], ["", None], None], pl.List(pl.String), [["a.png"], None, None], pl.String),
        ([[b"a", b"b"], [b"c"]], pl.List(pl.Binary), [[b"a", b"b"], [b"c"]], pl.List(STRUCT)),
        ([[B, A], [A]], pl.List(STRUCT), [["b.png", b"a"], [b"a"]], pl.List(STRUCT)),
        ([["a", "b"], ["c", None]], pl.Array(pl.String, 2), [["a", "b"], ["c"]], pl.List(STRUCT)),
        ([None, None], pl.Null, [None, None], pl.String),
        ([[], None], pl.List(pl.Null), [None, None], pl.String),
    ],
)
def test_cells_and_their_sources(
    cells: list[Any], dtype: Any, expected: list[list[str | bytes] | None], kept: Any
) -> None:
    assert sources(cells, dtype) == expected
    assert catalog_of(cells, dtype).frame["image"].dtype == kept


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ([1], pl.Int64),
        ([[1.5]], pl.List(pl.Float64)),
        ([{"url": "x"}], pl.Struct({"url": pl.String})),
        ([{"bytes": "aGk=", "path": None}], pl.Struct({"bytes": pl.String, "path": pl.String})),
    ],
)
def test_columns_without_media_are_refused(cells: list[Any], dtype: Any) -> None:
    with pytest.raises(
        InputError, match="need paths, contents of files, structs of bytes and path, or lists"
    ):
        catalog_of(cells, dtype)


def test_several_sounds_are_refused(tmp_path: Path) -> None:
    assert catalog_of([["a.wav"], None], pl.List(pl.String), kind="audio").frame["audio"].dtype == pl.String
    with pytest.raises(InputError, match=r"several sounds in rows 1, need one"):
        catalog_of([["a.wav"], ["a.wav", "b.wav"]], pl.List(pl.String), kind="audio")


def test_paths_in_lists_do_not_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image paths that leave .*'i0': '\.\./b\.png'"):
        catalog_of([["a.png", "../b.png"]], pl.List(pl.String), tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
def test_lists_and_structs_from_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"items.{kind}"
    frame = pl.DataFrame(
        {"item_id": ["1", "2"], "title": ["x", "y"], "shots": [["a.png", "b.png"], ["c.png"]]}
    )
    frame = frame.with_columns(one=pl.Series([{"bytes": None, "path": "d.png"}] * 2, dtype=STRUCT))
    if kind == "jsonl":
        frame.with_columns(pl.struct(path=pl.lit("d.png")).alias("one")).write_ndjson(path)
    else:
        frame.write_parquet(path) if kind == "parquet" else frame.write_ipc(path)
    for column, expected in (("shots", [["a.png", "b.png"], ["c.png"]]), ("one", [["d.png"], ["d.png"]])):
        catalog = read_catalog(path, text="title", image=column, audio=None)
        assert [sources_of(cell) for cell in catalog.frame["image"]] == expected


def test_hashes_tell_order_number_and_content_of_pictures(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    lists = [["a.png", "b.png"]], [["b.png", "a.png"]], [["a.png", "b.png", "b.png"]], [["a.png"]]
    catalogs = [catalog_of(cells, pl.List(pl.String), tmp_path) for cells in lists]
    assert len({catalog.content_digest() for catalog in catalogs}) == 4
    assert len({catalog.rows_hash() for catalog in catalogs}) == 4
    before = catalogs[0].media_digest()
    (tmp_path / "b.png").write_bytes(b"other")
    assert catalogs[0].media_digest() != before
    contents = [catalog_of([cells], pl.List(pl.Binary)) for cells in ([b"a", b"b"], [b"ab"], [b"a", b"c"])]
    assert len({catalog.content_digest() for catalog in contents}) == 3


# ---- unreadable ones ----------------------------------------------------------------------------


def picture(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def test_unreadable_pictures_are_counted_one_by_one_and_only_they_go(tmp_path: Path) -> None:
    good, bad = picture(), b"junk"
    cells = [[good, bad, good], [good, good], [bad, bad], [bad]]
    catalog = catalog_of(cells, pl.List(pl.Binary), tmp_path)
    report = check_media(catalog)
    assert report.image_count == 4
    assert report.numbers == {"i0": [1], "i2": [0, 1]}
    assert report.images.keys() == {"i0", "i2", "i3"}
    assert report.images["i0"].startswith("picture 2, file in the table: not a picture")
    assert "; picture 2, " in report.images["i2"]
    with pytest.raises(InputError, match="4 of 8 pictures cannot be read, need at most"):
        report.require(most=0.49)
    report.require(most=0.5)
    left = catalog.without_media(images=report.images, sounds=report.sounds, numbers=report.numbers)
    found = [None if cell is None else sources_of(cell) for cell in left.frame["image"].to_list()]
    assert found == [[good, good], [good, good], None, None]
    assert left.frame.columns == catalog.frame.columns
    assert left.item_ids == catalog.item_ids
    assert read_media(left, left.frame["image"].to_list()[0]) == good


def test_the_report_of_check_has_the_numbers_and_an_earlier_one_none(tmp_path: Path) -> None:
    old = {
        "items": 1,
        "users": 1,
        "interactions": 1,
        "unknown_interactions": 0,
        "bad_images": {},
        "bad_sounds": {},
    }
    assert Check.model_validate(old).content() == old
    path = tmp_path / "check.json"
    path.write_text(Check.model_validate(old | {"bad_numbers": {"i0": [1]}}).model_dump_json())
    assert read_model(path, Check).bad_numbers == {"i0": [1]}
