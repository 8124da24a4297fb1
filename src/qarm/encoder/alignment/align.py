"""Alignment: fine-tuning of an encoder on pairs, so that items that behave alike lie close."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError

from qarm.config import EncoderConfig
from qarm.core.atomic_io import atomic, digest, sha256_file
from qarm.core.parallel.torchrun import processes
from qarm.core.paths import as_path
from qarm.core.scratch import Scratch
from qarm.core.tables import Table
from qarm.core.tables.frames import as_frame
from qarm.core.training_state import fingerprint
from qarm.data.catalog import MODALITIES, Catalog
from qarm.encoder.alignment.model import AlignmentModel
from qarm.encoder.alignment.pair_dataset import read_pairs
from qarm.encoder.alignment.trainer import train
from qarm.encoder.encoder import Encoder
from qarm.encoder.feature_cache import Features, open_feature_caches, tower_features
from qarm.encoder.heads import Heads
from qarm.encoder.item_contents import readable
from qarm.encoder.towers.factory import content_towers, open_towers
from qarm.encoder.towers.finetuning import Tuned, tunable
from qarm.encoder.towers.tower import Tower, default_device, reads
from qarm.errors import InputError
from qarm.schemas.encoder import AlignStep, AlignSummary

__all__ = ["AlignmentWork", "align", "no_features", "towers_for"]

PROGRESS = "training.safetensors"
NOT_LEARNED = {
    "cache",
    "filter",
    "checkpoint_steps",
    "kept_chunks",
    "anchor_cold",
}  # settings that the weights do not depend on


def align(
    catalog: Catalog,
    pairs: Table,
    *,
    towers: Mapping[str, Tower] | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    metrics_path: Path | str | None = None,
    **settings: Any,
) -> Encoder:
    """Train an encoder on pairs by batch-contrastive loss (QARM, section 3.1).

    With `tune="heads"` the pretrained towers stay frozen and their features are computed once; what is
    trained is a projection of each, a small network over the sound's spectrogram, a vector that stands in
    for each missing modality, and their fusion. With `lora` and `full` the towers learn too. Under torchrun
    the processes share the items of each batch, and all return the same encoder.

    Args:
        catalog: the items that may be seen; scales are taken from them and nothing else.
        pairs: `trigger_id`, `target_id` and, optionally, a positive `weight` and a `source`: a frame; or the
            path of a Parquet file, which is streamed.
        towers: encoders to use instead of those that the settings name.
        seed: of the initial weights, batches and dropout; the same bytes on the same CPU.
        cache: folder of tower features and of the training's progress, from which an interrupted call goes
            on; None keeps features in memory with the encoder, and an interruption loses the training.
        metrics_path: JSON Lines, a row before training and one for each epoch: loss, temperature, and
            loss and recall on held-out pairs.
        settings: fields of `qarm.config.EncoderConfig` (text, image, audio, model, tune, epochs, batch, ...).

    Raises:
        InputError: a setting, a pair or a file is wrong, or the loss turns into no finite number.
        MissingExtraError: a packaged encoder is not installed, or peft for `lora`.
    """
    chosen = _settings(settings)
    cache = None if cache is None else as_path(cache)
    used = towers_for(catalog, chosen, towers)
    caches = open_feature_caches(used, cache)
    with Scratch() as scratch:
        known = as_path(pairs) if isinstance(pairs, Path | str) else as_frame(pairs)
        work = AlignmentWork(catalog, known, used, chosen, seed, scratch.path)
        here = processes(work.device)
        if here.size > 1:
            here.agree("the alignment", work.content())
        tuned = {n: work.tuned(n) for n in used if tunable(used[n], chosen.tune)}
        frozen = {name: tower for name, tower in used.items() if name not in tuned}
        features = tower_features(catalog, frozen, caches=caches) if frozen else no_features(catalog)
        model = work.model(features, tuned)
        rows = work.train(model, cache)
        trained = work.trained_items()
    if metrics_path is not None:
        _write_lines(as_path(metrics_path), rows)
    return Encoder(
        {name: tuned[name].finished() if name in tuned else used[name] for name in used},
        model.heads.cpu(),
        originals={name: partial(used.__getitem__, name) for name in tuned},
        summary=_summary(rows, pairs=work.pairs),
        caches=caches if cache is None and not tuned else None,
        anchor_cold=chosen.anchor_cold,
        trained=() if chosen.anchor_cold is None else trained,
    )


class AlignmentWork:
    """One alignment: what it learns from, what it trains, and what it depends on."""

    def __init__(
        self,
        catalog: Catalog,
        pairs: pl.DataFrame | Path,
        towers: Mapping[str, Tower],
        settings: EncoderConfig,
        seed: int,
        scratch: Path,
    ) -> None:
        self.catalog, self.settings, self.seed = catalog, settings, seed
        self.towers = towers
        self.device = default_device()
        weights = settings.source_weights.model_dump(exclude_none=True)
        self.datasets = read_pairs(pairs, catalog.item_ids, folder=scratch, seed=seed, source_weights=weights)
        self.pairs = len(self.datasets[0]) + len(self.datasets[1])
        self.scratch = None if isinstance(pairs, pl.DataFrame) else scratch
        self._source = pairs

    def tuned(self, name: str) -> Tuned:
        """A copy of a tower that learns."""
        tower: Any = self.towers[name]
        chosen = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Tuned(tower, tune=chosen.tune, layers=chosen.tune_layers, rank=chosen.lora_rank)

    def model(self, features: Features, tuned: Mapping[str, Tuned]) -> AlignmentModel:
        """New heads over the features of frozen towers and over those that learn."""
        shapes = {name: values.shape[1:] for name, values in features.values.items()}
        shapes |= {name: self._shape(tuned[name], name) for name in tuned}
        chosen = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            heads = Heads(
                shapes,
                dim=chosen.dim,
                hidden=chosen.hidden,
                dropout=chosen.dropout,
                fusion=chosen.fusion,
                anchor=chosen.anchor,
            )
        model = AlignmentModel(
            heads.to(self.device),
            self.catalog,
            features,
            tuned,
            device=self.device,
            precision=chosen.precision,
            chunk=chosen.chunk,
        )
        model.fit_scales()
        return model

    def _shape(self, tuned: Tuned, name: str) -> tuple[int, ...]:
        """Of one item's feature, by trying the first that has one."""
        first = int(readable(self.catalog, name, tuned.tower).argmax())
        one = Catalog(self.catalog.frame[first : first + 1], self.catalog.folder)
        found: tuple[int, ...] = tower_features(one, {name: self.towers[name]}).values[name].shape[1:]
        return found

    def train(self, model: AlignmentModel, cache: Path | None) -> list[AlignStep]:
        """Go on from the cache's progress or start; it is removed in the end."""
        here = processes(self.device)
        path = None if cache is None else cache / PROGRESS
        rows = train(
            model,
            *self.datasets,
            self.settings,
            seed=self.seed,
            processes=here,
            progress=path,
            key=digest(self.content()) if path is not None else "",
            scratch=self.scratch,
        )
        here.wait()
        if path is not None and here.rank == 0:
            path.unlink(missing_ok=True)
        return rows

    def trained_items(self) -> list[str]:
        """Items with a training pair."""
        seen = np.zeros(len(self.catalog), dtype=np.bool_)
        for part in self.datasets[0].parts():
            seen[part.triggers] = seen[part.targets] = True
        return [item for item, known in zip(self.catalog.item_ids, seen, strict=True) if known]

    def content(self) -> dict[str, object]:
        """Everything that the weights depend on."""
        source = self._source
        if isinstance(source, pl.DataFrame):
            names = [n for n in ("trigger_id", "target_id", "weight", "source") if n in source.columns]
            pairs = fingerprint([source.select(names).hash_rows(seed=0).to_numpy()])
        else:
            pairs = sha256_file(source)
        return {
            "settings": self.settings.model_dump(mode="json", exclude=NOT_LEARNED),
            "seed": self.seed,
            "pairs": pairs,
            "items": self.catalog.content_digest(),
            "towers": {name: tower.fingerprint for name, tower in self.towers.items()},
        }


def no_features(catalog: Catalog) -> Features:
    """Where every tower learns."""
    return Features(catalog.item_ids, {}, {})


def towers_for(
    catalog: Catalog, settings: EncoderConfig, given: Mapping[str, Tower] | None
) -> Mapping[str, Tower]:
    """Encoders of the modalities that some item has; the others are not even opened."""
    there = {modality for modality, count in catalog.counts().items() if count}
    own = content_towers(catalog)
    if given is not None:
        used = {n: tower for n, tower in sorted(given.items()) if there & {*reads(n, tower)}}
    elif settings.model is not None:
        opened = open_towers(model=settings.model, options=settings.options)
        used = {n: tower for n, tower in opened.items() if there & {*reads(n, tower)}}
    else:
        named = {m: getattr(settings, m) for m in MODALITIES}
        there_of = {m: name if m in there else None for m, name in named.items()}
        used = open_towers(**there_of, options=settings.options)
    used = own | dict(used)
    if not used:
        raise InputError(
            f"the items have {', '.join(sorted(there))} and no encoder is named for it; "
            "set encoder.text, encoder.image or encoder.audio, or an encoder.model that reads it"
        )
    return used


def _settings(given: Mapping[str, Any]) -> EncoderConfig:
    try:
        return EncoderConfig.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(
            [f"encoder.{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        ) from None


def _write_lines(path: Path, rows: Sequence[AlignStep]) -> None:
    with atomic(path) as temporary:
        lines = "".join(json.dumps(row.content(), sort_keys=True) + "\n" for row in rows)
        temporary.write_text(lines, encoding="utf-8")


def _summary(rows: Sequence[AlignStep], *, pairs: int) -> AlignSummary:
    first, last = rows[0], rows[-1]
    return AlignSummary(
        pairs=pairs,
        steps=last.step,
        loss=last.loss,
        temperature=last.temperature,
        valid_loss=last.valid_loss,
        valid_recall=last.valid_recall,
        raw_recall=first.raw_recall,
    )
