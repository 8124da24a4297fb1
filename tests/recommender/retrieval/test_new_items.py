"""New items of a blend: scored by codes and vectors, beside scores that stay as they were."""

import numpy as np
import pytest

from qarm.config.retriever import RetrieverConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.counting import ContentKnn, Popularity, item_knn
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.training import new_sequence_model
from qarm.recommender.retrieval.new_items import check_codes, with_new_items

ITEMS = [f"i{row}" for row in range(6)]
CODES = Codes([*ITEMS, "new"], np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [2, 0]], np.int32))
VECTORS = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0], [-1, 0.1]], np.float32)
NEW = Embeddings(["new"], np.array([[-2.0, 0.0]], np.float32))
PAST = Histories.of([[0, 1], [4, 5], [2]])


@pytest.fixture
def blend() -> Blend:
    content = ItemContent(CODES.rq[:6].astype(np.int64), widths=(3, 2))
    model = new_sequence_model(content, np.ones(6, np.int64), RetrieverConfig(fields=["rq"], dim=4), seed=0)
    parts = {
        "model": model.freeze(),
        "content-knn": ContentKnn.of(VECTORS),
        "item-knn": item_knn(PAST, 6),
        "popularity": Popularity.of(PAST, 6),
    }
    return Blend(parts, dict.fromkeys(parts, 1.0), np.zeros(6, bool), intercept=0.5)


def test_the_scores_of_other_items_stay(blend: Blend) -> None:
    every = np.tile(np.arange(6), (3, 1))
    before = blend.read(PAST).contributions(every)
    after = with_new_items(blend, CODES, [6], NEW).read(PAST).contributions(every)
    for name in ("model", "content-knn", "popularity"):
        np.testing.assert_array_equal(after[name], before[name])
    assert blend.items == 6


def test_the_model_reads_codes_and_content_knn_vectors(blend: Blend) -> None:
    parts = with_new_items(blend, CODES, [6], NEW).parts
    np.testing.assert_array_equal(parts["model"].candidates[6], parts["model"].candidates[4])
    np.testing.assert_array_equal(parts["content-knn"].candidates[6], [-1, 0])
    assert parts["item-knn"].scores(PAST)[:, 6].tolist() == [0, 0, 0]
    without = with_new_items(blend, CODES, [6]).parts
    np.testing.assert_array_equal(without["content-knn"].candidates[6], [0, 0])


def test_codes_of_another_training_are_refused(blend: Blend) -> None:
    check_codes(blend, ITEMS, CODES)
    other = Codes(CODES.item_ids, CODES.rq[::-1].copy())
    with pytest.raises(ArtifactError, match="trained on other codes"):
        check_codes(blend, ITEMS, other)
    with pytest.raises(InputError, match="got 1 codes an item, the retriever reads 2"):
        with_new_items(blend, Codes(CODES.item_ids, CODES.rq[:, :1]), [6], NEW)
