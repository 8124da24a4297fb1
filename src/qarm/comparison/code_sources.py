"""Codes of one seed by source: aligned and raw vectors, RQ-VAE, ALS, and the placebo."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.comparison.variants import Source
from qarm.comparison.windows import Windows
from qarm.config import Config, User2ItemConfig
from qarm.data.catalog import Catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.log_profile import frequency_groups
from qarm.encoder.alignment.align import align
from qarm.encoder.encoder import Encoder
from qarm.pairs.matrix_factorization import factorized
from qarm.pairs.mining import mine_pairs
from qarm.quantizer.base import Quantizer
from qarm.quantizer.factory import all_codes, auto_width, new_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.rqvae import RQVAE
from qarm.recommender.examples import row_numbers

__all__ = ["FREQUENCY_GROUPS", "CodeSources", "permute_codes", "training_frequency_groups"]

FREQUENCY_GROUPS = 6
ALS_EPOCHS = 15

Ints = npt.NDArray[np.int64]


class CodeSources:
    """Vectors and codes of all items, made at first use; no model is trained on a cold item's events.

    Args:
        catalog, windows: the items and the parts of the log.
        config: settings of every stage.
        cache: folder of tower features.
        seed: of every random draw.
    """

    def __init__(
        self, catalog: Catalog, windows: Windows, config: Config, *, cache: Path | None, seed: int
    ) -> None:
        self.catalog, self.windows, self.config = catalog, windows, config
        self.cache, self.seed = cache, seed
        self.training_items = catalog.only(windows.split.train.items)
        self._codes: dict[Source, tuple[Codes, list[str]]] = {}
        self._books: dict[Source, list[npt.NDArray[np.float32]]] = {}
        self._pools: dict[Source, npt.NDArray[np.float32]] = {}

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Pairs mined from the pairs' window."""
        return mine_pairs(self.windows.pairs, self.config.pairs, seed=self.seed)

    @cached_property
    def _encoder(self) -> Encoder:
        settings = self.config.encoder.model_dump(exclude={"cache", "filter"})
        return align(self.training_items, self.pairs, **settings, seed=self.seed, cache=self.cache)

    @cached_property
    def aligned(self) -> Embeddings:
        """Vectors after alignment."""
        return self._encoder.embed(self.catalog, cache=self.cache)

    @cached_property
    def raw(self) -> Embeddings:
        """Vectors before alignment."""
        return self._encoder.raw(self.catalog, cache=self.cache)

    @cached_property
    def als(self) -> Embeddings:
        """ALS vectors from the pairs' window; an item without an event there has the mean of the others."""
        clicks = self.windows.pairs.positives().frame
        users = clicks["user_id"].cast(pl.Categorical).to_physical().to_numpy()
        items = row_numbers(clicks["item_id"], self.catalog.item_ids)
        settings = User2ItemConfig(model="als", dim=self.config.pairs.user2item.dim, epochs=ALS_EPOCHS)
        factors = factorized(settings, users, items, seed=self.seed)
        present = np.unique(items)
        vectors = np.zeros((len(self.catalog), factors.shape[1]), dtype=np.float32)
        vectors[: len(factors)] = factors
        rest = np.setdiff1d(np.arange(len(vectors)), present)
        vectors[rest] = vectors[present].mean(axis=0)
        return Embeddings(self.catalog.item_ids, vectors)

    def clear(self) -> None:
        """Free vectors and codes, which the next seed does not need."""
        for name in ("pairs", "_encoder", "aligned", "raw", "als"):
            self.__dict__.pop(name, None)
        self._codes.clear()
        self._books.clear()
        self._pools.clear()

    def codes(self, source: Source) -> tuple[Codes, list[str]]:
        """Codes of all items, and the items of the VQ code's pool in the order of their pool ids."""
        if source not in self._codes:
            self._codes[source] = self._fit(source)
        return self._codes[source]

    def codebooks(self, source: Source) -> list[npt.NDArray[np.float32]]:
        """Centroids of the levels of these codes; the last level has none where it is no k-means."""
        self.codes(source)
        return self._books["aligned" if source == "placebo" else source]

    def pool_vectors(self, source: Source) -> npt.NDArray[np.float32]:
        """Vectors of the items that the VQ codes name, by pool id."""
        self.codes(source)
        return self._pools["aligned" if source == "placebo" else source]

    def _fit(self, source: Source) -> tuple[Codes, list[str]]:
        if source == "placebo":
            codes, pool = self.codes("aligned")
            groups = training_frequency_groups(codes.item_ids, self.windows.split.train)
            return permute_codes(codes, groups, seed=self.seed), pool
        vectors = {"raw": lambda: self.raw, "als": lambda: self.als}.get(source, lambda: self.aligned)()
        settings = self.config.quantizer
        training = Embeddings(self.training_items.item_ids, vectors.rows(self.training_items.item_ids))
        books: Quantizer
        if source == "rqvae":
            books = RQVAE(settings.levels, self._width(len(training)), seed=self.seed).fit(training.vectors)
        else:
            books = new_quantizer(settings, len(training), seed=self.seed).fit(training)
        self._books[source] = books.codebooks_
        nearest = NearestCodes(
            settings.nearest, pool=settings.pool, index=settings.index, seed=self.seed
        ).fit(training)
        self._pools[source] = nearest.pool_vectors_
        codes = all_codes(vectors, training.item_ids, books, nearest)
        return codes, nearest.pool_frame()["item_id"].to_list()

    def _width(self, items: int) -> int:
        """Codes of each level of RQ-VAE, which has one width: that of the first level."""
        width = self.config.quantizer.width
        if width == "auto":
            return auto_width(items, self.config.quantizer.levels)
        return width if isinstance(width, int) else width[0]


def training_frequency_groups(item_ids: Iterable[str], train: Log) -> Ints:
    """Six groups of items by their number of training events; 0 for cold items; see `frequency_groups`."""
    events = train.frame.group_by("item_id").agg(count=pl.len())
    return frequency_groups(item_ids, events, groups=FREQUENCY_GROUPS)


def permute_codes(codes: Codes, groups: Ints, *, seed: int) -> Codes:
    """Codes permuted among the items of each group: each code keeps its number of items, not its meaning."""
    random, row = np.random.default_rng([seed, 11]), np.arange(len(codes))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        row[members] = random.permutation(members)
    vq = None if codes.vq is None else codes.vq[row]
    return Codes(codes.item_ids, codes.rq[row], vq, codes.version)
