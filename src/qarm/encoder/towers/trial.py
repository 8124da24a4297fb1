"""Trial of a tower on one small item: a checkpoint that cannot encode it is refused before anything else."""

import io
from functools import cache
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from qarm.encoder.towers.checkpoint import PACKAGED_TEXT, Checkpoint
from qarm.encoder.towers.tower import Tower, reads, reads_parts
from qarm.errors import InputError

__all__ = ["try_tower"]


def try_tower(name: str, tower: Tower) -> None:
    """Encode one small item twice with a tower; those that are packaged are known to work.

    Raises:
        InputError: it cannot be encoded, or comes out as numbers that are not finite, or differently.
    """
    if not isinstance(tower, Checkpoint) or tower.name == PACKAGED_TEXT:
        return
    parts = {modality: _content(modality) for modality in reads(name, tower)}
    content = parts if reads_parts(name, tower) else next(iter(parts.values()))
    try:
        found, again = (_encoded(tower, content) for _ in range(2))
    except InputError:
        raise
    except Exception as error:
        raise tower.unusable(error) from error
    if found.ndim != 2 or not np.isfinite(found).all():
        raise InputError(
            f"{tower.key} = {tower.name!r}: a small item comes out as {found.shape[1:]} numbers, not all "
            "finite; take another checkpoint, or its weights in single precision"
        )
    if not np.array_equal(found, again):
        raise InputError(
            f"{tower.key} = {tower.name!r}: one item comes out differently each time, so that it draws "
            "something at random; take another checkpoint"
        )


def _encoded(tower: Tower, content: Any) -> Any:
    return tower.encode([tower.load(content)])


@cache
def _content(modality: str) -> str | bytes:
    """A few words, a picture of noise, or a second of it."""
    random, stream = np.random.default_rng(0), io.BytesIO()
    if modality == "text":
        return "a few words"
    if modality == "image":
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
    else:
        soundfile.write(stream, 0.1 * random.normal(size=16_000), 16_000, format="WAV")
    return stream.getvalue()
