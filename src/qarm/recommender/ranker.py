"""The ranker: target attention over the history and search in it by code, with one set of item fields."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from qarm.artifacts import atomic, read_json, verify, write_json, write_parquet
from qarm.behavior.log import Log
from qarm.errors import ArtifactError, InputError
from qarm.recommender.batches import Batch, batches
from qarm.recommender.cross import Cross, Crossed
from qarm.recommender.examples import LONG, Examples, row_numbers
from qarm.recommender.fields import ItemFields, Shape
from qarm.recommender.search import CodeSearch

__all__ = ["Ranker", "score_examples", "set_items"]

DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    OSError,
    SafetensorError,
    pl.exceptions.PolarsError,
)
MASKED = -1e9


class Ranker(nn.Module):
    """DIN (Zhou et al., KDD 2018) on item fields, with the fields' scalar products beside its network.

    A logit is the sum of a network over [candidate, attended history, their product, products by
    field], a weighted sum of the products by field, and the candidate's biases. With `shape.cross` what
    search by code found in a longer history stands beside the attended one (QARM, section 3.3).

    item_ids: sorted; prior: log-odds of a positive among the training rows;
    `past`: the log it was trained on, kept in memory so that it can be compared later.
    """

    prior: Tensor

    def __init__(self, shape: Shape, item_ids: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(()))
        self.shape, self.item_ids = shape, list(item_ids)
        self.past: Log | None = None
        self.item = ItemFields(shape)
        dim, units, fields = shape.dim, shape.attention, self.item.fields
        self.query, self.key = nn.Linear(dim, units), nn.Linear(dim, units, bias=False)
        self.product = nn.Parameter(torch.empty(units, dim).normal_(std=0.1))
        self.weigh = nn.Parameter(torch.zeros(units))
        self.closeness = nn.Parameter(torch.zeros(()))
        self.recency = nn.Parameter(torch.zeros(shape.history))
        self.gain_attended = nn.Parameter(torch.ones(fields))
        self.gain_mean = nn.Parameter(torch.ones(fields))
        self.bias = nn.Parameter(torch.zeros(()))
        self.cross = Cross(fields) if shape.cross else None
        crossed = Cross.width(fields, dim) if shape.cross else 0
        self.network = _network(3 * dim + 2 * fields + crossed, shape.hidden, shape.dropout)

    def forward(self, batch: Batch, content: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits [g, c]."""
        groups, candidates = batch.items.shape
        length = batch.history.shape[1]
        items = [part.flatten() for part in (batch.items, batch.history, batch.matched) if part is not None]
        fields, bias = self.item(torch.cat(items), content)
        split = groups * candidates
        rest = split + groups * length
        own = fields[:split].view(groups, candidates, -1, self.shape.dim)
        past = fields[split:rest].view(groups, length, -1, self.shape.dim)
        attention = self.attention(own.sum(2), past.sum(2), batch.seen)
        attended = (attention @ past.flatten(2)).view_as(own)
        mean = _mean(past, batch.seen)
        by_field = (own * attended).sum(-1)
        by_mean = torch.einsum("gcfd,gfd->gcf", own, mean)
        candidate, history = own.sum(2), attended.sum(2)
        wide = [candidate, history, candidate * history, by_field, by_mean]
        bias = bias[:split].view(groups, candidates) + self.bias
        products = by_field @ self.gain_attended + by_mean @ self.gain_mean
        if self.cross is not None:
            crossed = self._crossed(batch, own, fields[rest:])
            wide += [crossed.history, crossed.products, crossed.counts]
            products = products + crossed.logit
        logits: Tensor = self.network(torch.cat(wide, dim=-1))[..., 0] + products + bias
        return logits

    def _crossed(self, batch: Batch, own: Tensor, fields: Tensor) -> Crossed:
        if self.cross is None or batch.matched is None or batch.kinds is None or batch.counts is None:
            raise InputError("the ranker looks into histories by code; give `batches` its `search`")
        matched = fields.view(*batch.matched.shape, -1, self.shape.dim)
        found: Crossed = self.cross(own, matched, batch.kinds, batch.counts)
        return found

    def search(self, history: npt.NDArray[np.integer[Any]]) -> CodeSearch | None:
        """An index of histories by code, for `batches`; None where the ranker does without."""
        if not self.shape.cross:
            return None
        levels = len(self.shape.widths)
        codes = self.item.codes.cpu().numpy()
        lists = (codes[:, levels:], self.item.pool.cpu().numpy()) if self.shape.nearest else (None, None)
        return CodeSearch(history, codes[:, :levels], vq=lists[0], pool=lists[1], most=self.shape.cross)

    def attention(self, queries: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
        """Weights [g, c, t] of histories [g, t, d] for candidates [g, c, d]; zero where not seen.

        One hidden layer of relu over [q, k, q * k], plus a scaled product and a weight by recency.
        """
        products = torch.einsum("gcd,ad->gcad", queries, self.product).flatten(1, 2) @ keys.transpose(1, 2)
        hidden = products.view(*queries.shape[:2], -1, keys.shape[1])
        hidden = hidden + self.query(queries)[..., None] + self.key(keys).transpose(1, 2)[:, None]
        scores = torch.einsum("gcat,a->gct", functional.relu(hidden), self.weigh)
        scores = scores + self.closeness * (queries @ keys.transpose(1, 2)) + self.recency[: keys.shape[1]]
        weights = scores.masked_fill(~seen[:, None], MASKED).softmax(-1)
        kept: Tensor = weights * seen.any(1)[:, None, None]
        return kept

    def score(
        self, item_ids: Sequence[Sequence[str]], histories: Sequence[Sequence[str]]
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of each request's candidates, one float32 array per request.

        Args:
            item_ids: candidates of each request; histories: items of its user, oldest first; only the
                latest `shape.history` count, or 1,000 where they are searched by code.

        Raises:
            InputError: lengths differ, or an item is not in the vocabulary.
        """
        if len(item_ids) != len(histories):
            raise InputError(f"got {len(item_ids)} requests and {len(histories)} histories, need as many")
        if not item_ids:
            return []
        examples = _requests(item_ids, histories, self.item_ids, self.shape.history)
        return np.split(score_examples(self, examples), np.cumsum([len(items) for items in item_ids])[:-1])

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json`, `items.parquet` and `model.safetensors`."""
        folder = Path(folder)
        write_parquet(folder / "items.parquet", pl.DataFrame({"item_id": self.item_ids}))
        with atomic(folder / "model.safetensors") as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, temporary)
        write_json(folder / "config.json", asdict(self.shape))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Ranker":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: a file is missing or does not fit the others.
        """
        folder = Path(folder)
        verify(folder)
        content = read_json(folder / "config.json")
        try:
            shape = replace(
                Shape(**content), widths=tuple(content["widths"]), hidden=tuple(content["hidden"])
            )
            item_ids = pl.read_parquet(folder / "items.parquet")["item_id"].to_list()
            if len(item_ids) != shape.items:
                raise ValueError(f"{len(item_ids)} items in a ranker of {shape.items}")
            ranker = cls(shape, item_ids)
            ranker.load_state_dict(load_file(folder / "model.safetensors"))
        except DAMAGE as error:
            raise ArtifactError(f"{folder}: not a whole ranker ({error}); train again") from error
        return ranker.eval()


@torch.no_grad()
def score_examples(ranker: Ranker, examples: Examples, *, rows: int = 4096) -> npt.NDArray[np.float32]:
    """Logits float32 [n] of all examples, in batches of about `rows`; leaves the ranker's mode as it was."""
    training, device = ranker.training, ranker.bias.device
    ranker.eval()
    logits = np.zeros(len(examples), dtype=np.float32)
    # for many rows every item's content is worth having at hand; for a few only their own is computed
    many = len(examples) > ranker.shape.items
    content = ranker.item.content(torch.arange(ranker.shape.items, device=device)) if many else None
    for batch in batches(examples, rows, search=ranker.search(examples.history)):
        found = ranker(batch.to(device), content).cpu().numpy()
        real = batch.real.numpy()
        logits[batch.rows[real]] = found[real]
    ranker.train(training)
    return logits


def set_items(
    ranker: Ranker,
    trained: npt.NDArray[np.int64],
    *,
    codes: npt.NDArray[np.int64] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    pool: npt.NDArray[np.int64] | None = None,
) -> None:
    """Fill the item tables: rows with an id of their own, codes [n, c], vectors [n, d], the pool's rows."""
    ranker.item.known[torch.from_numpy(trained)] = torch.arange(1, len(trained) + 1)
    if pool is not None:
        ranker.item.pool.copy_(torch.from_numpy(pool))
    if codes is not None:
        ranker.item.codes.copy_(torch.from_numpy(codes))
    if vectors is not None:
        ranker.item.vectors.copy_(torch.from_numpy(vectors))


def _requests(
    item_ids: Sequence[Sequence[str]], histories: Sequence[Sequence[str]], vocabulary: list[str], limit: int
) -> Examples:
    counts = [len(items) for items in item_ids]
    recent = [list(history)[-max(limit, LONG) :] for history in histories]
    names = [
        pl.Series("item_id", [i for part in parts for i in part], dtype=pl.String)
        for parts in (item_ids, recent)
    ]
    items, past = (row_numbers(series, vocabulary) for series in names)
    ends = np.cumsum([len(history) for history in recent], dtype=np.int64)
    starts = ends - np.array([len(history) for history in recent], dtype=np.int64)
    request = np.repeat(np.arange(len(counts)), counts)
    zeros = np.zeros(len(items), dtype=np.int64)
    return Examples(
        user_ids=[],
        item_ids=vocabulary,
        users=zeros.astype(np.int32),
        items=items,
        labels=zeros.astype(np.int8),
        times=zeros,
        events=request,
        cold=zeros.astype(bool),
        history=past,
        start=np.maximum(starts, ends - limit)[request],
        end=ends[request],
        begin=starts[request],
    )


def _network(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _mean(past: Tensor, seen: Tensor) -> Tensor:
    """Mean history by field, [g, fields, dim]; zero for an empty one."""
    total = (past * seen[..., None, None]).sum(1)
    return total / seen.sum(1).clamp(min=1)[:, None, None]
