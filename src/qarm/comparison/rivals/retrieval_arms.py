"""Retrieval arms of the comparison: counting, the model with codes, ids alone or placebo codes, the blend."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qarm.comparison.code_sources import CodeSources
from qarm.comparison.file_hashes import checked, enter
from qarm.comparison.two_way_intervals import TwoWayIntervals
from qarm.comparison.variants import Source
from qarm.config import RetrieverConfig
from qarm.core.atomic_io import atomic, digest
from qarm.recommender.metrics import UserAuc
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.evaluation import ndcg_of, rank_targets, recall_of
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.retrieve import RetrievalInputs, fit_split, split_targets
from qarm.schemas.comparison import ComparedRetrieval, RetrievalGain, RetrievalMeans

__all__ = ["SeedRetrieval", "compare_retrieval", "user_figures"]

MODEL, BLEND, PLACEBO, IDS = "model", "blend", "model@placebo", "model (ids alone)"
FIGURES = ("recall at 10", "NDCG at 10", "recall at 200", "recall at 10 of cold items")

Floats = npt.NDArray[np.float64]


class SeedRetrieval:
    """Figures of each arm and user on one seed; an arm whose figures lie in the folder is not fitted again.

    Args:
        sources: vectors and codes of the seed. folder: of the seed's files, in that of the comparison.
    """

    def __init__(self, sources: CodeSources, config: RetrieverConfig, folder: Path) -> None:
        self.sources, self.config = sources, config
        key = digest(config.model_dump(mode="json"))[:8]  # other settings have other figures
        self.folder = folder / f"retrieval-{key}"
        self.users = sources.windows.split.test.positives().users

    @property
    def arms(self) -> list[str]:
        """Arms of the config: the parts of the blend, the blend, and what the model is held against."""
        if MODEL not in self.config.blend:
            return [*self.config.blend, BLEND]
        coded = {"rq", "vq"} & {*self.config.fields}
        return [
            *self.config.blend,
            BLEND,
            *([PLACEBO] if coded else []),
            *([IDS] if coded and "id" in self.config.fields else []),
        ]

    def run(self) -> None:
        """Fit and judge the arms whose figures are missing."""
        missing = [arm for arm in self.arms if not self._file(arm).is_file()]
        for arm in [PLACEBO, IDS]:
            if arm in missing:
                config = self.config.model_copy(update={"blend": [MODEL]})
                if arm == IDS:
                    config = config.model_copy(update={"fields": ["id"]})
                self._fit(config, "placebo" if arm == PLACEBO else "aligned", {MODEL: arm})
        if {*missing} - {PLACEBO, IDS}:
            self._fit(self.config, "aligned", {name: name for name in [*self.config.blend, BLEND]})

    def _fit(self, config: RetrieverConfig, source: Source, arms: Mapping[str, str]) -> None:
        """Fit retrievers, and write the figures of those parts of the blend that `arms` names."""
        split = self.sources.windows.split
        codes, _ = self.sources.codes(source)
        inputs = RetrievalInputs.of(
            split, self.sources.catalog.item_ids, codes=codes, vectors=self.sources.aligned
        )
        blend = fit_split(inputs, config, seed=self.sources.seed).blend
        past, targets = split_targets(inputs)
        for part, arm in arms.items():
            scorer = blend if part == BLEND else Blend(blend.parts, {part: 1.0}, blend.cold)
            figures = user_figures(scorer, past, targets)
            with atomic(self._file(arm)) as temporary, temporary.open("wb") as file:
                np.save(file, figures)
            enter(self.folder.parent.parent, self._file(arm))

    def figures(self, arm: str) -> Floats:
        """Figures float64 [users, 4] in the order of `FIGURES`; NaN for a user without such a target."""
        found: Floats = np.load(checked(self.folder.parent.parent, self._file(arm)))
        return found

    def _file(self, arm: str) -> Path:
        return self.folder / f"{arm}.npy"


def user_figures(blend: Blend, past: Histories, targets: Histories) -> Floats:
    """Figures of each user's masked list in the order of `FIGURES`, float64 [users, 4]."""
    ranks = rank_targets(blend.scores, past, targets, top=1)
    cold = blend.cold[targets.items]
    offsets = np.concatenate([[0], np.cumsum(cold)])[ranks.offsets]
    columns = [
        recall_of(ranks.masked, ranks.offsets, 10),
        ndcg_of(ranks.masked, ranks.offsets, 10),
        recall_of(ranks.masked, ranks.offsets, 200),
        recall_of(ranks.masked[cold], offsets, 10),
    ]
    return np.stack(columns, axis=1)


def compare_retrieval(seeds: Sequence[SeedRetrieval]) -> ComparedRetrieval:
    """Means of all arms, and paired differences of the model and the blend to every other arm."""
    arms = seeds[0].arms
    users = {user: number for number, user in enumerate(sorted({u for seed in seeds for u in seed.users}))}
    means: dict[str, dict[str, float]] = {arm: {} for arm in arms}
    gains: list[RetrievalGain] = []
    for column, name in enumerate(FIGURES):
        each = {arm: [_of_users(seed, arm, column, users) for seed in seeds] for arm in arms}
        if not any(len(seed) for seed in each[arms[0]]):
            continue
        intervals = TwoWayIntervals(each, weighted=False)
        for arm in arms:
            means[arm][name] = intervals.mean(arm)
        gains += [
            RetrievalGain(figure=name, method=arm, against=base, **asdict(intervals.difference(arm, base)))
            for arm, base in _pairs(arms)
        ]
    return ComparedRetrieval(
        means=[RetrievalMeans(method=arm, figures=figures) for arm, figures in means.items()],
        differences=gains,
    )


def _pairs(arms: Sequence[str]) -> Iterator[tuple[str, str]]:
    for arm in (name for name in (MODEL, BLEND) if name in arms):
        yield from ((arm, base) for base in arms if base not in (arm, BLEND))


def _of_users(seed: SeedRetrieval, arm: str, column: int, users: Mapping[str, int]) -> UserAuc:
    """One figure in place of the AUC, of the users who have it, each with weight 1."""
    values = seed.figures(arm)[:, column]
    measured = np.isfinite(values)
    numbers = np.fromiter((users[user] for user in seed.users), dtype=np.int64)
    order = np.argsort(numbers[measured], kind="stable")
    return UserAuc(
        numbers[measured][order], values[measured][order], np.ones(int(measured.sum()), dtype=np.int64)
    )
