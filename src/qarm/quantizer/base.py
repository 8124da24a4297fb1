"""Base class of quantisers: one contract, item ids kept, codes checked."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from qarm.config import QuantizerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.vectors import Vectors, VectorsError, checked_item_ids

__all__ = ["ITERATIONS", "Quantizer", "Seeded", "check_enough_rows", "checked_codes", "wrong_seed"]

ITERATIONS: int = QuantizerConfig().iterations  # of Lloyd's algorithm on each level, at most


class Seeded(BaseEstimator):  # type: ignore[misc]
    """Estimator whose draws follow `seed`, or scikit-learn's name for it, `random_state`; by default 0."""

    seed: int | None
    random_state: int | None

    @property
    def chosen_seed(self) -> int:
        """Seed that was given under either name.

        Raises:
            InputError: it is no whole number of 0 or more, or both names have different ones.
        """
        given = [value for value in (self.seed, self.random_state) if value is not None]
        wrong = [value for value in given if not isinstance(value, int | np.integer) or value < 0]
        if wrong or len({int(value) for value in given}) > 1:
            raise InputError(
                f"got seed={self.seed!r} and random_state={self.random_state!r}, need one whole number of 0 "
                "or more; they are two names of one setting"
            )
        return int(given[0]) if given else 0


def wrong_seed(estimator: Seeded) -> list[str]:
    """Problems of an estimator's seed, for a message with all that is wrong."""
    try:
        estimator.chosen_seed  # noqa: B018
    except InputError as error:
        return error.problems
    return []


class Quantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Seeded, ABC):  # type: ignore[misc]
    """Vectors [n, d] to codes int32 [n, levels] and back.

    Learned by all: `widths_`, codes per level; `n_features_in_`, d.
    """

    widths_: list[int]
    n_features_in_: int

    @abstractmethod
    def fit(self, x: Vectors, y: object = None) -> Self:
        """Learn from vectors [n, d]: embeddings, an array, or a path, `.npy` or an embeddings Parquet."""

    @abstractmethod
    def transform(self, x: Vectors) -> npt.NDArray[np.int32]:
        """Codes int32 [n, levels] of vectors [n, d], as in `fit`."""

    @abstractmethod
    def inverse_transform(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Vectors float32 [n, d] that codes stand for; fewer columns decode the first levels."""

    @abstractmethod
    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read what `save_pretrained` wrote."""

    def codes(self, embeddings: Embeddings | Path | str) -> Codes:
        """Codes with the ids of their items, of embeddings or an embeddings Parquet."""
        return Codes(checked_item_ids(embeddings), np.asarray(self.transform(embeddings)))

    @property
    def _n_features_out(self) -> int:
        """Number of columns that `get_feature_names_out` names: a code for each level."""
        return len(self.widths_)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:  # noqa: N803 - scikit-learn's own argument
        settings: str = super().__repr__(N_CHAR_MAX)
        if not hasattr(self, "widths_"):
            return settings
        return f"{settings} fitted: [n, {self.n_features_in_}] -> codes of widths {self.widths_}"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are int32 whatever the vectors are
        return tags


def checked_codes(codes: npt.ArrayLike, widths: list[int]) -> npt.NDArray[np.integer[Any]]:
    """Codes as an integer array [n, levels], of which each lies below its level's width.

    Raises:
        InputError: another shape or type, more levels than widths, or codes out of range (rows are named).
    """
    table = np.asarray(codes)
    if table.ndim != 2 or table.shape[1] > len(widths) or not np.issubdtype(table.dtype, np.integer):
        shape = f"{table.dtype} {list(table.shape)}"
        raise InputError(f"codes are {shape}, need integers [n, levels] with at most {len(widths)} levels")
    for level in range(table.shape[1]):
        column = table[:, level]
        if len(column) and not (column.min() >= 0 and column.max() < widths[level]):
            rows = np.flatnonzero((column < 0) | (column >= widths[level])).tolist()
            raise InputError(f"codes of level {level + 1} leave 0 .. {widths[level] - 1} in rows {rows[:5]}")
    return table


def check_enough_rows(rows: int, *, setting: str, value: int, lower: str) -> None:
    """Refuse to fit on fewer rows than centroids.

    Raises:
        VectorsError: there are fewer rows than `value`; scikit-learn wants one row called a sample.
    """
    if rows < value:
        items = "1 item (one sample)" if rows == 1 else f"{rows} items"
        raise VectorsError(f"got {items}, need at least {setting}={value}; lower {lower}")
