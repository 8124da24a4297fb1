"""The ranker against loops in plain torch, and what its logits must not depend on.

Every parameter is redrawn before a test: as initialised, the attention is flat and the network silent.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from qarm.errors import ArtifactError, InputError
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples
from qarm.recommender.ranking.model import Ranker, score_examples, set_items
from qarm.schemas.results import RankerShape

MakeExamples = Callable[..., Examples]
ITEMS = [f"i{n:02d}" for n in range(10)]
COLD = [8, 9]
ID = RankerShape(items=10, known=8, dim=4, attention=3, hidden=(6, 5), dropout=0.3, id_dropout=0.1, history=8)
FULL = ID.model_copy(update={"widths": (4, 3), "nearest": 2, "pool": 6, "vector": 5})
CROSSED = FULL.model_copy(update={"cross": 3, "ids": False})


def item_numbers() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Codes [10, 4] and vectors [10, 5]; the two cold items have the same."""
    random = np.random.default_rng(1)
    codes = random.integers(0, [4, 3, 6, 6], (10, 4))
    vectors = random.normal(size=(10, 5)).astype(np.float32)
    codes[9], vectors[9] = codes[8], vectors[8]
    return codes, vectors


def built(shape: RankerShape) -> Ranker:
    torch.manual_seed(0)
    ranker = Ranker(shape, ITEMS)
    with torch.no_grad():
        for weight in ranker.parameters():
            weight.normal_(std=0.5)
    codes, vectors = item_numbers()
    columns = codes[:, : len(shape.widths) + shape.nearest]
    set_items(
        ranker,
        np.arange(shape.known),
        codes=columns if shape.widths else None,
        vectors=vectors if shape.vector else None,
        pool=np.arange(2, 8) if shape.cross else None,
    )
    return ranker.eval()


def batch_of(
    candidates: list[list[int]], histories: list[list[int]], *, pad: int = 0, fill: int = 0
) -> Batch:
    """Histories newest first; `pad` further slots hold `fill`."""
    length = max(1, *(len(history) for history in histories)) + pad
    return Batch(
        items=torch.tensor(candidates),
        labels=torch.zeros(len(candidates), len(candidates[0])),
        real=torch.ones(len(candidates), len(candidates[0]), dtype=torch.bool),
        history=torch.tensor([[*h, *[fill] * (length - len(h))] for h in histories]),
        seen=torch.tensor([[True] * len(h) + [False] * (length - len(h)) for h in histories]),
        rows=np.arange(len(candidates) * len(candidates[0])).reshape(len(candidates), -1),
    )


def fields_of(ranker: Ranker, item: int) -> list[torch.Tensor]:
    own = ranker.item
    codes, vectors = item_numbers()
    fields = [own.ids.weight[0 if item in COLD else item + 1]]
    fields += [table.weight[code] for table, code in zip(own.code.levels, codes[item], strict=False)]
    fields.append((own.code.nearest.weight[codes[item, 2]] + own.code.nearest.weight[codes[item, 3]]) / 2)
    fields.append(own.project.weight @ torch.from_numpy(vectors[item]))
    return fields


def logit_by_hand(ranker: Ranker, candidate: int, history: list[int]) -> float:
    """One candidate and one history, newest first, position by position and field by field."""
    own, past = fields_of(ranker, candidate), [fields_of(ranker, item) for item in history]
    query, keys = sum(own), [sum(fields) for fields in past]
    scores = []
    for place, key in enumerate(keys):
        hidden = ranker.query.weight @ query + ranker.query.bias + ranker.key.weight @ key
        hidden = hidden + ranker.product @ (query * key)
        score = sum(w * max(h, 0) for w, h in zip(ranker.weigh, hidden, strict=True))
        scores.append(score + ranker.closeness * (query @ key) + ranker.recency[place])
    weights = [torch.exp(score) / sum(torch.exp(other) for other in scores) for score in scores]
    nothing = torch.zeros(ranker.shape.dim)
    attended = [sum((w * f[n] for w, f in zip(weights, past, strict=True)), nothing) for n in range(len(own))]
    mean = [sum((f[n] for f in past), nothing) / max(len(past), 1) for n in range(len(own))]
    by_field = torch.stack([a @ b for a, b in zip(own, attended, strict=True)])
    by_mean = torch.stack([a @ b for a, b in zip(own, mean, strict=True)])
    liked = sum(attended)
    logit = ranker.network(torch.cat([query, liked, query * liked, by_field, by_mean]))[0]
    logit = logit + by_field @ ranker.gain_attended + by_mean @ ranker.gain_mean + ranker.bias
    logit = logit + ranker.item.id_bias.weight[0 if candidate in COLD else candidate + 1, 0]
    for table, code in zip(ranker.item.level_bias, item_numbers()[0][candidate], strict=False):
        logit = logit + table.weight[code, 0]
    return logit.item()


@pytest.fixture(scope="module")
def ragged(make_examples: MakeExamples) -> Examples:
    random = np.random.default_rng(0)
    events = []
    for n in range(30):
        size = 1 + n % 4
        labels = [1] + [0] * (size - 1)
        events.append((random.integers(0, 10, size), labels, random.integers(0, 10, n % 9)))
    return make_examples(events)


# ---- what a logit is --------------------------------------------------------------------------


@pytest.mark.parametrize("history", [[], [3], [5, 1, 8, 1], [0, 1, 2, 3, 4, 5, 9, 7]])
@torch.no_grad()
def test_a_logit_by_hand(history: list[int]) -> None:
    ranker = built(FULL)
    found = ranker(batch_of([[6, 8, 3]], [history]))[0].tolist()
    assert found == pytest.approx([logit_by_hand(ranker, item, history) for item in (6, 8, 3)], abs=1e-4)


@torch.no_grad()
def test_attention_by_hand() -> None:
    """dim 1, one unit: scores 2 relu(q + k + 3 q k + 1) + 10 q k + recency."""
    ranker = Ranker(ID.model_copy(update={"dim": 1, "attention": 1}), ITEMS)
    for weight, value in (
        (ranker.query.weight, 1.0),
        (ranker.query.bias, 1.0),
        (ranker.key.weight, 1.0),
        (ranker.product, 3.0),
        (ranker.weigh, 2.0),
        (ranker.closeness, 10.0),
    ):
        weight.fill_(value)
    ranker.recency[:3] = torch.tensor([0.5, 0.0, -0.5])
    queries = torch.tensor([[[0.1], [-1.0]]])
    keys = torch.tensor([[[0.2], [-0.3], [5.0]]])
    found = ranker.attention(queries, keys, torch.tensor([[True, True, False]]))
    # q .1: relu(1.36), relu(.71) -> 2.72 + .2 + .5 = 3.42 and 1.42 - .3 = 1.12
    # q -1: relu(-.4), relu(.6) -> 0 - 2 + .5 = -1.5 and 1.2 + 3 = 4.2
    shares = [1 / (1 + np.exp(-(3.42 - 1.12))), 1 / (1 + np.exp(-(-1.5 - 4.2)))]
    expected = [[share, 1 - share, 0.0] for share in shares]
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@torch.no_grad()
def test_an_empty_history_gets_no_attention() -> None:
    ranker = built(FULL)
    queries, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    seen = torch.tensor([[True, True, False, False, False], [False] * 5])
    weights = ranker.attention(queries, keys, seen)
    np.testing.assert_allclose(weights.sum(-1)[0].numpy(), 1, rtol=1e-6)
    assert not weights[0, :, 2:].any()
    assert not weights[1].any()


# ---- what it must not depend on ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [ID, FULL, CROSSED])
def test_a_row_alone_scores_as_in_its_batch(ragged: Examples, shape: RankerShape) -> None:
    ranker = built(shape)
    together = score_examples(ranker, ragged)
    assert together.dtype == np.float32
    assert together.std() > 0.1
    for row in range(len(ragged)):
        cut = slice(row, row + 1)
        names = ("users", "items", "labels", "times", "events", "cold", "start", "end", "begin")
        alone = replace(ragged, **{name: getattr(ragged, name)[cut] for name in names})
        assert score_examples(ranker, alone)[0] == pytest.approx(together[row], abs=1e-4)
    small = score_examples(ranker, ragged, rows=5)
    np.testing.assert_allclose(small, together, atol=1e-4)


@torch.no_grad()
def test_content_at_hand_changes_nothing(ragged: Examples) -> None:
    ranker = built(FULL)
    content = ranker.item.content(torch.arange(10))
    for batch in batches(ragged, 20):
        np.testing.assert_allclose(ranker(batch, content), ranker(batch), atol=1e-5)


@torch.no_grad()
def test_masked_slots_do_not_matter() -> None:
    ranker = built(FULL)
    candidates, histories = [[6, 8], [1, 2], [3, 3]], [[5, 1, 8], [], [2]]
    plain = ranker(batch_of(candidates, histories))
    for pad, fill in ((0, 7), (3, 0), (5, 9)):
        other = ranker(batch_of(candidates, histories, pad=pad, fill=fill))
        np.testing.assert_allclose(other, plain, atol=1e-5)


@torch.no_grad()
def test_only_recency_tells_the_order_of_a_history() -> None:
    ranker = built(FULL)
    one, other = batch_of([[6, 8]], [[5, 1, 8, 0]]), batch_of([[6, 8]], [[0, 8, 1, 5]])
    assert (ranker(one) - ranker(other)).abs().min() > 1e-3
    ranker.recency.zero_()
    np.testing.assert_allclose(ranker(one), ranker(other), atol=1e-5)


@torch.no_grad()
def test_scoring_leaves_the_mode_and_drops_nothing(ragged: Examples) -> None:
    ranker = built(FULL.model_copy(update={"dropout": 0.5, "id_dropout": 0.5})).train()
    one, two = score_examples(ranker, ragged), score_examples(ranker, ragged)
    assert np.array_equal(one, two)
    assert ranker.training
    batch = next(batches(ragged, 100))
    assert not torch.equal(ranker(batch), ranker(batch))  # in training it does


# ---- cold items -------------------------------------------------------------------------------


@torch.no_grad()
def test_cold_items_share_the_row_out_of_vocabulary() -> None:
    batch = batch_of([[8, 9, 7]], [[5, 1, 8]])
    by_id = built(ID)(batch)[0]
    assert by_id[0] == pytest.approx(by_id[1].item(), abs=1e-6)
    assert abs(by_id[0] - by_id[2]) > 1e-3
    ranker = built(FULL)
    equal = ranker(batch)[0]
    assert equal[0] == pytest.approx(equal[1].item(), abs=1e-5)
    ranker.item.codes[9, 0] = (ranker.item.codes[9, 0] + 1) % 4
    assert abs(ranker(batch)[0, 0] - ranker(batch)[0, 1]) > 1e-3


@pytest.mark.parametrize(("dropped", "trains"), [(0.5, True), (0.0, False)])
def test_dropping_ids_trains_the_row_out_of_vocabulary(
    make_examples: MakeExamples, dropped: float, trains: bool
) -> None:
    ranker = built(ID.model_copy(update={"id_dropout": dropped})).train()
    warm = make_examples([([1, 2], [1, 0], [3, 4, 5])] * 20)
    ranker(next(batches(warm, 100))).sum().backward()
    row, bias = ranker.item.ids.weight.grad[0], ranker.item.id_bias.weight.grad[0]
    assert bool(row.any()) is bool(bias.any()) is trains


# ---- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["candidate", "history"])
def test_code_tables_serve_the_candidate_and_the_history(side: str) -> None:
    """Item 0 has codes of its own; its rows move whether it is scored or looked back at."""
    ranker = built(FULL)
    ranker.item.codes[:, :] = torch.tensor([1, 1, 1, 1])
    ranker.item.codes[0] = torch.tensor([3, 2, 5, 4])
    ranker(batch_of([[0]], [[5]]) if side == "candidate" else batch_of([[5]], [[0]])).sum().backward()
    levels, pool = ranker.item.code.levels, ranker.item.code.nearest
    tables = [table.weight.grad.abs().sum(1).nonzero().flatten().tolist() for table in (*levels, pool)]
    assert tables == [[1, 3], [1, 2], [1, 4, 5]]
    assert ranker.item.ids.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 6]


def test_frozen_vectors_get_no_gradient() -> None:
    ranker = built(FULL)
    ranker(batch_of([[0, 8]], [[5]])).sum().backward()
    assert "item.vectors" not in dict(ranker.named_parameters())
    assert not ranker.item.vectors.requires_grad
    assert ranker.item.project.weight.grad.any()  # only how they are read is learned
    assert np.array_equal(ranker.item.vectors, item_numbers()[1])


def test_masked_slots_get_no_gradient() -> None:
    ranker = built(ID)
    ranker(batch_of([[1]], [[2]], pad=4, fill=7)).sum().backward()
    assert ranker.item.ids.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 3]


# ---- requests ---------------------------------------------------------------------------------


def test_score_answers_requests() -> None:
    ranker = built(FULL)
    found = ranker.score(
        [["i06", "i08"], [], ["i03"], ["i01"]],
        [["i05", "i01"], ["i02"], [], [f"i{n:02d}" for n in range(10)]],
    )
    assert [len(logits) for logits in found] == [2, 0, 1, 1]
    expected = [
        logit_by_hand(ranker, 6, [1, 5]),
        logit_by_hand(ranker, 8, [1, 5]),
        logit_by_hand(ranker, 3, []),
        logit_by_hand(ranker, 1, [9, 8, 7, 6, 5, 4, 3, 2]),  # the latest 8
    ]
    assert np.concatenate(found).tolist() == pytest.approx(expected, abs=1e-4)


def test_no_requests_no_answers() -> None:
    assert built(ID).score([], []) == []


def test_bad_requests() -> None:
    ranker = built(ID)
    with pytest.raises(InputError, match="got 1 requests and 2 histories, need as many"):
        ranker.score([["i01"]], [[], []])
    with pytest.raises(InputError, match="1 unknown, x"):
        ranker.score([["i01", "x"]], [[]])
    with pytest.raises(InputError, match="1 unknown, y"):
        ranker.score([["i01"]], [["y"]])


def test_histories_longer_than_the_limit(make_examples: MakeExamples) -> None:
    """Requests are cut to the latest events; rows that were prepared for another limit are refused."""
    ranker, history = built(ID), [n % 10 for n in range(12)]
    with pytest.raises(InputError, match="got a history of 12 events, the ranker reads at most 8"):
        score_examples(ranker, make_examples([([1, 2], [1, 0], history)]))
    names = [f"i{n:02d}" for n in history]
    long, cut = ranker.score([["i01"], ["i01"]], [names, names[-8:]])
    assert long == pytest.approx(cut)


# ---- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [ID, FULL])
def test_saved_and_read_back(tmp_path: Path, ragged: Examples, shape: RankerShape) -> None:
    ranker = built(shape).train()
    ranker.prior.fill_(-1.5)
    ranker.save_pretrained(tmp_path)
    again = Ranker.from_pretrained(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "items.parquet",
        "model.safetensors",
    ]
    assert (again.shape, again.item_ids, float(again.prior)) == (shape, ITEMS, -1.5)
    assert not again.training
    assert again.past is None
    assert np.array_equal(score_examples(again, ragged), score_examples(ranker, ragged))


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_width(path: Path) -> None:
    path.write_text(path.read_text().replace('"dim": 4', '"dim": 5'))


def _fewer_fields(path: Path) -> None:
    path.write_text("{}")


def _fewer_items(path: Path) -> None:
    pl.DataFrame({"item_id": ITEMS[:3]}).write_parquet(path)


def _other_column(path: Path) -> None:
    pl.DataFrame({"item": ITEMS}).write_parquet(path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", _remove),
        ("config.json", _cut),
        ("config.json", _fewer_fields),
        ("config.json", _other_width),
        ("items.parquet", _remove),
        ("items.parquet", _cut),
        ("items.parquet", _other_column),
        ("items.parquet", _fewer_items),
        ("model.safetensors", _remove),
        ("model.safetensors", _cut),
        ("model.safetensors", _empty),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    built(FULL).save_pretrained(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(ArtifactError, match=tmp_path.name):
        Ranker.from_pretrained(tmp_path)
