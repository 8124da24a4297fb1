"""Candidate index: an inverted file over a blend's item vectors, for catalogues too large to score whole."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from qarm.recommender.retrieval.blend import Blend, BlendScores
from qarm.recommender.retrieval.evaluation import first_items
from qarm.recommender.retrieval.histories import Histories

__all__ = ["INDEXED", "CandidateIndex"]

Scores = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
INDEXED = 200_000  # items from which on a catalogue is searched and not scored whole
PER_LIST = 64  # rows that the centre of a list is learned from
MOST_LISTS = 4096
ASKED = 128  # histories on which recall is measured
TOP = 50  # items of a list, of which recall is the share that is found
RECALL = 0.98


@dataclass(frozen=True)
class CandidateIndex:
    """Inverted file over the vectors of a blend's dense parts; the items of sparse parts come on top.

    As sparse parts only add to a score, the best items of a blend are among the best of its dense parts and
    those that a sparse part scores. Items beyond the indexed ones, new ones, are always candidates.

    scale: float32 [d], factors of a vector's numbers, so that parts count in the lists as they do in scores.
    probes: lists that a query visits; recall: share of the exact 50 best that it finds, on histories of the
    run; index, coarse: of faiss, which does not keep the latter alive.
    """

    scale: Scores
    probes: int
    recall: float
    index: Any
    coarse: Any

    @classmethod
    def of(cls, blend: Blend, histories: Histories, *, seed: int = 0) -> "CandidateIndex":
        """Index of a blend's items that visits as many lists as a recall of .98 takes.

        Args:
            blend: whose vectors are indexed. histories: of users; recall is measured on 128 of them.
            seed: of the rows that lists are learned from, and of those users.
        """
        random = np.random.default_rng([seed, 53])
        users = np.sort(random.permutation(np.flatnonzero(histories.lengths))[:ASKED])
        queries = blend.read(histories.only(users)).queries()
        scale = np.maximum(np.sqrt(np.square(queries).mean(axis=0)), 1e-6).astype(np.float32)
        vectors = np.ascontiguousarray(blend.candidates * scale)
        lists = int(max(1, min(4 * np.sqrt(len(vectors)), MOST_LISTS, len(vectors) // PER_LIST)))
        sample = np.sort(random.permutation(len(vectors))[: PER_LIST * lists])
        coarse = faiss.IndexFlatL2(vectors.shape[1])
        index = faiss.IndexIVFFlat(coarse, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed
        index.train(vectors[sample])
        index.add(vectors)
        exact = np.concatenate(
            [first_items(part @ blend.candidates.T, TOP) for part in np.array_split(queries, 8) if len(part)]
            or [np.empty((0, TOP), np.int64)]
        )
        probes, recall = 1, 0.0
        while True:
            made = cls(scale, probes, recall, index, coarse)
            found = made.search(queries, TOP)
            both = [len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)]
            recall = float(np.sum(both) / max(exact.size, 1)) if len(exact) else 1.0
            if recall >= RECALL or probes >= lists:
                return cls(scale, probes, recall, index, coarse)
            probes = min(2 * probes, lists)

    def search(self, queries: Scores, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Ints:
        """Rows of the items with the highest scalar products, int64 [users, count], -1 where there are fewer.

        Args:
            queries: float32 [users, d]. allowed: bool [items], items that may be found; None: all.
        """
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = self.probes
        if allowed is not None:
            bits = np.packbits(allowed[: self.index.ntotal], bitorder="little")
            selected: Any = faiss.IDSelectorBitmap  # its types know the C++ arguments alone
            selector = selected(bits)
            parameters.sel = selector
        rows: Ints = self.index.search(
            np.ascontiguousarray(queries / self.scale), min(count, self.index.ntotal), params=parameters
        )[1]
        return rows

    def best(
        self, read: BlendScores, users: int, count: int, allowed: npt.NDArray[np.bool_], masked: Histories
    ) -> Ints:
        """The best items of the first `users` of a block, int64 [users, count], -1 where there are fewer.

        Args:
            read: scores of the block. allowed: bool [items]. masked: items of each user that are left out.
        """
        queries, sparse = read.queries()[:users], read.sparse()
        rare = None if (whole := bool(allowed.all())) else allowed
        wanted = count + int(masked.lengths.max(initial=0))
        near = self.search(queries, wanted, rare)
        new = np.arange(self.index.ntotal, len(allowed))
        few = np.flatnonzero(allowed) if not whole and int(allowed.sum()) <= 10 * wanted else new
        found = np.full((users, count), -1, np.int64)
        for user in range(users):
            extra = sparse.indices[sparse.indptr[user] : sparse.indptr[user + 1]]
            rows = np.unique(np.concatenate([near[user][near[user] >= 0], extra, few]))
            rows = np.setdiff1d(rows[allowed[rows]], masked[user])
            if len(rows):
                scores = read.blend.candidates[rows] @ queries[user] + sparse[user, rows].toarray()[0]
                kept = rows[first_items(scores[None], count)[0]]
                found[user, : len(kept)] = kept
        return found
