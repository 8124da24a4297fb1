"""Residual k-means with a product quantiser as last level, no larger than a codebook (OPQ)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.core.paths import as_path
from qarm.errors import InputError
from qarm.quantizer.base import ITERATIONS, Quantizer, check_enough_rows, checked_codes
from qarm.quantizer.kmeans.assignment import Codebook, prepared, tile_codes
from qarm.quantizer.kmeans.init import starting_centroids
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.model_io import complete, numbered, numbered_tensors, read_model, tensor, write_model
from qarm.quantizer.residual_kmeans import ResidualKMeans, of_codebooks
from qarm.quantizer.vectors import ResidualRows, Vectors, checked_rows

__all__ = ["ResidualKMeansOPQ"]

_ROTATION_ROWS, _TRAINING_ROWS, _ROWS_PER_CODE = 65536, 262144, 256
_TILE = 1024
_MOST_CODES = 2**31 - 1
_SETTINGS = ("parts", "values", "rotations", "iterations", "seed")

FloatRows = npt.NDArray[np.float32]


class ResidualKMeansOPQ(Quantizer):
    """Residual k-means, then optimised product quantisation of what it leaves (Ge et al., CVPR 2013).

    The last residual is rotated and cut into `parts`, each of which takes the nearest of `values` centroids.
    The last code is the number that these spell, below values ** parts: with 2 parts of 64 values as many
    codes as a codebook of 4,096, at 128 centroids. The rotation starts from principal directions dealt out so
    that parts carry like products of variances (section 3.2.2), and alternates with the centroids (3.1); of
    both rotations the one that leaves less stays.

    Args:
        levels: k-means levels before.
        width: codes per k-means level; one number, or one per level.
        parts: pieces of the rotated residual, at most d.
        values: centroids of each piece, 2 or more.
        rotations: how often rotation and centroids alternate.
        iterations: Lloyd iterations per k-means level and piece, at most.
        seed, random_state: of starting centroids and of the rows that rotation (65,536) and pieces (256 per
            value and
            262,144 at least) are learned from, where there are more.

    Learned: `codebooks_`, as in `ResidualKMeans`; `rotation_`, float32 [d, d], whose rows make up the pieces;
    `pieces_`, list of float32 [values, d of the piece]; `widths_`, of which the last is values ** parts;
    `n_features_in_`, d.
    """

    codebooks_: list[FloatRows]
    rotation_: FloatRows
    pieces_: list[FloatRows]

    def __init__(
        self,
        levels: int = 2,
        width: int | Sequence[int] = 256,
        *,
        parts: int = 2,
        values: int = 16,
        rotations: int = 8,
        iterations: int = ITERATIONS,
        seed: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.levels = levels
        self.width = width
        self.parts = parts
        self.values = values
        self.rotations = rotations
        self.iterations = iterations
        self.seed = seed
        self.random_state = random_state

    def fit(self, x: Vectors, y: object = None) -> "ResidualKMeansOPQ":
        """Learn codebooks, rotation and pieces from vectors [n, d].

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or there
                are fewer rows than codes of a level or values of a piece.
        """
        if self.parts < 1 or self.values < 2 or self.rotations < 0 or self.values**self.parts > _MOST_CODES:
            got = f"parts={self.parts}, values={self.values}, rotations={self.rotations}"
            raise InputError(f"got {got}; need 1, 2 and 0 or more, and values ** parts below 2 ** 31")
        vectors = checked_rows(self, x, reset=True)
        check_enough_rows(len(vectors), setting="values", value=self.values, lower="values")
        books = ResidualKMeans(self.levels, self.width, iterations=self.iterations, seed=self.chosen_seed)
        codes = books.fit(vectors).transform(vectors)
        rows = ResidualRows(vectors, tuple(books.codebooks_), codes)
        self.codebooks_ = books.codebooks_
        sample = self._sample(rows, _ROTATION_ROWS)
        dealt, sizes = _dealt(sample, min(self.parts, sample.shape[1]))
        cuts = np.cumsum(sizes)[:-1]
        tried = [self._pieces(sample, turned, cuts) for turned in self._rotations(sample, dealt, cuts)]
        best = min(tried, key=lambda found: found.energy)
        rotated = _rotated(
            self._sample(rows, max(_TRAINING_ROWS, _ROWS_PER_CODE * self.values)), best.rotation
        )
        self.rotation_ = best.rotation
        self.pieces_ = [
            lloyd(ResidualRows(part), start, iterations=self.iterations).centroids
            for part, start in zip(_split(rotated, cuts), best.pieces, strict=True)
        ]
        self.widths_ = [*books.widths_, self.values ** len(sizes)]
        return self

    def transform(self, x: Vectors) -> npt.NDArray[np.int32]:
        """Codes int32 [n, levels + 1] of vectors [n, d], as in `fit`."""
        check_is_fitted(self)
        vectors = checked_rows(self, x, reset=False)
        codes = np.empty((len(vectors), len(self.widths_)), dtype=np.int32)
        codes[:, :-1] = of_codebooks(self.codebooks_, self.widths_[:-1]).transform(vectors)
        rows = ResidualRows(vectors, tuple(self.codebooks_), codes)
        books: list[Codebook] = [prepared(piece) for piece in self.pieces_]

        def work(_: None, start: int, stop: int) -> None:
            rotated = _rotated(rows.tile(start, stop), self.rotation_)
            spelled = np.zeros(stop - start, dtype=np.int64)
            for place, part in enumerate(_split(rotated, self._cuts())):
                spelled += tile_codes(part, books[place]).astype(np.int64) * self.values**place
            codes[start:stop, -1] = spelled

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
            rest, pieces = table[:, -1].astype(np.int64), []
            for piece in self.pieces_:
                pieces.append(piece[rest % self.values])
                rest //= self.values
            vectors += _rotated(np.concatenate(pieces, axis=1), np.ascontiguousarray(self.rotation_.T))
        return vectors

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`: `level_0`, ..., `rotation`, `piece_0`, ..."""
        check_is_fitted(self)
        config = {"width": self.widths_[:-1], "dim": self.n_features_in_}
        config |= {"sizes": [piece.shape[1] for piece in self.pieces_]}
        config |= {name: int(getattr(self, name)) for name in _SETTINGS[:-1]} | {"seed": self.chosen_seed}
        tensors = numbered("level", self.codebooks_)
        tensors |= numbered("piece", self.pieces_)
        tensors["rotation"] = self.rotation_
        write_model(as_path(folder), config, tensors, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ResidualKMeansOPQ":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds another quantiser, or none.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = as_path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        with complete(folder):
            widths, dim = [int(w) for w in config["width"]], int(config["dim"])
            sizes = [int(size) for size in config["sizes"]]
            settings = {name: int(config[name]) for name in _SETTINGS}
        loaded = cls(len(widths), widths, **settings)
        levels, pieces = [(width, dim) for width in widths], [(loaded.values, size) for size in sizes]
        loaded.codebooks_ = numbered_tensors(tensors, "level", levels, folder=folder)
        loaded.pieces_ = numbered_tensors(tensors, "piece", pieces, folder=folder)
        loaded.rotation_ = tensor(tensors, "rotation", (dim, dim), folder=folder)
        loaded.widths_, loaded.n_features_in_ = [*widths, loaded.values ** len(sizes)], dim
        return loaded

    def _cuts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([piece.shape[1] for piece in self.pieces_])[:-1]

    def _sample(self, rows: ResidualRows, most: int) -> FloatRows:
        if len(rows) <= most:
            return rows.take(slice(0, len(rows)))
        rng = np.random.default_rng(self.chosen_seed)
        return rows.take(np.sort(rng.choice(len(rows), most, replace=False, shuffle=False)))

    def _rotations(
        self, sample: FloatRows, rotation: FloatRows, cuts: npt.NDArray[np.int64]
    ) -> list[FloatRows]:
        """The rotation given, and the one that alternation makes of it."""
        if self.rotations == 0:
            return [rotation]
        first, books = rotation, self._pieces(sample, rotation, cuts).pieces
        for _ in range(self.rotations):
            parts = _split(_rotated(sample, rotation), cuts)
            found = [
                lloyd(ResidualRows(part), book, iterations=1) for part, book in zip(parts, books, strict=True)
            ]
            books = [clustering.centroids for clustering in found]
            decoded = np.concatenate([piece.centroids[piece.codes] for piece in found], axis=1)
            left, _, right = np.linalg.svd(decoded.T.astype(np.float64) @ sample.astype(np.float64))
            rotation = (left @ right).astype(np.float32)  # orthogonal Procrustes: decoded = rotation sample
        return [first, rotation]

    def _pieces(self, sample: FloatRows, rotation: FloatRows, cuts: npt.NDArray[np.int64]) -> "_Pieces":
        found = []
        for place, part in enumerate(_split(_rotated(sample, rotation), cuts)):
            rng = np.random.default_rng([self.chosen_seed, place])
            start = starting_centroids(ResidualRows(part), self.values, rng=rng)
            found.append(lloyd(ResidualRows(part), start, iterations=self.iterations))
        energy = sum(clustering.energy for clustering in found)
        return _Pieces(rotation, [clustering.centroids for clustering in found], energy)


@dataclass(frozen=True)
class _Pieces:
    """A rotation [d, d], its pieces' centroids [values, d of the piece], and the energy that they leave."""

    rotation: FloatRows
    pieces: list[FloatRows]
    energy: float


def _dealt(sample: FloatRows, parts: int) -> tuple[FloatRows, list[int]]:
    """Principal directions [d, d], each for the piece with the least product of variances so far."""
    values = sample.astype(np.float64)
    sizes, directions = np.linalg.eigh(values.T @ values / len(values))
    order = np.argsort(-sizes, kind="stable")
    dim = len(order)
    room = [len(chunk) for chunk in np.array_split(np.arange(dim), parts)]
    members: list[list[int]] = [[] for _ in range(parts)]
    logs, floor = np.zeros(parts), max(float(sizes.max()), 1e-300) * 1e-9
    for direction in order.tolist():
        open_parts = [part for part in range(parts) if len(members[part]) < room[part]]
        part = min(open_parts, key=lambda p: (logs[p], p))
        members[part].append(direction)
        logs[part] += np.log(max(float(sizes[direction]), floor) / floor)
    chosen = directions[:, [direction for group in members for direction in group]].T
    # the sign of an eigenvector is arbitrary: its largest entry is made positive
    signs = np.sign(chosen[np.arange(dim), np.abs(chosen).argmax(axis=1)])
    return np.ascontiguousarray(chosen * signs[:, None], dtype=np.float32), room


def _split(rotated: FloatRows, cuts: npt.NDArray[np.int64]) -> list[FloatRows]:
    return [np.ascontiguousarray(part) for part in np.split(rotated, cuts, axis=1)]


@compiled()
def _rotated(rows: FloatRows, rotation: FloatRows) -> FloatRows:
    """Rows [n, d] times the transpose of rotation [d, d]; sums in one order, so that a row decides alone."""
    turned = np.ascontiguousarray(rotation.T).astype(np.float64)
    out = np.empty((rows.shape[0], rotation.shape[0]), dtype=np.float32)
    total = np.empty(rotation.shape[0], dtype=np.float64)
    for i in range(rows.shape[0]):
        total[:] = 0.0
        for j in range(rows.shape[1]):
            value = np.float64(rows[i, j])
            for o in range(total.shape[0]):
                total[o] += value * turned[j, o]
        for o in range(total.shape[0]):
            out[i, o] = total[o]
    return out
