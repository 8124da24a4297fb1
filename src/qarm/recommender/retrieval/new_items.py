"""New items of a blend: coded after training, without ids, neighbours or events."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qarm.data.codes import Codes
from qarm.recommender.code_embedding import joined
from qarm.recommender.retrieval.blend import Blend, DenseRetriever, SparseRetriever
from qarm.recommender.retrieval.counting import ContentKnn, NeighbourTable, Popularity
from qarm.recommender.retrieval.models.sequence_model import SequenceModel

__all__ = ["read_columns", "with_new_items"]


def with_new_items(blend: Blend, codes: Codes, rows: Sequence[int]) -> Blend:
    """A blend with new items behind its catalogue: the model scores them by their codes, counting by nothing.

    Args:
        codes: of the new items and others; rows: which of them are new.
    """
    count = len(rows)
    return replace(
        blend,
        parts={name: _extended(part, codes, rows) for name, part in blend.parts.items()},
        cold=np.concatenate([blend.cold, np.ones(count, bool)]),
        _moments={},
        _stacked=[],
    )


def _extended(
    part: DenseRetriever | SparseRetriever, codes: Codes, rows: Sequence[int]
) -> DenseRetriever | SparseRetriever:
    count = len(rows)
    if isinstance(part, SequenceModel):
        part.add_items(read_columns(part, codes)[list(rows)])
        return part
    if isinstance(part, NeighbourTable):
        table = part.table.copy()
        table.resize(table.shape[0] + count, table.shape[1] + count)
        return replace(part, table=table)
    if isinstance(part, Popularity):
        return Popularity(np.concatenate([part.counts, np.zeros(count, np.int64)]))
    if isinstance(part, ContentKnn):
        zeros = np.zeros((count, part.candidates.shape[1]), np.float32)
        return replace(part, candidates=np.concatenate([part.candidates, zeros]))
    raise TypeError(f"{type(part).__name__} takes no new items")


def read_columns(model: SequenceModel, codes: Codes) -> np.ndarray:
    """Columns of codes that a model reads, int64 [items, levels + nearest]."""
    table, levels = joined(codes), codes.rq.shape[1]
    first = 0 if model.shape.widths else levels
    return table[:, first : levels + model.shape.nearest]
