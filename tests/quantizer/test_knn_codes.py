"""The nearest-row code against brute force, and its rules about pools."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer import exact_knn as cosine
from qarm.quantizer import knn_codes as nearest
from qarm.quantizer.knn_codes import NearestCodes

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
    monkeypatch.setattr(cosine, "_BLOCK_QUERIES", 64)
    monkeypatch.setattr(cosine, "_BLOCK_ROWS", 50)
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
    assert loaded.get_params() == {**model.get_params(), "seed": 0}  # what None meant
    assert loaded.pool_ids_ == model.pool_ids_
    assert np.array_equal(loaded.codes(ALL), model.codes(ALL))


def test_damaged_pool_is_refused(tmp_path: Path) -> None:
    NearestCodes(k=5).fit(ALL).save_pretrained(tmp_path)
    frame = pl.read_parquet(tmp_path / "pool.parquet")
    for damaged in (frame.head(299), frame.with_columns(pl.col("item_id").reverse())):
        damaged.write_parquet(tmp_path / "pool.parquet")
        with pytest.raises(ArtifactError, match=r"pool\.parquet is not the file that was saved"):
            NearestCodes.from_pretrained(tmp_path)
    (tmp_path / "pool.parquet").unlink()
    with pytest.raises(ArtifactError, match="not a whole pool"):
        NearestCodes.from_pretrained(tmp_path)


def test_added_items_get_the_next_ids_and_move_nobody() -> None:
    model = NearestCodes(k=5).fit(Embeddings(ITEMS[:200], X[:200]))
    before = dict(model.pool_ids_)
    model.extend(ALL, version=2)
    assert {item: model.pool_ids_[item] for item in before} == before
    assert model.pool_items_[200:] == sorted(ITEMS[200:])
    assert named(model, model.codes(ALL)) == brute_force(ALL, ALL, 5)
    assert model.pool_frame(history=True)["version"].to_list() == [1] * 200 + [2] * 100
    assert model.extend(ALL, version=3).pool_frame(history=True)["version"].max() == 2


def test_deleted_items_leave_tombstones(tmp_path: Path) -> None:
    model = NearestCodes(k=5).fit(ALL)
    ids, gone = dict(model.pool_ids_), ITEMS[10:40]
    model.delete(gone)
    left = Embeddings(ITEMS[:10] + ITEMS[40:], np.concatenate([X[:10], X[40:]]))
    codes = model.codes(ALL)
    assert named(model, codes) == brute_force(ALL, left, 5)
    assert not np.isin(codes, [ids[item] for item in gone]).any()
    frame = model.pool_frame(history=True)
    assert frame.height == 300
    assert frame.filter("deleted")["item_id"].sort().to_list() == sorted(gone)
    assert not model.pool_vectors_[[ids[item] for item in gone]].any()
    model.save_pretrained(tmp_path)
    assert np.array_equal(NearestCodes.from_pretrained(tmp_path).codes(ALL), codes)
    # who comes back is new: old lists that name the old id still mean the deleted item
    model.extend(Embeddings(gone[:1], X[10:11]), version=3)
    assert model.pool_ids_[gone[0]] == 300
    assert model.pool_items_[ids[gone[0]]] == gone[0]
    with pytest.raises(InputError, match=f"items {gone[1]}, nobody are not in the pool"):
        model.delete([gone[1], "nobody"])
    with pytest.raises(InputError, match=r"got pool of 1 items, need at least k\+1=6"):
        model.delete([item for item in ITEMS if item not in gone])
    assert len(model.pool_ids_) == 271


def test_a_capped_pool_takes_no_more_than_it_may() -> None:
    model = NearestCodes(k=5, pool=210).fit(Embeddings(ITEMS[:200], X[:200]))
    model.extend(ALL, version=2)
    assert len(model.pool_ids_) == 210
    assert model.extend(ALL, version=3).pool_frame(history=True)["version"].max() == 2
    model.delete(ITEMS[:7])
    assert len(model.extend(ALL, version=4).pool_ids_) == 210
    assert len(model.pool_items_) == 217
    assert model.codes(ALL).max() < 217


CLOUD = np.random.default_rng(5).normal(size=(40, 16))
MANY = (CLOUD[RNG.integers(40, size=3000)] + 0.4 * RNG.normal(size=(3000, 16))).astype(np.float32)
CROWD = Embeddings([f"i{n:04d}" for n in range(3000)], MANY)


def test_ivf_says_how_much_it_finds(tmp_path: Path) -> None:
    exact, model = NearestCodes(k=10).fit(CROWD), NearestCodes(k=10, index="ivf").fit(CROWD)
    truth, codes = exact.codes(CROWD), model.codes(CROWD)
    found = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, codes, strict=True)])
    assert exact.recall_ == 1.0
    assert 0.99 <= model.recall_ <= 1.0
    assert found == pytest.approx(model.recall_, abs=0.01)
    assert not (codes == np.arange(3000)[:, None]).any()
    similar = (MANY[codes] * MANY[:, None]).sum(-1) / np.linalg.norm(MANY[codes], axis=-1)
    assert (np.diff(similar, axis=1) <= 1e-5).all()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["recall"] == model.recall_
    assert config["probes"] < config["lists"]
    loaded = NearestCodes.from_pretrained(tmp_path)
    assert loaded.recall_ == model.recall_
    assert np.array_equal(loaded.codes(CROWD), codes)
    again = NearestCodes(k=10, index="ivf").fit(CROWD)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_ivf_with_tombstones_and_short_lists() -> None:
    model = NearestCodes(k=10, index="ivf").fit(CROWD)
    gone = CROWD.item_ids[::3]
    codes = model.delete(gone).codes(CROWD)
    assert not np.isin(codes, np.arange(0, 3000, 3)).any()
    # a far group of three has a list of its own, and its items need ten entries
    apart = MANY.copy()
    apart[:3] = -100 * CLOUD.mean(0) + 0.01 * MANY[:3]
    lonely = NearestCodes(k=10, index="ivf").fit(Embeddings(CROWD.item_ids, apart)).codes(CROWD)
    assert lonely.min() >= 0
    assert all(len(set(row)) == 10 for row in lonely.tolist())


def test_auto_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 300)
    assert NearestCodes(k=5).fit(ALL)._inverted is None
    assert NearestCodes(k=5).fit(CROWD)._inverted is not None
    assert NearestCodes(k=5, index="exact").fit(CROWD)._inverted is None


def test_a_parquet_is_read_like_embeddings(tmp_path: Path) -> None:
    ALL.write(tmp_path / "e.parquet")
    model = NearestCodes(k=5).fit(tmp_path / "e.parquet")
    assert np.array_equal(model.codes(tmp_path / "e.parquet"), NearestCodes(k=5).fit(ALL).codes(ALL))


@pytest.mark.parametrize(
    ("settings", "items", "message"),
    [
        ({}, 20, "got pool of 20 items, need at least k+1=26; lower quantizer.nearest"),
        ({"pool": 10}, 300, "got pool of 10 items, need at least k+1=26; lower quantizer.nearest"),
        ({"k": 0}, 300, "got k=0"),
        ({"pool": 0}, 300, "got pool=0"),
        ({"index": "hnsw"}, 300, "got index='hnsw', need one of auto, exact, ivf"),
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
    monkeypatch.setattr(cosine, "_BLOCK_QUERIES", 100)
    with pytest.raises(InputError, match="all zero in rows 7; cosine needs a direction"):
        model.codes(Embeddings(ITEMS, zero))
    with pytest.raises(InputError, match="all zero in rows 70"):
        model.codes(Embeddings(ITEMS[100:], zero[100:]))


def test_an_array_has_its_row_numbers_as_items() -> None:
    x = np.random.default_rng(1).normal(size=(15, 4)).astype(np.float32)
    named = NearestCodes(3).fit(Embeddings([f"{row:02}" for row in range(15)], x))
    model = NearestCodes(3).fit(x)
    assert model.pool_items_ == [str(row) for row in range(15)]
    # its own rows are themselves, which no list names; a row of another content is an unseen item
    np.testing.assert_array_equal(model.codes(x), named.codes(Embeddings(named.pool_items_, x)))
    turned = np.roll(x, 1, axis=0)
    assert model.codes(turned)[:, 0].tolist() == [14, *range(14)]
    with pytest.raises(InputError, match="without item ids"):
        model.extend(turned, version=2)  # type: ignore[arg-type]
    assert (
        NearestCodes(3, random_state=2, pool=10).fit(x).pool_items_
        == NearestCodes(3, seed=2, pool=10).fit(x).pool_items_
    )
    with pytest.raises(InputError, match="two names of one setting"):
        NearestCodes(3, seed=1, random_state=2).fit(x)
