"""Versions of codes: nothing published moves, change is counted after matching, rollback brings all back."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from qarm.core import folder_swap
from qarm.core.atomic_io import digest, sha256_file, write_json
from qarm.core.run_folder import finish_swap
from qarm.core.stage_timing import last_change, read_timing, version_start, write_timing
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions.archive import archive, current_version, next_version, rollback, versions
from qarm.quantizer.versions.refit import (
    append,
    churn,
    match_centroids,
    overlaps,
    refit,
    remap_table,
    warm_embeddings,
)
from qarm.schemas.base import FORMAT, Timing

NOW = 1_790_000_000.0  # Unix time
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(12, 10)) * 2
GROUP = RNG.integers(12, size=600)
X = (CENTRES[GROUP] + RNG.normal(size=(600, 10))).astype(np.float32)
ITEMS = [f"i{n:03d}" for n in RNG.permutation(600)]
OLD = Embeddings(ITEMS[:400], X[:400])
BOOKS = ResidualKMeans(2, 16).fit(OLD)


def test_appended_items_leave_published_ones_alone() -> None:
    nearest = NearestCodes(k=3).fit(OLD)
    published = Codes(OLD.item_ids, BOOKS.transform(OLD), nearest.codes(OLD), version=4)
    # the encoder now says something else about a published item: its code stays all the same
    moved = X.copy()
    moved[:10] += 100
    after = append(published, Embeddings(ITEMS, moved), BOOKS, nearest=nearest)
    assert after.version == 4
    assert after.item_ids == ITEMS
    assert np.array_equal(after.rq[:400], published.rq)
    assert np.array_equal(after.rq[400:], BOOKS.transform(X[400:]))
    assert after.vq is not None
    assert np.array_equal(after.vq[:400], published.vq)
    assert np.array_equal(after.vq[400:], nearest.codes(Embeddings(ITEMS[400:], X[400:])))
    assert append(after, Embeddings(ITEMS, X), BOOKS, nearest=nearest) is after


def test_appending_in_parts_is_appending_at_once() -> None:
    published = BOOKS.codes(OLD)
    half = append(published, Embeddings(ITEMS[400:500], X[400:500]), BOOKS)
    whole = append(half, Embeddings(ITEMS[500:], X[500:]), BOOKS)
    at_once = append(published, Embeddings(ITEMS[400:], X[400:]), BOOKS)
    assert whole.item_ids == at_once.item_ids
    assert np.array_equal(whole.rq, at_once.rq)


def test_what_cannot_be_appended() -> None:
    published = BOOKS.codes(OLD)
    with pytest.raises(InputError, match="published codes have 2 levels, the quantiser 1; append with"):
        append(published, OLD, ResidualKMeans(1, 4).fit(X))
    lists = Codes(published.item_ids, published.rq, np.zeros((400, 3), np.int32))
    with pytest.raises(InputError, match="have nearest lists; append with the nearest codes"):
        append(lists, OLD, BOOKS)
    with pytest.raises(InputError, match="item ids are of type int and str"):
        append(published, Embeddings(["a", 7], X[:2]), BOOKS)  # type: ignore[list-item]


def test_matching_by_hand() -> None:
    # greedy would take 0 -> 1 (distance 1) and leave 5 for 20; together 0 -> 20 would cost more
    old = np.array([[0.0], [5.0]], dtype=np.float32)
    new = np.array([[6.0], [1.0]], dtype=np.float32)
    assert match_centroids(old, new).tolist() == [1, 0]
    assert match_centroids(old, new[:1]).tolist() == [-1, 0]
    assert match_centroids(old[:1], new).tolist() == [1]
    order = RNG.permutation(16)
    assert (
        match_centroids(BOOKS.codebooks_[0], BOOKS.codebooks_[0][order]).tolist()
        == np.argsort(order).tolist()
    )
    with pytest.raises(InputError, match="1 and 2 dimensions"):
        match_centroids(old, np.zeros((2, 2), np.float32))


BEFORE = Codes(["a", "b", "c", "d", "gone"], np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 0]], np.int32))
AFTER = Codes(
    ["d", "c", "b", "a", "new"], np.array([[0, 1], [0, 0], [0, 1], [1, 1], [0, 0]], np.int32), version=2
)
MATCHES = [np.array([1, 0], np.int32), np.array([0, 1], np.int32)]


def test_churn_by_hand() -> None:
    # level 1: 0 became 1 and 1 became 0, so only b (0 -> 0) moved; level 2: only a (0 -> 1)
    assert churn(BEFORE, AFTER, MATCHES).content() == {
        "from": 1,
        "to": 2,
        "items": 4,
        "added": 1,
        "removed": 1,
        "levels": [
            {"level": 1, "changed": 0.25, "renumbered": 0.75},
            {"level": 2, "changed": 0.25, "renumbered": 0.25},
        ],
        "full_codes": 0.5,
    }
    with pytest.raises(InputError, match="no item in common"):
        churn(BEFORE, Codes(["x"], AFTER.rq[:1]), MATCHES).content()
    with pytest.raises(InputError, match="2 and 1 levels"):
        churn(BEFORE, Codes(["a"], AFTER.rq[:1, :1]), MATCHES).content()


def test_remap_and_overlaps_by_hand() -> None:
    table = remap_table(BEFORE, AFTER, [MATCHES[0], np.array([0, -1], np.int32)])
    assert table.rows() == [(1, 0, 1, 2, 1), (1, 1, 0, 2, 2), (2, 0, 0, 2, 1), (2, 1, None, 2, 0)]
    assert set(table.dtypes) == {pl.Int32}
    assert overlaps(BEFORE, AFTER, 0).rows() == [(0, 0, 1), (0, 1, 1), (1, 0, 2)]


def test_warm_embeddings_by_hand() -> None:
    table = np.array([[6.0, 0.0], [0.0, 3.0]], dtype=np.float32)
    warm = warm_embeddings(table, overlaps(BEFORE, AFTER, 0), 4, match=np.array([1, 3], np.int32))
    # 0 took one item of old 0 and two of old 1; 1 one of old 0; 2 nothing: the mean; 3 is matched by old 1
    assert warm.tolist() == [[2.0, 2.0], [6.0, 0.0], [3.0, 1.5], [0.0, 3.0]]
    with pytest.raises(InputError, match=r"new codes 1 are outside 0 \.\. 0"):
        warm_embeddings(table, overlaps(BEFORE, AFTER, 0), 1)
    with pytest.raises(InputError, match=r"old codes 1 are outside 0 \.\. 0"):
        warm_embeddings(table[:1], overlaps(BEFORE, AFTER, 0), 2)


def test_a_refit_keeps_most_codes_and_a_fresh_fit_does_not() -> None:
    grown = Embeddings(ITEMS, X)
    before = BOOKS.codes(OLD)

    def change(model: ResidualKMeans) -> dict[str, float]:
        pairs = zip(BOOKS.codebooks_, model.codebooks_, strict=True)
        return churn(before, model.codes(grown), [match_centroids(a, b) for a, b in pairs]).content()[
            "levels"
        ][0]

    again, fresh = change(refit(BOOKS, grown)), change(ResidualKMeans(2, 16, seed=1).fit(grown))
    assert again["changed"] < 0.1
    assert again["changed"] < fresh["changed"] < fresh["renumbered"]
    same = refit(BOOKS, OLD, iterations=1)
    assert churn(before, same.codes(OLD), [np.arange(16)] * 2).content()["full_codes"] < 0.05


def test_a_ranker_survives_new_codes() -> None:
    # clicks follow planted groups; a ranker knows items by embeddings of their codes, learned on old ones
    users = RNG.normal(size=(3000, 12))
    items = RNG.integers(600, size=3000)
    clicks = (users[np.arange(3000), GROUP[items]] + 0.3 * RNG.normal(size=3000) > 0).astype(int)
    one_hot = np.eye(16)[BOOKS.transform(X)[items, 0]]
    crossed = (one_hot[:, :, None] * users[:, None, :]).reshape(3000, -1)
    learned = LogisticRegression(C=1.0).fit(crossed[:2000], clicks[:2000])
    table = learned.coef_.reshape(16, 12).astype(np.float32)

    def auc(embeddings: np.ndarray, codes: np.ndarray) -> float:
        scores = (embeddings[codes[items[2000:]]] * users[2000:]).sum(1)
        return float(roc_auc_score(clicks[2000:], scores))

    before = Codes(ITEMS, BOOKS.transform(X))
    model = ResidualKMeans(2, 16, seed=9).fit(X)  # not even started from the old centroids
    after = model.codes(Embeddings(ITEMS, X))
    match = match_centroids(BOOKS.codebooks_[0], model.codebooks_[0])
    warm = warm_embeddings(table, overlaps(before, after, 0), 16, match=match)
    old = auc(table, before.rq[:, 0])
    assert old > 0.75
    assert auc(warm, after.rq[:, 0]) > old - 0.03
    assert auc(table, after.rq[:, 0]) < 0.65  # embeddings taken by number know nothing


def publish(folder: Path, version: int, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Codes(["a"], np.full((1, 2), version, np.int32), version=version).write(folder / "codes.parquet")
    (folder / "quantizer").mkdir(exist_ok=True)
    (folder / "quantizer" / "config.json").write_text(text)
    start = NOW + version
    write_timing(folder, Timing(started=start, seconds=0.5))
    sealed = {
        "format": FORMAT,
        "stage": "codes",
        "rows": {},
        "outputs": {name: sha256_file(folder / name) for name in ("codes.parquet", "quantizer/config.json")},
        "inputs": {},
        "config": {},
        "version": text,
    }
    write_json(folder / "manifest.json", sealed | {"sha256": digest(sealed)})


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "timing.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Three versions, made as `stage_folder` would: a working folder that takes the place of the old one."""
    folder = tmp_path / "run" / "codes"
    publish(folder, 1, "one")
    for number, text in ((2, "two"), (3, "three")):
        work = tmp_path / "work"
        assert archive(folder, work) == number
        publish(work, number, text)
        folder.rename(tmp_path / f"before{number}")
        work.rename(folder)
    return folder


def test_versions_lie_side_by_side(shelf: Path, tmp_path: Path) -> None:
    assert versions(shelf) == [1, 2, 3]
    assert current_version(shelf) == 3
    first = contents(tmp_path / "before2")
    assert contents(shelf / "versions" / "1") == first
    assert sorted(path.name for path in (shelf / "versions" / "2").iterdir()) == [
        "codes.parquet", "manifest.json", "quantizer", "timing.json",
    ]  # fmt: skip


def test_rollback_brings_an_earlier_version_back(shelf: Path) -> None:
    third, first = contents(shelf), contents(shelf / "versions" / "1")
    rollback(shelf, 1)
    assert current_version(shelf) == 1
    assert versions(shelf) == [1, 2, 3]
    assert next_version(shelf) == 4  # 3 is taken for ever
    now = contents(shelf)
    assert {name: now[name] for name in first} == first
    assert Codes.read(shelf / "versions" / "3" / "codes.parquet").version == 3
    assert sorted(path.name for path in shelf.parent.iterdir()) == ["codes"]
    rollback(shelf, 3)
    assert contents(shelf) == third
    before = (shelf / "timing.json").read_bytes()
    rollback(shelf, 3)
    assert contents(shelf) == third
    assert (shelf / "timing.json").read_bytes() == before


def test_a_version_that_comes_back_is_valid_anew_whatever_the_clock_says(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW - 86_400.0)
    starts = [version_start(read_timing(shelf))]
    for number in (1, 2, 1, 3):
        rollback(shelf, number)
        assert current_version(shelf) == number
        starts.append(version_start(read_timing(shelf)))
    assert starts == sorted(set(starts))
    assert starts[0] == NOW + 3.5
    assert last_change(shelf) < NOW + 3.6


def test_versions_that_are_not_there(shelf: Path, tmp_path: Path) -> None:
    before = contents(shelf)
    with pytest.raises(InputError, match="got version 7, need one of 1, 2, 3 in"):
        rollback(shelf, 7)
    assert contents(shelf) == before
    with pytest.raises(ArtifactError, match=r"codes\.parquet: not readable .* restore it from a copy"):
        current_version(tmp_path)
    mixed = pl.concat([Codes(["a"], np.zeros((1, 1), np.int32), version=v).frame() for v in (1, 2)])
    mixed.write_parquet(tmp_path / "codes.parquet")
    with pytest.raises(ArtifactError, match="rows are of versions 1, 2, need one"):
        current_version(tmp_path)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_rollback_cut_short_is_completed_or_leaves_the_folder(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """Killed at its first rename of two, or after the exchange that comes before the only one."""
    if not exchange:
        monkeypatch.setattr(folder_swap, "_exchanged", lambda *_: False)
    elif folder_swap._renameat2() is None:
        pytest.skip("no renameat2 here")
    before = contents(shelf)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        rollback(shelf, 1)
    monkeypatch.undo()
    assert current_version(shelf) == (1 if exchange else 3)
    if not exchange:
        assert contents(shelf) == before
    finish_swap(shelf)  # as the next command does
    assert current_version(shelf) == 1
    assert [path.name for path in shelf.parent.iterdir()] == ["codes"]
    rollback(shelf, 2)
    assert current_version(shelf) == 2


def test_a_damaged_version_does_not_come_back(shelf: Path) -> None:
    path = shelf / "versions" / "1" / "codes.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ArtifactError, match=r"versions/1: codes\.parquet changed .* qarm verify .*/run lists"
    ):
        rollback(shelf, 1)
    (shelf / "versions" / "2" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"versions/2 has no manifest\.json"):
        rollback(shelf, 2)
    assert current_version(shelf) == 3
