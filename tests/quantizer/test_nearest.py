"""The nearest-row code against brute force, and its rules about pools."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.artifacts import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer import nearest
from qarm.quantizer.nearest import NearestCodes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 12)).astype(np.float32)
ITEMS = [f"i{n:03d}" for n in RNG.permutation(300)]
ALL = Embeddings(ITEMS, X)


def brute_force(queries: Embeddings, pool: Embeddings, k: int) -> list[list[str]]:
    """Item ids by cosine of unit rows rounded to float32, most similar first, then by item id."""

    def unit(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)

    cosine = unit(queries.vectors) @ unit(pool.vectors).T
    lists = []
    for item, row in zip(queries.item_ids, cosine, strict=True):
        ranked = sorted((-round(s, 13), other) for s, other in zip(row, pool.item_ids, strict=True))
        lists.append([other for _, other in ranked if other != item][:k])
    return lists


def named(model: NearestCodes, codes: np.ndarray) -> list[list[str]]:
    return [[model.pool_items_[c] for c in row] for row in codes.tolist()]


def test_old_and_new_items_match_brute_force() -> None:
    old = Embeddings(ITEMS[:200], X[:200])
    model = NearestCodes(k=7).fit(old)
    codes = model.codes(ALL)
    assert codes.dtype == np.int32
    assert codes.shape == (300, 7)
    assert named(model, codes) == brute_force(ALL, old, 7)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = NearestCodes(k=5).fit(ALL).codes(ALL)
    monkeypatch.setattr(nearest, "_BLOCK_QUERIES", 64)
    monkeypatch.setattr(nearest, "_BLOCK_ROWS", 50)
    assert np.array_equal(NearestCodes(k=5).fit(ALL).codes(ALL), expected)


def test_by_hand() -> None:
    degrees = {"d": 0, "c": 10, "b": 25, "a": 180}
    angles = np.radians(list(degrees.values()))
    items = Embeddings(list(degrees), np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    model = NearestCodes(k=2).fit(items)
    assert model.pool_ids_ == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert model.codes(items).tolist() == [[2, 1], [3, 1], [2, 3], [1, 2]]


def test_many_equal_rows_are_ranked_by_pool_id() -> None:
    # more ties than the search keeps in reserve, so that it must fall back to measuring everything
    same = Embeddings([f"i{n:03d}" for n in range(200)], np.repeat(X[:1], 200, axis=0))
    codes = NearestCodes(k=4).fit(same).codes(same)
    assert codes[100].tolist() == [0, 1, 2, 3]
    assert codes[1].tolist() == [0, 2, 3, 4]


def test_no_item_is_in_its_own_list_even_in_double() -> None:
    vectors = np.concatenate([X[:150], X[:150]])  # every item has a twin
    items = Embeddings(ITEMS, vectors)
    model = NearestCodes(k=3).fit(items)
    codes = model.codes(items)
    own = np.array([model.pool_ids_[item] for item in ITEMS])
    twin = np.array([model.pool_ids_[ITEMS[(n + 150) % 300]] for n in range(300)])
    assert not (codes == own[:, None]).any()
    assert np.array_equal(codes[:, 0], twin)


def test_scale_and_order_of_the_catalogue_do_not_matter() -> None:
    model = NearestCodes(k=5).fit(ALL)
    order = np.random.default_rng(2).permutation(300)
    shuffled = Embeddings([ITEMS[n] for n in order], X[order] * 4)
    again = NearestCodes(k=5).fit(shuffled)
    assert again.pool_ids_ == model.pool_ids_
    assert np.array_equal(again.codes(shuffled), model.codes(ALL)[order])


def test_capped_pool_is_a_seeded_sample() -> None:
    model = NearestCodes(k=5, pool=60, seed=1).fit(ALL)
    assert len(model.pool_items_) == 60
    assert model.pool_items_ == sorted(model.pool_items_)
    assert NearestCodes(k=5, pool=60, seed=1).fit(ALL).pool_items_ == model.pool_items_
    assert NearestCodes(k=5, pool=60, seed=2).fit(ALL).pool_items_ != model.pool_items_
    pool = Embeddings(model.pool_items_, ALL.rows(model.pool_items_))
    assert named(model, model.codes(ALL)) == brute_force(ALL, pool, 5)


def test_vectors_may_be_read_only() -> None:
    x = X.copy()
    x.flags.writeable = False
    frozen = Embeddings(ITEMS, x)
    assert np.array_equal(NearestCodes(k=5).fit(frozen).codes(frozen), NearestCodes(k=5).fit(ALL).codes(ALL))


def test_pool_frame() -> None:
    frame = NearestCodes(k=5).fit(ALL).pool_frame()
    assert frame.schema == {"pool_id": pl.Int32, "item_id": pl.String}
    assert frame["item_id"].to_list() == sorted(ITEMS)
    assert frame["pool_id"].to_list() == list(range(300))


def test_saving_keeps_everything(tmp_path: Path) -> None:
    model = NearestCodes(k=5, pool=100).fit(ALL)
    model.save_pretrained(tmp_path)
    loaded = NearestCodes.from_pretrained(tmp_path)
    assert loaded.get_params() == model.get_params()
    assert loaded.pool_ids_ == model.pool_ids_
    assert np.array_equal(loaded.codes(ALL), model.codes(ALL))


def test_damaged_pool_is_refused(tmp_path: Path) -> None:
    NearestCodes(k=5).fit(ALL).save_pretrained(tmp_path)
    pl.read_parquet(tmp_path / "pool.parquet").head(299).write_parquet(tmp_path / "pool.parquet")
    with pytest.raises(ArtifactError, match=r"pool ids are not 0 \.\. 299"):
        NearestCodes.from_pretrained(tmp_path)
    (tmp_path / "pool.parquet").unlink()
    with pytest.raises(ArtifactError, match="not a whole pool"):
        NearestCodes.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "items", "message"),
    [
        ({}, 20, "got pool of 20 items, need at least k+1=26; lower quantizer.nearest"),
        ({"pool": 10}, 300, "got pool of 10 items, need at least k+1=26; lower quantizer.nearest"),
        ({"k": 0}, 300, "got k=0"),
        ({"pool": 0}, 300, "got pool=0"),
        ({"metric": "hamming"}, 300, "got metric='hamming', need \"cosine\""),
    ],
)
def test_bad_settings(settings: dict[str, object], items: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        NearestCodes(**settings).fit(Embeddings(ITEMS[:items], X[:items]))
    assert message in str(caught.value)


def test_bad_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NearestCodes(k=5).fit(ALL)
    with pytest.raises(InputError, match="X has 11 features"):
        model.codes(Embeddings(ITEMS, X[:, :11]))
    zero = X.copy()
    zero[[7, 170]] = 0.0
    monkeypatch.setattr(nearest, "_BLOCK_QUERIES", 100)
    with pytest.raises(InputError, match="all zero in rows 7; cosine needs a direction"):
        model.codes(Embeddings(ITEMS, zero))
    with pytest.raises(InputError, match="all zero in rows 70"):
        model.codes(Embeddings(ITEMS[100:], zero[100:]))
