"""Swing against plain Python, against recfarm, by hand, and where its caps bite."""

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import combinations
from math import comb, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from qarm.data.interaction_matrix import click_matrix
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.pairs.swing import partition, popular_items
from qarm.pairs.swing.popular_items import popular_items_of
from qarm.pairs.swing.swing import swing

MakeLog = Callable[..., Log]
Clicks = Iterable[tuple[int, int]]
EXACT: dict[str, Any] = {"max_items_per_user": None, "max_users_per_item": None}

clicks = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=70)


def brute_force(
    pairs: Clicks, *, alpha: float, weight: Callable[[int], float]
) -> dict[tuple[str, str], float]:
    """s(i, j) as the formula says it."""
    items: dict[int, set[int]] = defaultdict(set)
    for user, item in pairs:
        items[user].add(item)
    scores: dict[tuple[str, str], float] = defaultdict(float)
    for u, v in combinations(sorted(items), 2):
        common = items[u] & items[v]
        for i in common:
            for j in common - {i}:
                gain = weight(len(items[u])) * weight(len(items[v])) / (alpha + len(common))
                scores[str(i), str(j)] += gain
    return scores


def as_dict(frame: pl.DataFrame) -> dict[tuple[str, str], float]:
    return {(i, j): score for i, j, score in frame.rows()}


def log_of(make_log: MakeLog, pairs: Clicks) -> Log:
    return make_log([(user, item, time) for time, (user, item) in enumerate(pairs)])


@pytest.fixture(params=["walked", "by head"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the kernel: popular items like the others, and apart (which large logs pay for)."""
    if request.param == "by head":
        monkeypatch.setattr(popular_items, "LEAST_USER_PAIRS", 0)
    return str(request.param)


# ---- exactness --------------------------------------------------------------------------------


@given(
    pairs=clicks,
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    power=st.booleans(),
    heads=st.sampled_from([2, 3, 16]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("way")
def test_equals_the_formula(
    make_log: MakeLog, pairs: list[tuple[int, int]], alpha: float, power: bool, heads: int
) -> None:
    kind: dict[str, Any] = {"user_weight": "power", "user_alpha": 5.0, "user_beta": -0.35} if power else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popular_items, "MOST_HEAD_ITEMS", heads)
        found = as_dict(swing(log_of(make_log, pairs), alpha=alpha, top_k=100, **kind, **EXACT))
    weight = (lambda n: (n + 5.0) ** -0.35) if power else (lambda n: 1 / sqrt(n))
    assert found == pytest.approx(brute_force(pairs, alpha=alpha, weight=weight))


def test_four_users_by_hand(make_log: MakeLog) -> None:
    held = {"a": "xy", "b": "xy", "c": "xyz", "d": "z"}
    log = make_log([(user, item, 0) for user, items in held.items() for item in items])
    # x, y: users a, b share 2 of 2 and 2 items; a, c and b, c share 2 of 2 and 3.
    xy = (1 / 2) / (1 + 2) + 2 * (1 / sqrt(6)) / (1 + 2)
    # c and d share z alone, and no two users share z and another.
    assert as_dict(swing(log)) == pytest.approx({("x", "y"): xy, ("y", "x"): xy})


def test_negatives_repetitions_and_order_do_not_count(make_log: MakeLog) -> None:
    pairs = [(0, 1), (0, 2), (1, 1), (1, 2)]
    noisy = make_log([(u, i, 9 - n) for n, (u, i) in enumerate(pairs * 2)] + [(0, 3, 0, 0), (1, 3, 0, 0)])
    assert swing(noisy).equals(swing(log_of(make_log, pairs)))


def test_users_with_few_items_can_be_left_out(make_log: MakeLog) -> None:
    pairs = [(u, i) for u in range(3) for i in range(2)] + [(u, i) for u in (3, 4) for i in range(3)]
    large = [(u, i) for u, i in pairs if u >= 3]
    log = log_of(make_log, pairs)
    assert swing(log, min_user_items=3).equals(swing(log_of(make_log, large)))
    assert swing(log, min_user_items=1).equals(swing(log))
    assert swing(log, min_user_items=4).height == 0


def test_a_time_window_forgets_what_is_older(make_log: MakeLog) -> None:
    old = [(u, i, 10 + u) for u in range(4) for i in "ab"]
    new = [(u, i, 20) for u in range(2) for i in "bc"]
    log = make_log(old + new)
    assert swing(log, time_window=10).equals(
        swing(make_log(new + old[2:]))
    )  # after 10: all but the first user's
    assert swing(log, time_window=1).equals(swing(make_log(new)))
    assert swing(log, time_window=11).equals(swing(log))
    with pytest.raises(InputError, match="got time_window=0, need at least 1"):
        swing(log, time_window=0)


# ---- order, shape, bytes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(make_log: MakeLog) -> Log:
    """300 users, 60 items, popularity falling with the number of the item."""
    return log_of(
        make_log,
        [(u, (u * 7 + k * k * (u % 11 + 1)) % (10 + 5 * (k % 11))) for u in range(300) for k in range(15)],
    )


def test_the_best_come_first_and_ties_by_id(make_log: MakeLog) -> None:
    held = ["abcd", "abcd", "xa", "xa", "yab", "yab"]
    log = make_log([(user, item, 0) for user, items in enumerate(held) for item in items])
    whole = swing(log)
    assert whole.equals(whole.sort("item_id", "score", "neighbor_id", descending=[False, True, False]))
    assert whole.filter(pl.col("item_id") == "a")["neighbor_id"].to_list() == ["b", "x", "y", "c", "d"]
    assert whole.schema == {"item_id": pl.String, "neighbor_id": pl.String, "score": pl.Float64}
    for top_k in (1, 2, 3, 4):
        assert swing(log, top_k=top_k).equals(whole.group_by("item_id", maintain_order=True).head(top_k))


@pytest.mark.usefixtures("way")
def test_scores_are_symmetric_to_the_bit(crowd: Log) -> None:
    scores = as_dict(swing(crowd, top_k=100, **EXACT))
    assert len(scores) > 1000
    assert all(score == scores[j, i] for (i, j), score in scores.items())


def test_threads_and_blocks_change_no_byte(crowd: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = swing(crowd, top_k=7, max_users_per_item=40, max_items_per_user=12, support=True, threads=1)
    for threads in (2, 3, 8):
        capped = swing(
            crowd, top_k=7, max_users_per_item=40, max_items_per_user=12, support=True, threads=threads
        )
        assert capped.equals(expected)
    monkeypatch.setattr(partition, "BLOCK_CELLS", 50)
    blocks = swing(crowd, top_k=7, max_users_per_item=40, max_items_per_user=12, support=True, threads=2)
    assert blocks.equals(expected)


def test_threads_change_no_byte_with_a_head(crowd: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = swing(crowd, top_k=7, support=True, **EXACT)
    monkeypatch.setattr(popular_items, "LEAST_USER_PAIRS", 0)
    expected = swing(crowd, top_k=7, support=True, threads=1, **EXACT)
    for threads in (2, 3, 8):
        assert swing(crowd, top_k=7, support=True, threads=threads, **EXACT).equals(expected)
    assert expected["score"].to_list() == pytest.approx(walked["score"].to_list(), rel=1e-12)


def test_the_head_is_left_alone_where_items_are_sampled(crowd: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = swing(crowd, max_users_per_item=40)
    monkeypatch.setattr(popular_items, "LEAST_USER_PAIRS", 0)
    assert swing(crowd, max_users_per_item=40).equals(expected)


def test_buckets_of_any_items_add_up(crowd: Log) -> None:
    """What other engines call, as docs/pairs.md shows."""
    matrix = click_matrix(crowd)
    weights, scale = 1 / np.sqrt(matrix.by_user.sizes), np.ones(len(matrix.item_ids))
    head = popular_items_of(matrix.by_user, matrix.by_item.sizes)
    scoring = partition.Scoring(matrix.by_user, matrix.by_item, weights, scale, head, alpha=1.0, top_k=20)
    shuffled = np.random.default_rng(0).permutation(len(scale)).astype(np.int32)
    rows = []
    for bucket in np.array_split(shuffled, 7):
        near = partition.score_bucket(scoring, bucket).near
        names = (matrix.item_ids.gather(numbers) for numbers in (near.items, near.neighbors))
        rows += list(zip(*names, near.scores.tolist(), strict=True))
    expected = swing(crowd, **EXACT)
    assert sorted(rows) == sorted(expected.rows())


@pytest.mark.usefixtures("way")
def test_support_counts_the_users_of_both(crowd: Log) -> None:
    held = crowd.frame.group_by("user_id").agg(pl.col("item_id").unique().sort())["item_id"]
    both: Counter[tuple[str, str]] = Counter(pair for items in held for pair in combinations(items, 2))
    frame = swing(crowd, top_k=100, support=True, **EXACT)
    for i, j, _, users in frame.iter_rows():
        assert both[min(i, j), max(i, j)] == users


# ---- caps -------------------------------------------------------------------------------------


def test_caps_that_do_not_bind_change_nothing(crowd: Log) -> None:
    assert swing(crowd, max_items_per_user=15, max_users_per_item=300).equals(swing(crowd, **EXACT))


def test_a_users_cap_is_a_seeded_sample_of_her_items(make_log: MakeLog) -> None:
    log = log_of(make_log, [(u, i) for u in range(2) for i in range(30)])
    frames = [swing(log, top_k=100, max_items_per_user=20, seed=seed) for seed in (0, 0, 1)]
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])
    shared = frames[0]["item_id"].n_unique()
    assert 10 <= shared < 20  # two samples of 20 of 30 share at least 10
    assert frames[0]["score"].to_list() == pytest.approx([(1 / 20) / (1 + shared)] * frames[0].height)


def test_an_items_cap_keeps_the_expected_score(make_log: MakeLog) -> None:
    log = log_of(make_log, [(u, i) for u in range(30) for i in (0, 1) if u < 20 or i == 0])
    exact = comb(20, 2) * (1 / 2) / (1 + 2)
    found = []
    for seed in range(200):
        scores = as_dict(swing(log, max_users_per_item=20, min_user_items=1, seed=seed))
        assert scores["1", "0"] == pytest.approx(exact)  # item 1 has 20 users: all count
        found.append(scores["0", "1"])
    assert len(set(found)) > 3
    assert sum(found) / len(found) == pytest.approx(exact, rel=0.03)


# ---- odd logs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs", [[(0, 0)], [(0, 0), (0, 1)], [(u, 0) for u in range(5)], [(u, u) for u in range(5)]]
)
def test_nothing_shared_gives_an_empty_table(make_log: MakeLog, pairs: list[tuple[int, int]]) -> None:
    frame = swing(log_of(make_log, pairs))
    assert frame.height == 0
    assert frame.columns == ["item_id", "neighbor_id", "score"]


def test_identical_users_make_all_items_equally_near(make_log: MakeLog) -> None:
    frame = swing(log_of(make_log, [(u, i) for u in range(6) for i in range(4)]))
    assert frame.height == 4 * 3
    assert frame["score"].to_list() == pytest.approx([comb(6, 2) * (1 / 4) / (1 + 4)] * 12)


def test_all_wrong_arguments_at_once(make_log: MakeLog) -> None:
    with pytest.raises(InputError) as caught:
        swing(
            make_log([(0, 0, 0, 0)]),
            alpha=-1.0,
            top_k=0,
            user_weight="log",  # type: ignore[arg-type]
            user_alpha=-1.0,
            min_user_items=0,
            max_items_per_user=1,
            max_users_per_item=1,
        )
    assert caught.value.problems == [
        "the log has no positive event; check the label column",
        "got alpha=-1, need at least 0",
        "got top_k=0, need at least 1",
        "got user_weight='log', need one of sqrt, power",
        "got user_alpha=-1, need more than -1",
        "got min_user_items=0, need at least 1",
        "got max_items_per_user=1, need at least 2",
        "got max_users_per_item=1, need at least 2",
    ]


Table = npt.NDArray[np.void]
HEADER = 8 + 4 + 3 * 8  # top_k, alpha, max_cache_num, n_users, n_items: what save_swing writes first
ENTRY = np.dtype([("item", "<i4"), ("score", "<f4")])


def peer_scores(matrix: csr_matrix, folder: Path) -> dict[int, Table]:
    """All neighbours of each item, by recfarm with an alpha of ours plus one."""
    recfarm = pytest.importorskip("recfarm")
    users, items = matrix.shape
    sides = (
        SimpleNamespace(
            sparse_indices=side.indices.tolist(),
            sparse_indptr=side.indptr.tolist(),
            sparse_data=[1.0] * side.nnz,
        )
        for side in (matrix, matrix.T.tocsr())
    )
    model = recfarm.Swing(20, 2.0, 100_000_000, users, items, *sides, {}, 0.0)
    model.compute_swing(1)
    recfarm.save_swing(model, str(folder), "swing")
    content = gzip.decompress((folder / "swing.gz").read_bytes())
    place, found = HEADER + 8, {}
    for _ in range(int.from_bytes(content[HEADER:place], "little")):
        item = int.from_bytes(content[place : place + 4], "little")
        size = int.from_bytes(content[place + 4 : place + 12], "little")
        found[item] = np.frombuffer(content, ENTRY, size, place + 12)
        place += 12 + size * ENTRY.itemsize
    return found


@pytest.fixture(scope="module")
def matrix() -> csr_matrix:
    """20,000 draws of 400 users and 500 items, popularity falling as 1 / rank."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 501)
    users, items = rng.integers(0, 400, 20_000), rng.choice(500, 20_000, p=chances / chances.sum())
    drawn = csr_matrix((np.ones(20_000), (users, items)), shape=(400, 500))
    drawn.sum_duplicates()
    drawn.data[:] = 1.0
    return drawn


@pytest.fixture(scope="module", params=["walked", "by head"])
def ours(request: pytest.FixtureRequest, matrix: csr_matrix, make_log: MakeLog) -> dict[int, pl.DataFrame]:
    log = make_log((int(u), f"{i:03}", 0) for u, i in zip(*matrix.nonzero(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popular_items, "LEAST_USER_PAIRS", 0 if request.param == "by head" else 1 << 60)
        table = swing(log, max_items_per_user=None, max_users_per_item=None)
    return {int(item): part for (item,), part in table.group_by("item_id")}


def test_equals_recfarm(matrix: csr_matrix, ours: dict[int, pl.DataFrame], tmp_path: Path) -> None:
    peers = peer_scores(matrix, tmp_path)
    assert set(ours) == set(peers)
    assert len(peers) > 450
    for item, part in ours.items():
        theirs = dict(peers[item].tolist())
        wanted = sorted(theirs.values(), reverse=True)[: part.height]
        assert part.height == min(20, len(theirs))
        np.testing.assert_allclose(part["score"], wanted, rtol=1e-4)
        np.testing.assert_allclose(
            part["score"], [theirs[int(near)] for near in part["neighbor_id"]], rtol=1e-4
        )


def test_equals_the_formula_as_matrix_products(matrix: csr_matrix, ours: dict[int, pl.DataFrame]) -> None:
    """In float64, where recfarm adds in float32: nothing but rounding is left."""
    held = matrix.toarray()
    weights = 1 / np.sqrt(np.maximum(held.sum(axis=1), 1))
    gains = np.outer(weights, weights) / (1 + held @ held.T)
    np.fill_diagonal(gains, 0.0)
    for item, part in ours.items():
        with_item = held * held[:, [item]]
        scores = (with_item * (gains @ with_item)).sum(axis=0) / 2
        scores[item] = 0.0
        best = np.sort(scores)[::-1][: part.height]
        np.testing.assert_allclose(part["score"], best, rtol=1e-12)
        np.testing.assert_allclose(
            part["score"], scores[part["neighbor_id"].cast(pl.Int64).to_numpy()], rtol=1e-12
        )
