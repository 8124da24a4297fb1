"""Alignment: teaching an encoder, by pairs, that what behaves alike lies close."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError

from qarm.artifacts import atomic
from qarm.config import EncoderConfig
from qarm.content.catalog import MODALITIES, Catalog
from qarm.content.encoder import Encoder, open_towers
from qarm.content.features import Features, open_shelves, tower_features
from qarm.content.heads import Heads
from qarm.content.towers import Tower, default_device
from qarm.content.training import Pool, TrainingPairs, train_heads
from qarm.errors import InputError, Problems, shown
from qarm.tables import as_ids, column

__all__ = ["align"]


def align(
    catalog: Catalog,
    pairs: pl.DataFrame,
    *,
    towers: Mapping[str, Tower] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    metrics_path: Path | None = None,
    **settings: Any,
) -> Encoder:
    """Train a composite encoder on pairs by batch-contrastive loss (QARM, section 3.1).

    The pretrained towers stay frozen: their features are computed once. What is trained is a projection
    for each modality, a small network over the sound's spectrogram, a vector that stands in for each
    missing modality, and their fusion.

    Args:
        catalog: the items that may be seen; scales are taken from them and nothing else.
        pairs: `trigger_id`, `target_id` and, optionally, a positive `weight`.
        towers: encoders to use instead of those that the settings name.
        seed: of the initial weights, batches and dropout; the same bytes on the same CPU.
        cache: folder of tower features; None keeps them in memory with the encoder.
        metrics_path: JSON Lines, a row before training and one for each epoch: loss, temperature, and
            loss and recall on held-out pairs.
        settings: fields of `qarm.config.EncoderConfig` (text, image, audio, dim, epochs, batch, ...).

    Raises:
        InputError: a setting, a pair or a file is wrong, or the loss turns into no finite number.
        MissingExtraError: a packaged encoder is not installed.
    """
    chosen = _settings(settings)
    numbered = _number(pairs, catalog.item_ids)
    used = _towers(catalog, chosen, towers)
    shelves = open_shelves(used, cache)
    features = tower_features(catalog, used, shelves=shelves)
    heads, rows = _train(features, numbered, chosen, seed)
    if metrics_path is not None:
        _write_lines(metrics_path, rows)
    held = shelves if cache is None else None
    return Encoder(used, heads, summary=_summary(rows, pairs=len(numbered)), shelves=held)


def _towers(
    catalog: Catalog, settings: EncoderConfig, given: Mapping[str, Tower] | None
) -> Mapping[str, Tower]:
    """Encoders of the modalities that some item has; the others are not even opened."""
    there = {modality for modality, count in catalog.counts().items() if count}
    if given is not None:
        used: Mapping[str, Tower] = {m: tower for m, tower in sorted(given.items()) if m in there}
    else:
        named = {m: getattr(settings, m) for m in MODALITIES}
        used = open_towers(**{m: name if m in there else None for m, name in named.items()})
    if not used:
        raise InputError(
            f"the items have {', '.join(sorted(there))} and no encoder is named for it; "
            "set encoder.text, encoder.image or encoder.audio"
        )
    return used


def _train(
    features: Features, pairs: TrainingPairs, settings: EncoderConfig, seed: int
) -> tuple[Heads, list[dict[str, Any]]]:
    device = default_device()
    shapes = {modality: values.shape[1:] for modality, values in features.values.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(shapes, dim=settings.dim, hidden=settings.hidden, dropout=settings.dropout)
    heads.to(device)
    pool = Pool(features, heads.modalities, device=device)
    pool.fit_scales(heads)
    rows = train_heads(heads, pool, pairs, settings, seed=seed)
    return heads.cpu(), rows


def _settings(given: Mapping[str, Any]) -> EncoderConfig:
    try:
        return EncoderConfig.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(
            [f"encoder.{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        ) from None


def _number(pairs: pl.DataFrame, item_ids: Sequence[str]) -> TrainingPairs:
    """Pairs as positions in `item_ids`, checked."""
    if pairs.height == 0:
        raise InputError("no pairs to learn from; mine more of them: a longer log, or a wider pairs.window")
    problems = Problems()
    place = pl.DataFrame({"id": item_ids, "place": np.arange(len(item_ids))})
    sides = [_places(pairs, name, place, problems) for name in ("trigger_id", "target_id")]
    weights = _weights(pairs, problems)
    problems.raise_any()
    numbered = TrainingPairs(sides[0], sides[1], weights)
    same = np.flatnonzero(numbered.triggers == numbered.targets)
    if len(same):
        raise InputError(f"pairs of an item with itself in rows {shown(same)}; remove them")
    if len(numbered) < 2:
        raise InputError("got 1 pair, need at least 2: a pair is told apart from others; mine more")
    return numbered


def _places(pairs: pl.DataFrame, name: str, place: pl.DataFrame, problems: Problems) -> Any:
    ids = column(pairs, name, table="pairs", problems=problems)
    if ids is not None:
        ids = as_ids(ids, table="pairs", problems=problems)
    if ids is None:
        return None
    found = pl.DataFrame({"id": ids}).join(place, on="id", how="left", maintain_order="left")
    unknown = found.filter(pl.col("place").is_null())["id"].unique(maintain_order=True)
    if len(unknown):
        problems.add(
            f"pairs.{name}: items {shown(unknown)} are not in the catalogue; mine the pairs from events "
            "of its items, or add the items"
        )
        return None
    return found["place"].to_numpy()


def _weights(pairs: pl.DataFrame, problems: Problems) -> Any:
    if "weight" not in pairs.columns:
        return np.ones(pairs.height, dtype=np.float32)
    series = pairs["weight"]
    if not series.dtype.is_numeric():
        problems.add(f"pairs.weight is {series.dtype}, need numbers")
        return None
    weights = series.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        problems.add(f"pairs.weight: not a positive number in rows {shown(wrong)}; drop those pairs")
    return weights


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic(path) as temporary:
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        temporary.write_text(lines, encoding="utf-8")


def _summary(rows: Sequence[Mapping[str, Any]], *, pairs: int) -> dict[str, Any]:
    first, last = rows[0], rows[-1]
    kept = {name: last[name] for name in ("loss", "temperature", "valid_loss", "valid_recall@10")}
    return {"pairs": pairs, "steps": last["step"], **kept, "raw_recall@10": first.get("raw_recall@10")}
