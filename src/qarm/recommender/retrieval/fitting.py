"""Fitting of retrievers on the training part, with everything chosen on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from qarm.config.retriever import RetrieverConfig
from qarm.recommender.retrieval.blend import Blend, DenseRetriever, SparseRetriever
from qarm.recommender.retrieval.blend_search import fit_blend
from qarm.recommender.retrieval.counting import ContentKnn, Popularity, item_knn, sequential_knn
from qarm.recommender.retrieval.evaluation import mean_ndcg
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.sequence_model import SequenceModel
from qarm.recommender.retrieval.models.training import new_sequence_model, train_sequence_model
from qarm.schemas.retrieval import CountingSettings, TrainedEpoch

__all__ = [
    "FittedRetrievers",
    "Validation",
    "counting_parts",
    "fit_retrievers",
    "refit_retrievers",
    "tune_counting",
]

Parts = dict[str, DenseRetriever | SparseRetriever]
POWERS = ((0.5, 0.3), (0.5, 0.5), (0.8, 0.3), (1.0, 0.0))  # of the counts of history and target
DECAYS = (0.5, 0.7, 0.9)
USERS = 2000  # of validation, by whom settings of counting and epochs are chosen


@dataclass(frozen=True)
class Validation:
    """Validation part: histories before it, targets, and which items the training part does not have.

    cold: bool [items]; absent: bool [items], cold items that come after validation: no candidates of the
    search of the blend.
    """

    histories: Histories
    targets: Histories
    cold: npt.NDArray[np.bool_]
    absent: npt.NDArray[np.bool_] | None = None

    def sample(self, users: int, *, seed: int) -> "Validation":
        """At most so many of the users with a target."""
        asked = np.flatnonzero(self.targets.lengths)
        chosen = np.sort(np.random.default_rng([seed, 37]).permutation(asked)[:users])
        return replace(self, histories=self.histories.only(chosen), targets=self.targets.only(chosen))


@dataclass(frozen=True)
class FittedRetrievers:
    """Blend, the settings of its counting parts, and the training of its model.

    decay: epochs over which the model's step size fell to 0.
    """

    blend: Blend
    counting: CountingSettings
    epochs: list[TrainedEpoch]
    decay: int

    @property
    def best(self) -> int:
        """Number of epochs up to the best one."""
        return _best(self.epochs)[0]


def _best(lines: list[TrainedEpoch]) -> tuple[int, float]:
    """Number of epochs up to the best one, and its NDCG; all of them where nothing was validated."""
    figures = [line.valid_ndcg for line in lines if line.valid_ndcg is not None]
    return (figures.index(max(figures)) + 1, max(figures)) if figures else (len(lines), 0.0)


def tune_counting(
    histories: Histories, vectors: npt.NDArray[np.float32] | None, validation: Validation, *, seed: int
) -> CountingSettings:
    """Settings of the counting retrievers with the highest NDCG at 10 on validation.

    Args:
        histories: the training part; vectors: float32 [items, d] for content-kNN, if any.
    """
    items, sample = len(validation.cold), validation.sample(USERS, seed=seed)

    def best(
        trials: Sequence[Mapping[str, float]], made: Callable[..., DenseRetriever | SparseRetriever]
    ) -> Mapping[str, float]:
        reached = [_reached(made(**trial), sample) for trial in trials]
        return trials[int(np.argmax(reached))]

    tables = {
        powers: sequential_knn(histories, items, source_power=powers[0], target_power=powers[1])
        for powers in POWERS
    }
    grid = [{"source_power": p, "target_power": q, "decay": d} for p, q in POWERS for d in DECAYS]
    sequential = best(
        grid,
        lambda source_power, target_power, decay: type(tables[POWERS[0]])(
            tables[source_power, target_power].table, decay
        ),
    )
    users = item_knn(histories, items)
    item = best([{"decay": decay} for decay in (1.0, *DECAYS)], lambda decay: type(users)(users.table, decay))
    settings = CountingSettings(
        source_power=sequential["source_power"],
        target_power=sequential["target_power"],
        sequential_decay=sequential["decay"],
        item_decay=item["decay"],
    )
    if vectors is None:
        return settings
    content = best(
        [{"decay": decay} for decay in (1.0, *DECAYS)], lambda decay: ContentKnn.of(vectors, decay=decay)
    )
    return settings.model_copy(update={"content_decay": content["decay"]})


def _reached(part: DenseRetriever | SparseRetriever, sample: Validation) -> float:
    return mean_ndcg(
        Blend({"part": part}, {"part": 1.0}, sample.cold).scores, sample.histories, sample.targets
    )


def counting_parts(
    names: Sequence[str],
    histories: Histories,
    vectors: npt.NDArray[np.float32] | None,
    settings: CountingSettings,
    items: int,
) -> Parts:
    """The counting retrievers of some names, fitted on histories."""
    parts: Parts = {}
    for name in names:
        if name == "sequential-knn":
            parts[name] = sequential_knn(
                histories,
                items,
                source_power=settings.source_power,
                target_power=settings.target_power,
                decay=settings.sequential_decay,
            )
        elif name == "item-knn":
            parts[name] = item_knn(histories, items, decay=settings.item_decay)
        elif name == "popularity":
            parts[name] = Popularity.of(histories, items)
        elif name == "content-knn" and vectors is not None:
            parts[name] = ContentKnn.of(vectors, decay=settings.content_decay)
    return parts


def fit_retrievers(
    histories: Histories,
    content: ItemContent,
    vectors: npt.NDArray[np.float32] | None,
    validation: Validation,
    config: RetrieverConfig,
    *,
    seed: int,
    settings: CountingSettings | None = None,
) -> FittedRetrievers:
    """Every part of the blend fitted on histories; settings, epochs and weights chosen on validation.

    Args:
        histories: the training part. content: what the model may read of items. vectors: float32 [items, d],
            for content-kNN. settings: of the counting retrievers; None: chosen on validation.
    """
    items = len(validation.cold)
    settings = settings or tune_counting(histories, vectors, validation, seed=seed)
    parts: Parts = {}
    lines: list[TrainedEpoch] = []
    decay = config.epochs
    if "model" in config.blend:
        sample = validation.sample(USERS, seed=seed)
        parts["model"], lines, decay = _fit_model(histories, content, sample, config, seed=seed)
    others = [name for name in config.blend if name != "model"]
    parts |= counting_parts(others, histories, vectors, settings, items)
    blend = fit_blend(
        parts,
        validation.histories,
        validation.targets,
        cold=validation.cold,
        absent=validation.absent,
        cost=config.cold_cost,
        seed=seed,
    )
    return FittedRetrievers(blend, settings, lines, decay)


def _fit_model(
    histories: Histories, content: ItemContent, sample: Validation, config: RetrieverConfig, *, seed: int
) -> tuple[SequenceModel, list[TrainedEpoch], int]:
    """Trained model, its epochs, and over how many of them the step size decayed.

    Where the best epoch comes early, a second training decays over just that many; the better one is kept.
    """
    counts = histories.counts(len(sample.cold))
    validate = (lambda trained: _reached(trained, sample)) if len(sample.targets) else None

    def trained(decay: int) -> tuple[SequenceModel, list[TrainedEpoch], int]:
        model = new_sequence_model(content, counts, config, seed=seed)
        lines = train_sequence_model(
            model, histories, config, seed=seed, validate=validate, epochs=decay, decay=decay
        )
        return model, lines, decay

    first = trained(config.epochs)
    early, reached = _best(first[1])
    if validate is None or early > config.epochs // 2:
        return first
    second = trained(early)
    return second if _best(second[1])[1] > reached else first


def refit_retrievers(
    chosen: FittedRetrievers,
    histories: Histories,
    content: ItemContent,
    vectors: npt.NDArray[np.float32] | None,
    config: RetrieverConfig,
    *,
    seed: int,
) -> FittedRetrievers:
    """The same settings, weights and number of epochs, fitted on more histories."""
    items = chosen.blend.items
    counts = histories.counts(items)
    parts: Parts = {}
    if "model" in config.blend:
        model = new_sequence_model(content, counts, config, seed=seed)
        train_sequence_model(model, histories, config, seed=seed, epochs=chosen.best, decay=chosen.decay)
        parts["model"] = model
    others = [name for name in chosen.blend.parts if name != "model"]
    parts |= counting_parts(others, histories, vectors, chosen.counting, items)
    blend = Blend(parts, chosen.blend.weights, counts == 0, chosen.blend.intercept)
    return FittedRetrievers(blend, chosen.counting, chosen.epochs, chosen.decay)
