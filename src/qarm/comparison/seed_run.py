"""Run of one seed of the comparison: its rows, its codes, and each variant's scores, kept as files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qarm.comparison.code_sources import CodeSources
from qarm.comparison.file_hashes import checked, enter
from qarm.comparison.rivals.anchors import Anchors
from qarm.comparison.rivals.torch_rechub import DIN, Rival, fit_rival, score_rival
from qarm.comparison.variants import Variant, family_of
from qarm.comparison.windows import Windows, sample_users
from qarm.config import Config, RankerConfig, features_of
from qarm.core.atomic_io import atomic, write_json
from qarm.core.training_state import fingerprint
from qarm.data.codes import Codes
from qarm.data.interactions import Log
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import ItemTable, item_table
from qarm.recommender.metrics import prior_of
from qarm.recommender.negative_sampling import log_q
from qarm.recommender.ranking.fitting import FittedRanker, build_ranker, fit_ranker, thin_examples
from qarm.recommender.ranking.full_catalogue import catalogue_rows, top_figures
from qarm.recommender.ranking.model import score_examples
from qarm.recommender.ranking.variants import training_rows
from qarm.schemas.comparison import ComparedCell

__all__ = ["UNTRAINED", "EvaluationRows", "SeedRun"]

CATALOGUE = "catalogue"
UNTRAINED = Anchors.NAMES  # anchors whose scores are no logits
WIDEST = 512
TIE = 5  # decimals of a logit that decide; equal candidates differ beyond them, by their place in a batch
VALID_EVENTS = 5_000  # events for early stopping; more cost time and change its decision little

Scores = npt.NDArray[Any]  # logits, or counts of an anchor
Scorer = Callable[[Examples], Scores]
Progress = Callable[[str], None]


class CodeStart(TypedDict, total=False):
    """Start values of the code tables, as arguments of `item_table`."""

    codebooks: list[npt.NDArray[np.float32]]
    pool_vectors: npt.NDArray[np.float32]


class HistorySettings(TypedDict):
    """Item ids and history lengths with which examples are read."""

    item_ids: list[str]
    history: int
    long_history: int


@dataclass(frozen=True)
class EvaluationRows:
    """Validation and test rows of one seed.

    test: by kind of negatives, `labels` for a log with negative events; catalogue: every unseen item of
    some users.
    """

    valid: Examples
    test: Mapping[str, Examples]
    catalogue: Examples


class SeedRun:
    """All variants on one seed; a variant whose scores lie in the folder is not trained again.

    Args:
        sources: vectors and codes of this seed.
        config: ranker settings, and what is compared.
        folder: of this seed's files.

    `tuned`: ranker settings by family of variants, where they are not those of the config.
    """

    def __init__(
        self, sources: CodeSources, config: Config, folder: Path, *, variants: Sequence[Variant]
    ) -> None:
        self.sources, self.config, self.folder = sources, config, folder
        self.variants, self.seed = variants, sources.seed
        self.item_ids = sorted(sources.catalog.item_ids)
        self.tuned: dict[str, RankerConfig] = {}
        self.windows: Windows = sources.windows
        self.evaluation = self._evaluation_rows()

    # ---- rows -----------------------------------------------------------------------------------

    def _evaluation_rows(self) -> EvaluationRows:
        split = self.windows.split
        kinds = ["labels"] if split.explicit else ["uniform", "popular"]
        # validation knows no event of the test part, not even which item is no negative
        later = [split.test] if self.config.compare.edition == 1 else []
        valid = thin_examples(self._rows_of(split.valid, later, kinds[0]), events=VALID_EVENTS)
        test = {kind: self._rows_of(split.test, [split.valid, split.left_out_later], kind) for kind in kinds}
        catalogue = catalogue_rows(
            [split.train, split.valid],
            split.test,
            trained_items=split.train.items,
            users=self.config.compare.catalogue_users,
            seed=self.seed,
            **self._history,
        )
        return EvaluationRows(valid, test, catalogue)

    @property
    def _history(self) -> HistorySettings:
        ranker = self.config.ranker
        return {
            "item_ids": self.item_ids,
            "history": ranker.history,
            "long_history": ranker.long_history,
        }

    def _rows_of(self, part: Log, others: Sequence[Log], kind: str) -> Examples:
        """Rows of a part's sampled users; items of their events in other parts are no negatives either."""
        split = self.windows.split
        sampled, rest = sample_users(part, users=self.config.compare.judged_users or len(part))
        frame = evaluation_rows(
            {"part": sampled},
            split.train,
            item_ids=self.item_ids,
            trained_items=split.train.items,
            touched=[*others, split.left_out, rest],
            negatives=self.config.compare.negatives,
            popular=kind == "popular",
            seed=self.seed,
        )
        return read_examples(frame, [split.train, split.valid, split.test], **self._history)

    def _training(self, since: Log | None) -> TrainingRows:
        split = self.windows.split
        return training_rows(split, self.item_ids, self.config.ranker, since=since, seed=self.seed)

    @cached_property
    def rows(self) -> TrainingRows:
        """Training rows of all variants."""
        return self._training(self.windows.rows)

    @cached_property
    def _log_q(self) -> npt.NDArray[np.float32]:
        """Correction of logits for rows whose negatives are drawn by popularity, as of `log_q`."""
        events = self._training_events
        return log_q(np.bincount(events.items, minlength=len(self.item_ids)))

    @cached_property
    def _training_events(self) -> Examples:
        """Events of the whole training part."""
        return self._training(None).events

    # ---- variants -------------------------------------------------------------------------------

    def run(self, progress: Progress) -> None:
        """Train and score the variants and anchors whose scores are missing."""
        for variant in self.variants:
            self._score_once(variant.name, partial(self._scorer, variant), progress)
        for name, scorer in self._anchors.items():
            self._score_once(name, scorer, progress)

    def search_trial(self, names: Sequence[str], settings: RankerConfig) -> list[tuple[float, int]]:
        """Best validation figure of these variants with other settings, and the epochs that each took."""
        trials = []
        for variant in (variant for variant in self.variants if variant.name in names):
            name = f"search with {variant.name}, seed {self.seed}"
            table = self._table(variant)
            fitted = fit_ranker(
                self.rows, self.evaluation.valid, table, settings=settings, seed=self.seed, name=name
            )
            figures = (e.valid_gauc if settings.select == "gauc" else e.valid_auc for e in fitted.epochs)
            reached = [figure or 0.0 for figure in figures]
            trials.append((float(max(reached)), len(fitted.epochs)))
        return trials

    @property
    def anchors(self) -> list[str]:
        """Names of the methods beside the variants."""
        return list(self._anchors)

    def scores(self, name: str) -> dict[str, npt.NDArray[np.float32]]:
        """A method's scores of the test rows, by kind of negatives."""
        return {kind: np.load(self._checked(name, kind)) for kind in self.evaluation.test}

    def catalogue_figures(self, name: str) -> npt.NDArray[np.float64]:
        """A method's recall and NDCG over the catalogue, of each user, as of `top_figures`."""
        figures: npt.NDArray[np.float64] = np.load(self._checked(name, CATALOGUE))
        return figures

    def _file(self, name: str, kind: str) -> Path:
        return self.folder / "scores" / f"{name}-{kind}.npy"

    def _checked(self, name: str, kind: str) -> Path:
        return checked(self.folder.parent, self._file(name, kind))

    def _score_once(self, name: str, make_scorer: Callable[[], Scorer], progress: Progress) -> None:
        if all(self._file(name, kind).is_file() for kind in (*self.evaluation.test, CATALOGUE)):
            return
        scorer = make_scorer()
        for kind, rows in self.evaluation.test.items():
            scores = scorer(rows)
            if self.config.compare.edition > 1 and name not in UNTRAINED:
                scores = self._corrected(scores, rows, kind)
            self._write(name, kind, scores.astype(np.float32))
        self._write(
            name, CATALOGUE, top_figures(self.evaluation.catalogue, scorer(self.evaluation.catalogue))
        )
        progress(name)

    def _corrected(self, logits: Scores, rows: Examples, kind: str) -> Scores:
        """Logits with log q for popular negatives, rounded: what differs by float32's rounding is a tie."""
        shifted = logits - self._log_q[rows.items] if kind == "popular" else logits
        rounded: Scores = np.round(shifted.astype(np.float64), TIE)
        return rounded

    def _write(self, name: str, kind: str, values: npt.NDArray[np.floating]) -> None:
        with atomic(self._file(name, kind)) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        enter(self.folder.parent, self._file(name, kind))

    def _scorer(self, variant: Variant) -> Scorer:
        """A trained ranker's logits; where negatives are drawn, shifted to the rows' share of positives."""
        table, settings = self._table(variant), self.settings_of(variant)
        if variant.wide:
            settings = settings.model_copy(update={"dim": self._wide(settings)})
        name = f"train {variant.name}, seed {self.seed}"
        fitted = fit_ranker(
            self.rows, self.evaluation.valid, table, settings=settings, seed=self.seed, name=name
        )
        ranker = fitted.ranker
        self._write_cell(variant.name, fitted, ranker, dim=settings.dim)
        return self._shifted(partial(score_examples, ranker), float(ranker.prior))

    def _write_cell(self, name: str, fitted: FittedRanker | Rival, model: nn.Module, *, dim: int) -> None:
        cell = ComparedCell(
            best=fitted.best,
            epochs=fitted.epochs,
            dim=dim,
            parameters=sum(weight.numel() for weight in model.parameters()),
            weights=fingerprint(weight.detach().cpu().numpy() for weight in model.parameters()),
        )
        if isinstance(fitted, Rival):
            cell.settings = fitted.settings
        file = self.folder / "cells" / f"{name}.json"
        write_json(file, cell)
        enter(self.folder.parent, file)

    def _shifted(self, scorer: Scorer, prior: float) -> Scorer:
        """Logits shifted from the training rows' log-odds of a positive to those of the evaluation rows."""

        def score(rows: Examples) -> Scores:
            shift = 0.0 if self.windows.split.explicit else prior_of(rows.labels) - prior
            return scorer(rows) + np.float32(shift)

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

    def _starts(self, variant: Variant, codes: Codes | None) -> CodeStart:
        """Start values of the code tables; none where they start at random."""
        start = self.config.ranker.start
        if codes is None or start == "random":
            return {}
        if start == "codebooks":
            return {"codebooks": self.sources.codebooks(variant.source)}
        return {"pool_vectors": self.sources.pool_vectors(variant.source)}

    def settings_of(self, variant: Variant) -> RankerConfig:
        """Ranker settings of a variant: those of its family."""
        return self.tuned.get(family_of(variant), self.config.ranker)

    def _wide(self, settings: RankerConfig) -> int:
        """The smallest width with which `id` has as many parameters as the largest variant."""
        others = [variant for variant in self.variants if not variant.wide]
        wanted = max(self._parameters(self._table(v), self.settings_of(v)) for v in others)
        alone = item_table(self.item_ids, "id")
        for dim in range(settings.dim, WIDEST):
            if self._parameters(alone, settings.model_copy(update={"dim": dim})) >= wanted:
                return dim
        return WIDEST

    def _parameters(self, table: ItemTable, settings: RankerConfig) -> int:
        with torch.random.fork_rng(devices=[]):
            return sum(weight.numel() for weight in build_ranker(self.rows, table, settings).parameters())

    # ---- anchors --------------------------------------------------------------------------------

    @cached_property
    def _counting(self) -> Anchors:
        return Anchors(
            self.windows.split.train,
            self._training_events,
            self.evaluation.valid,
            lambda: self.sources.raw,
            explicit=self.windows.split.explicit,
            seed=self.seed,
        )

    @cached_property
    def _anchors(self) -> dict[str, Callable[[], Scorer]]:
        anchors = self._counting.scorers(self.config.compare.edition)
        return anchors | {DIN: self._by_rival} if self.config.compare.peer else anchors

    @property
    def left_out(self) -> list[str]:
        """Anchors that are not run, with the reason."""
        if self.config.compare.edition == 1:
            return []
        return [f"{name}: {reason}" for name, reason in self._counting.left_out.items()]

    def _by_rival(self) -> Scorer:
        settings = self.config.ranker
        rival = fit_rival(self.rows, self.evaluation.valid, settings=settings, seed=self.seed)
        self._write_cell(DIN, rival, rival.model, dim=settings.dim)
        return self._shifted(partial(score_rival, rival), prior_of(self.rows.epoch(0).labels))
