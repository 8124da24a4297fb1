"""Co-occurrence against brute force and by hand."""

import numpy as np
import pytest

from qarm.recommender.retrieval.cooccurrence import cooccurrence_neighbours
from qarm.recommender.retrieval.histories import Histories

ITEMS = 12


def brute_force(
    histories: Histories, source: np.ndarray, target: np.ndarray, window: int, *, backward: bool, by_gap: bool
) -> np.ndarray:
    table = np.zeros((ITEMS, ITEMS))
    for user in range(len(histories)):
        events = histories[user].tolist()
        for i, item in enumerate(events):
            for j, other in enumerate(events):
                gap = j - i
                if item == other or abs(gap) > window or gap == 0 or (gap < 0 and not backward):
                    continue
                table[item, other] += source[item] * target[other] * (1 / abs(gap) if by_gap else 1)
    return table


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("by_gap", [False, True])
@pytest.mark.parametrize("window", [1, 3, 50])
def test_all_neighbours_equal_brute_force(backward: bool, by_gap: bool, window: int) -> None:
    random = np.random.default_rng(window)
    histories = Histories.of([random.integers(0, ITEMS, random.integers(0, 9)) for _ in range(40)])
    source, target = random.random(ITEMS), random.random(ITEMS)
    found = cooccurrence_neighbours(
        histories,
        ITEMS,
        source=source,
        target=target,
        window=window,
        neighbours=ITEMS,
        backward=backward,
        by_gap=by_gap,
    )
    expected = brute_force(histories, source, target, window, backward=backward, by_gap=by_gap)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_the_strongest_are_kept_and_ties_go_to_the_smaller_row() -> None:
    ones = np.ones(4)
    histories = Histories.of([[0, 3], [0, 1], [0, 2], [0, 2]])
    found = cooccurrence_neighbours(histories, 4, source=ones, target=ones, window=5, neighbours=2)
    assert found.toarray()[0].tolist() == [0.0, 1.0, 2.0, 0.0]


def test_no_event_gives_an_empty_table() -> None:
    found = cooccurrence_neighbours(
        Histories.of([[]]), 3, source=np.ones(3), target=np.ones(3), window=5, neighbours=2
    )
    assert found.nnz == 0
