"""Item vectors: sums of fields by hand, trust in ids by clicks, items without ids."""

import numpy as np
import torch

from qarm.recommender.retrieval.models.item_vectors import ItemContent, ItemVectors
from qarm.schemas.retrieval import RetrieverShape

ITEMS = 5
CONTENT = ItemContent(
    codes=np.array([[0, 1, 2], [1, 0, 3], [2, 1, 0], [0, 0, 1], [0, 1, 2]]),
    widths=(3, 2),
    pool=4,
    attributes=(np.array([0, 2, 2, 3, 3, 5]), np.array([4, 0, 1, 4, 0])),
    vectors=np.arange(ITEMS * 2, dtype=np.float32).reshape(ITEMS, 2),
)
COUNTS = np.array([6, 3, 0, 1, 0])

SHAPE = RetrieverShape(
    items=ITEMS,
    dim=4,
    ids=True,
    widths=(3, 2),
    nearest=1,
    pool=4,
    attributes=5,
    vector=2,
    reader="pool",
    length=5,
    lags=1,
    blocks=1,
    heads=1,
    dropout=0.0,
    similarity="cosine",
    temperature=0.1,
)


def made(**changes: object) -> ItemVectors:
    torch.manual_seed(0)
    items = ItemVectors(SHAPE.model_copy(update=changes), values=5)
    items.set_items(CONTENT, COUNTS, shrinkage=3.0)
    return items


@torch.no_grad()
def test_a_vector_is_the_sum_of_its_fields() -> None:
    items = made()
    ids, of_value = items.ids.weight, items.attribute.weight
    parts = items.code.parts(torch.from_numpy(CONTENT.codes)).sum(1)
    fixed = torch.from_numpy(CONTENT.vectors) @ items.project.weight.T
    means = torch.stack(
        [
            (of_value[4] + of_value[0]) / 2,
            0 * of_value[0],
            of_value[1],
            0 * of_value[0],
            of_value[[4, 0]].mean(0),
        ]
    )
    trust = torch.tensor([6 / 9, 3 / 6, 0, 1 / 4, 0])
    expected = ids * trust[:, None] + parts + means + fixed
    assert torch.allclose(items(torch.arange(ITEMS)), expected, atol=1e-6)


@torch.no_grad()
def test_an_item_alone_and_in_any_order_has_the_same_vector() -> None:
    items = made()
    whole = items(torch.arange(ITEMS))
    order = torch.tensor([4, 1, 1, 0, 3, 2])
    assert torch.allclose(items(order), whole[order], atol=1e-6)
    for item in range(ITEMS):
        assert torch.allclose(items(torch.tensor([item]))[0], whole[item], atol=1e-6)


@torch.no_grad()
def test_items_of_one_content_differ_by_their_ids_alone() -> None:
    """Items 0 and 4 share codes and attributes; without the fixed vector they differ by the id of item 0."""
    items = made(vector=0)
    first, last = items(torch.tensor([0, 4]))
    assert torch.allclose(first - last, items.ids.weight[0] * 6 / 9, atol=1e-6)
    cold = torch.tensor([True, False, False, False, False])
    assert torch.allclose(items(torch.tensor([0]), cold)[0], last, atol=1e-6)


@torch.no_grad()
def test_fields_that_a_shape_lacks_add_nothing() -> None:
    plain = made(widths=(), nearest=0, pool=0, attributes=0, vector=0)
    assert [plain.code, plain.attribute, plain.project] == [None] * 3
    found = plain(torch.arange(ITEMS))
    assert torch.allclose(found, plain.ids.weight * plain.trust[:, None])
    assert (found[[2, 4]] == 0).all()  # no event, no id
    without = made(ids=False, attributes=0, vector=0)
    assert torch.equal(without(torch.tensor([0])), without(torch.tensor([4])))
