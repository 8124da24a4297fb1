"""Names of codes: the words of titles that set a prefix's items apart from those beside it."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from qarm.quantizer.code_prefix import Prefix
from qarm.quantizer.code_tree import CodeTree

__all__ = ["CodeNames"]

WORDS = 3  # of a name
WORD = r"(?u)[^\W\d_]{2,}"  # two letters at least, of any script
SHARE = 0.2  # of a prefix's items that a word of its name occurs in, at least

Floats = npt.NDArray[np.float64]


class CodeNames:
    """Names of prefixes by class-based TF-IDF (Grootendorst 2022, "BERTopic", section 3.3).

    A word's score under a prefix is its share of the words there, times log(1 + A / f): f is how often it
    occurs under the parent, A how many words each of the parent's branches has on average. Words of the names
    above are left out, so that each level adds to the last.

    Args:
        tree: of n items.
        titles: of the items in the tree's order, None where one has none.
    """

    def __init__(self, tree: CodeTree, titles: Sequence[str | None]) -> None:
        self._tree = tree
        self._words, self._counts = _counted(titles)
        self.of = lru_cache(maxsize=65_536)(self._of)
        self._sums = lru_cache(maxsize=16)(self._sums_between)  # all branches of a prefix ask for the same

    def _of(self, prefix: Prefix) -> str | None:
        """Name of a prefix, "lamp, oak"; None for one item, the whole tree, and where no word is its own."""
        low, high = self._tree.stretch(prefix)
        if not prefix or high - low < 2 or not self._words:
            return None
        here, around = self._sums(low, high), self._sums(*self._tree.stretch(prefix[:-1]))
        average = around.sum() / self._tree.branches(prefix[:-1])
        scores = here / max(here.sum(), 1.0) * np.log1p(average / np.maximum(around, 1.0))
        scores[here < max(2.0, SHARE * (high - low))] = 0.0
        above = {word for level in range(1, len(prefix)) for word in self._parts(prefix[:level])}
        best = [self._words[n] for n in np.argsort(-scores, kind="stable")[: 4 * WORDS] if scores[n] > 0]
        return ", ".join([word for word in best if word not in above][:WORDS]) or None

    def _parts(self, prefix: Prefix) -> list[str]:
        name = self.of(prefix)
        return [] if name is None else name.split(", ")

    def _sums_between(self, low: int, high: int) -> Floats:
        """Number of items from `low` to `high` with each word."""
        return np.asarray(self._counts[low:high].sum(axis=0), dtype=np.float64).ravel()


def _counted(titles: Sequence[str | None]) -> tuple[list[str], csr_matrix]:
    """Words, and which title has which, sparse [titles, words]; words of more than half of them are none."""
    vectorizer = CountVectorizer(token_pattern=WORD, binary=True, max_df=0.5, min_df=2)
    try:
        counts = vectorizer.fit_transform(title or "" for title in titles)
    except ValueError:  # no word is left
        return [], csr_matrix((len(titles), 0))
    return vectorizer.get_feature_names_out().tolist(), csr_matrix(counts)
