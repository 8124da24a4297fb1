"""Retrieval of later clicks: ranks of what users chose later among candidates near their latest items."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from qarm.core.item_index import ItemIndex
from qarm.core.parallel.numba_jit import compiled
from qarm.data.embeddings import Embeddings
from qarm.data.interaction_matrix import Lists
from qarm.data.interactions import Log

__all__ = [
    "EACH",
    "QUERIES",
    "UNRANKED",
    "RetrievalTask",
    "Scorer",
    "best_items",
    "by_clicks",
    "by_popularity",
    "by_vectors",
    "retrieval_task",
    "truth_ranks",
]

QUERIES, EACH = 10, 50
UNRANKED = 2**62
TABLE_BYTES = 256 * 2**20
CHUNK_BYTES = 64 * 2**20

Ints = npt.NDArray[np.int64]
Scorer = Callable[[Ints], Tensor]
"""Scores of all n items for q query items, float [q, n]; -inf for what is no candidate."""


@dataclass(frozen=True)
class RetrievalTask:
    """Who asks with what, and what follows.

    item_ids: n strings, an item's number is its place; users: their ids. A list for each user:
    queries: items to search from; seen: items that are no candidates; truth: items that followed.
    """

    item_ids: list[str]
    users: list[str]
    queries: Lists
    seen: Lists
    truth: Lists

    @property
    def user_rows(self) -> Ints:
        """Which user each entry of `truth.values` belongs to."""
        return np.repeat(np.arange(len(self.truth)), self.truth.sizes)


def retrieval_task(
    past: Log, future: Log, item_ids: Sequence[str], *, queries: int = QUERIES
) -> RetrievalTask:
    """Users who have positives in the past and later choose items that are new to them.

    A user's queries are the `queries` items of the latest distinct positives of the past. Seen is every
    item with an event of the user in the past, positive or negative: it is neither a candidate nor
    counted when it is chosen again. Truth is every other item with a later positive. Users without a
    query or without a truth do not count; events on other items than `item_ids` do not either.
    """
    before, after = (_numbered(log, item_ids) for log in (past, future))
    seen = before.select("user_id", "item").unique()
    latest = before.filter(pl.col("label") == 1).unique(["user_id", "item"], keep="last", maintain_order=True)
    asked = latest.group_by("user_id", maintain_order=True).tail(queries).select("user_id", "item")
    later = after.filter(pl.col("label") == 1).select("user_id", "item").unique()
    later = later.join(seen, on=["user_id", "item"], how="anti")
    users = asked.select("user_id").unique().join(later, on="user_id", how="semi")["user_id"].sort()
    return RetrievalTask(
        list(item_ids), users.to_list(), *(_lists(part, users) for part in (asked, seen, later))
    )


def _numbered(log: Log, item_ids: Sequence[str]) -> pl.DataFrame:
    """user_id, label and the item's number, in the log's order."""
    known = pl.DataFrame({"item_id": item_ids, "item": np.arange(len(item_ids), dtype=np.int32)})
    return log.frame.join(known, on="item_id", how="inner", maintain_order="left").select(
        "user_id", "label", "item"
    )


def _lists(pairs: pl.DataFrame, users: pl.Series) -> Lists:
    place = pl.DataFrame({"user_id": users, "row": np.arange(len(users))})
    rows = pairs.join(place, on="user_id", how="inner").sort("row", "item")
    sizes = np.bincount(rows["row"].to_numpy(), minlength=len(users))
    return Lists(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), rows["item"].to_numpy())


# ---- how near items are -------------------------------------------------------------------------


def by_vectors(embeddings: Embeddings, item_ids: Sequence[str]) -> Scorer:
    """Cosines; an item without a vector, or with a vector of zeros, finds nothing and is never found."""
    rows = ItemIndex(embeddings.item_ids).find(item_ids)
    there = torch.from_numpy(rows >= 0)
    vectors = torch.zeros(len(item_ids), embeddings.vectors.shape[1], dtype=torch.float64)
    vectors[there] = torch.from_numpy(embeddings.vectors[rows[rows >= 0]]).double()
    lengths = vectors.norm(dim=1, keepdim=True)
    there = lengths[:, 0] > 0
    unit = vectors / lengths.clamp(min=1e-30)

    def score(queries: Ints) -> Tensor:
        """Scores of all items for each query item, float [queries, items]."""
        chosen = torch.from_numpy(queries)
        # In double precision and then rounded, equal vectors score equally wherever they stand.
        cosines: Tensor = (unit[chosen] @ unit.T).float()
        return cosines.masked_fill(~(there[chosen, None] & there), -torch.inf)

    return score


def by_clicks(log: Log, item_ids: Sequence[str]) -> Scorer:
    """Item-kNN: users who have both items, over the root of the product of the items' users."""
    clicks = _numbered(log.positives(), item_ids).select("user_id", "item").unique()
    users = clicks["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    shape = (int(users.max(initial=-1)) + 1, len(item_ids))
    matrix = csr_matrix((np.ones(len(users)), (users, clicks["item"].to_numpy())), shape=shape)
    by_item = matrix.T.tocsr()
    counts = np.asarray(matrix.sum(axis=0)).ravel()

    def score(queries: Ints) -> Tensor:
        """Scores of all items for each query item, float [queries, items]."""
        both = (by_item[queries] @ matrix).toarray()
        found = both / np.sqrt(np.maximum(np.outer(counts[queries], counts), 1.0))
        return torch.from_numpy(np.where(both > 0, found, -np.inf)).float()

    return score


def by_popularity(log: Log, item_ids: Sequence[str]) -> Scorer:
    """Positive events of the candidate, whatever the query."""
    counts = np.bincount(_numbered(log.positives(), item_ids)["item"].to_numpy(), minlength=len(item_ids))
    row = torch.from_numpy(counts).float()
    return lambda queries: row.expand(len(queries), -1)


# ---- candidates -----------------------------------------------------------------------------------


def truth_ranks(asked: RetrievalTask, scorer: Scorer, *, each: int = EACH) -> Ints:
    """Where each entry of `truth` stands among its user's candidates, from 0, int64 [entries].

    Every query brings the `each` best items that the user has not seen; a candidate that several
    queries bring has its best score. Candidates stand by score, ties by number. What nobody brings
    stands `UNRANKED`, behind every cut-off. Exact; memory is bounded but for the scorer.
    """
    found = np.full(len(asked.truth.values), UNRANKED, dtype=np.int64)
    for users, width in _blocks(asked, each):
        starts = asked.queries.starts
        entries = np.concatenate([np.arange(starts[user], starts[user + 1]) for user in users])
        queries, rows = np.unique(asked.queries.values[entries], return_inverse=True)
        table_rows = np.zeros(len(asked.queries.values), dtype=np.int64)
        table_rows[entries] = rows
        items, scores = best_items(scorer, queries.astype(np.int64), width, len(asked.item_ids))
        _stand(
            users,
            (starts, table_rows),
            (asked.seen.starts, asked.seen.values),
            (asked.truth.starts, asked.truth.values),
            (items, scores),
            each,
            len(asked.item_ids),
            found,
        )
    return found


def _blocks(asked: RetrievalTask, each: int) -> Iterator[tuple[Ints, int]]:
    """Users to be answered together, and how long a table row they need; heavy users first."""
    items = len(asked.item_ids)
    order = np.argsort(asked.seen.sizes, kind="stable")
    while len(order):
        width = int(min(items, each + asked.seen.sizes[order[-1]]))
        rows = TABLE_BYTES // (12 * width)
        most = max(1, int(asked.queries.sizes.max()))
        count = len(order) if rows >= items else max(1, rows // most)
        yield np.sort(order[-count:]), width
        order = order[:-count]


def best_items(scorer: Scorer, queries: Ints, width: int, items: int) -> tuple[Any, Any]:
    """The `width` best of n = `items` for each query, int32 and float32 [q, width]; ties by number.

    What is no candidate has the score -inf and may be among them.
    """
    step = max(1, CHUNK_BYTES // (8 * items))
    parts = [_best(scorer(queries[i : i + step]), width) for i in range(0, len(queries), step)]
    numbers, scores = (torch.cat(side).numpy() for side in zip(*parts, strict=True))
    return numbers, scores


def _best(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    values, numbers = scores.topk(width, dim=1)
    numbers, order = numbers.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    numbers = numbers.gather(1, order)
    last = values[:, -1:]
    cut = ((scores >= last).sum(1) > width) & (last[:, 0] > -torch.inf)
    if cut.any():  # topk took any of the items that tie for the last place
        full, which = scores[cut].sort(dim=1, descending=True, stable=True)
        values[cut], numbers[cut] = full[:, :width], which[:, :width]
    return numbers.int(), values


@compiled()
def _stand(
    users: Any, asked: Any, seen: Any, truth: Any, table: Any, each: int, total: int, found: Any
) -> None:
    """Merges the queries' table rows for each user, and looks where the user's truth stands."""
    items, scores = table
    best = np.full(total, -np.inf, np.float32)
    listed, stamp = np.empty(len(best), np.int64), np.full(len(best), -1, np.int64)
    for user in users:
        for k in range(seen[0][user], seen[0][user + 1]):
            stamp[seen[1][k]] = user
        count = 0
        for k in range(asked[0][user], asked[0][user + 1]):
            row, taken = asked[1][k], 0
            for column in range(items.shape[1]):
                item, score = items[row, column], scores[row, column]
                if taken == each or score == -np.inf:
                    break
                if stamp[item] != user:
                    taken += 1
                    if best[item] == -np.inf:
                        listed[count] = item
                        count += 1
                    best[item] = max(best[item], score)
        for k in range(truth[0][user], truth[0][user + 1]):
            item = truth[1][k]
            if best[item] > -np.inf:
                place = 0
                for other in listed[:count]:
                    place += best[other] > best[item] or (best[other] == best[item] and other < item)
                found[k] = place
        best[listed[:count]] = -np.inf
