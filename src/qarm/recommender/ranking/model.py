"""Ranker model: target attention over the history, search in it by code, one set of item fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

from qarm.core.atomic_io import atomic, read_json, write_json
from qarm.core.formats import ranker_shape
from qarm.core.paths import as_path
from qarm.core.run_folder import verify
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.interactions import Log
from qarm.errors import ArtifactError, InputError, shown
from qarm.recommender.batches import BUCKETS, Batch, batches
from qarm.recommender.examples import LONG, Examples
from qarm.recommender.history_search import CodeSearch, Cross, Crossed
from qarm.recommender.item_fields import ItemFields
from qarm.recommender.scoring_requests import requests
from qarm.recommender.similarity_tiers import SimilarityTiers
from qarm.recommender.user_fields import UserFields, user_codes
from qarm.schemas.results import RankerShape

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
USERS, VALUES = "users.parquet", {"feature": pl.String, "value": pl.String}


class Ranker(nn.Module):
    """DIN (Zhou et al., KDD 2018) on item fields, with the fields' scalar products beside its network.

    A logit is the sum of a network over [candidate, attended history, their product, products by
    field], a weighted sum of the products by field, and the candidate's biases. With `shape.cross` what
    search by code found in a longer history stands beside the attended one (QARM, section 3.3), with
    `shape.tiers` a histogram of the candidate's similarities to the history, and so do
    the user's features with their scalar products with the candidate. Each auxiliary label has a last layer
    of its own on the network; it learns from events and not from drawn negatives, and so says how likely
    the label is where the event happens.

    item_ids: sorted; values: of each user feature, sorted; prior: log-odds of a positive among the training
    rows; `past`: the log it was trained on, kept in memory so that it can be compared later.
    """

    prior: Tensor

    def __init__(
        self,
        shape: RankerShape,
        item_ids: Sequence[str],
        *,
        values: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.values = {name: list(known) for name, known in (values or {}).items()}
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
        known = dim + len(shape.users) if shape.users else 0
        width = 3 * dim + 2 * fields + crossed + known
        self.tiers = SimilarityTiers(shape.tiers) if shape.tiers and shape.vector else None
        width += shape.tiers if self.tiers is not None else 0
        self.network = _network(width, shape.hidden, shape.dropout)
        self.gap = nn.Parameter(torch.zeros(BUCKETS)) if shape.time else None
        self.user = UserFields(shape.users, dim=dim, dropout=shape.id_dropout) if shape.users else None
        self.further = nn.Linear((width, *shape.hidden)[-1], len(shape.labels)) if shape.labels else None
        if self.further is not None:
            nn.init.zeros_(self.further.weight)
            nn.init.zeros_(self.further.bias)

    @property
    def long_history(self) -> int:
        """Longest history that the search by code reads."""
        return LONG if self.shape.long_history is None else self.shape.long_history

    def forward(self, batch: Batch, content: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits [g, c] of the label."""
        wide, products, bias = self._read(batch, content)
        logits: Tensor = self.network(wide)[..., 0] + products + bias
        return logits

    def all_labels(self, batch: Batch, content: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits [g, c, 1 + labels], of the label and of the further ones."""
        wide, products, bias = self._read(batch, content)
        shared = self.network[:-1](wide)
        logits = self.network[-1](shared)[..., 0] + products + bias
        return logits[..., None] if self.further is None else self._beside(logits, self.further(shared))

    @staticmethod
    def _beside(logits: Tensor, further: Tensor) -> Tensor:
        return torch.cat([logits[..., None], further], dim=-1)

    def _read(self, batch: Batch, content: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """The network's input [g, c, width], and what is added to its output: products and biases [g, c]."""
        groups, candidates = batch.items.shape
        length = batch.history.shape[1]
        if length > self.shape.history:
            raise InputError(
                f"got a history of {length} events, the ranker reads at most {self.shape.history}; "
                f"prepare the rows with history={self.shape.history}"
            )
        items = [part.flatten() for part in (batch.items, batch.history, batch.matched) if part is not None]
        fields, bias = self.item(torch.cat(items), content)
        sizes = [groups * candidates, groups * length]
        own, past, matched = fields.split([*sizes, len(fields) - sum(sizes)])
        own = own.view(groups, candidates, -1, self.shape.dim)
        past = past.view(groups, length, -1, self.shape.dim)
        attention = self.attention(own.sum(2), past.sum(2), batch.seen, batch.gaps)
        # one product for both, the attended history of each candidate and the mean one of all
        weights = torch.cat([attention, _shares(batch.seen)[:, None]], dim=1)
        read = (weights @ past.flatten(2)).view(groups, candidates + 1, *own.shape[2:])
        attended, mean = read[:, :-1], read[:, -1]
        by_field = (own * attended).sum(-1)
        by_mean = torch.einsum("gcfd,gfd->gcf", own, mean)
        candidate, history = own.sum(2), attended.sum(2)
        wide = [candidate, history, candidate * history, by_field, by_mean]
        bias = bias[: sizes[0]].view(groups, candidates) + self.bias
        products = by_field @ self.gain_attended + by_mean @ self.gain_mean
        if self.cross is not None:
            crossed = self._crossed(batch, own, matched)
            wide += [crossed.history, crossed.products, crossed.counts]
            products = products + crossed.logit
        if self.tiers is not None:
            near = self.item.vectors[batch.items], self.item.vectors[batch.history]
            histogram, tiered = self.tiers(*near, batch.seen)
            wide, products = [*wide, histogram], products + tiered
        if self.user is not None:
            user, met = self._met(batch, candidate)
            wide += [user.sum(1)[:, None].expand_as(candidate), met]
            products = products + met @ self.user.gain
        return torch.cat(wide, dim=-1), products, bias

    def _met(self, batch: Batch, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """The user's vectors [g, features, d], and their scalar products with the candidates."""
        if self.user is None or batch.user is None:
            raise InputError("the ranker reads features of users; take examples from its `reading`")
        user = self.user(batch.user)
        return user, torch.einsum("gcd,gfd->gcf", candidate, user)

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
        if self.shape.spare:  # items without codes have nothing in common
            codes = codes.copy()
            without = np.flatnonzero(codes[:, 0] == self.shape.widths[0] - 1)
            codes[without, 0] += np.arange(len(without))
        lists = (codes[:, levels:], self.item.pool.cpu().numpy()) if self.shape.nearest else (None, None)
        return CodeSearch(history, codes[:, :levels], vq=lists[0], pool=lists[1], most=self.shape.cross)

    def reading(self, examples: Examples) -> Examples:
        """Examples with what this ranker reads besides items: gaps of time, values of user features.

        Raises:
            InputError: it reads them, and the examples know neither.
        """
        if self.shape.time and examples.clock is None:
            raise InputError("the ranker reads gaps of time; give gaps=, the time since each event")
        if not self.shape.users:
            return replace(examples, timed=self.shape.time)
        if examples.about is None:
            raise InputError("the ranker reads features of users; give them to the log, Log.with_users(...)")
        codes = user_codes(examples.about, examples.user_ids, self.values)
        return replace(examples, timed=self.shape.time, user_codes=codes)

    def attention(self, queries: Tensor, keys: Tensor, seen: Tensor, gaps: Tensor | None = None) -> Tensor:
        """Weights [g, c, t] of histories [g, t, d] for candidates [g, c, d]; zero where not seen.

        One hidden layer of relu over [q, k, q * k], plus a scaled product and weights by recency and, for a
        ranker that reads them, by bucket of the time since, gaps int64 [g, t].
        """
        products = torch.einsum("gcd,ad->gcad", queries, self.product).flatten(1, 2) @ keys.transpose(1, 2)
        hidden = products.view(*queries.shape[:2], -1, keys.shape[1])
        hidden = hidden + self.query(queries)[..., None] + self.key(keys).transpose(1, 2)[:, None]
        scores = torch.einsum("gcat,a->gct", functional.relu(hidden), self.weigh)
        scores = scores + self.closeness * (queries @ keys.transpose(1, 2)) + self.recency[: keys.shape[1]]
        if self.gap is not None and gaps is not None:
            scores = scores + self.gap[gaps][:, None]
        weights = scores.masked_fill(~seen[:, None], MASKED).softmax(-1)
        kept: Tensor = weights * seen.any(1)[:, None, None]
        return kept

    def score(
        self,
        item_ids: Sequence[Sequence[str]],
        histories: Sequence[Sequence[str]],
        *,
        label: str | None = None,
        users: Sequence[Mapping[str, str]] | None = None,
        gaps: Sequence[Sequence[int]] | None = None,
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of each request's candidates, one float32 array per request.

        Args:
            item_ids: candidates of each request; histories: items of its user, oldest first; only the
                latest `shape.history` count, and the latest `long_history` where they are searched by code.
            label: an auxiliary label; by default the one that decides the ranking.
            users: feature values of each request's user by name; one that is left out or new is unknown.
            gaps: time since each event of the histories, in the log's unit, for a ranker trained with `time`.

        Raises:
            InputError: lengths differ, or an item, a feature or a label is unknown.
        """
        examples = requests(
            item_ids,
            histories,
            self.item_ids,
            (self.shape.history, self.long_history),
            users=users,
            features=list(self.values),
            gaps=gaps,
        )
        if not item_ids:
            return []
        logits = score_examples(self, examples, label=label)
        return np.split(logits, np.cumsum([len(items) for items in item_ids])[:-1])

    def __repr__(self) -> str:
        shape = self.shape
        numbers = sum(weights.numel() for weights in self.parameters())
        given = {"ids": shape.ids, "rq": shape.widths, "vq": shape.nearest, "vector": shape.vector}
        reads = ", ".join(name for name, there in {**given, "cross": shape.cross}.items() if there)
        return f"Ranker({shape.items:,} items by {reads}; {numbers:,} parameters)"

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json`, `items.parquet`, `model.safetensors`, and values of user features if any."""
        folder = as_path(folder)
        if self.values:
            rows = [(name, value) for name, known in self.values.items() for value in known]
            write_parquet(folder / USERS, pl.DataFrame(rows, schema=VALUES, orient="row"))
        write_parquet(folder / "items.parquet", pl.DataFrame({"item_id": self.item_ids}))
        with atomic(folder / "model.safetensors") as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, temporary)
        write_json(folder / "config.json", self.shape.model_dump(mode="json"))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Ranker":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: a file is missing or does not fit the others.
        """
        folder = as_path(folder)
        verify(folder)
        content = read_json(folder / "config.json")
        try:
            shape = ranker_shape(content)
            item_ids = read_parquet(folder / "items.parquet")["item_id"].to_list()
            if len(item_ids) != shape.items:
                raise ValueError(f"{len(item_ids)} items in a ranker of {shape.items}")
            ranker = cls(shape, item_ids, values=_values(folder) if shape.users else None)
            ranker.load_state_dict(load_file(folder / "model.safetensors"))
        except DAMAGE as error:
            raise ArtifactError(f"{folder}: not a whole ranker ({error}); train again") from error
        return ranker.eval()


def _values(folder: Path) -> dict[str, list[str]]:
    """Of each user feature, in the order of their rows."""
    frame = read_parquet(folder / USERS)
    return {str(n): part["value"].to_list() for (n,), part in frame.group_by("feature", maintain_order=True)}


@torch.no_grad()
def score_examples(
    ranker: Ranker,
    examples: Examples,
    *,
    rows: int = 4096,
    label: str | None = None,
    search: CodeSearch | None = None,
) -> npt.NDArray[np.float32]:
    """Logits float32 [n] of all examples, in batches of about `rows`; leaves the ranker's mode as it was.

    label: an auxiliary label; by default the one that decides the ranking.
    search: `ranker.search(examples.history)`, for who scores by the same histories again and again.
    """
    logits_of, examples = _head(ranker, label), ranker.reading(examples)
    training, device = ranker.training, ranker.bias.device
    ranker.eval()
    logits = np.zeros(len(examples), dtype=np.float32)
    # for many rows every item's content is worth having at hand; for a few only their own is computed
    many = len(examples) > ranker.shape.items
    content = ranker.item.content(torch.arange(ranker.shape.items, device=device)) if many else None
    for batch in batches(examples, rows, search=search or ranker.search(examples.history)):
        found = logits_of(batch.to(device), content).cpu().numpy()
        real = batch.real.numpy()
        logits[batch.rows[real]] = found[real]
    ranker.train(training)
    return logits


def _head(ranker: Ranker, label: str | None) -> Callable[[Batch, Any], Tensor]:
    if label is None:
        return ranker
    if label not in ranker.shape.labels:
        known = f"it knows {shown(ranker.shape.labels)}" if ranker.shape.labels else "it has learned none"
        raise InputError(f"the ranker has no auxiliary label {label!r}; {known}")
    place = 1 + ranker.shape.labels.index(label)
    return lambda batch, content: ranker.all_labels(batch, content)[..., place]


def set_items(
    ranker: Ranker,
    trained: npt.NDArray[np.int64],
    *,
    codes: npt.NDArray[np.int64] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    pool: npt.NDArray[np.int64] | None = None,
    events: npt.NDArray[np.int64] | None = None,
) -> None:
    """Fill the item tables: rows with an id of their own, codes [n, c], vectors [n, d], the pool's rows.

    events: training events of each item, [n], for a ranker that shrinks its ids' vectors by them.
    """
    ranker.item.known[torch.from_numpy(trained)] = torch.arange(1, len(trained) + 1)
    if pool is not None:
        ranker.item.pool[: len(pool)] = torch.from_numpy(pool)
    if events is not None and ranker.item.prior is not None:
        ranker.item.events[1:] = torch.from_numpy(events[trained])
    if codes is not None:
        ranker.item.codes.copy_(torch.from_numpy(codes))
    if vectors is not None:
        ranker.item.vectors.copy_(torch.from_numpy(vectors))


def _network(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _shares(seen: Tensor) -> Tensor:
    """Weights [g, t] of the mean of the events that are seen; all zero for an empty history."""
    return seen / seen.sum(1, keepdim=True).clamp(min=1)
