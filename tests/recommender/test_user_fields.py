"""Features of users: what is known of a user without a history, and what is not known at all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.users import Users
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import TrainingRows
from qarm.recommender.ranking.evaluate import compare
from qarm.recommender.ranking.fitting import train_ranker
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.recommender.user_fields import UserFields, user_codes, vocabularies

Toy = tuple[Log, Codes, Embeddings]
SETTINGS = RankerConfig(dim=8, hidden=[8], epochs=8, patience=8, batch=256, history=10, lr=0.02)


def described(log: Log) -> Users:
    """A taste that decides, an age that does not, and the last user left out."""
    number = pl.col("user_id").str.slice(1).cast(pl.Int64)
    frame = pl.DataFrame({"user_id": log.users[:-1]}).with_columns(
        taste=pl.lit("g") + (number % 4).cast(pl.String),
        age=pl.when(number % 5 > 0).then((number % 3).cast(pl.String)),
    )
    return Users(frame)


@pytest.fixture(scope="module")
def known(toy: Toy) -> Log:
    return toy[0].with_users(described(toy[0]))


@pytest.fixture(scope="module")
def ranker(toy: Toy, known: Log) -> Ranker:
    past, _ = known.split_at(130)
    return train_ranker(past, toy[1], variant="id", config=SETTINGS)


def test_rows_of_values_by_hand() -> None:
    frame = pl.DataFrame({"user_id": ["a", "b", "c", "d"], "x": ["q", "p", None, "new"], "y": list("1112")})
    users = Users(frame)
    values = vocabularies(users, ["a", "b", "c", "nobody"])
    assert values == {"x": ["p", "q"], "y": ["1"]}
    found = user_codes(users, ["b", "nobody", "d", "c", "a"], values)
    assert found.tolist() == [[1, 1], [0, 0], [0, 0], [0, 1], [2, 1]]
    assert found.dtype == np.int64
    only_y = Users(frame.select("user_id", "y"))
    assert user_codes(only_y, ["a"], values).tolist() == [[0, 1]]


def test_batches_hold_the_users_values(known: Log, toy: Toy, ranker: Ranker) -> None:
    rows = TrainingRows(known, item_ids=toy[1].item_ids, explicit=False).epoch(0)
    assert next(batches(rows, 40)).user is None
    read = ranker.reading(rows)
    for batch in batches(read, 100):
        owners = [int(rows.user_ids[user][1:]) for user in rows.users[batch.rows[:, 0]]]
        expected = [[0 if n == 31 else 1 + n % 4] for n in owners]
        assert batch.user[:, :1].tolist() == expected


def test_a_feature_tells_of_users_without_a_history(toy: Toy, ranker: Ranker) -> None:
    ids = toy[1].item_ids
    warm = [place for place, item in enumerate(ids) if int(item[-1]) < 6]
    for group in range(4):
        (scores,) = ranker.score([ids], [[]], users=[{"taste": f"g{group}"}])
        best = {ids[place].split("-")[0] for place in sorted(warm, key=lambda n: -scores[n])[:6]}
        assert best == {f"g{group}"}
    one, two = ranker.score([ids, ids], [[], []], users=[{}, {"taste": "never seen", "age": "0"}])
    three = ranker.score([ids], [[]])[0]
    assert np.allclose(one, three, atol=1e-5)
    assert not np.allclose(one, two, atol=1e-3)


def test_requests_score_as_examples(known: Log, toy: Toy, ranker: Ranker) -> None:
    rows = TrainingRows(known, item_ids=toy[1].item_ids, explicit=False, history=10).epoch(0)
    logits, edges = score_examples(ranker, rows), rows.groups()
    table = {row["user_id"]: row for row in described(known).frame.iter_rows(named=True)}
    for start, end in zip(edges[:20:5], edges[1:21:5], strict=True):
        own = table.get(rows.user_ids[rows.users[start]], {})
        history = [rows.item_ids[n] for n in rows.history[rows.start[start] : rows.end[start]]]
        asked = [rows.item_ids[n] for n in rows.items[start:end]]
        user = {name: own[name] for name in ("taste", "age") if own.get(name)}
        (found,) = ranker.score([asked], [history], users=[user])
        np.testing.assert_allclose(found, logits[start:end], atol=1e-4)


def test_saved_and_read_back(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save_pretrained(tmp_path)
    again = Ranker.from_pretrained(tmp_path)
    assert again.values == ranker.values == {"taste": ["g0", "g1", "g2", "g3"], "age": ["0", "1", "2"]}
    assert again.shape == ranker.shape
    user = [{"taste": "g2", "age": "1"}]
    assert np.array_equal(
        again.score([["g1-0", "g2-0"]], [[]], users=user)[0],
        ranker.score([["g1-0", "g2-0"]], [[]], users=user)[0],
    )


def test_rankers_are_compared_with_their_users_features(known: Log, ranker: Ranker) -> None:
    _, future = known.split_at(130)
    found = compare(ranker, future, negatives=20).frame.filter(slice="warm")
    assert found["auc"][0] > 0.8
    with pytest.raises(InputError, match="reads features of users; give them to the log"):
        compare(ranker, replace(future, about=None), past=replace(ranker.past, about=None), negatives=20)


def test_dropping_values_trains_the_row_of_unknown_ones() -> None:
    torch.manual_seed(0)
    for dropout, trains in ((0.5, True), (0.0, False)):
        fields = UserFields([3, 2], dim=4, dropout=dropout)
        fields(torch.ones(50, 2, dtype=torch.int64)).sum().backward()
        assert [bool(table.weight.grad[0].any()) for table in fields.tables] == [trains, trains]
        assert torch.equal(fields.eval()(torch.tensor([[1, 0]]))[0, 0], fields.tables[0].weight[1])


def test_wrong_users(toy: Toy, ranker: Ranker, make_log: Callable[..., Log]) -> None:
    with pytest.raises(InputError, match="reads no user feature colour; it knows taste, age"):
        ranker.score([["g1-0"]], [[]], users=[{"colour": "red"}])
    with pytest.raises(InputError, match="got 1 requests and 2 users"):
        ranker.score([["g1-0"]], [[]], users=[{}, {}])
    with pytest.raises(InputError, match="table of users has none of the log's: u, v"):
        make_log([("u", "a", 1), ("v", "a", 2)]).with_users(described(toy[0]))
