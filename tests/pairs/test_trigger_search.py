"""The trigger of a click: by hand-set vectors, and against a search in plain Python."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qarm.pairs.trigger_search import similar_triggers

# a is near b; c and d are the same; far is opposite to a; nil has no direction.
A, B, C, D, FAR, NIL = range(6)
VECTORS = np.array([[2, 0], [4, 1], [0, 3], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)

Click = tuple[int, int]  # item, time


def search(
    *users: list[Click], window: int = 50, vectors: npt.NDArray[np.float32] = VECTORS, threads: int = 1
) -> tuple[list[int], list[float]]:
    clicks = [click for user in users for click in user]
    items = np.array([item for item, _ in clicks], dtype=np.int32)
    times = np.array([time for _, time in clicks], dtype=np.int64)
    starts = np.cumsum([0, *(len(user) for user in users)])
    found, scores = similar_triggers(
        vectors, items, starts=starts, times=times, window=window, threads=threads
    )
    assert (found.dtype, scores.dtype) == (np.int32, np.float32)
    return found.tolist(), scores.tolist()


def test_the_most_similar_wins_whatever_its_length() -> None:
    found, scores = search([(C, 1), (B, 2), (FAR, 3), (A, 4)])
    assert found[-1] == B
    assert scores[-1] == pytest.approx(4 / 17**0.5)


def test_a_first_click_has_no_trigger() -> None:
    assert search([(A, 1)], [(B, 2), (A, 3)]) == ([-1, -1, B], [0.0, 0.0, pytest.approx(4 / 17**0.5)])


def test_clicks_of_the_same_moment_are_not_before() -> None:
    found, _ = search([(C, 1), (B, 2), (A, 2), (FAR, 2)])
    assert found == [-1, C, C, C]


def test_an_item_is_never_its_own_trigger() -> None:
    assert search([(A, 1), (A, 2), (C, 3), (A, 4)])[0] == [-1, -1, A, C]


def test_even_an_opposite_item_is_better_than_none() -> None:
    assert search([(FAR, 1), (A, 2)]) == ([-1, FAR], [0.0, -1.0])


@pytest.mark.parametrize(("window", "expected"), [(1, FAR), (2, C), (3, B), (50, B)])
def test_the_window_holds_the_latest_items(window: int, expected: int) -> None:
    assert search([(B, 1), (C, 2), (FAR, 3), (A, 4)], window=window)[0][-1] == expected


def test_repetitions_take_one_place_the_latest() -> None:
    # Latest first: C (5), FAR (4), B (1): the repeated C and FAR do not push B out of three places.
    assert search([(B, 1), (C, 2), (FAR, 3), (FAR, 4), (C, 5), (A, 6)], window=3)[0][-1] == B
    # B comes back at 4, so that two places are enough.
    assert search([(B, 1), (C, 2), (FAR, 3), (B, 4), (A, 6)], window=2)[0][-1] == B


def test_the_clicked_item_takes_no_place() -> None:
    assert search([(B, 1), (A, 2), (A, 3), (A, 4)], window=1)[0][-1] == B


def test_ties_go_to_the_latest_then_the_lowest() -> None:
    one = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], dtype=np.float32)
    assert search([(2, 1), (1, 2), (0, 3)], vectors=one)[0][-1] == 1
    assert search([(2, 1), (1, 1), (0, 3)], vectors=one)[0][-1] == 1
    assert search([(1, 1), (2, 1), (0, 3)], vectors=one)[0][-1] == 1
    assert search([(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (0, 3)], vectors=one)[0][-1] == 1


def test_a_zero_vector_is_at_zero() -> None:
    assert search([(NIL, 1), (A, 2), (NIL, 3)]) == ([-1, NIL, A], [0.0, 0.0, 0.0])


def test_users_do_not_meet() -> None:
    alone = [search([(A, 1), (B, 2)]), search([(C, 1), (D, 2), (A, 3)])]
    together = search([(A, 1), (B, 2)], [], [(C, 1), (D, 2), (A, 3)])
    assert together == (alone[0][0] + alone[1][0], alone[0][1] + alone[1][1])


def plain(vectors: npt.NDArray[np.float32], user: list[Click], window: int) -> list[int]:
    """The definition, in words: all candidates, sorted."""
    found = []
    for item, time in user:
        last = {old: (then, place) for place, (old, then) in enumerate(user) if then < time and old != item}
        latest = sorted(last, key=lambda old: last[old], reverse=True)[:window]
        ranked = sorted(latest, key=lambda old: (-float(vectors[old] @ vectors[item]), -last[old][0], old))
        found.append(ranked[0] if ranked else -1)
    return found


@given(
    users=st.lists(
        st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), max_size=25), min_size=1, max_size=5
    ),
    window=st.integers(1, 8),
    threads=st.integers(1, 4),
)
@settings(deadline=None)
def test_equals_plain_python(users: list[list[Click]], window: int, threads: int) -> None:
    # Signs only: four numbers of one size, so that cosines are whole quarters and ties are many.
    vectors = np.array(
        [[1 if n >> bit & 1 else -1 for bit in (0, 1, 2, 1)] for n in range(8)], dtype=np.float32
    )
    ordered = [sorted(user, key=lambda click: click[1]) for user in users]
    found, _ = search(*ordered, window=window, vectors=vectors, threads=threads)
    assert found == [trigger for user in ordered for trigger in plain(vectors, user, window)]


def test_threads_change_no_byte() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 8)).astype(np.float32)
    users = [
        [(int(item), t // 2) for t, item in enumerate(rng.integers(0, 40, size))]
        for size in rng.integers(0, 60, 30)
    ]
    results = [search(*users, window=10, vectors=vectors, threads=threads) for threads in (1, 2, 7, 50)]
    assert all(one == other for one, other in pairwise(results))
