"""Options of the ranker's item side and attention, and items without codes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qarm.config import RankerConfig
from qarm.core.formats import ranker_shape
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.batches import BUCKETS, batches, gap_buckets
from qarm.recommender.examples import Examples, TrainingRows
from qarm.recommender.item_features import ItemTable, item_table
from qarm.recommender.ranking.fitting import build_ranker
from qarm.recommender.ranking.model import Ranker
from qarm.schemas.results import RankerShape

Toy = tuple[Log, Codes, Embeddings]
SETTINGS = RankerConfig(dim=4, hidden=[4], history=10)
BOOKS = [np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32) for n in (5, 4)]


def rows_of(toy: Toy) -> TrainingRows:
    return TrainingRows(toy[0], item_ids=toy[1].item_ids, explicit=False, history=10)


def made(toy: Toy, variant: str = "id+rq+vq", table: ItemTable | None = None, **settings: Any) -> Ranker:
    table = table or item_table(toy[1].item_ids, variant, codes=toy[1], codebooks=BOOKS)
    torch.manual_seed(0)
    return build_ranker(rows_of(toy), table, SETTINGS.model_copy(update=settings))


# ---- code tables ------------------------------------------------------------------------------


def test_prefixes_and_weights_add_their_own_parameters(toy: Toy) -> None:
    plain = made(toy)
    both = made(toy, prefixes=11, nearest_weights=True)
    extra = set(both.state_dict()) - set(plain.state_dict())
    assert extra == {"item.code.prefix.weight", "item.code.place"}
    assert both.item.code.prefix.weight.shape == (11, 4)
    assert both.item.fields == plain.item.fields + 1
    assert both.item.code.place.shape == (2,)
    *_, batch = batches(rows_of(toy).epoch(0), 50)  # the longest histories
    both(batch).sum().backward()
    assert both.item.code.prefix.weight.grad.any()
    assert both.item.code.place.grad.any()
    without = made(toy, variant="id", prefixes=11, nearest_weights=True)
    assert set(without.state_dict()) == set(made(toy, variant="id").state_dict())


def test_code_tables_start_as_the_codebooks(toy: Toy) -> None:
    """Rows lie as the centroids do: principal axes keep the distances of four of six dimensions or fewer."""
    ranker = made(toy, start="codebooks")
    assert ranker.shape.widths == (5, 4)
    for level, book in enumerate(BOOKS):
        found = ranker.item.code.levels[level].weight.detach().numpy().astype(np.float64)
        centred = book - book.mean(axis=0)
        scores = centred @ np.linalg.svd(centred, full_matrices=False)[2][:4].T
        signs = np.sign((found * scores).sum(axis=0))  # an axis may point either way
        np.testing.assert_allclose(np.corrcoef(found.ravel(), (scores * signs).ravel())[0, 1], 1, atol=1e-5)
    ids = [made(toy, variant="id", start=start).item.ids.weight for start in ("codebooks", "random")]
    assert torch.equal(*ids)  # there is nothing to start


def test_the_vq_table_starts_as_the_pools_vectors(toy: Toy) -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    table = item_table(toy[1].item_ids, "id+rq+vq", codes=toy[1], pool_vectors=vectors)
    ranker = made(toy, table=table, start="pool")
    assert ranker.shape.pool == 20  # more than the codes name
    rows = ranker.item.code.nearest.weight.detach().numpy().astype(np.float64)
    shared = np.linalg.lstsq(vectors - vectors.mean(axis=0), rows, rcond=None)[1]
    assert np.abs(shared).max() < 1e-9  # a rotation of the vectors
    other = made(
        toy, table=item_table(toy[1].item_ids, "id+rq", codes=toy[1], pool_vectors=vectors), start="pool"
    )
    assert other.item.code.nearest is None


def test_pool_vectors_must_be_there_and_fit(toy: Toy) -> None:
    table = item_table(toy[1].item_ids, "id+vq", codes=toy[1])
    with pytest.raises(InputError, match="ranker.start=pool needs the pool's vectors"):
        made(toy, table=table, start="pool")
    with pytest.raises(InputError, match=r"got 3 pool vectors for VQ codes below \d+"):
        made(toy, table=replace(table, pool_vectors=np.zeros((3, 2), np.float32)), start="pool")


def test_codebooks_must_be_there_and_fit(toy: Toy) -> None:
    table = item_table(toy[1].item_ids, "id+rq", codes=toy[1])
    with pytest.raises(InputError, match="ranker.start=codebooks needs the codes' codebooks"):
        made(toy, table=table, start="codebooks")
    with pytest.raises(InputError, match=r"got codebooks of \[2, 4\] centroids for codes below \[4, 3\]"):
        made(toy, table=replace(table, codebooks=[BOOKS[0][:2], BOOKS[1]]), start="codebooks")
    with pytest.raises(InputError, match=r"got codebooks of \[5\] centroids for codes below \[4, 3\]"):
        made(toy, table=replace(table, codebooks=BOOKS[:1]), start="codebooks")


def test_a_shape_is_written_whole_and_read_back(toy: Toy) -> None:
    plain = made(toy).shape
    shape = made(toy, prefixes=3, nearest_weights=True, time=True).shape
    assert (shape.prefixes, shape.weighted, shape.time) == (3, True, True)
    for one in (plain, shape):
        content = json.loads(json.dumps(one.model_dump(mode="json")))
        assert content["format"] == 2
        assert set(content) == set(RankerShape.model_fields)
        assert ranker_shape(content) == one


def test_a_shape_of_format_1_lacks_what_came_later(toy: Toy) -> None:
    plain = made(toy).shape
    later = {"format", "prefixes", "weighted", "spare", "time", "labels", "users"}
    first = {name: value for name, value in plain.model_dump(mode="json").items() if name not in later}
    assert ranker_shape(first) == plain
    with pytest.raises(ValueError, match="format 3, need at most 2"):
        ranker_shape(first | {"format": 3})


# ---- time -------------------------------------------------------------------------------------


def test_buckets_by_hand() -> None:
    gaps = np.array([-5, 0, 1, 2, 3, 4, 7, 8, 1023, 1024, 2**40, 2**63 - 1])
    assert gap_buckets(gaps).tolist() == [0, 0, 1, 2, 2, 3, 3, 4, 10, 11, 41, 64]
    assert gap_buckets(gaps).max() < BUCKETS


def test_batches_know_how_long_ago_an_event_was(make_log: Callable[..., Log]) -> None:
    log = make_log([("u", "a", 0), ("u", "b", 6), ("u", "c", 7), ("v", "a", 5)])
    rows = TrainingRows(log, item_ids=list("abc"), explicit=False, negatives=1).epoch(0)
    assert next(batches(rows, 100)).gaps is None
    batch = next(batches(replace(rows, timed=True), 100))
    found = {
        int(rows.events[row]): batch.gaps[event][batch.seen[event]].tolist()
        for event, row in enumerate(batch.rows[:, 0])
    }
    assert found == {0: [], 1: [3], 2: [1, 3], 3: []}  # 6; 1 and 7


@torch.no_grad()
def test_attention_with_gaps_by_hand(toy: Toy) -> None:
    """Flat as initialised, so that a weight by gap of log 3 makes an event three times as heavy."""
    ranker = made(toy, variant="id", time=True)
    ranker.gap[4] = float(np.log(3))
    queries, keys, seen = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.tensor([[True, True, False]])
    found = ranker.attention(queries, keys, seen, torch.tensor([[4, 5, 4]]))
    np.testing.assert_allclose(found[0].numpy(), [[0.75, 0.25, 0.0]] * 2, atol=1e-6)


def test_gaps_of_requests(toy: Toy) -> None:
    ranker = made(toy, variant="id", time=True).eval()
    with torch.no_grad():
        ranker.gap.normal_(std=2.0)
    history = [["g0-0", "g1-1"]]
    one, two, same = (
        ranker.score([["g2-2", "g0-3"]], history, gaps=[gaps])[0] for gaps in ([9, 2], [90, 2], [10, 3])
    )
    assert np.abs(one - two).max() > 1e-4
    assert np.array_equal(one, same)  # 9 and 10, 2 and 3 share their buckets
    with pytest.raises(InputError, match="reads gaps of time; give gaps="):
        ranker.score([["g2-2"]], history)
    with pytest.raises(InputError, match="gaps and histories differ in length"):
        ranker.score([["g2-2"]], history, gaps=[[1]])


# ---- items without codes ----------------------------------------------------------------------


def few(codes: Codes, *, gone: int) -> Codes:
    return Codes(codes.item_ids[gone:], codes.rq[gone:], codes.vq[gone:])


def test_items_without_codes_are_named_counted_and_refused(toy: Toy) -> None:
    codes = few(toy[1], gone=3)
    with pytest.raises(InputError, match="3 items have no codes: g0-0, g0-1, g0-2") as caught:
        item_table(toy[1].item_ids, "id+rq", codes=codes)
    assert "raise ranker.missing_codes=0 to 0.094" in str(caught.value)
    with pytest.raises(InputError, match="raise ranker.missing_codes=0.09 to 0.094"):
        item_table(toy[1].item_ids, "id+rq", codes=codes, missing_codes=0.09)
    assert item_table(toy[1].item_ids, "id", codes=codes).without == []
    assert item_table(toy[1].item_ids, "id+rq+vq", codes=codes, missing_codes=0.094).without == [
        "g0-0", "g0-1", "g0-2",
    ]  # fmt: skip
    nothing = Codes([], np.empty((0, 2), np.int32))
    with pytest.raises(InputError, match="32 items have no codes"):
        item_table(toy[1].item_ids, "id+rq", codes=nothing, missing_codes=0.99)


@pytest.mark.parametrize("start", ["random", "codebooks", "pool"])
def test_items_without_codes_share_a_code_of_their_own(toy: Toy, start: str) -> None:
    codes = few(toy[1], gone=3)
    pool = toy[1].item_ids[:14]
    table = item_table(
        toy[1].item_ids,
        "id+rq+vq+cross",
        codes=codes,
        missing_codes=0.1,
        codebooks=BOOKS,
        pool=pool,
        pool_vectors=np.random.default_rng(0).normal(size=(14, 4)).astype(np.float32),
    )
    ranker = made(toy, table=table, start=start)
    widths = (6, 5) if start == "codebooks" else (5, 4)
    assert ranker.shape.widths == widths
    assert ranker.shape.pool == 15
    spare = [widths[0] - 1, widths[1] - 1, 14, 14]
    assert ranker.item.codes[:3].tolist() == [spare] * 3
    others = ranker.item.codes[3:].numpy()
    assert (others < spare).all()
    assert (others == np.concatenate([codes.rq, codes.vq], axis=1)).all()
    assert ranker.item.pool.tolist() == [*range(14), -1]
    if start == "codebooks":  # the mean of the others
        mean = ranker.item.code.levels[0].weight[:5].mean(dim=0)
        assert (ranker.item.code.levels[0].weight[5] - mean).abs().max() < 1e-6
    if start == "pool":
        mean = ranker.item.code.nearest.weight[:14].mean(dim=0)
        assert (ranker.item.code.nearest.weight[14] - mean).abs().max() < 1e-6
    history = np.array([0, 1, 5, 0])
    found = ranker.search(history).find(np.array([0, 2, 4]), np.zeros(3, int), np.full(3, 4))
    assert found.counts[:, 0].tolist() == [2, 0, 1]  # itself twice, nothing in common, item 5


def test_dropping_codes_trains_the_code_of_items_without(toy: Toy) -> None:
    table = item_table(toy[1].item_ids, "rq+vq", codes=few(toy[1], gone=3), missing_codes=0.1)
    batch = next(batches(rows_of(toy).epoch(0), 400))
    warm = replace(batch, items=batch.items.clamp(min=3), history=batch.history.clamp(min=3))
    for dropout, trains in ((0.3, True), (0.0, False)):
        ranker = made(toy, table=table, id_dropout=dropout).train()
        ranker(warm).sum().backward()
        code = ranker.item.code
        rows = [table.weight.grad[-1] for table in (*code.levels, code.nearest)]
        assert [bool(row.any()) for row in rows] == [trains] * 3


def test_a_pool_may_hold_items_that_no_list_names(toy: Toy, make_examples: Callable[..., Examples]) -> None:
    pool = toy[1].item_ids[:20]
    table = item_table(toy[1].item_ids, "id+rq+vq+cross", codes=toy[1], pool=pool)
    assert made(toy, table=table).item.pool.tolist() == list(range(20))


def test_the_bytes_do_not_depend_on_options_that_are_off(toy: Toy, tmp_path: Path) -> None:
    one, two = made(toy), made(toy, table=item_table(toy[1].item_ids, "id+rq+vq", codes=toy[1]))
    for ranker, name in ((one, "one"), (two, "two")):
        ranker.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors", "items.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
