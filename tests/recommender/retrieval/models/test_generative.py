"""Beams: wide enough, they equal exact scoring; shared codes give all items; training learns a chain."""

import itertools

import numpy as np
import pytest
import torch

from qarm.config.retriever import RetrieverConfig
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.generative import CodeDecoder, ParallelCodes
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.training import new_sequence_model, train_model

CODES = np.array([[a, b, c] for a, b, c in itertools.product(range(3), range(3), range(2)) if a + b + c != 4])
CODES = np.concatenate([CODES, CODES[:2]])  # two codes are shared
CONFIG = RetrieverConfig(fields=["rq"], dim=16, epochs=3, min_steps=120, batch=64, dropout=0.0)


def decoder(kind: type, *, seed: int = 0) -> CodeDecoder | ParallelCodes:
    content = ItemContent(CODES, (3, 3, 2))
    history = new_sequence_model(content, np.ones(len(CODES), np.int64), CONFIG, seed=seed)
    torch.manual_seed(seed)
    model: CodeDecoder | ParallelCodes = kind(history, CODES)
    return model.freeze()


def exact(model: CodeDecoder, history: list[int]) -> np.ndarray:
    """Log-probability of every item's code, by feeding each code to the decoder."""
    query = model.history.raw_queries(Histories.of([history])).expand(len(CODES), -1)
    codes = torch.from_numpy(CODES)
    with torch.no_grad():
        logits = model.level_logits(query, codes)
    logs = [part.log_softmax(-1).gather(1, codes[:, level, None])[:, 0] for level, part in enumerate(logits)]
    return torch.stack(logs).sum(0).numpy()


def test_a_beam_as_wide_as_the_catalogue_equals_exact_scoring() -> None:
    model = decoder(CodeDecoder)
    beams = model.beam(np.array([1, 4], np.int32), width=len(CODES))
    assert sorted(beams.items.tolist()) == list(range(len(CODES)))
    assert beams.invalid == 0
    np.testing.assert_allclose(beams.scores, exact(model, [1, 4])[beams.items], rtol=1e-5)
    assert (np.diff(beams.scores) <= 1e-12).all()


def test_a_narrow_beam_walks_existing_codes_only_and_gives_all_items_of_a_code() -> None:
    model = decoder(CodeDecoder)
    beams = model.beam(np.array([2], np.int32), width=3)
    assert len({tuple(CODES[item]) for item in beams.items}) == 3
    for item in beams.items:
        same = np.flatnonzero((CODES[item] == CODES).all(axis=1))
        assert set(same) <= set(beams.items.tolist())


def test_parallel_codes_score_every_item_by_the_sum_of_its_levels() -> None:
    model = decoder(ParallelCodes)
    histories = Histories.of([[0, 3], [5]])
    scores = model.scores(histories)
    query = model.history.raw_queries(histories)
    with torch.no_grad():
        logits = model.level_logits(query, torch.from_numpy(CODES))
    for user, item in itertools.product(range(2), range(len(CODES))):
        terms = [logits[level][user].log_softmax(-1)[CODES[item, level]] for level in range(3)]
        assert scores[user, item] == pytest.approx(float(sum(terms)), rel=1e-5)


@pytest.mark.parametrize("kind", [CodeDecoder, ParallelCodes])
def test_training_learns_which_code_follows(kind: type) -> None:
    chains = [[(start + step) % 14 for step in range(5)] for start in range(14)] * 6
    model = decoder(kind)
    train_model(model, model.loss, Histories.of(chains), CONFIG, seed=0)
    scores = model.scores(Histories.of([[item] for item in range(14)]))
    wanted = CODES[(np.arange(14) + 1) % 14]
    assert (CODES[scores.argmax(axis=1)] == wanted).all(axis=1).mean() > 0.8
