"""New items of a blend: coded after training, without ids, neighbours or events."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.recommender.code_embedding import joined
from qarm.recommender.retrieval.blend import Blend, DenseRetriever, SparseRetriever
from qarm.recommender.retrieval.counting import ContentKnn, NeighbourTable, Popularity
from qarm.recommender.retrieval.models.sequence_model import SequenceModel

__all__ = ["check_codes", "with_new_items"]

Vectors = npt.NDArray[np.float32]


def with_new_items(
    blend: Blend, codes: Codes, rows: Sequence[int], vectors: Embeddings | None = None
) -> Blend:
    """A blend with new items behind its catalogue, which changes no score of the others.

    The model scores new items by their codes, content-kNN by their vectors, the other parts by nothing; mean
    and deviation stay those of the catalogue before.

    Args:
        codes: of the new items and others; rows: which of them are new. vectors: aligned ones of the new
            items; None: content-kNN scores them by nothing.

    Raises:
        InputError: codes or vectors of other sizes than the blend reads.
    """
    aligned = None if vectors is None else vectors.rows([codes.item_ids[row] for row in rows])
    parts = {name: _extended(part, codes, rows, aligned) for name, part in blend.parts.items()}
    moments = {
        name: blend.moments_of(name, part)
        for name, part in blend.parts.items()
        if isinstance(part, DenseRetriever)
    }
    cold = np.concatenate([blend.cold, np.ones(len(rows), bool)])
    return replace(blend, parts=parts, cold=cold, _moments=moments, _stacked=[])


def check_codes(blend: Blend, item_ids: Sequence[str], codes: Codes) -> None:
    """Check that a blend's model was trained on codes, as far as they are of its items.

    Raises:
        ArtifactError: it was trained on other ones.
    """
    for part in blend.parts.values():
        if isinstance(part, SequenceModel) and part.items.code is not None:
            trained = part.items.codes.numpy()[: len(item_ids)]
            now = _read_columns(part, codes)
            known = {item: row for row, item in enumerate(codes.item_ids)}
            pairs = [(row, known[item]) for row, item in enumerate(item_ids) if item in known]
            own, theirs = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            if not np.array_equal(trained[own], now[theirs]):
                raise ArtifactError(
                    "the retriever was trained on other codes than these; run qarm retrieve again, or roll "
                    "the codes back"
                )


def _extended(
    part: DenseRetriever | SparseRetriever, codes: Codes, rows: Sequence[int], vectors: Vectors | None
) -> DenseRetriever | SparseRetriever:
    count = len(rows)
    if isinstance(part, SequenceModel):
        return part.with_items(_read_columns(part, codes)[list(rows)], vectors)
    if isinstance(part, NeighbourTable):
        table, size = part.table, part.table.shape[0] + count
        offsets = np.concatenate([table.indptr, np.full(count, table.indptr[-1], table.indptr.dtype)])
        return replace(part, table=csr_matrix((table.data, table.indices, offsets), shape=(size, size)))
    if isinstance(part, Popularity):
        return Popularity(np.concatenate([part.counts, np.zeros(count, np.int64)]))
    if isinstance(part, ContentKnn):
        return part.with_items(np.zeros((count, part.candidates.shape[1])) if vectors is None else vectors)
    raise TypeError(f"{type(part).__name__} takes no new items")


def _read_columns(model: SequenceModel, codes: Codes) -> npt.NDArray[np.int64]:
    """Columns of codes that a model reads, int64 [items, levels + nearest].

    Raises:
        InputError: the codes have fewer.
    """
    table, levels = joined(codes), codes.rq.shape[1]
    first = 0 if model.shape.widths else levels
    columns = table[:, first : levels + model.shape.nearest]
    needed = len(model.shape.widths) + model.shape.nearest
    if model.items.code is not None and columns.shape[1] != needed:
        raise InputError(f"got {columns.shape[1]} codes an item, the retriever reads {needed}")
    return columns
