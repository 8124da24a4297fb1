"""History readers: what they may see, weightings by lag by hand, attention against torch's own."""

import numpy as np
import pytest
import torch
from torch import nn

from qarm.recommender.retrieval.models.history_readers import (
    DECAYS,
    CausalAttention,
    LagPooling,
    history_reader,
)

DIM, LENGTH = 6, 9


def reader(kind: str) -> LagPooling | CausalAttention:
    torch.manual_seed(0)
    made = history_reader(kind, DIM, length=LENGTH, lags=3, blocks=2, heads=2, dropout=0.3).eval()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.4)
    return made


def histories(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors [b, LENGTH, DIM], the latest last, and which events there are."""
    torch.manual_seed(1)
    seen = torch.arange(LENGTH) >= LENGTH - torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), LENGTH, DIM), seen


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pool", "attention"])
def test_a_query_knows_no_later_event(kind: str) -> None:
    made, (vectors, seen) = reader(kind), histories(9, 7, 3)
    before = made(vectors, seen)
    for event in range(LENGTH):
        changed = vectors.clone()
        changed[:, event] += 5
        after = made(changed, seen)
        assert torch.allclose(after[:, :event], before[:, :event], atol=1e-6)
        moved = (after[:, event:] - before[:, event:]).abs().amax((1, 2)) > 1e-3
        assert moved.tolist() == seen[:, event].tolist()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pool", "attention"])
def test_what_stands_before_a_history_does_not_matter(kind: str) -> None:
    made, (vectors, seen) = reader(kind), histories(4, 1)
    other = torch.where(seen[..., None], vectors, vectors + 100)
    assert torch.allclose(made(other, seen)[seen], made(vectors, seen)[seen], atol=1e-6)
    assert torch.isfinite(made(other, seen)).all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pool", "attention"])
def test_the_last_query_is_the_last_of_all(kind: str) -> None:
    made, (vectors, seen) = reader(kind), histories(9, 5, 1)
    assert torch.allclose(made.last(vectors, seen), made(vectors, seen)[:, -1], atol=1e-5)


@torch.no_grad()
def test_a_pool_starts_as_the_mean_of_exponential_decays() -> None:
    made = LagPooling(DIM, length=LENGTH, lags=3, dropout=0.0).eval()
    vectors, seen = histories(5)
    decays = np.exp(-np.arange(LENGTH)[None] / np.array(DECAYS[:3])[:, None])
    decays /= decays.sum(1, keepdims=True)
    past = vectors[0, LENGTH - 5 :].numpy()[::-1]  # newest first
    expected = np.mean([weights[:5] @ past for weights in decays], axis=0)
    assert made.last(vectors, seen)[0].numpy() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_a_pools_weight_belongs_to_its_lag() -> None:
    made = LagPooling(DIM, length=4, lags=1, dropout=0.0).eval()
    made.weights.copy_(torch.tensor([[10.0, 20.0, 30.0, 40.0]]))
    vectors = torch.zeros(1, 4, DIM)
    vectors[0, :, 0] = torch.tensor([1.0, 0.1, 0.01, 0.001])
    found = made(vectors, torch.ones(1, 4, dtype=torch.bool))[0, :, 0]
    assert found.tolist() == pytest.approx([10.0, 21.0, 32.1, 43.21], rel=1e-5)


@torch.no_grad()
def test_a_block_of_attention_is_torchs_multi_head_attention() -> None:
    made, (vectors, seen) = reader("attention"), histories(9, 6)
    assert isinstance(made, CausalAttention)
    block = made.blocks[0]
    own = nn.MultiheadAttention(DIM, 2, batch_first=True).eval()
    parts = (block.query, block.key, block.value)
    own.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    own.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    own.out_proj.load_state_dict(block.out.state_dict())
    reachable = seen[:, None] & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    reachable |= torch.eye(LENGTH, dtype=torch.bool)
    normed = block.norm(vectors)
    read, _ = own(normed, vectors, vectors, attn_mask=~reachable.repeat_interleave(2, 0))
    expected = normed + read
    expected = expected + block.feed(expected)
    assert torch.allclose(block(vectors, reachable[:, None]), expected, atol=1e-5)
