"""DIN (Zhou et al., KDD 2018) of torch-rechub on ragged histories that candidates share, for a CPU.

The logits equal torch-rechub's. The first attention layer over [t, h, t - h, t * h] is split into a part of
the candidate, a part of the history item and their product; histories are not padded; batch norm, Dice and
pooling are one compiled pass. In training the batch norm of the activation unit uses statistics of real
positions only, torch-rechub's of padded positions too.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.comparison.rivals.din_layers import Attention, Normed, Products
from qarm.errors import InputError
from qarm.recommender.batches import Batch

__all__ = ["Din", "Ragged", "ragged"]


class Ragged(NamedTuple):
    """n candidates and m history items: row i's history is past[low[i]:high[i]].

    items: int64 [n]; past: int64 [m]; low, high: int64 [n]. Candidates of one event share their history.
    """

    items: Tensor
    past: Tensor
    low: Tensor
    high: Tensor


def ragged(batch: Batch, table_rows: Tensor) -> Ragged:
    """The candidates and histories of a batch; table_rows: int64 [items], in the table."""
    ends = batch.seen.sum(1).cumsum(0)
    event = batch.real.nonzero()[:, 0]
    begins = torch.cat([ends.new_zeros(1), ends[:-1]])
    return Ragged(
        table_rows[batch.items][batch.real], table_rows[batch.history][batch.seen], begins[event], ends[event]
    )


class Din(nn.Module):
    """A table of items, the activation unit with one hidden layer, and a network; row 0 of the table is zero.

    profile: whether the candidate's vector stands in the network's input a second time, as a profile feature.
    """

    def __init__(
        self, items: int, *, dim: int, units: int = 36, hidden: tuple[int, ...] = (256, 128), profile: bool
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(items, dim, padding_idx=0)
        self.first, self.normed, self.last = nn.Linear(4 * dim, units), Normed(units), nn.Linear(units, 1)
        self.profile = profile
        layers: list[nn.Module] = []
        width = (3 if profile else 2) * dim
        for size in hidden:
            layers += [nn.Linear(width, size), Normed(size)]
            width = size
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, batch: Ragged) -> Tensor:
        """Logits [n]."""
        target, past = self.table(batch.items), self.table(batch.past)
        attended = self.attended(target, past, batch.low, batch.high)
        wide = [attended, target, target] if self.profile else [attended, target]
        logits: Tensor = self.network(torch.cat(wide, dim=1))[:, 0]
        return logits

    def attended(self, target: Tensor, past: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Sum of each candidate's history by its weights, [n, d], of target [n, d] and past [m, d]."""
        of_target, of_past, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        of_query = functional.linear(target, of_target + of_difference, self.first.bias)
        key = functional.linear(past, of_past - of_difference)
        z = Products.apply(of_query, past, target, key, of_product.t(), low, high)  # type: ignore[no-untyped-call]
        norm, last = self.normed, self.last
        weights = norm.weight, norm.bias, norm.alpha, last.weight[0], last.bias
        pooled: Tensor = Attention.apply(z, norm.line(z), *weights, past, low, high)  # type: ignore[no-untyped-call]
        return pooled

    @classmethod
    def from_rechub(cls, model: nn.Module) -> "Din":
        """A model with the weights of a torch-rechub DIN over a candidate and a history of one table.

        Raises:
            InputError: it has other features, or an attention unit with softmax, without Dice, or with more
                than one hidden layer.
        """
        theirs: Any = model
        tables, units = list(theirs.embedding.embed_dict.values()), list(theirs.attention_layers)
        if len(tables) != 1 or len(units) != 1 or len(theirs.features) > 1:
            raise InputError("got a DIN of several features; need one candidate and its history, one table")
        attention, network = list(units[0].attention.mlp), list(theirs.mlp.mlp)
        kinds = [type(layer).__name__ for layer in attention]
        if units[0].use_softmax or kinds != ["Linear", "BatchNorm1d", "Dice", "Dropout", "Linear"]:
            raise InputError(
                f"got an activation unit of {', '.join(kinds)}; need one hidden layer with Dice, no softmax"
            )
        hidden = tuple(layer.out_features for layer in network[:-1] if isinstance(layer, nn.Linear))
        items, dim = tables[0].weight.shape
        copy = cls(
            items, dim=dim, units=attention[0].out_features, hidden=hidden, profile=bool(theirs.features)
        )
        copy.table.load_state_dict(tables[0].state_dict())
        _copy(attention, [copy.first, copy.normed, copy.last])
        _copy(network, list(copy.network))
        return copy.train(model.training)


def _copy(theirs: list[Any], ours: list[nn.Module]) -> None:
    """Copy the weights of linear layers, batch norm and Dice; the layer after a batch norm is its Dice."""
    layers = iter(ours)
    for position, layer in enumerate(theirs):
        if isinstance(layer, nn.Linear):
            next(layers).load_state_dict(layer.state_dict())
        if isinstance(layer, nn.BatchNorm1d):
            next(layers).load_state_dict({**layer.state_dict(), "alpha": theirs[position + 1].alpha.detach()})
