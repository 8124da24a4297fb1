"""Hard search by code against a scan of the whole history."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qarm.recommender.history_search import CodeSearch, Matches

RQ = np.array([[0, 0, 5], [0, 1, 5], [1, 0, 5], [0, 0, 6], [2, 2, 0]])
VQ = np.array([[1, 2], [0, 3], [0, 1], [0, 2], [1, 0]])
POOL = np.array([4, 0, 2, 3])


def test_four_events_by_hand() -> None:
    history = np.array([0, 1, 2, 0])  # codes (0, 0), (0, 1), (1, 0), (0, 0)
    search = CodeSearch(history, RQ, vq=VQ, pool=POOL, most=2)
    found = search.find(np.array([3, 3, 2, 4]), np.array([0, 0, 0, 0]), np.array([4, 2, 4, 4]))
    # item 3 has codes (0, 0): the latest two that share code 0 are 0 and 1; VQ list: items 4 and 2
    assert found.items[0].tolist() == [0, 1, 2, 0]
    assert found.kinds[0].tolist() == [2, 1, 3, 0]
    assert found.counts[0].tolist() == [3, 2, 1]
    assert found.items[1].tolist() == [1, 0, 0, 0]  # only the first two events had happened
    assert found.kinds[1].tolist() == [1, 2, 0, 0]
    assert found.counts[1].tolist() == [2, 1, 0]
    assert found.kinds[2].tolist() == [2, 0, 3, 0]  # itself by code; of its list 4 and 0 only 0 was there
    assert found.items[2].tolist() == [2, 0, 0, 0]
    assert found.counts[2].tolist() == [1, 1, 2]
    assert found.kinds[3].tolist() == [0, 0, 3, 0]  # no event has code 2


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_search_finds_what_a_scan_finds(seed: int, most: int, with_lists: bool) -> None:
    random = np.random.default_rng(seed)
    items, events, rows = 12, int(random.integers(0, 40)), 15
    rq = random.integers(0, 3, (items, random.integers(1, 4)))
    pool = random.permutation(items)[:8] if with_lists else None
    vq = random.permuted(np.tile(np.arange(8), (items, 1)), axis=1)[:, :4] if with_lists else None
    history = random.integers(0, items, events)
    cut = np.sort(random.integers(0, events + 1, (rows, 2)), axis=1)
    candidates = random.integers(0, items, rows)
    found = CodeSearch(history, rq, vq=vq, pool=pool, most=most).find(candidates, cut[:, 0], cut[:, 1])
    for row, item in enumerate(candidates):
        own = history[cut[row, 0] : cut[row, 1]]
        shared = [i for i in own[::-1] if rq[i, 0] == rq[item, 0]]
        deep = [i for i in shared if (rq[i, :2] == rq[item, :2]).all()]
        assert found.counts[row, :2].tolist() == [len(shared), len(deep)]
        kept = found.kinds[row, :most]
        assert kept.tolist() == [
            *(2 if (rq[i, :2] == rq[item, :2]).all() else 1 for i in shared[:most]),
            *[0] * (most - len(shared[:most])),
        ]
        assert found.items[row, :most][kept > 0].tolist() == shared[:most]
        if pool is not None and vq is not None:
            near = [i for i in pool[vq[item]] if i in own]
            assert found.counts[row, 2] == sum(np.count_nonzero(own == i) for i in near)
            assert found.items[row, most:][found.kinds[row, most:] == 3].tolist() == near[:most]


def test_what_lies_outside_the_stretch_does_not_matter() -> None:
    random = np.random.default_rng(0)
    history, rq = random.integers(0, 5, 100), RQ
    asked = np.arange(5), np.full(5, 30), np.full(5, 60)
    found = CodeSearch(history, rq, vq=VQ, pool=POOL).find(*asked)
    history[:30], history[60:] = history[60:90], history[30:70]
    again = CodeSearch(history, rq, vq=VQ, pool=POOL).find(*asked)
    for name in Matches.__dataclass_fields__:
        assert np.array_equal(getattr(found, name), getattr(again, name)), name


def test_items_that_left_the_pool_match_nothing() -> None:
    pool = np.array([-1, 0, 2, 3])
    found = CodeSearch(np.array([4, 4]), RQ, vq=VQ, pool=pool).find(
        np.array([1]), np.array([0]), np.array([2])
    )
    assert found.counts.tolist() == [[0, 0, 0]]
