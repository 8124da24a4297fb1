"""Codes of one seed by source: aligned and raw vectors, RQ-VAE, ALS, and the placebo."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

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
from qarm.data.popularity import frequency_groups
from qarm.encoder.alignment.align import align
from qarm.pairs.matrix_factorization import factorized
from qarm.pairs.mining import mine_pairs
from qarm.quantizer.factory import all_codes, new_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import auto_width
from qarm.quantizer.rqvae import RQVAE
from qarm.recommender.examples import row_numbers

__all__ = ["FREQUENCY_GROUPS", "Sources", "event_groups", "permuted"]

FREQUENCY_GROUPS = 6
ALS_EPOCHS = 15

Ints = npt.NDArray[np.int64]


class Sources:
    """Vectors and codes of all items, made when first asked for; nothing learned sees a cold item's events.

    Args:
        catalog, windows: the items and the parts of the log.
        config: settings of every stage.
        cache: folder of tower features.
        seed: of everything that is drawn.
    """

    def __init__(
        self, catalog: Catalog, windows: Windows, config: Config, *, cache: Path | None, seed: int
    ) -> None:
        self.catalog, self.windows, self.config = catalog, windows, config
        self.cache, self.seed = cache, seed
        self.known = catalog.only(windows.split.train.items)
        self._made: dict[Source, tuple[Codes, list[str]]] = {}
        self._books: dict[Source, list[npt.NDArray[np.float32]]] = {}
        self._pools: dict[Source, npt.NDArray[np.float32]] = {}

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Mined from the pairs' window."""
        return mine_pairs(self.windows.pairs, self.config.pairs, seed=self.seed)

    @cached_property
    def _encoder(self) -> Any:
        settings = self.config.encoder.model_dump(exclude={"cache", "filter"})
        return align(self.known, self.pairs, **settings, seed=self.seed, cache=self.cache)

    @cached_property
    def aligned(self) -> Embeddings:
        found: Embeddings = self._encoder.embed(self.catalog, cache=self.cache)
        return found

    @cached_property
    def raw(self) -> Embeddings:
        found: Embeddings = self._encoder.raw(self.catalog, cache=self.cache)
        return found

    @cached_property
    def behavior(self) -> Embeddings:
        """ALS vectors from the pairs' window; an item without an event there has the mean of the others."""
        clicks = self.windows.pairs.positives().frame
        users = clicks["user_id"].cast(pl.Categorical).to_physical().to_numpy()
        items = row_numbers(clicks["item_id"], self.catalog.item_ids)
        settings = User2ItemConfig(model="als", dim=self.config.pairs.user2item.dim, epochs=ALS_EPOCHS)
        found = factorized(settings, users, items, seed=self.seed)
        there = np.unique(items)
        vectors = np.zeros((len(self.catalog), found.shape[1]), dtype=np.float32)
        vectors[: len(found)] = found
        rest = np.setdiff1d(np.arange(len(vectors)), there)
        vectors[rest] = vectors[there].mean(axis=0)
        return Embeddings(self.catalog.item_ids, vectors)

    def forget(self) -> None:
        """Let go of vectors and codes, which the next seed does not need."""
        for name in ("pairs", "_encoder", "aligned", "raw", "behavior"):
            self.__dict__.pop(name, None)
        self._made.clear()
        self._books.clear()
        self._pools.clear()

    def codes(self, source: Source) -> tuple[Codes, list[str]]:
        """Codes of all items, and the items of the VQ code's pool in the order of their pool ids."""
        if source not in self._made:
            self._made[source] = self._coded(source)
        return self._made[source]

    def codebooks(self, source: Source) -> list[npt.NDArray[np.float32]]:
        """Centroids of the levels of these codes; the last level has none where it is no k-means."""
        self.codes(source)
        return self._books["aligned" if source == "placebo" else source]

    def pool_vectors(self, source: Source) -> npt.NDArray[np.float32]:
        """Of the items that the VQ codes name, by pool id."""
        self.codes(source)
        return self._pools["aligned" if source == "placebo" else source]

    def _coded(self, source: Source) -> tuple[Codes, list[str]]:
        if source == "placebo":
            codes, pool = self.codes("aligned")
            groups = event_groups(codes.item_ids, self.windows.split.train)
            return permuted(codes, groups, seed=self.seed), pool
        vectors = {"raw": lambda: self.raw, "als": lambda: self.behavior}.get(source, lambda: self.aligned)()
        settings = self.config.quantizer
        known = Embeddings(self.known.item_ids, vectors.rows(self.known.item_ids))
        books: Any
        if source == "rqvae":
            books = RQVAE(settings.levels, self._width(len(known)), seed=self.seed).fit(known.vectors)
        else:
            books = new_quantizer(settings, len(known), seed=self.seed).fit(known)
        self._books[source] = books.codebooks_
        nearest = NearestCodes(
            settings.nearest, pool=settings.pool, index=settings.index, seed=self.seed
        ).fit(known)
        self._pools[source] = nearest.pool_vectors_
        codes = all_codes(vectors, known.item_ids, books, nearest)
        return codes, nearest.pool_frame()["item_id"].to_list()

    def _width(self, items: int) -> int:
        """Of RQ-VAE's levels, which have one: the first level's."""
        width = self.config.quantizer.width
        if width == "auto":
            return auto_width(items, self.config.quantizer.levels)
        return width if isinstance(width, int) else width[0]


def event_groups(item_ids: Iterable[str], train: Log) -> Ints:
    """`frequency_groups` by training events, six of them; 0 for cold items."""
    events = train.frame.group_by("item_id").agg(count=pl.len())
    return frequency_groups(item_ids, events, groups=FREQUENCY_GROUPS)


def permuted(codes: Codes, groups: Ints, *, seed: int) -> Codes:
    """The rows of codes dealt out anew within each group: as many of each code, and nothing said by them."""
    random, row = np.random.default_rng([seed, 11]), np.arange(len(codes))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        row[members] = random.permutation(members)
    vq = None if codes.vq is None else codes.vq[row]
    return Codes(codes.item_ids, codes.rq[row], vq, codes.version)
