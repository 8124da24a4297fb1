"""Requirements of the stages after check: extras, encoders, and settings that the number of items allows."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from qarm.config import Config, FilterConfig
from qarm.data.catalog import MODALITIES, Catalog
from qarm.data.embeddings import Embeddings
from qarm.data.splits import Split
from qarm.errors import ArtifactError, InputError, MissingExtraError, Problems

if TYPE_CHECKING:
    from qarm.encoder.towers.sentence_checkpoint import SentenceCheckpoint

__all__ = [
    "code_requirements",
    "encoder_requirements",
    "missing_extras",
    "pair_requirements",
    "unmet",
]

SAMPLE = 16  # items that time an encoder
TRIED_TEXTS = 2000  # texts whose tokens are counted
TRIAL_ROWS = 512  # vectors of a trial fit
Requirement = Callable[[], object]


def missing_extras(config: Config, *, last: str = "report") -> list[str]:
    """A message for each optional package that the stages up to `last` would import in vain."""
    wanted = [("jinja2", "report"), ("plotly", "report")] if last == "report" else []
    if config.pairs.user2item.model != "two_tower":
        wanted.append(("implicit", "als"))
    if config.encoder.tune == "lora":
        wanted.append(("peft", "lora"))
    return [str(MissingExtraError(package, extra)) for package, extra in wanted if find_spec(package) is None]


def encoder_requirements(
    config: Config,
    catalog: Catalog,
    *,
    timings: dict[str, float] | None,
    warnings: list[str] | None = None,
) -> Iterator[Requirement]:
    """Calls that each open an encoder of the config.

    Args:
        config: of the run.
        catalog: the items that it will read.
        timings: gets the seconds for one item by encoder, which loads it; None: it is not loaded.
        warnings: gets a line for each encoder that cuts texts, where it is loaded.
    """
    from qarm.encoder.alignment.align import towers_for
    from qarm.encoder.feature_cache import tower_features
    from qarm.encoder.towers.factory import open_towers
    from qarm.encoder.towers.sentence_checkpoint import SentenceCheckpoint
    from qarm.encoder.towers.trial import try_tower

    chosen, present = config.encoder, [name for name, count in catalog.counts().items() if count]

    def opened(**named: Any) -> None:
        for name, tower in open_towers(**named, options=chosen.options).items():
            try_tower(name, tower)
            if timings is None:
                continue
            sample = _items_with(catalog, name.rstrip("0123456789") if name != "item" else present[0], SAMPLE)
            tower_features(Catalog(sample.frame.head(1), sample.folder), {name: tower})  # loads it
            started = time.perf_counter()
            tower_features(sample, {name: tower})
            timings[name] = (time.perf_counter() - started) / len(sample)
            if warnings is not None and isinstance(tower, SentenceCheckpoint):
                warnings.extend(_cut_texts(catalog, tower))

    named = {n: value for n in present if n in MODALITIES and (value := getattr(chosen, n)) is not None}
    if chosen.model is not None:
        named = {"model": chosen.model}
    yield from (partial(opened, **{name: value}) for name, value in named.items())
    if not named:
        yield partial(towers_for, catalog, chosen, None)
    if chosen.filter.model is not None:
        yield partial(_score_one, chosen.filter, read=timings is not None)


def _cut_texts(catalog: Catalog, tower: "SentenceCheckpoint") -> Iterator[str]:
    """A warning where a text tower does not read the ends of some texts; at most 2,000 are tried."""
    texts = catalog.frame["text"].drop_nulls()
    some = texts.gather_every(max(1, len(texts) // TRIED_TEXTS))
    lengths, longest = tower.tokens(some.to_list())
    cut = [length for length in lengths if longest is not None and length > longest]
    if cut:
        yield (
            f"{tower.key} = {tower.name!r} reads {longest:,} tokens of a text; {len(cut):,} of {len(some):,} "
            f"texts are longer, up to {max(cut):,}, and lose their ends; put first in data.items.text what "
            "matters most, or take a checkpoint that reads more"
        )


def _score_one(asked: FilterConfig, *, read: bool) -> None:
    from qarm.encoder.alignment.llm_pair_filter import LanguageModelPairScorer

    scorer = LanguageModelPairScorer(str(asked.model), prompt=asked.prompt, batch=1)
    if read:
        scorer([("one", "another")])


def _items_with(catalog: Catalog, modality: str, count: int) -> Catalog:
    """The first items that have the modality."""
    return Catalog(catalog.frame.filter(pl.col(modality).is_not_null()).head(count), catalog.folder)


def pair_requirements(config: Config, split: Split) -> Iterator[Requirement]:
    """A call that finds a user from whom a pair can come."""
    yield partial(_pairs_possible, config, split)


def code_requirements(config: Config, known: int) -> Iterator[Requirement]:
    """Calls that fit the codes' settings on random vectors, as many as the items, or enough to tell."""
    yield partial(_fit_quantizer, config, known)
    yield partial(_fit_nearest, config, known)


def unmet(requirements: Iterable[Requirement]) -> list[str]:
    """Problems of all calls that raise an error."""
    problems = Problems()
    for requirement in requirements:
        try:
            requirement()
        except InputError as error:
            problems.extend(error)
        except ArtifactError as error:
            problems.add(str(error))
    return problems.messages


def _pairs_possible(config: Config, split: Split) -> None:
    least = config.pairs.swing.min_user_items
    per_user = split.train.positives().frame.group_by("user_id").agg(pl.col("item_id").n_unique())
    if not (per_user["item_id"] >= max(least, 2)).any():
        raise InputError(
            f"no user has {max(least, 2)} items with a positive event in the training part, so there is no "
            "pair to learn from; take a longer log, or lower pairs.swing.min_user_items"
        )


def _trial(config: Config, rows: int) -> Embeddings:
    """Random vectors in the place of those that the quantizer will be fitted on."""
    values = np.random.default_rng(0).normal(size=(rows, config.encoder.dim))
    return Embeddings([str(row) for row in range(rows)], values.astype(np.float32))


def _fit_quantizer(config: Config, known: int) -> None:
    from qarm.quantizer.factory import new_quantizer

    settings, width = config.quantizer.model_copy(update={"iterations": 1}), config.quantizer.width
    if width != "auto" and known >= max([width] if isinstance(width, int) else width):
        settings = settings.model_copy(update={"width": "auto"})  # enough items: the rest is tried on few
    rows = min(known, TRIAL_ROWS)
    new_quantizer(settings, rows).fit(_trial(config, rows))


def _fit_nearest(config: Config, known: int) -> None:
    from qarm.quantizer.knn_codes import NearestCodes

    rows = min(known, config.quantizer.nearest + 1)
    pool = config.quantizer.pool
    NearestCodes(config.quantizer.nearest, pool=pool, index="exact").fit(_trial(config, rows))
