"""Catalogues: what is read, what is refused, and that all faults are told at once."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from qarm.data.catalog import Catalog, read_catalog
from qarm.errors import InputError


def write(folder: Path, **columns: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "items.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def read(path: Path, **options: object) -> Catalog:
    names = {"text": ["title"], "image": None, "audio": None}
    return read_catalog(path, **(names | options))


def test_text_columns_are_joined_in_order_and_empty_ones_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        item_id=[1, 2, 3],
        title=[" Hat ", "", None],
        price=[None, 2.5, 3.0],
        kind=pl.Series(["a", None, "b"], dtype=pl.Categorical),
        nothing=[None, None, None],
    )
    catalog = read(path, text=("kind", "title", "nothing", "price"))
    assert catalog.item_ids == ["1", "2", "3"]
    assert catalog.frame["text"].to_list() == ["a\nHat", "2.5", "b\n3.0"]
    assert catalog.counts() == {"text": 3, "image": 0, "audio": 0}


def test_text_of_any_type_as_the_encoder_reads_it(tmp_path: Path) -> None:
    nan = float("nan")
    path = write(
        tmp_path,
        item_id=["a", "b"],
        title=["Hat", "Cap"],
        price=pl.Series([29.31, nan], dtype=pl.Float32),
        tags=[["wool", "red"], []],
        info=[{"maker": "A", "year": 2024}, {"maker": None, "year": None}],
        since=[date(2024, 1, 2), None],
        new=[True, None],
    )
    catalog = read(path, text=["title", "price", "tags", "info.maker", "info", "since", "new"])
    assert catalog.sample() == {
        "a": "Hat\n29.31\nwool, red\nA\nA, 2024\n2024-01-02\ntrue",
        "b": "Cap",
    }


def test_ids_and_texts_of_a_csv_are_as_they_are_written(tmp_path: Path) -> None:
    lines = ["item_id,title,price", "007,00123,1.10", "7,1e400,2024-01-02", "8,true,", ",x,1"]
    (tmp_path / "items.csv").write_text("\n".join(lines[:-1]))
    catalog = read(tmp_path / "items.csv", text=["title", "price"])
    assert catalog.sample() == {"007": "00123\n1.10", "7": "1e400\n2024-01-02", "8": "true"}
    (tmp_path / "items.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="null or empty ids in rows 3"):
        read(tmp_path / "items.csv")


def test_a_folder_of_parts_has_its_media_beside_them(tmp_path: Path) -> None:
    for part in ("1", "2"):
        folder = tmp_path / "items" / f"shop={part}"
        folder.mkdir(parents=True)
        frame = pl.DataFrame({"item_id": [f"i{part}"], "title": ["x"], "i": ["m/a.png"]})
        frame.write_parquet(folder / "p.parquet")
    catalog = read(tmp_path / "items", image="i", text=["title", "shop"])
    assert catalog.sample() == {"i1": "x\n1", "i2": "x\n2"}
    assert catalog.path("m/a.png") == tmp_path / "items" / "m" / "a.png"


def test_media_are_paths_or_contents_or_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        item_id=["a", "b", "c"],
        title=["x", None, "z"],
        picture=["m/a.png", "b.png", ""],
        sound=[b"RIFF", b"", None],
        null=[None, None, None],
    )
    catalog = read(path, image="picture", audio="sound")
    assert catalog.frame["image"].to_list() == ["m/a.png", "b.png", None]
    assert catalog.frame["audio"].to_list() == [b"RIFF", None, None]
    assert read(path, image="picture", audio="null").counts() == {"text": 2, "image": 2, "audio": 0}


def test_csv_and_json_lines_are_tolerated(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,Hat\nb,\n")
    with pytest.raises(InputError, match="items b have no text, picture or sound"):
        read(tmp_path / "items.csv")
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "title": "Hat"}\n')
    assert read(tmp_path / "items.jsonl").frame["text"].to_list() == ["Hat"]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["a", "b", "a", "b", "c"], title=[b"\xff"] * 5, image_path=[1, 2, 3, 4, 5])
    with pytest.raises(InputError) as error:
        read(path, text=["title", "body"], image="image_path", audio="sound")
    text = str(error.value)
    assert len(error.value.problems) == 5
    assert "title: text is Binary, need text, numbers or dates, or lists of them" in text
    assert "no column 'body'" in text
    assert "image is Int64, need paths" in text
    assert "no column 'sound' for audio; it has item_id, title, image_path" in text
    assert "duplicate ids: 'a' in rows 0, 2, 'b' in rows 1, 3" in text


def test_null_ids_and_items_without_content_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="null or empty ids in rows 1, 2"):
        read(write(tmp_path, item_id=["a", None, ""], title=["x", "y", "z"]))
    ids = [f"i{row}" for row in range(9)]
    with pytest.raises(InputError, match=r"items i1, i2, i3, i4, i5 \.\.\. \(8 in all\) have no text"):
        read(write(tmp_path, item_id=ids, title=["x", *[" "] * 8]))


@pytest.mark.parametrize(
    "source",
    ["../secret.png", "/etc/hosts", "m/../../secret.png", "out/secret.png", "link.png", "m/..", "a\0b"],
)
def test_media_paths_may_not_leave_the_folder(tmp_path: Path, source: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    home = tmp_path / "shop"
    path = write(home, item_id=["ok", "bad"], title=["x", "y"], image_path=["m/a.png", source])
    (home / "m").mkdir()
    (home / "out").symlink_to(tmp_path)
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="image paths that leave .*: 'bad': .*; paths are relative"):
        read(path, image="image_path")


def test_links_and_dots_that_stay_inside_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["a", "b"], title=["x", "y"], image_path=["m/../a.png", "link.png"])
    (tmp_path / "m").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("a.png")
    catalog = read(path, image="image_path")
    assert catalog.counts()["image"] == 2
    assert catalog.path("link.png").is_file()


def test_only_keeps_file_order_and_passes_over_unknown_names(tmp_path: Path) -> None:
    catalog = read(write(tmp_path, item_id=["c", "a", "b"], title=["x", "y", "z"]))
    assert catalog.only(["b", "zzz", "c"]).item_ids == ["c", "b"]
    assert len(catalog) == 3
    with pytest.raises(InputError, match=r"none of 2 item ids \(p, q\) is in the catalogue"):
        catalog.only(["p", "q"])


def test_items_go_on_without_bad_media_unless_nothing_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["a", "b"], title=["x", None], i=["a.png", "b.png"], s=["a.wav", None])
    catalog = read(path, image="i", audio="s")
    left = catalog.without_media(images={"a": "damaged"}, sounds=["a"])
    assert left.frame.row(0) == ("a", "x", None, None)
    assert catalog.frame["image"].to_list() == ["a.png", "b.png"]
    with pytest.raises(InputError, match="items b have nothing left"):
        catalog.without_media(images=["b"])


def test_media_digest_follows_contents_and_not_places(tmp_path: Path) -> None:
    digests = []
    for name, content in (("one", b"1"), ("two", b"1"), ("three", b"2"), ("four", None)):
        path = write(tmp_path / name, item_id=["a", "b"], title=["x", "y"], i=["a.png", "b.png"])
        (tmp_path / name / "a.png").write_bytes(b"0")
        if content is not None:
            (tmp_path / name / "b.png").write_bytes(content)
        digests.append(read(path, image="i").media_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_reading_a_catalogue_loads_nothing_heavy() -> None:
    code = "import sys, qarm.data.catalog; print({'torch', 'numba', 'faiss', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
