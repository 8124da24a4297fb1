"""Feature cache: outputs of towers, computed once for each content, shared by stages, resumable."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qarm.core.atomic_io import atomic
from qarm.core.parallel.progress import Progress
from qarm.data.catalog import Catalog
from qarm.encoder.item_contents import content_key, contents_of, encode_items, load_item, readable
from qarm.encoder.towers.tower import Tower
from qarm.errors import ArtifactError, InputError, Problems

__all__ = [
    "SHARD",
    "FeatureCache",
    "Features",
    "ahead",
    "feature_shards",
    "open_feature_caches",
    "tower_features",
]

SHARD = 256
HASH = "sha256"  # of a file's keys and values, in its metadata
Array = npt.NDArray[np.floating[Any]]
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Features:
    """Tower outputs of n items.

    item_ids: n strings; present: tower's name to bool [n]; values: name to float [k, ...], the features of
    the k items that it can read, in order; a tower that can read none is in neither. A tower of one modality
    has its name.
    """

    item_ids: list[str]
    values: dict[str, Array]
    present: dict[str, npt.NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.item_ids)


class FeatureCache:
    """One tower's features by the hash of the content: in files under a folder, else in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._index: dict[bytes, tuple[str, int]] = {}
        self._parts: dict[str, Array] = {}
        self._load = lru_cache(maxsize=16)(self._load_part)
        for path in sorted(folder.glob("part-*.safetensors")) if folder else ():
            self._enter(path.stem, self._keys(path))

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def add(self, keys: Sequence[bytes], values: Array) -> None:
        """Keep values [n, ...] under n keys; a file is whole or not there."""
        name = f"part-{hashlib.sha256(b''.join(keys)).hexdigest()[:20]}"
        if self.folder is None:
            self._parts[name] = values
        else:
            table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
            parts = {"keys": table, "values": np.ascontiguousarray(values)}
            with atomic(self.folder / f"{name}.safetensors") as temporary:
                save_file(parts, temporary, metadata={HASH: _content_hash(parts)})
        self._enter(name, keys)

    def take(self, keys: Sequence[bytes]) -> Array:
        """Values of keys that are all there, [n, ...]."""
        places = [self._index[key] for key in keys]
        parts = {name: self._load(name) for name, _ in dict.fromkeys(places)}
        return np.stack([parts[name][row] for name, row in places])

    def _enter(self, name: str, keys: Sequence[bytes]) -> None:
        self._index.update((key, (name, row)) for row, key in enumerate(keys))

    def _load_part(self, name: str) -> Array:
        if self.folder is None:
            return self._parts[name]
        return self.check(self.folder / f"{name}.safetensors")

    @staticmethod
    def check(path: Path) -> Array:
        """Values of a file of the cache that is as it was written.

        Raises:
            ArtifactError: it is damaged.
        """
        with _readable(path), safe_open(path, framework="numpy") as part:
            parts = {name: part.get_tensor(name) for name in ("keys", "values")}
            expected = (part.metadata() or {}).get(HASH)  # none in what an earlier qarm wrote
        if expected is not None and expected != _content_hash(parts):
            raise ArtifactError(f"{path}: damaged cache file (its hash differs); delete it")
        return np.asarray(parts["values"])

    def _keys(self, path: Path) -> list[bytes]:
        with _readable(path), safe_open(path, framework="numpy") as part:
            return [row.tobytes() for row in part.get_tensor("keys")]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong while the file is read is its damage; the features can be computed again."""
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged cache file ({error}); delete it") from None


def _content_hash(parts: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(parts):
        values = np.ascontiguousarray(parts[name])
        found.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        found.update(values.tobytes())
    return found.hexdigest()


def open_feature_caches(towers: Mapping[str, Tower], cache: Path | None) -> dict[str, FeatureCache]:
    """A feature_cache for each tower, under `cache` when there is one."""
    if cache is None:
        return {modality: FeatureCache() for modality in towers}
    return {m: FeatureCache(cache / f"{m}-{tower.fingerprint[:16]}") for m, tower in towers.items()}


def tower_features(
    catalog: Catalog,
    towers: Mapping[str, Tower],
    *,
    cache: Path | None = None,
    caches: Mapping[str, FeatureCache] | None = None,
) -> Features:
    """Features of all items of a catalogue; content that is in the cache is not encoded again.

    Args:
        towers: name to encoder: text, image or audio, or a name of one that reads several (`towers.reads`).
        cache: folder of the features, keyed by tower and content; None computes them in memory.
        caches: opened caches to use and fill instead of `cache`.

    Raises:
        InputError: pictures or sounds that cannot be read, all those of a shard at once.
    """
    caches = open_feature_caches(towers, cache) if caches is None else caches
    shards = list(feature_shards(catalog, towers, caches))
    values = {m: [s.values[m] for s in shards if m in s.values] for m in towers}
    present = {m: np.concatenate([s.present[m] for s in shards]) for m in towers}
    return Features(
        catalog.item_ids,
        {m: np.concatenate(parts) for m, parts in values.items() if parts},
        {m: there for m, there in present.items() if there.any()},
    )


def feature_shards(
    catalog: Catalog,
    towers: Mapping[str, Tower],
    caches: Mapping[str, FeatureCache],
    *,
    keep: bool = True,
) -> Iterator[Features]:
    """Features of 256 items at a time, in order; reading and decoding run one shard ahead.

    `keep=False` leaves the caches as they are. A shard's `present` names every tower.
    """
    starts = range(0, len(catalog), SHARD)
    with Progress(total=len(catalog), desc="encode items", unit="item") as bar:
        for shard in ahead(lambda start: _Shard(catalog, start, towers, caches), starts):
            values = {m: shard.features(m, towers[m], caches[m], keep=keep) for m in towers if shard.keys[m]}
            yield Features(shard.item_ids, values, shard.present)
            bar.update(len(shard.item_ids))


class _Shard:
    """What one shard needs before its towers run: contents read and hashed, new ones decoded."""

    def __init__(
        self,
        catalog: Catalog,
        start: int,
        towers: Mapping[str, Tower],
        caches: Mapping[str, FeatureCache],
    ) -> None:
        part = replace(catalog, frame=catalog.frame[start : start + SHARD])
        self.item_ids: list[str] = part.item_ids
        self.present = {name: readable(part, name, tower) for name, tower in towers.items()}
        self.keys: dict[str, list[bytes]] = {}
        self.loaded: dict[str, dict[bytes, Any]] = {}
        problems = Problems()
        with ThreadPoolExecutor() as pool:
            for name, tower in towers.items():
                rows = part.frame.filter(self.present[name]).rows(named=True)
                found = list(pool.map(_loader(catalog, name, tower, caches[name]), rows))
                for made in found:
                    if isinstance(made, InputError):
                        problems.extend(made)
                good = [made for made in found if not isinstance(made, InputError)]
                self.keys[name] = [key for key, _ in good]
                self.loaded[name] = {key: ready for key, ready in good if ready is not None}
        problems.raise_any()

    def features(self, modality: str, tower: Tower, feature_cache: FeatureCache, *, keep: bool) -> Array:
        """Features of the shard's items by one tower: cached ones, and new ones computed."""
        keys, new = self.keys[modality], self.loaded[modality]
        if not new:
            return feature_cache.take(keys)
        values = encode_items(tower, list(new.values()))
        if keep:
            feature_cache.add([*new], values)
            return feature_cache.take(keys)
        rows = {key: row for row, key in enumerate(new)}
        return np.stack([values[rows[k]] if k in rows else feature_cache.take([k])[0] for k in keys])


def _loader(
    catalog: Catalog, name: str, tower: Tower, feature_cache: FeatureCache
) -> Callable[[Mapping[str, Any]], tuple[bytes, Any] | InputError]:
    """A function from a catalogue row to the content's key and its input if it is new, or the problem."""

    def load(row: Mapping[str, Any]) -> tuple[bytes, Any] | InputError:
        try:
            contents = contents_of(catalog, name, tower, row)
            key = content_key(contents)
            return key, None if key in feature_cache else load_item(name, tower, row, contents)
        except InputError as error:
            return error

    return load


def ahead(function: Callable[[Given], Made], inputs: Sequence[Given]) -> Iterator[Made]:
    """`map(function, inputs)`, the next one made in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(function, first) for first in inputs[:1]]
        for following in [*inputs[1:], None]:
            ready = waiting.pop()
            if following is not None:
                waiting.append(pool.submit(function, following))
            yield ready.result()
