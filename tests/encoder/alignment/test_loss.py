"""The loss by hand, and the masks by changing what must not matter."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qarm.encoder.alignment.loss import Positives, contrastive_loss, mask_false_negatives


def loss(
    vectors: Tensor,
    pairs: list[tuple[int, int]],
    *,
    alike: np.ndarray | None = None,
    temperature: float = 1.0,
    weights: list[float] | None = None,
) -> float:
    triggers, targets = torch.tensor(pairs).T
    same = np.eye(len(vectors), dtype=bool) if alike is None else alike
    return float(
        contrastive_loss(
            vectors,
            triggers,
            targets,
            alike=torch.from_numpy(same),
            temperature=torch.tensor(temperature),
            weights=torch.tensor(weights or [1.0] * len(pairs)),
        )
    )


def unit(count: int, *, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 8, generator=random), dim=1)


def test_zero_vectors_lose_log_b() -> None:
    for b in (2, 5):
        pairs = [(2 * i, 2 * i + 1) for i in range(b)]
        assert loss(torch.zeros(2 * b, 4), pairs, temperature=0.05) == pytest.approx(math.log(b))


def test_two_pairs_by_hand() -> None:
    # Triggers e1, e2; targets e1, e1: scores [[1, 1], [0, 0]].
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    to_target = math.log(2)  # both rows are even
    from_target = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert loss(vectors, [(0, 2), (1, 3)]) == pytest.approx((to_target + from_target) / 2)


def test_weights_count_pairs() -> None:
    vectors, pairs = unit(4), [(0, 1), (2, 3)]
    doubled = loss(vectors, pairs, weights=[2.0, 2.0])
    assert doubled == pytest.approx(loss(vectors, pairs))
    only_first = loss(vectors, pairs, weights=[1.0, 1e-9])
    only_second = loss(vectors, pairs, weights=[1e-9, 1.0])
    assert (only_first + only_second) / 2 == pytest.approx(loss(vectors, pairs))


def test_a_repeated_answer_is_no_negative() -> None:
    # Items 0 and 2 share target 1: alone against each other there is nothing to get wrong.
    triggers, targets = torch.tensor([[0, 1], [2, 1]]).T
    alike = torch.eye(3, dtype=torch.bool)
    assert mask_false_negatives(alike, triggers, targets).tolist() == [[False, True], [True, False]]
    vectors, pairs = unit(3), [(0, 1), (2, 1)]
    back = [
        -math.log(1 / (1 + math.exp(float(vectors[1] @ (vectors[b] - vectors[a])))))
        for a, b in ((0, 2), (2, 0))
    ]
    assert loss(vectors, pairs) == pytest.approx(sum(back) / 4, rel=1e-5)


def test_the_query_itself_is_no_negative() -> None:
    # 1 is the target of the first pair and the trigger of the second; 3 takes no part in the masked scores.
    mask = mask_false_negatives(torch.eye(3, dtype=torch.bool), torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert mask.tolist() == [[False, False], [True, False]]


def test_masked_vectors_do_not_matter_and_others_do() -> None:
    known = Positives(np.array([0, 2]), np.array([1, 3]), items=4)
    pairs = [(0, 1), (2, 3)]
    vectors = unit(4)
    free = loss(vectors, pairs, alike=known.among(np.arange(4)))
    # 0 and 3 become known positives, in either direction: their score leaves the loss.
    for trigger, target in ((0, 3), (3, 0)):
        more = Positives(np.array([0, 2, trigger]), np.array([1, 3, target]), items=4)
        alike = more.among(np.arange(4))
        masked = loss(vectors, pairs, alike=alike)
        assert masked < free
        scores = vectors @ vectors.T
        rows = [(scores[0, 1], []), (scores[2, 3], [scores[2, 1]])]
        columns = [(scores[1, 0], [scores[1, 2]]), (scores[3, 2], [])]
        by_hand = [
            math.log(sum(math.exp(float(s)) for s in (own, *negatives))) - float(own)
            for own, negatives in rows + columns
        ]
        assert masked == pytest.approx(sum(by_hand) / 4, rel=1e-5)


def test_positives_are_symmetric_and_found_among_any_subset() -> None:
    random = np.random.default_rng(0)
    triggers, targets = random.integers(0, 50, size=(2, 300))
    known = Positives(triggers, targets, items=50)
    pairs = set(zip(triggers.tolist(), targets.tolist(), strict=True))
    items = random.permutation(50)[:20]
    expected = [[a == b or (a, b) in pairs or (b, a) in pairs for b in items] for a in items]
    for _ in range(2):  # the second call finds the scratch space clean
        assert known.among(items).tolist() == expected
    assert known.neighbors(3).tolist() == sorted(
        {b for a, b in pairs if a == 3} | {a for a, b in pairs if b == 3}
    )
    assert known.among(np.array([], dtype=np.int64)).shape == (0, 0)


def test_masking_leaves_no_gradient() -> None:
    vectors = unit(4).requires_grad_()
    pairs = torch.tensor([[0, 1], [2, 3]])
    contrastive_loss(
        vectors,
        pairs[:, 0],
        pairs[:, 1],
        alike=torch.ones(4, 4, dtype=torch.bool),
        temperature=torch.tensor(0.1),
        weights=torch.ones(2),
    ).backward()
    assert float(vectors.grad.abs().max()) == 0.0
