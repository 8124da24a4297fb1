"""One seed of the comparison: its rows, its codes, and each variant's scores, kept as files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qarm.comparison.code_sources import Sources
from qarm.comparison.rivals.torch_rechub import DIN, Rival, fit_rival, score_rival
from qarm.comparison.variants import Variant
from qarm.comparison.windows import Windows, drawn_users
from qarm.config import Config, RankerConfig, features_of
from qarm.core.atomic_io import atomic, write_json
from qarm.data.codes import Codes
from qarm.data.interactions import Log
from qarm.recommender.baselines import best_likeness, item_knn, likeness, popularity
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import ItemTable, item_table
from qarm.recommender.metrics import prior_of
from qarm.recommender.ranking.full_catalogue import catalogue_rows, top_figures
from qarm.recommender.ranking.model import score_examples
from qarm.recommender.ranking.train import Fitted, built, fit_ranker, thinned
from qarm.recommender.ranking.variants import training_rows

__all__ = ["UNTRAINED", "Seed"]

CATALOGUE = "catalogue"
UNTRAINED = ("popularity", "item-kNN", "content-kNN")  # anchors whose scores are no logits
WIDEST = 512
VALID_EVENTS = 5_000  # what early stopping is judged by; more would cost more than they tell


Scores = npt.NDArray[Any]
Scorer = Callable[[Examples], Scores]


@dataclass(frozen=True)
class Judged:
    """Evaluation rows of one seed by how their negatives were drawn; `labels` for a log that has its own.

    catalogue: every unseen item for some users.
    """

    valid: Examples
    test: Mapping[str, Examples]
    catalogue: Examples


class Seed:
    """Everything of one seed; a variant whose scores lie in the folder is not trained again.

    Args:
        sources: vectors and codes of this seed.
        config: ranker settings, and what is compared.
        folder: of this seed's files.
    """

    def __init__(
        self, sources: Sources, config: Config, folder: Path, *, variants: Sequence[Variant]
    ) -> None:
        self.sources, self.config, self.folder = sources, config, folder
        self.variants, self.seed = variants, sources.seed
        self.item_ids = sorted(sources.catalog.item_ids)
        self.windows: Windows = sources.windows
        self.judged = self._judged()

    # ---- rows -----------------------------------------------------------------------------------

    def _judged(self) -> Judged:
        split = self.windows.split
        kinds = ["labels"] if split.explicit else ["uniform", "popular"]
        valid = thinned(self._drawn(split.valid, split.test, kinds[0]), events=VALID_EVENTS)
        test = {kind: self._drawn(split.test, split.valid, kind) for kind in kinds}
        catalogue = catalogue_rows(
            [split.train, split.valid],
            split.test,
            trained_items=split.train.items,
            users=self.config.compare.catalogue_users,
            seed=self.seed,
            **self._reading,
        )
        return Judged(valid, test, catalogue)

    @property
    def _reading(self) -> dict[str, Any]:
        ranker = self.config.ranker
        return {
            "item_ids": self.item_ids,
            "history": ranker.history,
            "long_history": ranker.long_history,
        }

    def _drawn(self, part: Log, other: Log, kind: str) -> Examples:
        """Rows of a part's judged users; what they touch in the other part is no negative either."""
        split = self.windows.split
        judged, rest = drawn_users(part, users=self.config.compare.judged_users or len(part))
        frame = evaluation_rows(
            {"part": judged},
            split.train,
            item_ids=self.item_ids,
            trained_items=split.train.items,
            touched=[other, split.left_out, rest],
            negatives=self.config.compare.negatives,
            popular=kind == "popular",
            seed=self.seed,
        )
        return read_examples(frame, [split.train, split.valid, split.test], **self._reading)

    def _training(self, since: Log | None) -> TrainingRows:
        split = self.windows.split
        return training_rows(split, self.item_ids, self.config.ranker, since=since, seed=self.seed)

    @cached_property
    def rows(self) -> TrainingRows:
        """What variants are trained on."""
        return self._training(self.windows.rows)

    @cached_property
    def _past(self) -> Examples:
        """The whole training part."""
        return self._training(None).events

    # ---- variants -------------------------------------------------------------------------------

    def run(self, told: Callable[[str], None]) -> None:
        """Train and score what is missing."""
        for variant in self.variants:
            self._kept(variant.name, partial(self._scorer, variant), told)
        for name, scorer in self._anchors.items():
            self._kept(name, scorer, told)

    def tried(self, names: Sequence[str], settings: RankerConfig) -> list[tuple[float, int]]:
        """Best validation AUC of these variants with other settings, and the epochs that each took."""
        found = []
        for variant in (variant for variant in self.variants if variant.name in names):
            fitted = fit_ranker(
                self.rows, self.judged.valid, self._table(variant), settings=settings, seed=self.seed
            )
            reached = [epoch["valid_auc"] or 0.0 for epoch in fitted.epochs]
            found.append((float(max(reached)), len(fitted.epochs)))
        return found

    @property
    def anchors(self) -> list[str]:
        """Names of what stands beside the variants."""
        return list(self._anchors)

    def scores(self, name: str) -> dict[str, npt.NDArray[np.float32]]:
        """A method's scores of the test rows, by how their negatives were drawn."""
        return {kind: np.load(self._file(name, kind)) for kind in self.judged.test}

    def tops(self, name: str) -> npt.NDArray[np.float64]:
        """A method's figures over the catalogue, of each user, as of `top_figures`."""
        found: npt.NDArray[np.float64] = np.load(self._file(name, CATALOGUE))
        return found

    def _file(self, name: str, kind: str) -> Path:
        return self.folder / "scores" / f"{name}-{kind}.npy"

    def _kept(self, name: str, made: Callable[[], Scorer], told: Callable[[str], None]) -> None:
        if self._file(name, CATALOGUE).is_file():
            return
        scorer = made()
        for kind, rows in self.judged.test.items():
            self._write(name, kind, scorer(rows).astype(np.float32))
        self._write(name, CATALOGUE, top_figures(self.judged.catalogue, scorer(self.judged.catalogue)))
        told(name)

    def _write(self, name: str, kind: str, values: Scores) -> None:
        with atomic(self._file(name, kind)) as temporary, temporary.open("wb") as file:
            np.save(file, values)

    def _scorer(self, variant: Variant) -> Scorer:
        """A trained ranker's logits; where negatives are drawn, moved to the rows' share of positives."""
        table, settings = self._table(variant), self.config.ranker
        if variant.wide:
            settings = settings.model_copy(update={"dim": self._wide()})
        fitted = fit_ranker(self.rows, self.judged.valid, table, settings=settings, seed=self.seed)
        ranker = fitted.ranker
        self._told(variant.name, fitted, ranker, dim=settings.dim)
        return self._moved(partial(score_examples, ranker), float(ranker.prior))

    def _told(self, name: str, fitted: Fitted | Rival, model: nn.Module, **more: Any) -> None:
        """Write down how training went."""
        content = {"best": fitted.best, "epochs": fitted.epochs, **more}
        content["parameters"] = sum(weight.numel() for weight in model.parameters())
        write_json(self.folder / "cells" / f"{name}.json", content)

    def _moved(self, scorer: Scorer, prior: float) -> Scorer:
        """Logits by the training rows' log-odds of a positive as logits by those of the judged rows."""

        def score(rows: Examples) -> Scores:
            moved = 0.0 if self.windows.split.explicit else prior_of(rows.labels) - prior
            return scorer(rows) + np.float32(moved)

        return score

    def _table(self, variant: Variant) -> ItemTable:
        needs, codes, pool = features_of(variant.features), None, None
        if {"rq", "vq"} & {*needs}:
            codes, pool = self.sources.codes(variant.source)
        table = item_table(
            self.item_ids,
            variant.features,
            codes=codes,
            pool=pool,
            embeddings=self.sources.aligned if "frozen" in needs else None,
            raw=self.sources.raw if "raw" in needs else None,
            scale_by=self.windows.split.train.items,
            **self._starts(variant, codes),
        )
        return replace(table, fixed=variant.fixed)

    def _starts(self, variant: Variant, codes: Codes | None) -> dict[str, Any]:
        """What code tables start from, where it is not chance."""
        start = self.config.ranker.start
        if codes is None or start == "random":
            return {}
        if start == "codebooks":
            return {"codebooks": self.sources.codebooks(variant.source)}
        return {"pool_vectors": self.sources.pool_vectors(variant.source)}

    def _wide(self) -> int:
        """The smallest width with which `id` has as many parameters as the largest variant."""
        settings = self.config.ranker
        wanted = max(self._parameters(self._table(v), settings) for v in self.variants if not v.wide)
        alone = item_table(self.item_ids, "id")
        for dim in range(settings.dim, WIDEST):
            if self._parameters(alone, settings.model_copy(update={"dim": dim})) >= wanted:
                return dim
        return WIDEST

    def _parameters(self, table: ItemTable, settings: RankerConfig) -> int:
        with torch.random.fork_rng(devices=[]):
            return sum(weight.numel() for weight in built(self.rows, table, settings).parameters())

    # ---- anchors --------------------------------------------------------------------------------

    @cached_property
    def _anchors(self) -> dict[str, Callable[[], Scorer]]:
        found: dict[str, Callable[[], Scorer]] = {
            "popularity": lambda: partial(popularity, self._past),
            "item-kNN": lambda: partial(item_knn, self._past),
            "content-kNN": self._by_content,
        }
        return found | {DIN: self._by_rival} if self.config.compare.peer else found

    def _by_content(self) -> Scorer:
        raw = self.sources.raw
        return partial(likeness, raw, kind=best_likeness(raw, self.judged.valid))

    def _by_rival(self) -> Scorer:
        settings = self.config.ranker
        rival = fit_rival(self.rows, self.judged.valid, settings=settings, seed=self.seed)
        self._told(DIN, rival, rival.model, dim=settings.dim, settings=rival.settings)
        return self._moved(partial(score_rival, rival), prior_of(self.rows.epoch(0).labels))
