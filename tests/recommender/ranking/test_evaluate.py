"""Judging by slice against scikit-learn, and comparing rankers on a log that they never saw."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.examples import Examples, evaluation_rows
from qarm.recommender.ranking.evaluate import Comparison, compare, evaluate, evaluate_ranker
from qarm.recommender.ranking.fitting import train_ranker
from qarm.recommender.ranking.model import Ranker, score_examples

MakeExamples = Callable[..., Examples]
MakeLog = Callable[..., Log]
Toy = tuple[Log, Codes, Embeddings]
SETTINGS = RankerConfig(dim=8, hidden=[8], epochs=3, batch=256, history=10, lr=0.02)
COLUMNS = ["ranker", "slice", "auc", "uauc", "gauc", "logloss", "rows", "users"]
COLD = (7, 8, 9)


@pytest.fixture(scope="module")
def judged(make_examples: MakeExamples) -> Examples:
    """40 events of 5 users over 10 items, of which three are cold."""
    random = np.random.default_rng(0)
    events = [(random.permutation(10)[:6], [1, 0, 0, 0, 0, 0], [1]) for _ in range(40)]
    return make_examples(events, users=np.arange(40) % 5, cold=COLD)


@pytest.fixture(scope="module")
def halves(toy: Toy) -> tuple[Log, Log]:
    return toy[0].split_at(128)


@pytest.fixture(scope="module")
def rankers(toy: Toy, halves: tuple[Log, Log]) -> dict[str, Ranker]:
    return {v: train_ranker(halves[0], toy[1], variant=v, config=SETTINGS) for v in ("id", "id+rq")}


# ---- slices -----------------------------------------------------------------------------------


def test_slices_against_scikit_learn(judged: Examples) -> None:
    scores = np.random.default_rng(1).normal(size=len(judged)) + judged.labels
    found = evaluate(judged, scores)
    assert [row.slice for row in found] == ["all", "warm", "cold"]
    cold = np.isin(judged.items, COLD)
    for row, chosen in zip(found, (np.ones(len(cold), dtype=bool), ~cold, cold), strict=True):
        labels, users = judged.labels[chosen], judged.users[chosen]
        assert row.auc == pytest.approx(roc_auc_score(labels, scores[chosen]))
        probability = 1 / (1 + np.exp(-scores[chosen]))
        assert row.logloss == pytest.approx(log_loss(labels, probability))
        each = [(users == u, labels[users == u]) for u in range(5)]
        kept = [(roc_auc_score(y, scores[chosen][m]), len(y)) for m, y in each if 0 < y.sum() < len(y)]
        values, sizes = zip(*kept, strict=True)
        assert row.uauc == pytest.approx(np.mean(values))
        assert row.gauc == pytest.approx(np.average(values, weights=sizes))
        assert (row.rows, row.users) == (chosen.sum(), len(kept))


def test_a_slice_without_both_labels_has_no_figures(make_examples: MakeExamples) -> None:
    examples = make_examples([([1, 2, 9], [1, 0, 0], [])], cold=[9])
    warm, cold = evaluate(examples, np.array([0.3, 0.1, 0.2]))[1:]
    assert warm.auc == 1.0
    assert (cold.auc, cold.uauc, cold.gauc, cold.rows, cold.users) == (None, None, None, 1, 0)
    assert cold.logloss == pytest.approx(np.log(1 + np.exp(0.2)))


def test_scores_that_are_no_log_odds_have_no_logloss(judged: Examples) -> None:
    found = evaluate(judged, judged.items.astype(np.float64), logits=False)
    assert [row.logloss for row in found] == [None] * 3
    assert found[0].auc is not None


def test_nan_is_refused(judged: Examples) -> None:
    scores = np.zeros(len(judged))
    scores[4] = np.nan
    with pytest.raises(InputError, match="1 of 240 scores are NaN"):
        evaluate(judged, scores)


def test_drawn_negatives_move_the_log_odds_and_no_ranking(
    judged: Examples, rankers: dict[str, Ranker]
) -> None:
    """Trained on 4 negatives a positive and judged on 5: the odds fall by a factor of 5 / 4."""
    ranker = rankers["id"]
    logits = score_examples(ranker, judged).astype(np.float64)
    plain, drawn = (evaluate_ranker(ranker, judged, drawn=drawn)[0] for drawn in (False, True))
    assert plain.model_copy(update={"logloss": None}) == drawn.model_copy(update={"logloss": None})
    expected = [log_loss(judged.labels, 1 / (1 + np.exp(-z))) for z in (logits, logits - np.log(5 / 4))]
    assert [plain.logloss, drawn.logloss] == pytest.approx(expected, rel=5e-3)
    assert expected[0] != pytest.approx(expected[1], rel=5e-2)


# ---- compare ----------------------------------------------------------------------------------


def test_the_frame(toy: Toy, halves: tuple[Log, Log], rankers: dict[str, Ranker]) -> None:
    past, future = halves
    frame = compare(rankers, future, negatives=20).frame
    assert frame.columns == COLUMNS
    assert frame.dtypes == [pl.String] * 2 + [pl.Float64] * 4 + [pl.Int64] * 2
    assert frame["ranker"].to_list() == ["id"] * 3 + ["id+rq"] * 3
    assert frame["slice"].to_list() == ["all", "warm", "cold"] * 2
    rows = evaluation_rows(
        {"future": future}, past, item_ids=toy[1].item_ids, trained_items=past.items, negatives=20
    )
    for name in rankers:
        sizes = frame.filter(pl.col("ranker") == name)["rows"].to_list()
        assert sizes == [len(rows), (~rows["cold"]).sum(), rows["cold"].sum()]
    all_of_one = frame.row(3, named=True)
    assert all_of_one["auc"] > 0.8
    assert all_of_one["users"] == len(future.users)


def test_the_figures_are_those_of_scores_asked_one_by_one(
    toy: Toy, halves: tuple[Log, Log], rankers: dict[str, Ranker]
) -> None:
    past, future = halves
    rows = evaluation_rows(
        {"future": future}, past, item_ids=toy[1].item_ids, trained_items=past.items, negatives=5, seed=7
    )
    events = list(toy[0].frame.select("user_id", "item_id", "time").iter_rows())
    histories = [
        [item for user, item, time in events if user == own and time < now]
        for own, now in rows.select("user_id", "time").iter_rows()
    ]
    logits = rankers["id+rq"].score([[item] for item in rows["item_id"]], histories)
    found = compare(rankers["id+rq"], future, negatives=5, seed=7).frame
    assert found["auc"][0] == pytest.approx(roc_auc_score(rows["label"], np.concatenate(logits)), abs=1e-6)
    assert found["ranker"].to_list() == ["ranker"] * 3


def test_the_seed_draws_the_rows_and_every_ranker_gets_the_same(
    halves: tuple[Log, Log], rankers: dict[str, Ranker]
) -> None:
    future = halves[1]
    one = compare(rankers["id"], future, negatives=5).frame
    assert compare(rankers["id"], future, negatives=5).frame.equals(one)
    assert compare(rankers["id"], future, negatives=5, seed=1).frame["auc"][0] != one["auc"][0]
    beside = compare({"x": rankers["id+rq"], "y": rankers["id"]}, future, negatives=5).frame[3:]
    assert beside.drop("ranker").equals(one.drop("ranker"))


def test_a_ranker_from_a_folder_needs_its_past(
    halves: tuple[Log, Log], rankers: dict[str, Ranker], tmp_path: Path
) -> None:
    past, future = halves
    rankers["id"].save_pretrained(tmp_path)
    read = Ranker.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no log; give past="):
        compare(read, future)
    found = compare(read, future, past=past, negatives=5).frame
    assert found.equals(compare(rankers["id"], future, negatives=5).frame)


def test_explicit_labels_are_judged_as_they_stand(
    toy: Toy, halves: tuple[Log, Log], rankers: dict[str, Ranker]
) -> None:
    future = Log(halves[1].frame.with_columns(label=(pl.col("time") % 2).cast(pl.Int8)))
    frame = compare(rankers["id"], future).frame
    assert frame["rows"][0] == len(future)


def test_all_null_figures_keep_their_type(
    toy: Toy, halves: tuple[Log, Log], rankers: dict[str, Ranker]
) -> None:
    """Explicit elsewhere, and not one negative in the part that is judged."""
    past = Log(halves[0].frame.with_columns(label=(pl.col("time") % 2).cast(pl.Int8)))
    found = compare(rankers["id"], halves[1], past=past)
    assert found.frame["auc"].to_list() == [None] * 3
    assert found.frame.dtypes == [pl.String] * 2 + [pl.Float64] * 4 + [pl.Int64] * 2
    assert str(found).splitlines()[1].split()[:5] == ["ranker", "all", "-", "-", "-"]


def test_what_cannot_be_compared(toy: Toy, halves: tuple[Log, Log], rankers: dict[str, Ranker]) -> None:
    future = halves[1]
    with pytest.raises(InputError, match="got no ranker to compare"):
        compare({}, future)
    more = Codes([*toy[1].item_ids, "new"], np.vstack([toy[1].rq, toy[1].rq[:1]]))
    other = train_ranker(halves[0], more, config=SETTINGS.model_copy(update={"epochs": 1}))
    with pytest.raises(InputError, match="the rankers have different items"):
        compare({"one": rankers["id"], "other": other}, future)
    strange = Log(future.frame.with_columns(item_id=pl.lit("strange")))
    with pytest.raises(InputError, match="1 unknown, strange"):
        compare(rankers["id"], strange)


def test_the_text_by_hand() -> None:
    rows = [
        ("id", "all", 0.5, 0.51239, 0.6, 0.125, 12345, 67),
        ("id+rq+vq", "cold", None, None, None, 0.7, 8, 0),
    ]
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    assert str(Comparison(frame)).splitlines() == [
        "ranker    slice     auc    uauc    gauc  logloss    rows  users",
        "id        all    0.5000  0.5124  0.6000   0.1250  12,345     67",
        "id+rq+vq  cold        -       -       -   0.7000       8      0",
    ]
