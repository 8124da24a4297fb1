"""Embedding of a whole catalogue: locally, on a Ray cluster, or shared among torchrun's processes."""

import atexit
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.engine import EngineName
from qarm.core.parallel.engine import engine as engine_of
from qarm.core.parallel.torchrun import processes
from qarm.core.paths import as_path
from qarm.core.scratch import Scratch
from qarm.core.training_state import fingerprint
from qarm.data.catalog import Catalog, text_catalog
from qarm.data.embeddings import Embeddings
from qarm.encoder.encoder import Encoder

__all__ = ["Version", "embed"]

SHARE = 1024  # items of a piece of work
Version = Literal["aligned", "raw"]


def embed(
    encoder: Encoder,
    catalog: Catalog | Sequence[str],
    *,
    cache: Path | str | None = None,
    engine: EngineName = "local",
    version: Version = "aligned",
) -> Embeddings:
    """Vectors of all items of a catalogue, float32 [n, d], of unit length.

    Works through shards of 256 items: memory does not grow with the catalogue but for the vectors. An
    item's vector does not depend on the items beside it, so every engine and any number of processes come to
    the same. Under torchrun each process encodes its share, and all return everything.

    Args:
        encoder: from `align` or `Encoder.from_pretrained`.
        catalog: items, those of the training or new ones; or texts, as in `Encoder.embed`.
        cache: folder of tower features, shared with `align`; a call that was cut short resumes there.
        engine: `ray` sends pieces of the catalogue to the actors of a cluster; media files must lie where
            they can read them, and `cache`, too, where it is given.
        version: `raw` for the vectors before alignment.

    Raises:
        InputError: items without any of the encoder's modalities, unreadable pictures or sounds.
        MissingExtraError: ray is not installed.
    """
    catalog = catalog if isinstance(catalog, Catalog) else text_catalog(catalog)
    cache = None if cache is None else as_path(cache)
    if engine == "ray":
        return _on_ray(encoder, catalog, cache, version)
    here = processes()
    if here.size == 1:
        return _vectors(encoder, catalog, cache, version)
    here.agree("what to embed", _content(encoder, catalog, version))
    pieces = _pieces(catalog)
    own = {k: _vectors(encoder, pieces[k], cache, version).vectors for k in here.share(len(pieces))}
    dim = int(here.largest(max((found.shape[1] for found in own.values()), default=0)))
    table = torch.zeros(len(catalog), dim)
    for k, found in own.items():
        table[k * SHARE : k * SHARE + len(found)] = torch.from_numpy(found)
    return Embeddings(catalog.item_ids, here.add_up(table).numpy())


def _vectors(encoder: Encoder, catalog: Catalog, cache: Path | None, version: Version) -> Embeddings:
    function: Callable[..., Embeddings] = encoder.raw if version == "raw" else encoder.embed
    return function(catalog, cache=cache)


def _content(encoder: Encoder, catalog: Catalog, version: Version) -> dict[str, object]:
    """What the vectors depend on, but for the content of media files."""
    weights = [tensor.cpu().numpy() for tensor in encoder.heads.state_dict().values()]
    return {
        "towers": {name: tower.fingerprint for name, tower in encoder.towers.items()},
        "heads": fingerprint(weights),
        "items": len(catalog),
        "catalogue": catalog.rows_hash(),
        "version": version,
    }


def _pieces(catalog: Catalog) -> list[Catalog]:
    starts = range(0, len(catalog), SHARE)
    return [replace(catalog, frame=catalog.frame[start : start + SHARE]) for start in starts]


# ---- Ray ----------------------------------------------------------------------------------------


def _on_ray(encoder: Encoder, catalog: Catalog, cache: Path | None, version: Version) -> Embeddings:
    """The encoder's files go once to each machine; a worker opens them once and keeps the encoder."""
    run = engine_of("ray")
    with Scratch() as scratch:
        encoder.save_pretrained(scratch.path)
        files = {p.relative_to(scratch.path).as_posix(): p for p in sorted(scratch.path.rglob("*"))}
        shared = {name: np.fromfile(path, dtype=np.uint8) for name, path in files.items() if path.is_file()}
    work = partial(_piece, cache=cache, version=version)
    found = list(run(work, _pieces(catalog), shared=shared, workers=1))
    return Embeddings(catalog.item_ids, np.concatenate(found))


def _piece(
    shared: dict[str, npt.NDArray[np.uint8]], piece: Catalog, *, cache: Path | None, version: Version
) -> npt.NDArray[np.float32]:
    return _vectors(_opened(_Files(shared)), piece, cache, version).vectors


class _Files:
    """An encoder's files, known by the hash of its config, which holds those of its weights."""

    def __init__(self, files: dict[str, npt.NDArray[np.uint8]]) -> None:
        self.files = files
        self._key = hashlib.sha256(files["config.json"].tobytes()).hexdigest()

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Files) and other._key == self._key


@lru_cache(maxsize=1)
def _opened(files: _Files) -> Encoder:
    scratch = Scratch()
    folder = scratch.path
    atexit.register(scratch.close)
    for name, content in files.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content.tofile(folder / name)
    return Encoder.from_pretrained(folder)
