"""Generative retrieval: an item's RQ code decoded level by level along a trie, or all levels side by side."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.code_trie import CodeTrie
from qarm.recommender.retrieval.models.sequence_model import RetrievalModel, SequenceModel

__all__ = ["Beams", "CodeDecoder", "ParallelCodes"]

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beams:
    """Items of decoded codes with log-probabilities, best first; invalid: share of codes of no item."""

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    invalid: float


class _CodeModel(RetrievalModel):
    """Sequence model whose query predicts the levels of the next item's RQ code.

    history: reads the events; codes: int64 [items, levels], of which every item has one.
    """

    codes: Tensor

    def __init__(self, history: SequenceModel, codes: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.history, dim = history, history.shape.dim
        self.register_buffer("codes", torch.from_numpy(codes))
        widths = [int(top) + 1 for top in codes.max(axis=0)]
        self.tables = nn.ParameterList(torch.randn(width, dim) * dim**-0.5 for width in widths)

    def loss(self, table: Tensor, cold: Tensor) -> Tensor:
        """Cross-entropy of codes, summed over levels, mean over the events of histories [b, t]."""
        queries, targets = self.history.read_table(table, cold)
        logits = self.level_logits(queries, self.codes[targets])
        terms = [
            functional.cross_entropy(part, self.codes[targets, level]) for level, part in enumerate(logits)
        ]
        return torch.stack(terms).sum()

    def level_logits(self, queries: Tensor, codes: Tensor) -> list[Tensor]:
        """Logits [n, width] of each level for queries [n, d], given the codes [n, levels] before it."""
        raise NotImplementedError

    @property
    def item_count(self) -> int:
        """Size of the catalogue."""
        return len(self.codes)

    def freeze(self) -> Self:
        """Evaluation mode, with the vectors of histories computed."""
        self.eval()
        self.history.freeze()
        return self


class ParallelCodes(_CodeModel):
    """Each level's distribution from the query alone; an item's score is the sum over its codes.

    The score is exact over all items, without a search (after RPG, Hou et al., KDD 2025).
    """

    def __init__(self, history: SequenceModel, codes: npt.NDArray[np.int64]) -> None:
        super().__init__(history, codes)
        dim = history.shape.dim
        self.heads = nn.ModuleList(nn.Linear(dim, dim) for _ in self.tables)

    def level_logits(self, queries: Tensor, codes: Tensor) -> list[Tensor]:
        """Logits [n, width] of each level for queries [n, d]."""
        return [_cosines(head(queries), table) for head, table in zip(self.heads, self.tables, strict=True)]

    @torch.no_grad()
    def scores(self, histories: Histories) -> Scores:
        """Log-probabilities of all items' codes, float32 [users, items]."""
        queries = self.history.raw_queries(histories)
        total = torch.zeros(len(histories), len(self.codes))
        for level, logits in enumerate(self.level_logits(queries, self.codes)):
            total += logits.log_softmax(-1)[:, self.codes[:, level]]
        scores: Scores = total.numpy()
        return scores


class CodeDecoder(_CodeModel):
    """Level after level, each given the codes before (TIGER, Rajput et al., NeurIPS 2023).

    The state starts as the query; a code chosen moves it: state + network([state, the code's embedding]).
    """

    _trie: CodeTrie

    def __init__(self, history: SequenceModel, codes: npt.NDArray[np.int64]) -> None:
        super().__init__(history, codes)
        dim = history.shape.dim
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
            for _ in list(self.tables)[1:]
        )
        self._trie = CodeTrie.of(codes)

    def level_logits(self, queries: Tensor, codes: Tensor) -> list[Tensor]:
        """Logits [n, width] of each level for queries [n, d], given the codes [n, levels] before it."""
        state, logits = queries, []
        for level, table in enumerate(self.tables):
            logits.append(_cosines(state, table))
            if level < len(self.steps):
                state = self._moved(level, state, codes[:, level])
        return logits

    def _moved(self, level: int, state: Tensor, codes: Tensor) -> Tensor:
        """State after a code of a level."""
        moved: Tensor = state + self.steps[level](torch.cat([state, self.tables[level][codes]], dim=-1))
        return moved

    @torch.no_grad()
    def beam(self, history: npt.NDArray[np.int32], *, width: int) -> Beams:
        """Items of the `width` best codes of a history; only prefixes of existing codes are walked.

        With a width of at least the number of distinct codes the result is exact.
        """
        state = self.history.raw_queries(Histories.of([history]))
        nodes, scores = np.zeros(1, np.int64), torch.zeros(1, dtype=torch.float64)
        for level, table in enumerate(self.tables):
            children, parents = self._trie.children(level, nodes)
            logs = _cosines(state, table).log_softmax(-1).double()
            codes = torch.from_numpy(self._trie.codes[level][children])
            totals = scores[torch.from_numpy(parents)] + logs[torch.from_numpy(parents), codes]
            kept = torch.argsort(-totals, stable=True)[:width]
            nodes, scores = children[kept.numpy()], totals[kept]
            if level < len(self.steps):
                state = self._moved(level, state[torch.from_numpy(parents)[kept]], codes[kept])
        lists = [self._trie.leaf_items(int(leaf)) for leaf in nodes]
        invalid = float(np.mean([len(part) == 0 for part in lists]))
        return Beams(np.concatenate(lists), np.repeat(scores.numpy(), [len(part) for part in lists]), invalid)

    def scores(self, histories: Histories, *, width: int = 100) -> Scores:
        """Log-probabilities of the items that a beam reaches, -inf elsewhere, float32 [users, items]."""
        table = np.full((len(histories), len(self.codes)), -np.inf, np.float32)
        for user in range(len(histories)):
            beams = self.beam(histories[user], width=width)
            table[user, beams.items] = beams.scores
        return table


def _cosines(queries: Tensor, table: Tensor) -> Tensor:
    """Cosines / .07 of queries [n, d] and rows [width, d]."""
    return functional.normalize(queries, dim=-1) @ functional.normalize(table, dim=-1).T / 0.07
