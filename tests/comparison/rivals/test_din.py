"""DIN over ragged histories against torch-rechub's own: logits, gradients, and what must not matter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from qarm.comparison.rivals.din import Din, Ragged, ragged
from qarm.comparison.rivals.din_layers import Normed
from qarm.comparison.rivals.torch_rechub import rechub_din
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples

ITEMS, LENGTH = 30, 7


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("torch_rechub")


def rows(*, full: bool, events: int = 9, candidates: int = 4) -> tuple[Ragged, dict[str, torch.Tensor]]:
    """The same rows as ours and as theirs; one history is empty unless all are full."""
    random = np.random.default_rng(1)
    lengths = np.full(events, LENGTH) if full else random.integers(0, LENGTH + 1, events)
    lengths[0] = LENGTH if full else 0
    past = random.integers(1, ITEMS, (events, LENGTH)) * (np.arange(LENGTH) < lengths[:, None])
    items = torch.from_numpy(random.integers(0, ITEMS, events * candidates))
    event = np.repeat(np.arange(events), candidates)
    end = torch.from_numpy(np.cumsum(lengths)[event])
    begin = torch.from_numpy((np.cumsum(lengths) - lengths)[event])
    ours = Ragged(items, torch.from_numpy(past[past > 0]), begin, end)
    return ours, {"item": items, "past": torch.from_numpy(past[event])}


def theirs(dim: int = 6) -> torch.nn.Module:
    """With statistics and weights that say something."""
    torch.manual_seed(4)
    model = rechub_din(ITEMS, dim=dim, init=0.5)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(layer.weight, 1, 0.3)
            torch.nn.init.normal_(layer.bias, 0, 0.3)
    model(rows(full=False)[1])  # moves the running statistics
    return model


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("dim", [6, 8])
def test_logits_are_torch_rechubs(full: bool, dim: int) -> None:
    model = theirs(dim).eval()
    batch, padded = rows(full=full)
    with torch.no_grad():
        found, wanted = Din.from_rechub(model)(batch), model(padded).logit()
    assert (found - wanted).abs().max() < 1e-5
    assert wanted.std() > 1e-2


def test_gradients_and_statistics_are_torch_rechubs_on_full_histories() -> None:
    model = theirs().train()
    batch, padded = rows(full=True)
    own = Din.from_rechub(model)
    labels = (torch.arange(len(batch.items)) % 3 == 0).float()
    functional.binary_cross_entropy(model(padded), labels).backward()
    functional.binary_cross_entropy_with_logits(own(batch), labels).backward()
    found = {name: weight.grad for name, weight in own.named_parameters()}
    wanted = Din.from_rechub(model)  # after the pass, which moved the running statistics
    for mine, other in zip(
        [own.table, own.first, own.normed, own.last],
        [
            next(iter(model.embedding.embed_dict.values())),
            *(model.attention_layers[0].attention.mlp[place] for place in (0, 1, 4)),
        ],
        strict=True,
    ):
        assert (mine.weight.grad - other.weight.grad).abs().max() < 1e-6
        assert mine.weight.grad.abs().max() > 1e-5
    alpha = model.attention_layers[0].attention.mlp[2].alpha.grad
    assert (found["normed.alpha"] - alpha).abs().max() < 1e-6
    assert (found["network.0.weight"] - model.mlp.mlp[0].weight.grad).abs().max() < 1e-6
    assert (found["network.1.bias"] - model.mlp.mlp[1].bias.grad).abs().max() < 1e-6
    for name in ("running_mean", "running_var"):
        assert (getattr(own.normed, name) - getattr(wanted.normed, name)).abs().max() < 1e-6
        assert (getattr(own.network[1], name) - getattr(wanted.network[1], name)).abs().max() < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_gradients_on_ragged_histories_are_those_of_a_slow_twin(training: bool) -> None:
    """The same formulas as plain tensor operations, position by position."""
    torch.manual_seed(2)
    own = Din(ITEMS, dim=5, units=7, hidden=(6,), profile=False).train(training)
    torch.nn.init.normal_(own.normed.weight, 1, 0.3)
    torch.nn.init.normal_(own.normed.bias, 0, 0.3)
    batch, _ = rows(full=False)
    lengths = batch.high - batch.low
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    place = torch.cat([torch.arange(low, high) for low, high in zip(batch.low, batch.high, strict=True)])

    def dice(layer: Normed, z: torch.Tensor) -> torch.Tensor:
        mean, variance = layer.running_mean, layer.running_var
        if training:
            variance, mean = torch.var_mean(z, 0, correction=0)
        assert mean is not None
        assert variance is not None
        x = (z - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias
        apart = x - x.mean(1, keepdim=True)
        gate = (apart / (apart**2 + 1e-3).sum(1, keepdim=True).sqrt()).sigmoid()
        return gate * x + (1 - gate) * layer.alpha * x

    def slow() -> torch.Tensor:
        target, past = own.table(batch.items), own.table(batch.past)
        t, h = target[row], past[place]
        weights = own.last(dice(own.normed, own.first(torch.cat([t, h, t - h, t * h], 1))))
        attended = torch.zeros_like(target).index_add(0, row, weights * h)
        hidden = dice(own.network[1], own.network[0](torch.cat([attended, target], 1)))
        return own.network[2](hidden)[:, 0]

    wanted = slow()
    (wanted**2).sum().backward()
    grads = {name: weight.grad.clone() for name, weight in own.named_parameters()}
    own.zero_grad()
    found = own(batch)
    (found**2).sum().backward()
    assert torch.allclose(found, wanted, atol=1e-5)
    for name, weight in own.named_parameters():
        assert torch.allclose(weight.grad, grads[name], atol=1e-4, rtol=1e-3), name


def test_a_batch_is_read_without_its_padding(make_examples: Callable[..., Examples]) -> None:
    examples = make_examples([([3, 4], [1, 0], [1, 2, 5]), ([6], [1], []), ([7, 8, 9], [0, 1, 0], [2])])
    known = torch.arange(10) + 100
    (batch,) = batches(examples, 100)
    found = ragged(batch, known)
    stretches = [found.past[a:b].tolist() for a, b in zip(found.low, found.high, strict=True)]
    rows = dict(zip((found.items - 100).tolist(), stretches, strict=True))
    assert rows == {3: [105, 102, 101], 4: [105, 102, 101], 6: [], 7: [102], 8: [102], 9: [102]}


def test_other_models_are_refused() -> None:
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models import ranking

    item = SparseFeature("item", vocab_size=9, embed_dim=4, padding_idx=0)
    user = SparseFeature("user", vocab_size=9, embed_dim=4)
    past = SequenceFeature("past", vocab_size=9, embed_dim=4, pooling="concat", shared_with="item")

    def model(features: list[SparseFeature], **attention: object) -> torch.nn.Module:
        return ranking.DIN(features, [past], [item], {"dims": [8]}, attention)

    with pytest.raises(InputError, match="several features"):
        Din.from_rechub(model([user]))
    with pytest.raises(InputError, match="one hidden layer with Dice, no softmax"):
        Din.from_rechub(model([item], dims=[8, 4]))
    with pytest.raises(InputError, match="no softmax"):
        Din.from_rechub(model([item], use_softmax=True))
