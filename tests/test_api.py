"""Python API: paths as text, names that are public, texts to vectors, short descriptions."""

import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import qarm
from qarm.data.catalog import text_catalog
from qarm.encoder.heads import Heads
from qarm.recommender.retrieval.recommender import Recommendation, Recommendations

HOSTILE = '<img src=x onerror="alert(1)">'


def functions() -> list[Any]:
    found = []
    for name in qarm.__all__:
        thing = getattr(qarm, name)
        found += [(name, thing)] if callable(thing) and not inspect.isclass(thing) else []
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            own = getattr(member, "__func__", member)
            found += [(f"{name}.{key}", own)] if inspect.isfunction(own) and key[0] != "_" else []
    return [pytest.param(function, id=name) for name, function in found]


@pytest.mark.parametrize("function", functions())
def test_a_path_may_be_text_everywhere(function: Any) -> None:
    for parameter in inspect.signature(function).parameters.values():
        kind = str(parameter.annotation)
        assert "Path" not in kind or "str" in kind, f"{parameter.name}: {kind}"


def test_what_the_issue_asks_for_is_public() -> None:
    assert {"code_quality", "suffixes", "reassign"} <= set(qarm.__all__)
    assert qarm.suffixes(codes()).tolist() == [0, 1, 0]  # by item id
    assert qarm.__version__ == version("qarm")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qarm.nothing


# ---- paths --------------------------------------------------------------------------------------


def codes() -> qarm.Codes:
    rq = np.array([[0, 1], [1, 0], [1, 0]], dtype=np.int32)
    return qarm.Codes(["a", "b", HOSTILE], rq, np.zeros((3, 2), np.int32))


def vectors(count: int = 12) -> qarm.Embeddings:
    rows = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return qarm.Embeddings([f"i{row}" for row in range(count)], rows)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["~/x.parquet", Path("~/x.parquet"), "x.parquet"])
def test_codes_and_vectors_in_the_home_folder(home: Path, path: Path | str) -> None:
    for made, kind in ((codes(), qarm.Codes), (vectors(), qarm.Embeddings)):
        made.write(path)
        assert [p.name for p in home.iterdir()] == ["x.parquet"]
        assert kind.read(path).item_ids == made.item_ids
    books = qarm.ResidualKMeans(2, 2).fit(path)
    assert books.codes(path).item_ids == vectors().item_ids
    assert qarm.NearestCodes(2).fit(path).codes(path).shape == (12, 2)


@pytest.mark.parametrize("folder", ["~/made", Path("~/made")])
def test_models_in_the_home_folder(home: Path, folder: Path | str) -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    for model in (
        qarm.ResidualKMeans(2, 2),
        qarm.ResidualKMeansFSQ(1, 2, digits=2),
        qarm.ResidualKMeansOPQ(1, 2),
    ):
        model.fit(x).save_pretrained(folder)
        again = type(model).from_pretrained(folder)
        np.testing.assert_array_equal(again.transform(x), model.transform(x))
    encoder().save_pretrained(folder)
    assert (home / "made" / "config.json").is_file()
    assert qarm.Encoder.from_pretrained(folder, towers={"text": Tower()}).dim == 2
    assert [path.name for path in home.iterdir()] == ["made"]


def test_tables_in_the_home_folder(home: Path) -> None:
    shop = pl.DataFrame(
        {"item_id": ["a", "b"], "title": ["x", "y"], "user_id": ["u", "v"], "timestamp": [1, 2]}
    )
    shop.write_parquet(home / "shop.parquet")
    catalog = qarm.read_catalog("~/shop.parquet", text="title", image=None, audio=None)
    assert (catalog.item_ids, catalog.folder) == (["a", "b"], home)
    assert qarm.read_catalog(shop, text="title", image=None, audio=None, folder="~").folder == home
    assert len(qarm.read_log(Path("~/shop.parquet"))) == 2
    assert qarm.read_users("~/shop.parquet", features=["title"]).features == ["title"]
    cache = Path("~/cache")
    encoder().embed(["1 2"], cache=str(cache))
    qarm.embed(encoder(), ["1 2"], cache=cache)
    assert sorted(path.name for path in home.iterdir()) == ["cache", "shop.parquet"]


# ---- texts --------------------------------------------------------------------------------------


class Tower:
    """Numbers in a text."""

    name, fingerprint = "numbers", "n" * 20

    def load(self, content: str) -> np.ndarray:
        return np.array(content.split(), dtype=np.float32)

    def encode(self, inputs: Any) -> np.ndarray:
        return np.stack(inputs)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)


def encoder() -> qarm.Encoder:
    heads = Heads({"text": (2,)}, dim=2, hidden=4, dropout=0.0, fusion="concat", anchor=0.0)
    return qarm.Encoder({"text": Tower()}, heads)  # type: ignore[dict-item]


def test_texts_become_vectors_as_items_do() -> None:
    frame = pl.DataFrame({"item_id": ["p", "q"], "title": ["1 2", "3 -4"]})
    items = qarm.read_catalog(frame, text="title", image=None, audio=None)
    made, expected = encoder(), encoder()
    expected.heads.load_state_dict(made.heads.state_dict())
    found = made.embed(["1 2", "3 -4"])
    assert found.item_ids == ["0", "1"]
    np.testing.assert_array_equal(found.vectors, made.embed(items).vectors)
    np.testing.assert_array_equal(qarm.embed(made, ["1 2", "3 -4"]).vectors, found.vectors)
    np.testing.assert_array_equal(made.raw(["1 2"]).vectors, made.raw(items).vectors[:1])


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ("red shoe", "got str, need a list of texts"),
        ([], "got list, need a list of texts"),
        (["a", " ", None], "empty or no text at 1, 2, need a list"),
    ],
)
def test_texts_that_are_none_are_refused(texts: Any, problem: str) -> None:
    with pytest.raises(qarm.InputError, match=problem):
        text_catalog(texts)


# ---- descriptions -------------------------------------------------------------------------------


def recommendations(count: int) -> Recommendations:
    items = [Recommendation(n + 1, f"i{n}", 1.5, "model", HOSTILE) for n in range(count)]
    return Recommendations("u", items)


def test_descriptions_are_short_and_have_shapes() -> None:
    events = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"], "timestamp": [1, 2, 3]})
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["x", "y"], "shot": [b"p", None]})
    users = pl.DataFrame({"user_id": ["u"], "country": ["DE"]})
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    described = {
        repr(qarm.read_log(events)): "Log(3 events, 2 users, 2 items",
        repr(
            qarm.read_catalog(items, text="title", image="shot", audio=None)
        ): "Catalog(2 items: 2 with text, 1 with picture)",
        repr(qarm.read_users(users, features=["country"])): "Users(1 users, country)",
        repr(codes()): "Codes(3 items, rq [3, 2], vq [3, 2], version 1)",
        repr(vectors()): "Embeddings(12 items, float32 [12, 4])",
        repr(encoder()): "Encoder(text numbers -> 2)",
        repr(qarm.ResidualKMeans(2, 4)): "ResidualKMeans(levels=2, width=4)",
        repr(
            qarm.ResidualKMeans(2, 4).fit(x)
        ): "ResidualKMeans(levels=2, width=4) fitted: [n, 6] -> codes of widths [4, 4]",
        repr(qarm.NearestCodes(3).fit(x)): "NearestCodes(k=3) fitted: pool [40, 6]",
        repr(recommendations(4)): "Recommendations(4 items for user 'u': i0, i1, i2, ...)",
    }
    for found, expected in described.items():
        assert found.startswith(expected)
        assert len(found) < 120


def test_html_has_ten_rows_pictures_and_nothing_unescaped(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    ids = [HOSTILE, *(f"i{n}" for n in range(20))]
    frame = pl.DataFrame({"item_id": ids, "title": HOSTILE, "shot": ["a.png", "gone<b>.png", *[None] * 19]})
    catalog = qarm.read_catalog(frame, text="title", image="shot", audio=None, folder=tmp_path)
    many = qarm.Codes(ids, np.zeros((21, 2), np.int32))
    shown = [catalog._repr_html_(), many._repr_html_(), recommendations(12)._repr_html_()]
    assert [text.count("<tr>") for text in shown] == [11, 11, 11]
    assert all("<img src=x" not in text and "&lt;img src=x" in text for text in shown)
    assert shown[0].count('<img src="data:image/webp;base64,') == 1
    assert "gone&lt;b&gt;.png: no such file" in shown[0]
