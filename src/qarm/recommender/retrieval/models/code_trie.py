"""Code trie: the prefixes of an item catalogue's RQ codes, as arrays of nodes level by level."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError

__all__ = ["CodeTrie"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CodeTrie:
    """Distinct prefixes of codes; node n of level l is the n-th prefix of l + 1 codes, ordered by its codes.

    codes: last code of each node, int64 [nodes] per level; first: children of node n of level l are nodes
    first[l + 1][n]:first[l + 1][n + 1] of the next level, first[0] = [0, roots]; items: rows of items by
    leaf, leaf n's in offsets[n]:offsets[n + 1].
    """

    codes: list[Ints]
    first: list[Ints]
    items: Ints
    offsets: Ints

    @classmethod
    def of(cls, codes: npt.NDArray[np.integer]) -> "CodeTrie":
        """Trie of codes [items, levels].

        Raises:
            InputError: there is no item or no level.
        """
        if codes.ndim != 2 or 0 in codes.shape:
            raise InputError(f"got codes of shape {codes.shape}, need at least one item and one level")
        order = np.lexsort(codes.T[::-1])
        ranked = codes[order].astype(np.int64)
        nodes, first = [], []
        parent = np.zeros(len(ranked), np.int64)  # node of the level before, of each item
        changed = np.zeros(len(ranked), bool)
        changed[0] = True
        for level in range(codes.shape[1]):
            changed = changed.copy()
            changed[1:] |= ranked[1:, level] != ranked[:-1, level]
            starts = np.flatnonzero(changed)
            nodes.append(ranked[starts, level])
            first.append(np.searchsorted(parent[starts], np.arange(parent[-1] + 2)))
            parent = np.cumsum(changed) - 1
        offsets = np.append(np.flatnonzero(changed), len(ranked))
        return cls(nodes, first, order, offsets)

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.codes)

    def children(self, level: int, nodes: Ints) -> tuple[Ints, Ints]:
        """Children, nodes of `level`, of nodes of the level before; and the position of each one's parent."""
        begins, ends = self.first[level][nodes], self.first[level][nodes + 1]
        counts = ends - begins
        parents = np.repeat(np.arange(len(nodes)), counts)
        starts = np.cumsum(counts) - counts
        return np.repeat(begins - starts, counts) + np.arange(len(parents)), parents

    def leaf_items(self, leaf: int) -> Ints:
        """Rows of the items that share a full code."""
        return self.items[self.offsets[leaf] : self.offsets[leaf + 1]]
