"""Popularity and content-kNN against loops."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.baselines import best_likeness, item_knn, likeness, popularity
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples

MakeExamples = Callable[..., Examples]
MakeLog = Callable[..., Log]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else 0.0


def searched(vectors: Embeddings, examples: Examples, kind: str) -> list[float]:
    rows = dict(zip(vectors.item_ids, vectors.vectors.astype(np.float64), strict=True))
    found = []
    for item, start, end in zip(examples.items, examples.start, examples.end, strict=True):
        own = rows[examples.item_ids[item]]
        seen = [cosine(own, rows[examples.item_ids[i]]) for i in examples.history[start:end]]
        best = sorted(seen)[-3:] if kind == "top3" else seen
        found.append(sum(best) / len(best) if best else 0.0)
    return found


@pytest.mark.parametrize("kind", ["mean", "top3"])
def test_likeness_against_loops(make_examples: MakeExamples, kind: str) -> None:
    random = np.random.default_rng(0)
    examples = make_examples(
        [
            (random.integers(0, 10, 1 + n % 4), [1] + [0] * (n % 4), random.integers(0, 10, n % 9))
            for n in range(50)
        ]
    )
    order = random.permutation(10)
    numbers = random.normal(size=(10, 5))
    numbers[4] = 0  # no direction: like nothing
    vectors = Embeddings([f"i{n:02d}" for n in order], numbers.astype(np.float32))
    found = likeness(vectors, examples, kind=kind)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, searched(vectors, examples, kind), atol=1e-6)
    assert np.any(found == 0)  # empty histories among them
    assert not np.allclose(found, likeness(vectors, examples, kind="top3" if kind == "mean" else "mean"))


def test_likeness_by_hand(make_examples: MakeExamples) -> None:
    vectors = Embeddings(["i00", "i01", "i02"], np.array([[2, 0], [0, 5], [-1, 0]], dtype=np.float32))
    examples = make_examples([([0, 1], [1, 0], [0, 0, 0, 2, 1])], items=3)
    # against 0: three of 1, one of -1, one of 0; against 1: four of 0, one of 1
    assert likeness(vectors, examples).tolist() == pytest.approx([2 / 5, 1 / 5])
    assert likeness(vectors, examples, kind="top3").tolist() == pytest.approx([1, 1 / 3])


def test_the_better_kind_is_taken(make_examples: MakeExamples) -> None:
    """One item of the history settles it, or all of them do."""
    corners = Embeddings(
        [f"i{n:02d}" for n in range(6)],
        np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0.1, 0], [0.6, 0.6, 0.6]], np.float32),
    )
    one = make_examples([([0, 3], [1, 0], [0, 0, 0, 1, 1, 1, 1, 1])], items=6)
    all_of_them = make_examples([([5, 4], [1, 0], [0, 0, 0, 1, 1, 1, 2, 2, 2])], items=6)
    for examples, kind in ((one, "top3"), (all_of_them, "mean")):
        reached = {
            k: roc_auc_score(examples.labels, likeness(corners, examples, kind=k)) for k in ("mean", "top3")
        }
        assert max(reached, key=lambda k: reached[k]) == kind
        assert best_likeness(corners, examples) == kind
    assert best_likeness(corners, make_examples([([0], [1], [1])], items=6)) == "mean"  # one label only
    assert best_likeness(corners, make_examples([], items=6)) == "mean"


def test_popularity_counts_training_positives(make_log: MakeLog) -> None:
    random = np.random.default_rng(0)
    events = [(f"u{u}", f"i{i}", t, y) for t, (u, i, y) in enumerate(random.integers(0, [6, 8, 2], (200, 3)))]
    past, future = make_log(events).split_at(150)
    items = [f"i{n}" for n in range(9)]
    train = TrainingRows(past, item_ids=items, explicit=True).events
    frame = evaluation_rows({"test": future}, past, item_ids=items, trained_items=past.items)
    examples = read_examples(frame, [past, future], item_ids=items)
    counts = Counter(item for _, item, time, label in events if time < 150 and label)
    assert popularity(train, examples).tolist() == [counts[item] for item in frame["item_id"]]
    assert len(set(popularity(train, examples))) > 3


def test_drawn_negatives_are_not_counted(make_log: MakeLog) -> None:
    log = make_log([("a", 0, 1), ("b", 0, 1), ("b", 1, 2)])
    rows = TrainingRows(log, item_ids=["0", "1", "2"], explicit=False)
    assert popularity(rows.epoch(0), rows.events).tolist() == [2, 2, 1]


def test_bad_input(make_examples: MakeExamples) -> None:
    examples = make_examples([([0, 1], [1, 0], [1])], items=2)
    vectors = Embeddings(["i00", "i01"], np.array([[1, 0], [np.nan, 0]], dtype=np.float32))
    with pytest.raises(InputError, match="got kind 'best', need one of mean, top3"):
        likeness(vectors, examples, kind="best")
    with pytest.raises(InputError, match="vectors of items i01 hold NaN or infinity"):
        likeness(vectors, examples)
    with pytest.raises(InputError, match="no vector for items i01"):
        likeness(Embeddings(["i00"], np.ones((1, 2), np.float32)), examples)


def test_item_knn_is_the_mean_cosine_of_the_history(make_examples: MakeExamples) -> None:
    """Against the cosines of scikit-learn, user by user."""
    from sklearn.metrics.pairwise import cosine_similarity

    random = np.random.default_rng(0)
    train = make_examples(
        [(random.integers(0, 8, 5), random.integers(0, 2, 5), []) for _ in range(20)], items=8
    )
    histories = [[0, 1], [], [3, 3, 7], [2]]
    asked = make_examples([(random.integers(0, 8, 3), [1, 0, 0], h) for h in histories], items=8)
    clicks = np.zeros((20, 8))
    clicks[train.users[train.labels == 1], train.items[train.labels == 1]] = 1
    alike = cosine_similarity(clicks.T)
    found = item_knn(train, asked)
    for row in range(len(asked)):
        past = asked.history[asked.start[row] : asked.end[row]]
        expected = alike[asked.items[row], past].mean() if len(past) else 0.0
        assert found[row] == pytest.approx(expected, abs=1e-6)
