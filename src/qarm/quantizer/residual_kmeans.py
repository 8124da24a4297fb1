"""RQ code: residual k-means, one codebook per level."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from qarm.core.parallel.progress import Progress
from qarm.core.parallel.tiles import over_tiles
from qarm.core.parallel.torchrun import sharded
from qarm.core.paths import as_path
from qarm.core.training_state import fingerprint
from qarm.errors import InputError, shown
from qarm.quantizer.base import ITERATIONS, Quantizer, check_enough_rows, checked_codes, wrong_seed
from qarm.quantizer.kmeans.assignment import prepared, tile_codes
from qarm.quantizer.kmeans.balanced import balanced, nearly_balanced
from qarm.quantizer.kmeans.gpu import chosen_device, code_on_gpu
from qarm.quantizer.kmeans.init import starting_centroids
from qarm.quantizer.kmeans.lloyd import Clustering, lloyd
from qarm.quantizer.model_io import complete, numbered, numbered_tensors, read_model, tensor, write_model
from qarm.quantizer.vectors import (
    ResidualRows,
    Vectors,
    augmented,
    augmented_rows,
    checked_rows,
    subtract_centroids,
)

__all__ = ["ResidualKMeans", "of_codebooks"]

_BALANCES = (None, "none", "last", "all", "last-approximate", "all-approximate")
_COMPARED = 1000

Centroids = Sequence[npt.ArrayLike] | npt.NDArray[np.float32]


class ResidualKMeans(Quantizer):
    """Residual k-means (QARM, arXiv 2411.11739, section on quantitative codes).

    Level 1 is k-means of the vectors; each further level is k-means of what the earlier ones leave. A
    row's code at a level is the nearest centroid to its residual there, squared Euclidean distance, ties
    to the lowest index. The same seed gives the same bytes, however many threads there are.

    Args:
        levels: number of codebooks.
        width: codes per level; one number, or one per level.
        iterations: Lloyd iterations per level, at most; fewer when no row moves any more.
        seed, random_state: of the starting centroids.
        init: "k-means++" (pulled toward the mean where that helps, see `kmeans_plusplus`), or starting
            centroids, [width, d] for each level.
        balance: None (or "none"): codes are the nearest centroids. "last" or "all": on the last level, or on
            all, codes get exactly floor or ceil n / width training rows (OneRec, arXiv 2502.18965, balances
            all; OneSearch the last). "last-approximate" or "all-approximate": about as many, and faster.
            A balanced level codes a row by the least squared distance plus price of the code (see
            `balance`); rows that no prices can tell apart, equal ones above all, stay together.
        device: "cpu", "cuda", or None: a GPU if torch sees one and Triton is installed. The bytes are the
            same. Balanced levels are fitted and coded on the CPU.

    Learned: `codebooks_`, a list of float32 [width, d] per level; `widths_`, list of int;
    `energies_`, list of float, sum of squared residuals of the training rows after each level;
    `n_iter_`, list of int, iterations run per level; `lifts_`, per level float32 [width], the square roots
    of the prices, or None; `n_features_in_`, d.
    """

    lifts_: list[npt.NDArray[np.float32] | None]
    codebooks_: list[npt.NDArray[np.float32]]
    energies_: list[float]
    n_iter_: list[int]

    def __init__(
        self,
        levels: int = 3,
        width: int | Sequence[int] = 256,
        *,
        iterations: int = ITERATIONS,
        seed: int | None = None,
        random_state: int | None = None,
        init: str | Centroids = "k-means++",
        balance: str | None = None,
        device: str | None = None,
    ) -> None:
        self.levels = levels
        self.width = width
        self.iterations = iterations
        self.seed = seed
        self.random_state = random_state
        self.init = init
        self.balance = balance
        self.device = device

    def fit(self, x: Vectors, y: object = None) -> "ResidualKMeans":
        """Learn the codebooks from vectors [n, d], embeddings, an array or a path (see `checked_rows`).

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or there
                are fewer rows than codes.
        """
        widths = self._checked_settings()
        values = checked_rows(self, x, reset=True)
        check_enough_rows(len(values), setting="width", value=max(widths), lower="quantizer.width")
        starts = self._checked_init(widths, values.shape[1])
        with sharded() as shard:
            if shard.size > 1:
                shard.agree("rows and settings", self._given(values, starts))
            self._learn(values, widths, starts, quiet=True if shard.rank else None)
        return self

    def transform(self, x: Vectors) -> npt.NDArray[np.int32]:
        """Codes int32 [n, levels] of vectors [n, d], as in `fit`."""
        check_is_fitted(self)
        values = checked_rows(self, x, reset=False)
        device = chosen_device(self.device)
        if device is not None and all(lift is None for lift in self.lifts_):
            return code_on_gpu(values, self.codebooks_, device)
        codes = np.empty((len(values), len(self.codebooks_)), dtype=np.int32)
        levels = list(zip(self.codebooks_, self.lifts_, strict=True))
        books = [prepared(book if lift is None else augmented(book, lift)) for book, lift in levels]

        def work(_: None, start: int, stop: int) -> None:
            residual = np.array(values[start:stop], dtype=np.float32, order="C")
            for level, (centroids, lift) in enumerate(levels):
                tile = residual if lift is None else augmented_rows(residual)
                codes[start:stop, level] = nearest = tile_codes(tile, books[level])
                subtract_centroids(residual, centroids, nearest)

        over_tiles(len(values), min(book.tile_rows for book in books), lambda: None, work)
        return codes

    def inverse_transform(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Vectors float32 [n, d] that codes [n, levels] stand for; fewer columns decode the first levels.

        Raises:
            InputError: codes are no integers, or outside 0 .. width - 1.
        """
        check_is_fitted(self)
        table = checked_codes(codes, self.widths_)
        vectors = np.zeros((len(table), self.n_features_in_), dtype=np.float32)
        for level in range(table.shape[1]):
            vectors += self.codebooks_[level][table[:, level]]
        return vectors

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`: `level_0`, ..., and `lift_0`, ... where balanced."""
        check_is_fitted(self)
        config = {
            "levels": len(self.widths_),
            "width": self.widths_,
            "dim": self.n_features_in_,
            "iterations": int(self.iterations),
            "seed": self.chosen_seed,
            "balance": self.balance,
            "energies": self.energies_,
            "n_iter": self.n_iter_,
        }
        tensors = numbered("level", self.codebooks_)
        tensors |= {f"lift_{level}": lift for level, lift in enumerate(self.lifts_) if lift is not None}
        write_model(as_path(folder), config, tensors, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ResidualKMeans":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds no residual k-means.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = as_path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        with complete(folder):
            widths, dim = [int(w) for w in config["width"]], int(config["dim"])
            settings = {name: config[name] for name in ("iterations", "seed")}
            loaded = cls(len(widths), widths, **settings, balance=config.get("balance"))
            on = loaded._balanced_levels()
            loaded.energies_, loaded.n_iter_ = list(config["energies"]), list(config["n_iter"])
        shapes = [(width, dim) for width in widths]
        loaded.codebooks_ = numbered_tensors(tensors, "level", shapes, folder=folder)
        loaded.lifts_ = [
            tensor(tensors, f"lift_{level}", (width,), folder=folder) if on[level] else None
            for level, width in enumerate(widths)
        ]
        loaded.widths_, loaded.n_features_in_ = widths, dim
        return loaded

    def _given(
        self, values: npt.NDArray[Any], starts: list[npt.NDArray[np.float32]] | None
    ) -> dict[str, object]:
        """Rows and settings, which all processes must have alike; a thousand rows stand for the content."""
        spaced = np.linspace(0, len(values) - 1, min(len(values), _COMPARED)).astype(np.int64)
        settings = {name: value for name, value in self.get_params().items() if name != "init"}
        hashes = {"rows": fingerprint([values[spaced]]), "init": fingerprint(starts or [])}
        return {"shape": list(values.shape), **hashes, **settings}

    def _learn(
        self,
        values: npt.NDArray[Any],
        widths: list[int],
        starts: list[npt.NDArray[np.float32]] | None,
        *,
        quiet: bool | None,
    ) -> None:
        codes = np.empty((len(values), self.levels), dtype=np.int32)
        codebooks: list[npt.NDArray[np.float32]] = []
        lifts: list[npt.NDArray[np.float32] | None] = []
        energies, iterations = [], []
        total = self.levels * self.iterations
        with Progress(total=total, quiet=bool(quiet), desc="residual k-means", unit="iteration") as progress:
            for level, width in enumerate(widths):
                rows = ResidualRows(values, tuple(codebooks), codes)
                start = (
                    starting_centroids(rows, width, rng=self._rng(level)) if starts is None else starts[level]
                )
                clustering, lift = self._level(rows, start, level, after_each=progress.update)
                lifts.append(lift)
                codes[:, level] = clustering.codes
                codebooks.append(clustering.centroids)
                energies.append(clustering.energy)
                iterations.append(clustering.iterations)
        self.codebooks_, self.widths_, self.lifts_ = codebooks, widths, lifts
        self.energies_, self.n_iter_ = energies, iterations

    def _level(
        self,
        rows: ResidualRows,
        start: npt.NDArray[np.float32],
        level: int,
        *,
        after_each: Callable[[], object],
    ) -> tuple[Clustering, npt.NDArray[np.float32] | None]:
        """One level's k-means, balanced or not, and its lift."""
        steps: dict[str, Any] = {"iterations": self.iterations, "after_each": after_each}
        if not self._balanced_levels()[level]:
            return lloyd(rows, start, device=chosen_device(self.device), **steps), None
        if str(self.balance).endswith("approximate"):
            near = nearly_balanced(rows, start, rng=self._rng(level), **steps)
            return near.clustering, near.lift
        exact = balanced(rows, start, **steps)
        return exact.clustering, exact.lift

    def _balanced_levels(self) -> list[bool]:
        which = str(self.balance).partition("-")[0]
        return [
            which == "all" or (which == "last" and level == self.levels - 1) for level in range(self.levels)
        ]

    def _rng(self, level: int) -> np.random.Generator:
        return np.random.default_rng([self.chosen_seed, level])

    def _checked_settings(self) -> list[int]:
        """The width of each level; every wrong setting is named at once."""
        problems = wrong_seed(self)
        if self.levels < 1 or self.iterations < 1:
            got = f"levels={self.levels}, iterations={self.iterations}"
            problems.append(f"got {got}; need levels and iterations of 1 or more")
        single = isinstance(self.width, int | np.integer)
        widths = [int(self.width)] * self.levels if single else [int(w) for w in self.width]  # type: ignore[union-attr, arg-type]
        if len(widths) != self.levels:
            problems.append(f"width has {len(widths)} entries, need levels={self.levels}; give one per level")
        if min(widths, default=1) < 1:
            problems.append(f"got width={self.width}, need 1 or more codes per level")
        if isinstance(self.init, str) and self.init != "k-means++":
            problems.append(f'got init={self.init!r}, need "k-means++" or starting centroids')
        if self.balance not in _BALANCES:
            problems.append(f"got balance={self.balance!r}, need one of {shown(_BALANCES, first=6)}")
        if self.device not in (None, "cpu", "cuda"):
            problems.append(f'got device={self.device!r}, need None, "cpu" or "cuda"')
        if problems:
            raise InputError(problems)
        return widths

    def _checked_init(self, widths: list[int], dim: int) -> list[npt.NDArray[np.float32]] | None:
        if isinstance(self.init, str):
            return None
        starts = [np.ascontiguousarray(start, dtype=np.float32) for start in self.init]
        wanted = [(width, dim) for width in widths]
        if [start.shape for start in starts] != wanted:
            got = [list(start.shape) for start in starts]
            raise InputError(f"init has shapes {got}, need {[list(s) for s in wanted]}: [width, d] per level")
        if not all(np.isfinite(start).all() for start in starts):
            raise InputError("init holds NaN or infinity; give finite starting centroids")
        return starts


def of_codebooks(codebooks: list[npt.NDArray[np.float32]], widths: list[int]) -> ResidualKMeans:
    """Fitted k-means levels of given centroids, without balance: those before a level of another kind."""
    books = ResidualKMeans(len(codebooks), widths)
    books.codebooks_, books.widths_, books.lifts_ = codebooks, widths, [None] * len(codebooks)
    books.n_features_in_ = codebooks[0].shape[1]
    return books
