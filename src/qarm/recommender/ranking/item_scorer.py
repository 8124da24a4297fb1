"""Item scorer: a ranker's scores of its own items and of items that were coded after its training."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.config import features_of
from qarm.core.item_index import ItemIndex
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.recommender.code_embedding import joined, padded_table
from qarm.recommender.item_fields import ItemFields
from qarm.recommender.ranking.model import Ranker
from qarm.schemas.results import RankerShape

__all__ = ["ItemScorer"]

FloatRows = npt.NDArray[np.float32]
NO_ITEMS = Codes([], np.empty((0, 0), np.int32), None, 0)


class ItemScorer:
    """Scores by a ranker. An item that it was not trained with counts as a cold one: codes, and no id.

    A request's items are taken out of the ranker's tables first, so that its cost does not follow the size of
    the catalogue.

    Args:
        ranker: trained; variant: its item features, joined by +.
        codes, vectors: of the published items, those of the ranker among them, with aligned vectors.
    """

    def __init__(self, ranker: Ranker, variant: str, *, codes: Codes, vectors: Embeddings) -> None:
        self.ranker, self.variant = ranker, variant
        self._codes, self._vectors = codes, vectors
        self._trained, self._published = ItemIndex(ranker.item_ids), ItemIndex(codes.item_ids)
        self._scaling = _scaling(ranker, vectors) if ranker.shape.vector else (np.zeros(1), 1.0)

    @property
    def why_not_new(self) -> str | None:
        """Reason why items cannot be scored that the ranker was not trained with; None where they can."""
        if "raw" in features_of(self.variant):
            return f"the ranker {self.variant} reads vectors before alignment, which coded items do not have"
        return None

    @property
    def dimensions(self) -> int:
        """Length of the published items' vectors."""
        return int(self._vectors.vectors.shape[1])

    def fits_codes(self) -> bool:
        """Whether the ranker was trained on the published codes."""
        shape, levels = self.ranker.shape, self._codes.rq.shape[1]
        columns = [*range(len(shape.widths)), *range(levels, levels + shape.nearest)]
        published = joined(self._codes)
        if columns and max(columns) >= published.shape[1]:
            return False
        rows = self._published.find(self.ranker.item_ids)
        trained, now = self.ranker.item.codes.numpy(), published[rows][:, columns]
        if not columns:
            return True
        if shape.spare:  # items without codes have the last one of each table
            now[rows < 0] = [*(width - 1 for width in shape.widths), *[shape.pool - 1] * shape.nearest]
        elif (rows < 0).any():
            return False
        return np.array_equal(trained, now)

    def is_cold(self, item_id: str) -> bool:
        """Whether the ranker saw no training event of an item."""
        row = self._trained.get(item_id)
        return row is None or int(self.ranker.item.known[row]) == 0

    def unknown(self, item_ids: Sequence[str]) -> list[str]:
        """Items, distinct and in order, that neither the ranker nor the published codes have."""
        distinct = dict.fromkeys(item_ids)
        return [item for item in distinct if item not in self._trained and item not in self._published]

    def score(
        self,
        candidates: Sequence[Sequence[str]],
        histories: Sequence[Sequence[str]],
        *,
        new: Codes = NO_ITEMS,
        new_vectors: Embeddings | None = None,
        label: str | None = None,
        users: Sequence[Mapping[str, str]] | None = None,
        gaps: Sequence[Sequence[int]] | None = None,
    ) -> list[FloatRows]:
        """Logits of each request's candidates; arguments as of `Ranker.score`.

        Args:
            new: codes of items that are not published, of the same codebooks; new_vectors: their aligned
                vectors, which a ranker on frozen vectors needs.

        Raises:
            InputError: as of `Ranker.score`, or an item cannot be scored by its codes.
        """
        lists = (*candidates, *histories)
        item_ids = list(dict.fromkeys(item for items in lists for item in items))
        part = self._part(item_ids, new, new_vectors)
        return part.score(candidates, histories, label=label, users=users, gaps=gaps)

    def _part(self, item_ids: list[str], new: Codes, new_vectors: Embeddings | None) -> Ranker:
        """A ranker of the same weights that knows just these items."""
        rows, added = self._trained.find(item_ids), ItemIndex(new.item_ids)
        late = [item for item, row in zip(item_ids, rows.tolist(), strict=True) if row < 0]
        unknown = [item for item in late if item not in self._published and item not in added]
        if unknown:
            raise InputError(f"items {shown(unknown)} have no codes; code them first")
        if late and (reason := self.why_not_new) is not None:
            raise InputError(f"items {shown(late)} came after training: {reason}; leave them out")
        published = [item for item in late if item in self._published]
        stored = [item for item in late if item not in self._published]
        sources = [
            (published, self._published.find(published), self._codes, self._vectors),
            (stored, added.find(stored), new, new_vectors),
        ]
        known, codes, vectors = (
            table[torch.from_numpy(rows[rows >= 0])] for table in _tables(self.ranker.item)
        )
        for ids, places, own_codes, own_vectors in sources:
            if ids:
                known = torch.cat([known, known.new_zeros(len(ids))])
                codes = torch.cat([codes, self._ranker_codes(own_codes, places)])
                vectors = torch.cat([vectors, self._ranker_vectors(own_vectors, places)])
        order = [item for item, row in zip(item_ids, rows.tolist(), strict=True) if row >= 0]
        return _with_items(
            self.ranker, [*order, *published, *stored], known, codes, vectors, self._pool(rows)
        )

    def _pool(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """The rows of pool items among a request's items, -1 for all others."""
        pool = self.ranker.item.pool
        if not len(pool):
            return pool
        place = torch.full((len(self.ranker.item_ids) + 1,), -1, dtype=torch.int64)  # the last row: no item
        chosen = torch.from_numpy(rows[rows >= 0])
        place[chosen] = torch.arange(len(chosen))
        return place[pool]

    def _ranker_codes(self, codes: Codes, places: npt.NDArray[np.int64]) -> Tensor:
        """Rows of the ranker's code tables; codes that no item of the training had come after the others."""
        shape = self.ranker.shape
        levels = len(shape.widths)
        chosen = joined(codes)[places]
        columns = [*range(levels), *range(codes.rq.shape[1], codes.rq.shape[1] + shape.nearest)]
        if len(columns) and max(columns) >= chosen.shape[1]:
            raise InputError(f"got {chosen.shape[1]} codes an item, the ranker reads {len(columns)}")
        found = torch.from_numpy(chosen[:, columns])
        if shape.spare:  # the last code of each table is that of items without codes
            tops = torch.tensor([*shape.widths, *[shape.pool] * shape.nearest]) - 1
            found = found + (found >= tops)
        return found

    def _ranker_vectors(self, vectors: Embeddings | None, places: npt.NDArray[np.int64]) -> Tensor:
        if not self.ranker.shape.vector:
            return self.ranker.item.vectors.new_zeros(len(places), 0)
        if vectors is None or vectors.vectors.shape[1] != self.ranker.shape.vector:
            raise InputError(f"the ranker {self.variant} reads aligned vectors; give those of new items")
        centre, scale = self._scaling
        scaled = (vectors.vectors[places].astype(np.float64) - centre) / scale
        return torch.from_numpy(scaled.astype(np.float32))


def _tables(item: ItemFields) -> tuple[Tensor, Tensor, Tensor]:
    return item.known, item.codes, item.vectors


def _scaling(ranker: Ranker, vectors: Embeddings) -> tuple[npt.NDArray[np.float64], float]:
    """Centre and scale of the vectors that the ranker was trained on, from those and the aligned ones."""
    rows = ItemIndex(vectors.item_ids).find(ranker.item_ids)
    there = rows >= 0
    if not there.any() or vectors.vectors.shape[1] != ranker.shape.vector:
        return np.zeros(ranker.shape.vector), 1.0
    aligned = vectors.vectors[rows[there]].astype(np.float64)
    scaled = ranker.item.vectors.cpu().numpy()[there].astype(np.float64)
    spread = np.square(scaled - scaled.mean(axis=0)).sum()
    scale = float(np.sqrt(np.square(aligned - aligned.mean(axis=0)).sum() / spread)) if spread > 0 else 1.0
    return aligned.mean(axis=0) - scale * scaled.mean(axis=0), scale


def _with_items(
    ranker: Ranker, item_ids: list[str], known: Tensor, codes: Tensor, vectors: Tensor, pool: Tensor
) -> Ranker:
    """A ranker that shares all weights but has other items."""
    part = copy(ranker)
    part._modules = dict(ranker._modules)
    part.item = copy(ranker.item)
    part.item._modules = dict(ranker.item._modules)
    if len(pool) and len(codes):  # pool ids that no list of the training named have no item there
        listed = int(codes[:, len(ranker.shape.widths) :].max()) + 1
        pool = functional.pad(pool, (0, max(0, listed - len(pool))), value=-1)
    part.item._buffers = dict(ranker.item._buffers)
    part.item._buffers |= {"known": known, "codes": codes, "vectors": vectors, "pool": pool}
    part.item_ids, part.past = item_ids, None
    part.shape = ranker.shape.model_copy(update={"items": len(item_ids)})
    _widen(part.item, ranker.shape, codes)
    return part


def _widen(item: ItemFields, shape: RankerShape, codes: Tensor) -> None:
    """Add rows of zeros for codes beyond the tables, which have learned nothing."""
    if item.code is None or not len(codes):
        return
    levels = len(shape.widths)
    sizes = [int(size) + 1 for size in codes[:, :levels].amax(0)]
    item.code = item.code.widened(codes)
    item.level_bias = nn.ModuleList(map(padded_table, item.level_bias, sizes))
