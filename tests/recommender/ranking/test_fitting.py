"""Training: what it learns on a toy world, when it stops, and what its bytes depend on."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.errors import InputError
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import item_table
from qarm.recommender.ranking import trainer as loop
from qarm.recommender.ranking.fitting import FittedRanker, fit_ranker, thin_examples, train_ranker
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.recommender.ranking.trainer import GAIN

MakeExamples = Callable[..., Examples]
Toy = tuple[Log, Codes, Embeddings]
SETTINGS = RankerConfig(
    dim=8, hidden=[8], epochs=12, patience=3, batch=256, history=10, lr=0.02, dropout=0.1, id_dropout=0.1
)
SHORT = SETTINGS.model_copy(update={"epochs": 2})


class World:
    """The toy world, split by time, with its validation and test rows."""

    def __init__(self, toy: Toy) -> None:
        log, self.codes, self.vectors = toy
        self.items = self.codes.item_ids
        self.split: Split = split_log(log, test=0.2, valid=0.1)
        parts = {"valid": self.split.valid, "test": self.split.test}
        frame = evaluation_rows(
            parts,
            self.split.train,
            item_ids=self.items,
            trained_items=self.split.train.items,
            negatives=20,
        )
        self.valid, self.test = (
            read_examples(
                frame.filter(pl.col("part") == part),
                [self.split.train, self.split.valid, self.split.test],
                item_ids=self.items,
                history=10,
            )
            for part in parts
        )

    def fit(
        self,
        variant: str,
        *,
        settings: RankerConfig = SETTINGS,
        valid: Examples | None = None,
        codes: Codes | None = None,
        vectors: Embeddings | None = None,
        seed: int = 0,
    ) -> FittedRanker:
        rows = TrainingRows(self.split.train, item_ids=self.items, explicit=False, history=10, seed=seed)
        table = item_table(self.items, variant, codes=codes or self.codes, embeddings=vectors or self.vectors)
        return fit_ranker(rows, self.valid if valid is None else valid, table, settings=settings, seed=seed)


@pytest.fixture(scope="module")
def world(toy: Toy) -> World:
    return World(toy)


@pytest.fixture(scope="module")
def by_id(world: World) -> FittedRanker:
    return world.fit("id")


@pytest.fixture(scope="module")
def by_codes(world: World) -> FittedRanker:
    return world.fit("id+rq+vq")


def weights(ranker: Ranker) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in ranker.state_dict().items()}


def cold_auc(world: World, ranker: Ranker) -> float:
    cold = world.test.cold
    return float(roc_auc_score(world.test.labels[cold], score_examples(ranker, world.test)[cold]))


# ---- what it learns ---------------------------------------------------------------------------


def test_the_planted_taste_is_learned(world: World, by_id: FittedRanker, by_codes: FittedRanker) -> None:
    warm = ~world.test.cold
    for fitted in (by_id, by_codes):
        logits = score_examples(fitted.ranker, world.test)
        assert roc_auc_score(world.test.labels[warm], logits[warm]) > 0.85


@pytest.mark.parametrize("variant", ["id+rq", "id+vq", "id+frozen"])
def test_content_finds_cold_items_and_ids_cannot(world: World, by_id: FittedRanker, variant: str) -> None:
    assert cold_auc(world, world.fit(variant).ranker) > 0.7
    assert cold_auc(world, by_id.ranker) == pytest.approx(0.5, abs=0.08)


def test_cold_items_of_one_event_are_equal_by_id(world: World, by_id: FittedRanker) -> None:
    logits, cold = score_examples(by_id.ranker, world.test), world.test.cold
    edges = world.test.groups()
    groups = [logits[a:b][cold[a:b]] for a, b in pairwise(edges)]
    assert max(len(group) for group in groups) > 3
    assert max(np.ptp(group) for group in groups if len(group)) < 1e-5


def test_the_row_out_of_vocabulary_is_trained(world: World) -> None:
    """Weight decay alone would shrink it by the same factor everywhere."""

    def turned(id_dropout: float) -> tuple[float, float]:
        settings = SETTINGS.model_copy(update={"id_dropout": id_dropout, "epochs": 1})
        few = settings.model_copy(update={"lr": 1e-12})
        start = world.fit("id", settings=few).ranker.item
        end = world.fit("id", settings=settings).ranker.item
        cosine = torch.cosine_similarity(start.ids.weight[0], end.ids.weight[0], dim=0)
        return cosine.item(), end.id_bias.weight[0].item()

    assert turned(0.0) == (pytest.approx(1.0, abs=1e-6), 0.0)
    cosine, bias = turned(0.3)
    assert cosine < 0.999
    assert bias != 0.0


# ---- when it stops ----------------------------------------------------------------------------


def test_the_best_epoch_is_kept(world: World, by_id: FittedRanker) -> None:
    reached = [epoch.valid_auc for epoch in by_id.epochs]
    assert [epoch.epoch for epoch in by_id.epochs] == list(range(len(reached)))
    assert reached[by_id.best] == pytest.approx(max(reached), abs=GAIN)
    assert by_id.best < len(reached) - 1
    logits = score_examples(by_id.ranker, world.valid)
    assert reached[by_id.best] == pytest.approx(roc_auc_score(world.valid.labels, logits), abs=1e-9)
    assert not by_id.ranker.training


def test_patience_ends_training(world: World) -> None:
    backwards = replace(world.valid, labels=1 - world.valid.labels)  # learning makes this worse
    for patience in (1, 2):
        settings = SETTINGS.model_copy(update={"patience": patience})
        fitted = world.fit("id", settings=settings, valid=backwards)
        assert len(fitted.epochs) == fitted.best + patience + 1 < settings.epochs


def test_without_both_labels_every_epoch_runs(world: World) -> None:
    nothing = world.valid.items < 0
    names = ("users", "items", "labels", "times", "events", "cold", "start", "end")
    empty = replace(world.valid, **{name: getattr(world.valid, name)[nothing] for name in names})
    one_label = replace(world.valid, labels=np.ones_like(world.valid.labels))
    settings = SETTINGS.model_copy(update={"epochs": 4, "patience": 1})
    kept = [world.fit("id", settings=settings, valid=valid) for valid in (empty, one_label)]
    for fitted in kept:
        assert (len(fitted.epochs), fitted.best) == (4, 3)
        assert all(epoch.valid_auc is None for epoch in fitted.epochs)
    assert kept[0].epochs[0].valid_logloss is None
    assert weights(kept[0].ranker) == weights(kept[1].ranker)


def test_validation_only_chooses_the_epoch(world: World) -> None:
    """The path of the weights is the same whatever the validation rows."""
    settings = SETTINGS.model_copy(update={"epochs": 5, "patience": 5})
    other = replace(world.valid, labels=np.roll(world.valid.labels, 5))
    one, two = world.fit("id", settings=settings), world.fit("id", settings=settings, valid=other)
    assert one.epochs[0].valid_auc != two.epochs[0].valid_auc
    assert [epoch.loss for epoch in one.epochs] == [epoch.loss for epoch in two.epochs]
    few = settings.model_copy(update={"epochs": 1})
    kept = [world.fit("id", settings=few, valid=valid).ranker for valid in (world.valid, other)]
    assert weights(kept[0]) == weights(kept[1])


def test_the_running_mean_is_judged_and_not_trained_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3})
    one = world.fit("id", settings=settings)
    monkeypatch.setattr(loop, "AVERAGE", 0.5)
    two = world.fit("id", settings=settings)
    for field, equal in (("loss", True), ("valid_logloss", False)):
        assert ([getattr(e, field) for e in one.epochs] == [getattr(e, field) for e in two.epochs]) is equal


def test_the_loss_falls(by_codes: FittedRanker) -> None:
    losses = [epoch.loss for epoch in by_codes.epochs]
    assert losses[0] < 0.6931
    assert losses[-1] < 0.8 * losses[0]


# ---- what its bytes depend on -----------------------------------------------------------------


def test_one_seed_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = world.fit("id+rq+vq+frozen", settings=SHORT)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002 - a state that must not matter
    two = world.fit("id+rq+vq+frozen", settings=SHORT)
    for fitted, name in ((one, "one"), (two, "two")):
        fitted.ranker.save_pretrained(tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert one.epochs == two.epochs
    assert weights(world.fit("id+rq+vq+frozen", settings=SHORT, seed=1).ranker) != weights(one.ranker)


def test_the_callers_random_state_comes_back(world: World) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    world.fit("id", settings=SHORT)
    assert torch.equal(torch.random.get_rng_state(), before)


def changed(codes: Codes, *, rq: bool = False, vq: bool = False) -> Codes:
    return Codes(codes.item_ids, codes.rq[::-1] if rq else codes.rq, codes.vq[::-1] if vq else codes.vq)


@pytest.mark.parametrize(
    ("variant", "sees"),
    [
        ("id", set()),
        ("id+frozen", {"vectors"}),
        ("id+rq", {"rq"}),
        ("id+vq", {"vq"}),
        ("id+rq+vq", {"rq", "vq"}),
    ],
)
def test_a_variant_sees_its_features_and_no_others(world: World, variant: str, sees: set[str]) -> None:
    def trained(**inputs: Any) -> dict[str, bytes]:
        found = weights(
            world.fit(variant, settings=SETTINGS.model_copy(update={"epochs": 1}), **inputs).ranker
        )
        return {name: value for name, value in found.items() if name not in ("item.codes", "item.vectors")}

    plain = trained()
    others = {
        "rq": trained(codes=changed(world.codes, rq=True)),
        "vq": trained(codes=changed(world.codes, vq=True)),
        "vectors": trained(vectors=Embeddings(world.items, world.vectors.vectors[::-1])),
    }
    assert {name for name, found in others.items() if found != plain} == sees


def test_variants_share_all_but_their_own_tables(by_id: FittedRanker, by_codes: FittedRanker) -> None:
    one, two = by_id.ranker, by_codes.ranker
    extra = set(two.state_dict()) - set(one.state_dict())
    assert {name.rsplit(".", 2)[0] for name in extra} == {"item.code.levels", "item.code", "item.level_bias"}
    assert set(one.state_dict()) <= set(two.state_dict())
    same = two.shape.model_copy(update={"widths": (), "nearest": 0, "pool": 0})
    assert same == one.shape
    assert torch.equal(one.item.known, two.item.known)
    assert torch.equal(one.prior, two.prior)


def test_frozen_vectors_stay_as_they_came(world: World) -> None:
    table = item_table(world.items, "id+frozen", embeddings=world.vectors)
    fitted = world.fit("id+frozen", settings=SHORT)
    assert np.array_equal(fitted.ranker.item.vectors.numpy(), table.vectors)


def test_the_prior_is_that_of_the_training_rows(world: World, by_id: FittedRanker) -> None:
    n = len(world.split.train)
    assert by_id.ranker.prior.item() == pytest.approx(np.log((n + 0.5) / (4 * n + 0.5)), rel=1e-6)


def test_only_trained_items_have_an_id_of_their_own(world: World, by_id: FittedRanker) -> None:
    own = [item for item, row in zip(world.items, by_id.ranker.item.known.tolist(), strict=True) if row]
    assert own == world.split.train.items
    assert sorted(set(world.items) - set(own)) == world.split.cold_items


# ---- the rest ---------------------------------------------------------------------------------


def test_thinned_by_hand(make_examples: MakeExamples) -> None:
    rows = make_examples([([1, 2, 3, 4], [1, 0, 0, 0], [5]), ([6], [1], [7, 8]), ([9, 1, 2], [1, 0, 0], [])])
    few = thin_examples(rows, negatives=1)
    assert few.items.tolist() == [1, 2, 6, 9, 1]
    assert few.labels.tolist() == [1, 0, 1, 1, 0]
    assert few.groups().tolist() == [0, 2, 3, 5]
    assert [few.history[a:b].tolist() for a, b in zip(few.start, few.end, strict=True)] == [
        [5],
        [5],
        [7, 8],
        [],
        [],
    ]
    assert len(thin_examples(rows, negatives=5)) == len(rows)
    ends = thin_examples(rows, negatives=5, events=2)
    assert {*ends.events} == {rows.events[0], rows.events[-1]}
    assert len(thin_examples(make_examples([]))) == 0


def test_features_must_be_of_the_same_items(world: World) -> None:
    rows = TrainingRows(world.split.train, item_ids=world.items, explicit=False)
    table = item_table(world.items[:5], "id")
    with pytest.raises(InputError, match="features of 5 items for a vocabulary of 32"):
        fit_ranker(rows, world.valid, table, settings=SHORT)


def test_train_ranker_takes_what_the_codes_hold(world: World) -> None:
    both = train_ranker(world.split.train, world.codes, config=SHORT)
    assert both.past is world.split.train
    assert (both.shape.widths, both.shape.nearest, both.shape.pool, both.shape.vector) == ((4, 3), 2, 10, 0)
    assert not both.training
    only_rq = train_ranker(world.split.train, Codes(world.items, world.codes.rq), config=SHORT)
    assert (only_rq.shape.widths, only_rq.shape.nearest) == ((4, 3), 0)
    frozen = train_ranker(
        world.split.train, world.codes, variant="id+frozen", embeddings=world.vectors, config=SHORT
    )
    assert (frozen.shape.widths, frozen.shape.vector) == ((), 4)


def test_train_ranker_learns_and_repeats_itself(world: World) -> None:
    ranker = train_ranker(world.split.train, world.codes, config=SETTINGS)
    assert cold_auc(world, ranker) > 0.7
    assert weights(ranker) == weights(train_ranker(world.split.train, world.codes, config=SETTINGS))


def test_train_ranker_without_validation(world: World) -> None:
    ranker = train_ranker(world.split.train, world.codes, valid_share=0.0, config=SHORT)
    assert (ranker.item.known > 0).sum() == len(world.split.train.items)


def test_train_ranker_on_explicit_labels(world: World) -> None:
    """Clicks and passes over all groups: a user likes the own group, and rows are those of the log."""
    random = np.random.default_rng(0)
    frame = world.split.train.frame
    items = pl.Series(random.choice(world.split.train.items, len(frame)), dtype=pl.String)
    own = (frame["user_id"].str.slice(1).cast(pl.Int64) % 4).cast(pl.String)
    log = Log(frame.with_columns(item_id=items, label=(items.str.slice(1, 1) == own).cast(pl.Int8)))
    ranker = train_ranker(log, world.codes, config=SETTINGS)
    train = split_log(log, test=0.0, valid=0.1).train.frame
    liked = int(train["label"].sum())
    assert ranker.prior.item() == pytest.approx(np.log((liked + 0.5) / (len(train) - liked + 0.5)), rel=1e-5)
    assert cold_auc(world, ranker) > 0.7


def test_train_ranker_refuses(world: World) -> None:
    some = Codes(world.items[:-1], world.codes.rq[:-1])
    seen = world.split.train.frame["item_id"][0]
    others = [n for n, item in enumerate(world.items) if item != seen]
    with pytest.raises(
        InputError, match=f"item_id: 1 unknown, {seen}; add them to the catalogue and its codes"
    ):
        train_ranker(world.split.train, Codes([world.items[n] for n in others], world.codes.rq[others]))
    with pytest.raises(InputError, match="needs VQ codes and there are none"):
        train_ranker(world.split.train, some, variant="id+vq")
    broken = world.vectors.vectors.copy()
    broken[3] = np.nan
    with pytest.raises(InputError, match="hold NaN or infinity"):
        train_ranker(
            world.split.train,
            world.codes,
            variant="id+frozen",
            embeddings=Embeddings(world.items, broken),
        )
