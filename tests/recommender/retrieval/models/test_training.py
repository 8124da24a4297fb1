"""Sequence model: a planted chain, pseudo-cold items, equal bytes for equal seeds, both readers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qarm.config.retriever import RetrieverConfig
from qarm.errors import ArtifactError
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.history_readers import CausalAttention, LagPooling
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.sequence_model import SequenceModel
from qarm.recommender.retrieval.models.training import new_sequence_model, train_sequence_model

ITEMS, GROUPS = 24, 4  # item i has code i % GROUPS
CONFIG = RetrieverConfig(dim=16, epochs=2, min_steps=160, batch=128, negatives=16, dropout=0.0)


def content() -> ItemContent:
    codes = np.stack([np.arange(ITEMS) % GROUPS, np.arange(ITEMS) // GROUPS], axis=1)
    return ItemContent(codes, (GROUPS, ITEMS // GROUPS))


def chains(items: int = ITEMS) -> Histories:
    return Histories.of([[(start + step) % items for step in range(6)] for start in range(items)] * 8)


def trained(config: RetrieverConfig = CONFIG, *, seed: int = 0) -> SequenceModel:
    histories = chains()
    model = new_sequence_model(content(), histories.counts(ITEMS), config, seed=seed)
    train_sequence_model(model, histories, config, seed=seed)
    return model


@pytest.mark.parametrize("reader", ["pool", "attention"])
@pytest.mark.parametrize("fields", [["id"], ["rq"], ["id", "rq"]])
def test_the_model_finds_what_comes_next_in_a_planted_chain(reader: str, fields: list[str]) -> None:
    config = CONFIG.model_copy(
        update={"reader": reader, "fields": fields, "min_steps": 300, "id_dropout": 0.1}
    )
    scores = trained(config).scores(Histories.of([[item, (item + 1) % ITEMS] for item in range(ITEMS)]))
    right = scores.argmax(axis=1) == (np.arange(ITEMS) + 2) % ITEMS
    assert right.mean() > 0.8


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trained(seed=seed).save_pretrained(tmp_path / name)
    read = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert read[0] == read[1] != read[2]


def test_a_saved_model_scores_as_before_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model, histories = trained(), Histories.of([[0, 1], [], [5]])
    model.save_pretrained(tmp_path)
    again = SequenceModel.from_pretrained(tmp_path)
    assert np.array_equal(again.scores(histories), model.scores(histories))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="not a whole sequence model"):
        SequenceModel.from_pretrained(tmp_path)


def test_an_item_without_events_is_known_by_its_codes_alone() -> None:
    histories = Histories.of(
        [[item for item in row if item != 7] for row in map(list, map(chains().__getitem__, range(192)))]
    )
    model = new_sequence_model(content(), histories.counts(ITEMS), CONFIG, seed=0)
    train_sequence_model(model, histories, CONFIG, seed=0)
    with torch.no_grad():
        codes_alone = model.items.code.parts(model.items.codes[7:8].long()).sum(1)
        assert torch.equal(model.items(torch.tensor([7])), codes_alone)


def test_shrinkage_weighs_an_id_by_its_clicks() -> None:
    counts = np.array([0, 1, 9, *[5] * (ITEMS - 3)])
    model = new_sequence_model(content(), counts, CONFIG.model_copy(update={"shrinkage": 3.0}), seed=0)
    np.testing.assert_allclose(model.items.trust[:3], [0, 1 / 4, 9 / 12])


def test_new_items_are_scored_as_items_with_the_same_codes_and_no_id() -> None:
    model = trained(CONFIG.model_copy(update={"fields": ["rq"]}))
    beyond = content().codes[[5]] + 1000  # no item of the training had such codes
    wide = model.with_items(np.concatenate([content().codes[[5]], beyond]))
    scores = wide.scores(Histories.of([[3, 4]]))
    assert scores.shape == (1, ITEMS + 2)
    assert scores[0, ITEMS] == pytest.approx(scores[0, 5], rel=1e-5)
    assert scores[0, ITEMS + 1] == 0
    assert model.scores(Histories.of([[3, 4]])).shape == (1, ITEMS)


@pytest.mark.parametrize("kind", ["pool", "attention"])
def test_the_last_query_is_the_last_of_all_and_ignores_padding(kind: str) -> None:
    torch.manual_seed(0)
    reader = LagPooling(8, length=6, lags=3, dropout=0.0)
    if kind == "attention":
        reader = CausalAttention(8, length=6, blocks=2, heads=2, dropout=0.0)
    reader.eval()
    vectors, seen = torch.randn(2, 6, 8), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6]).bool()
    every = reader(vectors, seen)
    torch.testing.assert_close(reader.last(vectors, seen), every[:, -1])
    other = vectors.clone()
    other[0, :2] = 99.0
    torch.testing.assert_close(reader(other, seen)[0, 2:], every[0, 2:])
    changed = vectors.clone()
    changed[:, 4:] += 1.0  # later events do not reach earlier queries
    torch.testing.assert_close(reader(changed, seen)[:, 2:4], every[:, 2:4])


def test_early_stopping_keeps_the_best_epoch() -> None:
    figures = iter([0.1, 0.3, 0.2, 0.1, 0.05, 0.0])
    histories = chains()
    config = CONFIG.model_copy(update={"epochs": 6, "patience": 2, "min_steps": 6})
    model = new_sequence_model(content(), histories.counts(ITEMS), config, seed=0)
    kept: list[bytes] = []

    def validate(frozen: SequenceModel) -> float:
        kept.append(frozen.items.ids.weight.detach().numpy().tobytes())
        return next(figures)

    lines = train_sequence_model(model, histories, config, seed=0, validate=validate)
    assert [line.valid_ndcg for line in lines] == [0.1, 0.3, 0.2, 0.1]
    assert model.items.ids.weight.detach().numpy().tobytes() == kept[1]
