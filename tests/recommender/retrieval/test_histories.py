"""Histories by hand: order, padding, weights, blocks."""

from collections.abc import Callable

import numpy as np

from qarm.core.item_index import ItemIndex
from qarm.data.interactions import Log
from qarm.recommender.retrieval.histories import BLOCK, Histories, histories_of, leave_last_out


def test_a_log_becomes_histories_by_time_without_negatives_and_unknown_items(
    make_log: Callable[..., Log],
) -> None:
    log = make_log([("u", "b", 2), ("u", "a", 1), ("u", "x", 3), ("u", "c", 4, 0), ("v", "c", 5)])
    histories = histories_of([log], ["v", "nobody", "u"], ItemIndex(["a", "b", "c"]))
    assert [list(histories[user]) for user in range(3)] == [[2], [], [0, 1]]


def test_parts_and_padding() -> None:
    histories = Histories.of([[0, 1, 2, 1], [], [3]])
    assert histories.lengths.tolist() == [4, 0, 1]
    assert histories.padded(3).tolist() == [[1, 2, 1], [-1, -1, -1], [-1, -1, 3]]
    assert [list(histories.latest(2)[user]) for user in range(3)] == [[2, 1], [], [3]]
    assert [list(histories.without_last()[user]) for user in range(3)] == [[0, 1, 2], [], []]
    assert [list(histories.distinct()[user]) for user in range(3)] == [[0, 1, 2], [], [3]]
    assert histories.counts(5).tolist() == [1, 2, 1, 1, 0]
    assert histories.only(np.array([2, 0])).items.tolist() == [3, 0, 1, 2, 1]


def test_weights_decay_with_age_and_add_up() -> None:
    histories = Histories.of([[2, 1, 2]])
    assert histories.matrix(3, decay=0.5).toarray().tolist() == [[0.0, 0.5, 0.25 + 1.0]]
    assert histories.items.tolist() == [2, 1, 2]  # the order stays


def test_blocks_have_one_size_and_cover_everybody() -> None:
    histories = Histories.of([[user % 7] for user in range(BLOCK + 3)])
    blocks = list(histories.blocks())
    assert [len(block) for _, block in blocks] == [BLOCK, BLOCK]
    assert np.concatenate([users for users, _ in blocks]).tolist() == list(range(BLOCK + 3))
    assert blocks[1][1].lengths.tolist() == [1, 1, 1] + [0] * (BLOCK - 3)


def test_leave_last_out_gives_the_first_event_left_out() -> None:
    past, target = leave_last_out(Histories.of([[5, 6, 7], [1, 2, 3, 4]]), 2)
    assert target.tolist() == [6, 3]
    assert [list(past[user]) for user in range(2)] == [[5], [1, 2]]
