"""Res-KmeansFSQ: residual k-means levels, then finite scalar quantisation of the residual (QARM V2)."""

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.core.paths import as_path
from qarm.errors import InputError
from qarm.quantizer.base import ITERATIONS, Quantizer, checked_codes
from qarm.quantizer.model_io import complete, numbered, numbered_tensors, read_model, tensor, write_model
from qarm.quantizer.residual_kmeans import ResidualKMeans, of_codebooks
from qarm.quantizer.vectors import ResidualRows, Vectors, checked_rows

__all__ = ["ResidualKMeansFSQ"]

_PCA_ROWS = 65536
_TILE = 2048
_MOST_CODES = 2**31 - 1

FloatRows = npt.NDArray[np.float32]


class ResidualKMeansFSQ(Quantizer):
    """Residual k-means with a last level of rounded coordinates (QARM V2, arXiv 2602.08559).

    The last residual r becomes digits round((values - 1) sigmoid(r W)), W of shape [d, digits], and the last
    code is the number that they spell, below values ** digits. How W is learned the paper does not say;
    here its columns are the residual's principal directions, scaled so that normal coordinates would
    fill all values alike. A digit decodes to the mean coordinate of the training rows that have it.

    Args:
        levels: k-means levels before.
        width: codes per k-means level; one number, or one per level.
        digits: coordinates that are rounded, at most d.
        values: of each digit, 2 or more.
        iterations: Lloyd iterations per k-means level, at most.
        seed, random_state: of the starting centroids and of the 65,536 rows that the directions come from.

    Learned: `codebooks_`, as in `ResidualKMeans`; `weights_`, W, float32 [d, digits]; `directions_`, its
    columns at length 1; `decoded_`, float32 [digits, values]; `widths_`, of which the last is
    values ** digits; `n_features_in_`, d.
    """

    codebooks_: list[FloatRows]
    weights_: FloatRows
    directions_: FloatRows
    decoded_: FloatRows

    def __init__(
        self,
        levels: int = 2,
        width: int | Sequence[int] = 256,
        *,
        digits: int = 13,
        values: int = 3,
        iterations: int = ITERATIONS,
        seed: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.levels = levels
        self.width = width
        self.digits = digits
        self.values = values
        self.iterations = iterations
        self.seed = seed
        self.random_state = random_state

    def fit(self, x: Vectors, y: object = None) -> "ResidualKMeansFSQ":
        """Learn codebooks, directions and decoded values from vectors [n, d].

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or there
                are fewer rows than codes of a k-means level.
        """
        if self.digits < 1 or self.values < 2 or self.values**self.digits > _MOST_CODES:
            got = f"digits={self.digits} and values={self.values}"
            raise InputError(f"got {got}, need 1 or more, 2 or more, and values ** digits below 2 ** 31")
        vectors = checked_rows(self, x, reset=True)
        books = ResidualKMeans(self.levels, self.width, iterations=self.iterations, seed=self.chosen_seed)
        codes = books.fit(vectors).transform(vectors)
        rows = ResidualRows(vectors, tuple(books.codebooks_), codes)
        self.codebooks_ = books.codebooks_
        self.directions_, spreads = self._principal(rows)
        gain = _gain(self.values) / np.where(spreads > 0.0, spreads, np.inf)
        self.weights_ = (self.directions_ * gain).astype(np.float32)
        self.widths_ = [*books.widths_, self.values ** self.weights_.shape[1]]
        self.decoded_ = self._mean_values(rows)
        return self

    def transform(self, x: Vectors) -> npt.NDArray[np.int32]:
        """Codes int32 [n, levels + 1] of vectors [n, d], as in `fit`."""
        check_is_fitted(self)
        vectors = checked_rows(self, x, reset=False)
        codes = np.empty((len(vectors), len(self.widths_)), dtype=np.int32)
        codes[:, :-1] = of_codebooks(self.codebooks_, self.widths_[:-1]).transform(vectors)
        rows = ResidualRows(vectors, tuple(self.codebooks_), codes)
        places = self.values ** np.arange(self.weights_.shape[1])

        def work(_: None, start: int, stop: int) -> None:
            codes[start:stop, -1] = self._digits(rows.tile(start, stop)) @ places

        over_tiles(len(rows), _TILE, lambda: None, work)
        return codes

    def inverse_transform(self, codes: npt.ArrayLike) -> FloatRows:
        """Vectors float32 [n, d] that codes stand for; fewer columns decode the first levels.

        Raises:
            InputError: codes are no integers, or outside 0 .. width - 1.
        """
        check_is_fitted(self)
        table = checked_codes(codes, self.widths_)
        vectors = of_codebooks(self.codebooks_, self.widths_[:-1]).inverse_transform(
            table[:, : len(self.codebooks_)]
        )
        if table.shape[1] == len(self.widths_):
            rest = table[:, -1].astype(np.int64)
            for digit, decoded in enumerate(self.decoded_):
                vectors += decoded[rest % self.values][:, None] * self.directions_[:, digit]
                rest //= self.values
        return vectors

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`: `level_0`, ..., `weights`, `directions`, `decoded`."""
        check_is_fitted(self)
        config = {"width": self.widths_[:-1], "dim": self.n_features_in_, "kept": self.weights_.shape[1]}
        config |= {name: int(getattr(self, name)) for name in ("digits", "values", "iterations")}
        config["seed"] = self.chosen_seed
        tensors = numbered("level", self.codebooks_)
        tensors |= {"weights": self.weights_, "directions": self.directions_, "decoded": self.decoded_}
        write_model(as_path(folder), config, tensors, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ResidualKMeansFSQ":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds another quantiser, or none.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = as_path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        with complete(folder):
            widths, dim, kept = [int(w) for w in config["width"]], int(config["dim"]), int(config["kept"])
            settings = {name: int(config[name]) for name in ("digits", "values", "iterations", "seed")}
        loaded = cls(len(widths), widths, **settings)
        shapes = [(width, dim) for width in widths]
        loaded.codebooks_ = numbered_tensors(tensors, "level", shapes, folder=folder)
        loaded.weights_ = tensor(tensors, "weights", (dim, kept), folder=folder)
        loaded.directions_ = tensor(tensors, "directions", (dim, kept), folder=folder)
        loaded.decoded_ = tensor(tensors, "decoded", (kept, loaded.values), folder=folder)
        loaded.widths_, loaded.n_features_in_ = [*widths, loaded.values**kept], dim
        return loaded

    def _principal(self, rows: ResidualRows) -> tuple[FloatRows, npt.NDArray[np.float64]]:
        """Principal directions [d, digits] of the residual, and its spread along them [digits]."""
        rng = np.random.default_rng(self.chosen_seed)
        picked = np.arange(len(rows))
        if len(rows) > _PCA_ROWS:
            picked = np.sort(rng.choice(len(rows), _PCA_ROWS, replace=False, shuffle=False))
        sample = rows.take(picked).astype(np.float64)
        sizes, vectors = np.linalg.eigh(sample.T @ sample / len(sample))
        keep = np.argsort(-sizes, kind="stable")[: self.digits]
        directions = vectors[:, keep]
        # the sign of an eigenvector is arbitrary: its largest entry is made positive
        signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(keep))])
        return (directions * signs).astype(np.float32), np.sqrt(np.maximum(sizes[keep], 0.0))

    def _digits(self, residual: FloatRows) -> npt.NDArray[np.int64]:
        digits = np.empty((len(residual), self.weights_.shape[1]), dtype=np.int64)
        _round_coordinates(residual, self.weights_, _thresholds(self.values), digits)
        return digits

    def _mean_values(self, rows: ResidualRows) -> FloatRows:
        """Mean coordinate of the rows with each value of each digit, [digits, values]; 0 where none has."""
        kept = self.weights_.shape[1]
        sums, counts = np.zeros((kept, self.values)), np.zeros((kept, self.values))
        for start in range(0, len(rows), _TILE):
            tile = rows.tile(start, min(start + _TILE, len(rows)))
            digits = self._digits(tile)
            along = tile.astype(np.float64) @ self.directions_.astype(np.float64)
            for digit in range(kept):
                sums[digit] += np.bincount(digits[:, digit], along[:, digit], minlength=self.values)
                counts[digit] += np.bincount(digits[:, digit], minlength=self.values)
        return (sums / np.maximum(counts, 1.0)).astype(np.float32)


def _thresholds(values: int) -> npt.NDArray[np.float64]:
    """Where round((values - 1) sigmoid(z)) steps from one value to the next."""
    steps = (np.arange(1, values) - 0.5) / (values - 1)
    return np.log(steps / (1.0 - steps))


def _gain(values: int) -> float:
    """The spread at which the outer values get their share, 1 / values, of a normal coordinate."""
    if values == 2:
        return 1.0  # the one threshold is 0, whatever the spread
    return float(_thresholds(values)[0]) / NormalDist().inv_cdf(1.0 / values)


@compiled()
def _round_coordinates(
    residual: FloatRows,
    weights: FloatRows,
    thresholds: npt.NDArray[np.float64],
    digits: npt.NDArray[np.int64],
) -> None:
    """Digits [n, digits] of residual rows [n, d]; sums in one order, so that a row decides alone."""
    for i in range(residual.shape[0]):
        for w in range(weights.shape[1]):
            z = 0.0
            for j in range(weights.shape[0]):
                z += np.float64(residual[i, j]) * np.float64(weights[j, w])
            digit = 0
            for threshold in thresholds:
                if z > threshold:
                    digit += 1
            digits[i, w] = digit
