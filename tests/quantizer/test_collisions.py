"""Collision policies: numbers that hold, and codes under a capacity."""

import numpy as np
import pytest

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.collisions import items_by_code, reassign, suffixes
from qarm.quantizer.residual_kmeans import ResidualKMeans

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 6)).astype(np.float32)
ITEMS = [f"i{n:03d}" for n in RNG.permutation(500)]
ALL = Embeddings(ITEMS, X)
BOOKS = ResidualKMeans(2, [6, 128]).fit(X)
CODES = BOOKS.codes(ALL)


def test_both_ways_by_hand() -> None:
    codes = Codes(["c", "a", "b", "d"], np.array([[1, 0], [0, 2], [1, 0], [0, 1]], dtype=np.int32))
    frame = items_by_code(codes)
    assert frame["rq"].to_list() == [[0, 1], [0, 2], [1, 0]]
    assert frame["item_ids"].to_list() == [["d"], ["a"], ["b", "c"]]
    assert suffixes(codes).tolist() == [1, 0, 0, 0]


def test_suffixes_make_codes_unique_in_any_order() -> None:
    numbers = suffixes(CODES)
    assert len(np.unique(np.column_stack([CODES.rq, numbers]), axis=0)) == 500
    order = RNG.permutation(500)
    turned = Codes([ITEMS[n] for n in order], CODES.rq[order])
    assert np.array_equal(suffixes(turned), numbers[order])


def test_published_suffixes_stay_and_new_ones_count_on() -> None:
    old = Codes(ITEMS[:300], CODES.rq[:300])
    numbers = suffixes(old)
    everything = suffixes(CODES, published=(old, numbers))
    assert np.array_equal(everything[:300], numbers)
    assert len(np.unique(np.column_stack([CODES.rq, everything]), axis=0)) == 500
    only_new = suffixes(Codes(ITEMS[300:], CODES.rq[300:]), published=(old, numbers))
    assert np.array_equal(only_new, everything[300:])


def test_a_published_code_that_changed_is_refused() -> None:
    changed = Codes(ITEMS, np.where(np.arange(500)[:, None] == 7, 0, CODES.rq + 1).astype(np.int32))
    published = Codes(ITEMS, CODES.rq + 1), np.zeros(500, np.int32)
    with pytest.raises(InputError, match=f"codes of published items {ITEMS[7]} changed"):
        suffixes(changed, published=published)


def greedy(capacity: int) -> np.ndarray:
    """The same policy, item by item, with all distances measured."""
    residual = X - BOOKS.codebooks_[0][CODES.rq[:, 0]]
    far = ((residual[:, None].astype(np.float64) - BOOKS.codebooks_[1][None]) ** 2).sum(-1)
    new, room = CODES.rq.copy(), np.zeros((6, 128), dtype=int)
    movers = []
    for row in sorted(range(500), key=lambda r: (far[r, CODES.rq[r, 1]], ITEMS[r])):
        first, second = CODES.rq[row]
        if room[first, second] < capacity:
            room[first, second] += 1
        else:
            movers.append(row)
    for row in movers:
        first = CODES.rq[row, 0]
        second = min(np.flatnonzero(room[first] < capacity), key=lambda c: (far[row, c], c))
        new[row, 1] = second
        room[first, second] += 1
    return new


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_reassignment_is_the_greedy_one(capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reassign(ALL, CODES, BOOKS, capacity=capacity)
    assert np.array_equal(found.rq, greedy(capacity))
    assert np.unique(found.rq, axis=0, return_counts=True)[1].max() <= capacity
    assert np.array_equal(found.rq[:, 0], CODES.rq[:, 0])
    monkeypatch.setattr("qarm.quantizer.kmeans.assignment._FEWEST_ROWS", 8)
    monkeypatch.setattr("qarm.quantizer.kmeans.assignment._MOST_ROWS", 8)
    assert np.array_equal(reassign(ALL, CODES, BOOKS, capacity=capacity).rq, found.rq)


def test_vectors_and_codes_may_be_read_only() -> None:
    x, table = X.copy(), CODES.rq.copy()
    x.flags.writeable = table.flags.writeable = False
    frozen = reassign(Embeddings(ITEMS, x), Codes(ITEMS, table), BOOKS)
    assert np.array_equal(frozen.rq, reassign(ALL, CODES, BOOKS).rq)
    assert np.array_equal(suffixes(Codes(ITEMS, table)), suffixes(CODES))


def test_without_collisions_nothing_moves() -> None:
    free = reassign(ALL, CODES, BOOKS)
    assert np.array_equal(reassign(ALL, free, BOOKS).rq, free.rq)
    one_level = ResidualKMeans(1, 500).fit(X)
    assert np.array_equal(reassign(ALL, one_level.codes(ALL), one_level).rq, one_level.transform(X))


def test_too_many_items_for_the_last_level() -> None:
    narrow = ResidualKMeans(2, 4).fit(X)
    with pytest.raises(InputError, match=r"items under \[\d\], need at most 4; raise capacity or quantizer"):
        reassign(ALL, narrow.codes(ALL), narrow)
    with pytest.raises(InputError, match="got capacity=0"):
        reassign(ALL, CODES, BOOKS, capacity=0)
    with pytest.raises(InputError, match="not of the same items"):
        reassign(Embeddings(ITEMS[::-1], X), CODES, BOOKS)
