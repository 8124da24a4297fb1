"""Bundle in memory: codes for new items, neighbours, items under a code prefix, scores."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from qarm.config import saved_config
from qarm.core.atomic_io import read_json
from qarm.core.formats import upgraded
from qarm.core.item_index import ItemIndex
from qarm.core.paths import as_path
from qarm.core.sealed_folder import opened_seal
from qarm.core.tables import TableColumns
from qarm.core.tables.feature_columns import AttributeKind, split_list, vector_field
from qarm.core.tables.parquet import read_parquet
from qarm.data.catalog import MEDIA, Catalog, as_catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.encoder.towers.checkpoint import Checkpoint
from qarm.encoder.towers.image import ImageTower
from qarm.encoder.towers.tower import reads
from qarm.errors import ArtifactError, InputError, Problems, shown
from qarm.quantizer.code_prefix import prefix_stretch
from qarm.quantizer.coder import Coder
from qarm.quantizer.exact_knn import exact_nearest, unit_rows
from qarm.recommender.ranking.item_scorer import ItemScorer
from qarm.recommender.ranking.model import Ranker
from qarm.recommender.retrieval.recommender import Recommender
from qarm.schemas.bundle import BundleContent
from qarm.serving.bundle_checks import check_bundle, read_ranker, read_recommender
from qarm.serving.export.bundle_writer import KIND, export_bundle

__all__ = ["Bundle", "export_bundle"]

FloatRows = npt.NDArray[np.float32]


class Bundle:
    """What `export_bundle` wrote, verified and read; safe to use from several threads.

    version: SHA-256 over all files; folder; item_ids: n items with codes; codes: theirs; vectors: aligned, in
    the same order; config: the run's, by section; variant: of the ranker, None without one; recommender: None
    without one; users: whose histories it knows, None where it has none.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        content: BundleContent,
        *,
        coder: Coder,
        codes: Codes,
        vectors: Embeddings,
        ranker: Ranker | None,
        recommender: Recommender | None,
        facts: pl.DataFrame,
        raw: Mapping[str, list[str]],
    ) -> None:
        self.folder, self.version = folder, version
        self.config, self.variant = saved_config(content.config), content.variant
        self.item_ids, self.codes, self.vectors = codes.item_ids, codes, vectors
        self._coder, self._ranker, self._facts, self._raw = coder, ranker, facts, raw
        self.recommender, self.users = recommender, content.users
        self._rows = ItemIndex(codes.item_ids)
        order = np.lexsort((np.array(codes.item_ids), *codes.rq.T[::-1]))
        self._sorted = np.ascontiguousarray(codes.rq[order].T)
        self._order = order

    @classmethod
    def load(cls, folder: Path | str) -> "Bundle":
        """Read a bundle after the hash of every file was compared with its manifest.

        Raises:
            InputError: the folder holds no bundle.
            ArtifactError: a file is missing, changed or not part of it; it is named.
        """
        folder = as_path(folder)
        version = opened_seal(folder, kind=KIND)
        try:
            content = BundleContent.model_validate(upgraded(read_json(folder / "bundle.json")))
        except ValidationError as error:
            raise ArtifactError(f"{folder / 'bundle.json'}: {error}; export again") from None
        coder, codes = Coder.read(folder), Codes.read(folder / "codes" / "codes.parquet")
        vectors = _writable(Embeddings.read(folder / "embeddings" / "embeddings.parquet"))
        facts, ranker = read_parquet(folder / "items.parquet"), read_ranker(folder, content)
        check_bundle(
            str(folder), content, coder=coder, codes=codes, vectors=vectors, facts=facts, ranker=ranker
        )
        recommender = read_recommender(folder, codes, vectors) if content.retriever else None
        raw = folder / "embeddings" / "raw_neighbours.parquet"
        neighbours = dict(read_parquet(raw).iter_rows()) if raw.is_file() else {}
        return cls(
            folder,
            version,
            content,
            coder=coder,
            codes=codes,
            vectors=vectors,
            ranker=ranker,
            recommender=recommender,
            facts=facts,
            raw=neighbours,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def warm(self) -> "Bundle":
        """Load the towers' networks and compile the search, which the first request would wait for."""
        for tower in self._coder.encoder.towers.values():
            if isinstance(tower, Checkpoint):
                tower.model  # noqa: B018 - loaded once, then kept
        some = Embeddings(self.item_ids[:1], self.vectors.vectors[:1])
        self._coder.books.transform(some)
        self._coder.nearest.codes(some)
        self.nearest(some.vectors, 1)
        if self.recommender is not None:
            self.recommender.recommend(histories=[self.item_ids[:1]], k=1)
        return self

    @property
    def modalities(self) -> list[str]:
        """What the encoder reads of an item: some of text, image, audio."""
        return self._coder.encoder.modalities

    @property
    def picture_side(self) -> int | None:
        """Side of the square that the encoder squeezes pictures to; None where it reads their pixels."""
        readers = [t for name, t in self._coder.encoder.towers.items() if "image" in reads(name, t)]
        sides = {t.side if isinstance(t, ImageTower) else None for t in readers}
        return sides.pop() if len(sides) == 1 else None

    @property
    def text_fields(self) -> list[str]:
        """The text fields of an item, by the run's names."""
        return self.config.data.items.text_columns

    @property
    def feature_fields(self) -> dict[str, tuple[type, ...]]:
        """Attributes and vectors of an item, by the run's names, and the types of their values."""
        items = self.config.data.items
        values: dict[str, tuple[type, ...]] = {"list": (str, int, float, list)}
        kinds = {name: values.get(kind, (str, int, float)) for name, kind in items.attributes.items()}
        return kinds | {vector_field(name): (list,) for name in items.vectors}

    # ---- new items --------------------------------------------------------------------------------

    def code(self, catalog: Catalog) -> tuple[Embeddings, Codes]:
        """Vectors and codes of new items, byte for byte those of `qarm encode`.

        Media that cannot be read are an error here; `qarm encode` leaves them out.

        Raises:
            InputError: items without any of the encoder's modalities, pictures or sounds that cannot be read.
        """
        return self._coder.code(catalog, new=True)

    def catalog_of(self, rows: Sequence[Mapping[str, Any]]) -> Catalog:
        """A catalogue of items that came as values; no path is ever opened.

        Args:
            rows: item_id (str), any of the run's text fields (str or None), `image` and `audio` (bytes or
                None, whole files), attributes (a text, a number or a list) and vectors (lists) by name.

        Raises:
            InputError: every problem: unknown fields, values of another type, ids that are missing, empty or
                not distinct, items without any content.
        """
        kinds = dict.fromkeys(("item_id", *self.text_fields), str) | dict.fromkeys(MEDIA, bytes)
        problems, features = Problems(), self.feature_fields
        for number, row in enumerate(rows):
            for problem in _problems_of(row, {**features, **kinds}):
                problems.add(f"item {number}: {problem}")
        if not rows:
            problems.add("got no items, need at least one")
        problems.raise_any()
        types = {str: pl.String, bytes: pl.Binary}
        columns = {
            name: pl.Series(name, [row.get(name) for row in rows], dtype=types[kind])
            for name, kind in kinds.items()
        }
        items = self.config.data.items
        for name in features:
            columns[name] = _feature_column(name, [row.get(name) for row in rows], items.attributes.get(name))
        return as_catalog(
            TableColumns("items", pl.DataFrame(columns), list(columns)),
            self.folder,
            id="item_id",
            text=items.text,
            image="image",
            audio="audio",
            vectors=[vector_field(name) for name in items.vectors],
            attributes=items.attributes,
        )

    # ---- known items ------------------------------------------------------------------------------

    def row(self, item_id: str) -> int:
        """Row of an item in `codes` and `vectors`.

        Raises:
            InputError: there is no such item.
        """
        if item_id not in self._rows:
            raise InputError(f"got item {item_id!r}, which this bundle does not have")
        return self._rows[item_id]

    def facts(self, item_id: str) -> dict[str, str | None]:
        """item_id, the text fields, and `image` and `audio`, files below `folder`; None where it has none.

        Raises:
            InputError: there is no such item.
        """
        return self._facts.row(self.row(item_id), named=True)

    def nearest(self, vectors: FloatRows, count: int) -> tuple[list[list[str]], FloatRows]:
        """The items with the largest cosines to vectors [n, d], by exact search, nearest first.

        Returns:
            ids: n lists of `count` items, or of all but one where there are no more; cosines: float32
            [n, count].

        Raises:
            InputError: another dimension, values that are not finite, or a vector of zeros.
        """
        rows, table = np.asarray(vectors, dtype=np.float32), self.vectors.vectors
        if rows.ndim != 2 or rows.shape[1] != table.shape[1] or not np.isfinite(rows).all():
            raise InputError(f"got vectors {list(rows.shape)}, need finite ones [n, {table.shape[1]}]")
        if count < 1:
            raise InputError(f"got count={count}, need 1 or more")
        nearest = exact_nearest(rows, np.full(len(rows), -1), table, min(count, len(table) - 1))
        cosines = np.einsum("nd,nkd->nk", unit_rows(rows), table[nearest])
        return [[self.item_ids[row] for row in line] for line in nearest.tolist()], cosines

    def nearest_raw(self, item_id: str) -> list[str]:
        """Up to ten items that were nearest before alignment, nearest first; none for appended items.

        Raises:
            InputError: there is no such item.
        """
        self.row(item_id)
        return list(self._raw.get(item_id, []))

    def under(self, prefix: Sequence[int]) -> list[str]:
        """Items whose RQ code begins with these codes, by code, then by id; all for an empty prefix.

        Raises:
            InputError: more codes than levels.
        """
        if len(prefix) > len(self._sorted):
            raise InputError(f"got {len(prefix)} codes, need at most {len(self._sorted)} levels")
        first, last = prefix_stretch(self._sorted, prefix)
        return [self.item_ids[row] for row in self._order[first:last].tolist()]

    def score(
        self,
        candidates: Sequence[Sequence[str]],
        histories: Sequence[Sequence[str]],
        *,
        label: str | None = None,
        users: Sequence[Mapping[str, str]] | None = None,
        gaps: Sequence[Sequence[int]] | None = None,
    ) -> list[FloatRows]:
        """The ranker's logits of each request's candidates, one float32 array per request.

        Items of the bundle that the ranker was not trained with are scored by their codes.

        Args:
            candidates: items to score; histories: what the same users did, oldest first.
            label, users, gaps: as of `Ranker.score`.

        Raises:
            InputError: the bundle has no ranker, lengths differ, items without codes, or a feature or a label
                that the ranker does not know.
        """
        if self.scorer is None:
            raise InputError(
                "this bundle has no ranker; run qarm train and qarm export again, or leave scoring out"
            )
        return self.scorer.score(candidates, histories, label=label, users=users, gaps=gaps)

    @cached_property
    def scorer(self) -> ItemScorer | None:
        """Scores of the ranker's items and of later ones; None without a ranker."""
        if self._ranker is None or self.variant is None:
            return None
        return ItemScorer(self._ranker, self.variant, codes=self.codes, vectors=self.vectors)


def _writable(vectors: Embeddings) -> Embeddings:
    """Torch wants memory that it could write to."""
    return Embeddings(vectors.item_ids, vectors.vectors.copy())


def _feature_column(name: str, values: list[Any], kind: AttributeKind | None) -> pl.Series:
    """A column of one attribute, or of vectors where it is none, as a table would have it."""
    if kind is None:
        return pl.Series(name, values, dtype=pl.List(pl.Float32), strict=False)
    if kind != "list":
        return pl.Series(name, [None if v is None else _text_of(v) for v in values], dtype=pl.String)
    lists = [None if v is None else split_list(v) if isinstance(v, str) else v for v in values]
    texts = [None if v is None else [_text_of(x) for x in (v if isinstance(v, list) else [v])] for v in lists]
    return pl.Series(name, texts, dtype=pl.List(pl.String))


def _text_of(value: object) -> str:
    """A JSON value as a table of texts has it: 7 and 7.0 are `7`."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _named(kind: type | tuple[type, ...]) -> str:
    return kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)


def _problems_of(row: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> list[str]:
    unknown = [name for name in row if name not in kinds]
    found = [f"unknown fields {shown(unknown)}; it has {shown(kinds, first=12)}"] if unknown else []
    for name, kind in kinds.items():
        value = row.get(name)
        if value is not None and not isinstance(value, kind):
            found.append(f"{name} is {type(value).__name__}, need {_named(kind)}")
        elif isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            found.append(f"{name} is no Unicode text: it holds half a surrogate pair")
    return found
