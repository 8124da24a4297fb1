"""User fields: a vector per categorical feature of a user."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from qarm.data.users import Users

__all__ = ["UserFields", "user_codes", "vocabularies"]

INIT = 0.1


class UserFields(nn.Module):
    """A table per feature, whose row 0 stands for values that are unknown or were not trained on.

    Dropping values in training is what trains that row, as with item ids.

    Args:
        sizes: values of each feature; dim: length of a vector; dropout: share of values dropped.
    """

    def __init__(self, sizes: Sequence[int], *, dim: int, dropout: float) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size + 1, dim) for size in sizes)
        self.gain = nn.Parameter(torch.ones(len(sizes)))
        self.dropout = dropout
        for table in self.tables:
            nn.init.normal_(table.weight, std=INIT)  # type: ignore[arg-type]

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors [g, features, dim] of values int64 [g, features]."""
        if self.training and self.dropout:
            codes = torch.where(torch.rand(codes.shape, device=codes.device) < self.dropout, 0, codes)
        return torch.stack([table(codes[:, n]) for n, table in enumerate(self.tables)], dim=1)


def vocabularies(users: Users, user_ids: Sequence[str]) -> dict[str, list[str]]:
    """The values of each feature among these users, sorted."""
    return {name: values.drop_nulls().unique().sort().to_list() for name, values in _columns(users, user_ids)}


def user_codes(
    users: Users, user_ids: Sequence[str], values: Mapping[str, Sequence[str]]
) -> npt.NDArray[np.int64]:
    """The row of each user's value of each feature, int64 [users, features]; 0 for one not in `values`."""
    found = dict(_columns(users, user_ids))
    nothing = pl.repeat(None, len(user_ids), dtype=pl.String, eager=True)
    rows = [_rows(found.get(name, nothing), known) for name, known in values.items()]
    return np.stack(rows, axis=1) if rows else np.zeros((len(user_ids), 0), np.int64)


def _columns(users: Users, user_ids: Sequence[str]) -> list[tuple[str, pl.Series]]:
    return [(series.name, series) for series in users.of(user_ids)]


def _rows(values: pl.Series, known: Sequence[str]) -> npt.NDArray[np.int64]:
    places = values.cast(pl.Enum(list(known)), strict=False).to_physical().cast(pl.Int64) + 1
    return places.fill_null(0).to_numpy()
