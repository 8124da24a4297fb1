"""Options of the ranker, each in a planted world in which only it can win."""

import numpy as np
import polars as pl
import pytest
import torch

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.recommender.code_embedding import CodeEmbedding
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import item_table
from qarm.recommender.item_fields import ItemFields
from qarm.recommender.metrics import auc
from qarm.recommender.ranking.fitting import fit_ranker
from qarm.recommender.ranking.model import score_examples
from qarm.schemas.results import RankerShape

SETTINGS = RankerConfig(dim=4, hidden=[4], epochs=12, patience=12, batch=256, history=2, lr=0.02, dropout=0.0)
USERS = 40


def log_of(items: np.ndarray, labels: np.ndarray, start: int) -> Log:
    """Labelled events in random order, dealt out to users."""
    order = np.random.default_rng(start).permutation(len(items))
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n % USERS:02d}" for n in range(len(items))],
            "item_id": [f"i{item:04d}" for item in items[order]],
            "label": labels[order].astype(np.int8),
            "time": start + np.arange(len(items)),
            "row": start + np.arange(len(items)),
        }
    )
    return Log(frame)


def fitted(
    train: Log, future: Log, codes: Codes, variant: str, **settings: object
) -> tuple[Examples, np.ndarray]:
    """Judged rows of the future and a ranker's scores of them; the last epoch is kept."""
    ids = sorted(codes.item_ids)
    chosen = RankerConfig.model_validate(SETTINGS.model_dump() | settings)
    rows = TrainingRows(train, item_ids=ids, explicit=True, history=2)
    frame = evaluation_rows({"test": future}, train, item_ids=ids, trained_items=train.items)
    judged = read_examples(frame, [train, future], item_ids=ids, history=2)
    nothing = judged.only(np.zeros(len(judged), dtype=bool))
    table = item_table(ids, variant, codes=codes)
    ranker = fit_ranker(rows, nothing, table, settings=chosen).ranker
    return judged, score_examples(ranker, judged)


def test_prefix_ngrams_win_where_no_code_says_anything_alone() -> None:
    """Each of 125 full codes is liked or not by chance: what its codes say one by one is noise."""
    random = np.random.default_rng(0)
    rq = random.integers(0, 5, (400, 3)).astype(np.int32)
    codes = Codes([f"i{n:04d}" for n in range(400)], rq)
    chance = np.where(random.random((5, 5, 5)) < 0.5, 0.1, 0.9)[tuple(rq.T)]
    parts = [random.integers(low, high, 4000) for low, high in ((0, 300), (300, 400))]  # the test's are new
    train, future = (log_of(p, random.random(len(p)) < chance[p], 10_000 * n) for n, p in enumerate(parts))
    reached = {}
    for name, settings in (("plain", {}), ("ngrams", {"ngrams": 1009})):
        judged, scores = fitted(train, future, codes, "rq", **settings)
        reached[name] = auc(judged.labels, scores) or 0.0
    assert reached["ngrams"] > 0.75
    assert reached["plain"] < reached["ngrams"] - 0.08


def test_shrinkage_wins_where_few_items_have_most_events() -> None:
    """Frequent items are liked by nothing but themselves, rare ones by their code and nothing else."""
    random = np.random.default_rng(1)
    frequent, rare = 40, 800
    rq = random.integers(0, 4, (frequent + rare, 1)).astype(np.int32)
    codes = Codes([f"i{n:04d}" for n in range(frequent + rare)], rq)
    logits = np.array([-2.0, -0.7, 0.7, 2.0])[rq[:, 0]]
    logits[:frequent] = random.normal(0.0, 2.0, frequent)
    chance = 1 / (1 + np.exp(-logits))
    items = np.concatenate(
        [np.repeat(np.arange(frequent), 60), np.repeat(np.arange(frequent, frequent + rare), 2)]
    )
    train, future = (log_of(items, random.random(len(items)) < chance[items], 10_000 * n) for n in range(2))
    reached = {}
    for name, settings in (("plain", {}), ("shrunk", {"shrinkage": 20.0})):
        judged, scores = fitted(train, future, codes, "id+rq", weight_decay=0.0, **settings)
        known = np.array([int(item[1:]) < frequent for item in judged.item_ids])[judged.items]
        for part, rows in (("frequent", known), ("rare", ~known)):
            reached[name, part] = auc(judged.labels[rows], scores[rows]) or 0.0
    best = auc(judged.labels, logits[[int(judged.item_ids[item][1:]) for item in judged.items]])
    assert best is not None
    assert reached["shrunk", "rare"] > reached["plain", "rare"] + 0.02
    assert reached["shrunk", "frequent"] > reached["plain", "frequent"] - 0.01


def test_similarity_tiers_win_where_one_near_event_decides() -> None:
    """Items come in twins; a candidate is liked when its twin is in the history, and near to nothing else."""
    random, users, items = np.random.default_rng(2), 260, 120
    vectors = np.repeat(random.normal(size=(items // 2, 32)), 2, axis=0) + random.normal(0, 0.05, (items, 32))
    events: list[tuple[str, str, int, int]] = []
    for user in range(users):
        twins = random.permutation(items // 2)
        past, unknown = 2 * twins[:8] + random.integers(0, 2, 8), 2 * twins[8:12] + random.integers(0, 2, 4)
        rows = [(item, 0, 1) for item in past] + [(item ^ 1, 1, 1) for item in past[:4]]
        rows += [(item, 1, 0) for item in unknown]
        events += [(f"u{user:03d}", f"i{item:04d}", time, label) for item, time, label in rows]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "time", "label"], orient="row")
    frame = frame.with_columns(
        row=pl.int_range(pl.len(), dtype=pl.Int64), label=pl.col("label").cast(pl.Int8)
    )
    later, known = pl.col("time") == 1, pl.col("user_id") < "u200"
    train, rows, future = (
        Log(frame.filter(part)) for part in (~later | known, later & known, later & ~known)
    )
    ids = [f"i{n:04d}" for n in range(items)]
    settings = SETTINGS.model_copy(update={"history": 8})
    learned = TrainingRows(train, item_ids=ids, explicit=True, history=8, since=rows)
    judged_rows = evaluation_rows({"test": future}, train, item_ids=ids, trained_items=train.items)
    judged = read_examples(judged_rows, [train, future], item_ids=ids, history=8)
    nothing = judged.only(np.zeros(len(judged), dtype=bool))
    table = item_table(ids, "frozen", embeddings=Embeddings(ids, vectors.astype(np.float32)))
    reached = {}
    for tiers in (0, 10):
        chosen = settings.model_copy(update={"tiers": tiers})
        ranker = fit_ranker(learned, nothing, table, settings=chosen).ranker
        reached[tiers] = auc(judged.labels, score_examples(ranker, judged)) or 0.0
    assert reached[10] > 0.95
    assert reached[0] < reached[10] - 0.1


def test_an_unknown_item_is_its_prior_and_a_frequent_one_itself() -> None:
    """The share of an item's own vector is events / (events + shrinkage), by hand."""
    sizes = {"dim": 2, "hidden": (2,), "dropout": 0.0, "id_dropout": 0.1, "history": 2}
    shape = RankerShape(items=3, known=2, widths=(2,), shrinkage=6.0, **sizes)
    fields = ItemFields(shape).eval()
    fields.known.copy_(torch.tensor([0, 1, 2]))
    fields.events.copy_(torch.tensor([0.0, 2.0, 18.0]))
    with torch.no_grad():
        fields.prior.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
        fields.ids.weight.copy_(torch.tensor([[9.0, 9.0], [4.0, 8.0], [4.0, 8.0]]))
        fields.id_bias.weight.fill_(1.0)
        fields.code.levels[0].weight.fill_(0.5)
        own, bias = fields(torch.tensor([0, 1, 2]))
    expected = torch.tensor([[0.5, 1.0], [0.5 + 1.0, 1.0 + 2.0], [0.5 + 3.0, 1.0 + 6.0]])
    torch.testing.assert_close(own[:, 0], expected)
    torch.testing.assert_close(bias, torch.tensor([1.5, 1.75, 2.25]))


@pytest.mark.parametrize("codes", [[[1, 2, 3], [1, 2, 0]], [[0, 2, 3], [1, 2, 3]]], ids=["last", "first"])
def test_items_share_the_vectors_of_the_prefixes_that_they_share(codes: list[list[int]]) -> None:
    module = CodeEmbedding([4, 4, 4], dim=3, ngrams=101)
    rows = module._ngram_rows(torch.tensor(codes))
    shared = 2 if codes[0][0] == codes[1][0] else 0
    assert (rows[0] == rows[1]).tolist() == [level < shared for level in range(3)]
    assert (rows // 101).tolist() == [[0, 1, 2], [0, 1, 2]]
    parts = module.parts(torch.tensor(codes))
    assert parts.shape == (2, module.fields, 3) == (2, 4, 3)
    torch.testing.assert_close(parts[0, 3], module.ngrams.weight[rows[0]].sum(0))
