"""Modality ablation: vectors of items with some modalities left out."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from qarm.data.catalog import Catalog
from qarm.data.embeddings import Embeddings
from qarm.encoder.encoder import Encoder

__all__ = ["ablated_versions", "only_modalities"]


def only_modalities(catalog: Catalog, kept: Collection[str]) -> Catalog | None:
    """The catalogue as if items had these modalities alone; an item with none goes, None if all do."""
    there = pl.any_horizontal(pl.col(list(kept)).is_not_null())
    gone = [m for m in catalog.modalities if m not in kept]
    blank = [pl.lit(None, dtype=catalog.frame[m].dtype).alias(m) for m in gone]
    frame = catalog.frame.filter(there).with_columns(blank)
    return replace(catalog, frame=frame) if frame.height else None


def ablated_versions(
    encoder: Encoder, catalog: Catalog, *, cache: Path | None = None
) -> Iterator[tuple[str, Embeddings]]:
    """Raw and aligned vectors with each modality alone, and with each left out, by name.

    Names are "raw, text alone", "aligned, without text" and so on. An encoder of one modality gives nothing,
    and one of two nothing for "without", which is the other one alone. The encoder is the same: what
    is hidden is replaced by its learned stand-in, and was so at random in training.
    """
    own = encoder.modalities
    kept = {f"{m} alone": [m] for m in own if len(own) > 1}
    kept |= {f"without {m}": [other for other in own if other != m] for m in own if len(own) > 2}
    for name, modalities in kept.items():
        rest = only_modalities(catalog, modalities)
        if rest is not None:
            yield f"raw, {name}", encoder.raw(rest, cache=cache)
            yield f"aligned, {name}", encoder.embed(rest, cache=cache)
