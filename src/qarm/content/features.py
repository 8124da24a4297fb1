"""Tower outputs, computed once for each content and kept, so that stages share them and a kill resumes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from qarm.artifacts import atomic
from qarm.content.catalog import Catalog
from qarm.content.media import blame, read_media
from qarm.content.towers import Tower
from qarm.errors import ArtifactError, InputError, Problems

__all__ = ["SHARD", "Features", "Shelf", "feature_shards", "open_shelves", "tower_features"]

SHARD = 256
Array = npt.NDArray[np.floating[Any]]
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Features:
    """Tower outputs of n items.

    item_ids: n strings; present: modality to bool [n]; values: modality to float [k, ...], the features
    of its k items that are present, in order; a modality that none has is in neither.
    """

    item_ids: list[str]
    values: dict[str, Array]
    present: dict[str, npt.NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.item_ids)


class Shelf:
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
            with atomic(self.folder / f"{name}.safetensors") as temporary:
                save_file({"keys": table, "values": np.ascontiguousarray(values)}, temporary)
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
        return np.asarray(load_file(self.folder / f"{name}.safetensors")["values"])

    def _keys(self, path: Path) -> list[bytes]:
        try:
            with safe_open(path, framework="numpy") as part:
                return [row.tobytes() for row in part.get_tensor("keys")]
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path}: damaged cache file ({error}); delete it") from None


def open_shelves(towers: Mapping[str, Tower], cache: Path | None) -> dict[str, Shelf]:
    """A shelf for each tower, under `cache` when there is one."""
    if cache is None:
        return {modality: Shelf() for modality in towers}
    return {m: Shelf(cache / f"{m}-{tower.fingerprint[:16]}") for m, tower in towers.items()}


def tower_features(
    catalog: Catalog,
    towers: Mapping[str, Tower],
    *,
    cache: Path | None = None,
    shelves: Mapping[str, Shelf] | None = None,
) -> Features:
    """Features of all items of a catalogue; content that is in the cache is not encoded again.

    Args:
        towers: modality (text, image or audio) to its encoder.
        cache: folder of the features, keyed by tower and content; None computes them in memory.
        shelves: opened shelves to use and fill instead of `cache`.

    Raises:
        InputError: pictures or sounds that cannot be read, all those of a shard at once.
    """
    shelves = open_shelves(towers, cache) if shelves is None else shelves
    shards = list(feature_shards(catalog, towers, shelves))
    values = {m: [s.values[m] for s in shards if m in s.values] for m in towers}
    present = {m: np.concatenate([s.present[m] for s in shards]) for m in towers}
    return Features(
        catalog.item_ids,
        {m: np.concatenate(parts) for m, parts in values.items() if parts},
        {m: there for m, there in present.items() if there.any()},
    )


def feature_shards(
    catalog: Catalog, towers: Mapping[str, Tower], shelves: Mapping[str, Shelf], *, keep: bool = True
) -> Iterator[Features]:
    """Features of 256 items at a time, in order; reading and decoding run one shard ahead.

    `keep=False` leaves the shelves as they are. A shard's `present` names every tower.
    """
    starts = range(0, len(catalog), SHARD)
    with tqdm(total=len(catalog), disable=None, desc="encode items", unit="item") as bar:
        for shard in _ahead(lambda start: _Shard(catalog, start, towers, shelves), starts):
            values = {m: shard.features(m, towers[m], shelves[m], keep=keep) for m in towers if shard.keys[m]}
            yield Features(shard.item_ids, values, shard.present)
            bar.update(len(shard.item_ids))


class _Shard:
    """What one shard needs before its towers run: contents read and hashed, new ones decoded."""

    def __init__(
        self, catalog: Catalog, start: int, towers: Mapping[str, Tower], shelves: Mapping[str, Shelf]
    ) -> None:
        frame = catalog.frame[start : start + SHARD]
        self.item_ids: list[str] = frame["item_id"].to_list()
        self.present = {m: frame[m].is_not_null().to_numpy() for m in towers}
        self.keys: dict[str, list[bytes]] = {}
        self.loaded: dict[str, dict[bytes, Any]] = {}
        problems = Problems()
        with ThreadPoolExecutor() as pool:
            for modality, tower in towers.items():
                rows = frame.select("item_id", modality).drop_nulls().rows()
                found = list(pool.map(_loader(catalog, modality, tower, shelves[modality]), rows))
                for made in found:
                    if isinstance(made, InputError):
                        problems.extend(made)
                good = [made for made in found if not isinstance(made, InputError)]
                self.keys[modality] = [key for key, _ in good]
                self.loaded[modality] = {key: ready for key, ready in good if ready is not None}
        problems.raise_any()

    def features(self, modality: str, tower: Tower, shelf: Shelf, *, keep: bool) -> Array:
        keys, new = self.keys[modality], self.loaded[modality]
        if not new:
            return shelf.take(keys)
        values = tower.encode(list(new.values()))
        if keep:
            shelf.add([*new], values)
            return shelf.take(keys)
        rows = {key: row for row, key in enumerate(new)}
        return np.stack([values[rows[k]] if k in rows else shelf.take([k])[0] for k in keys])


def _loader(
    catalog: Catalog, modality: str, tower: Tower, shelf: Shelf
) -> Callable[[tuple[str, str | bytes]], tuple[bytes, Any] | InputError]:
    """A function from (item id, source) to the content's key and its input if it is new, or the problem."""

    def load(row: tuple[str, str | bytes]) -> tuple[bytes, Any] | InputError:
        item, source = row
        try:
            content = source if modality == "text" else read_media(catalog, source)
            data = content.encode() if isinstance(content, str) else content
            key = hashlib.sha256(data).digest()
            return key, None if key in shelf else tower.load(content)
        except InputError as error:
            reason = str(error) if modality == "text" else blame(source, error)
            return InputError(f"item {item!r}: {modality} {reason}; repair it, or use Catalog.without_media")

    return load


def _ahead(function: Callable[[Given], Made], inputs: Sequence[Given]) -> Iterator[Made]:
    """`map(function, inputs)`, the next one made in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(function, first) for first in inputs[:1]]
        for following in [*inputs[1:], None]:
            ready = waiting.pop()
            if following is not None:
                waiting.append(pool.submit(function, following))
            yield ready.result()
