"""Vectors of a whole catalogue from a trained encoder."""

from pathlib import Path

from qarm.artifacts import Embeddings
from qarm.content.catalog import Catalog
from qarm.content.encoder import Encoder

__all__ = ["embed"]


def embed(encoder: Encoder, catalog: Catalog, *, cache: Path | None = None) -> Embeddings:
    """Aligned vectors of all items of a catalogue, float32 [n, dim], of unit length.

    Works through shards of 256 items: memory does not grow with the catalogue but for the vectors. An
    item's vector does not depend on the items beside it.

    Args:
        encoder: from `align` or `Encoder.from_pretrained`.
        catalog: items, those of the training or new ones.
        cache: folder of tower features, shared with `align`; a call that was cut short resumes there.

    Raises:
        InputError: items without any of the encoder's modalities, unreadable pictures or sounds.
    """
    return encoder.embed(catalog, cache=cache)
