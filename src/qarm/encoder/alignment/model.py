"""Alignment model: vectors with a gradient, from cached features of frozen towers and from live towers."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.data.catalog import Catalog
from qarm.encoder.feature_cache import Features
from qarm.encoder.heads import Batch, Heads, flat
from qarm.encoder.item_contents import contents_of, flattened, load_item, readable
from qarm.encoder.towers.finetuning import Tuned
from qarm.encoder.towers.tower import reads, reads_parts

__all__ = ["AlignmentModel", "Chunk", "Precision"]

CHUNK = 1024  # items at a time where only heads run
MOST_SCALED = 4096  # items that a live tower's scale is taken from

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Collated:
    """A collated batch of a tower; sizes: int64 [n], rows of each item, one for each of its pictures."""

    batch: Any
    sizes: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean of the features of each item, float [n, ...]."""
        sizes = self.sizes.to(values.device)
        if len(sizes) == len(values):
            return values
        owners = torch.repeat_interleave(torch.arange(len(sizes), device=values.device), sizes)
        sums = values.new_zeros(len(sizes), *values.shape[1:]).index_add(0, owners, values)
        return sums / sizes.reshape(-1, *[1] * (values.dim() - 1))


@dataclass(frozen=True)
class Chunk:
    """Items that go through the model together.

    places: int64 [n], where they stand among the batch's items; items: int64 [n], their numbers; live:
    tower's name to the batch of those it reads; keep: bool [n, towers], False where a tower counts as
    missing.
    """

    places: Ints
    items: Ints
    live: Mapping[str, Collated]
    keep: Bools


class AlignmentModel:
    """Heads over towers, some of which may learn too.

    Args:
        heads: the trained fusion, on the device.
        catalog: the items; an item's number is its row.
        features: of the frozen towers, of the same items.
        tuned: name to the tower that learns.
        device, precision: where and in what live towers run; `auto` is bfloat16 on a GPU that has it.
        chunk: items that go through live towers at a time.
    """

    def __init__(
        self,
        heads: Heads,
        catalog: Catalog,
        features: Features,
        tuned: Mapping[str, Tuned],
        *,
        device: str,
        precision: Precision = "auto",
        chunk: int,
    ) -> None:
        self.heads, self.catalog, self.device = heads, catalog, device
        self.tuned = dict(tuned)
        self.size = len(catalog)
        self.names = heads.modalities
        self.chunk = chunk
        self._precision = precision
        frozen = [name for name in self.names if name not in tuned]
        self._values = {n: torch.from_numpy(features.values[n]).to(device) for n in frozen}
        reading = [
            features.present[n] if n in frozen else readable(catalog, n, tuned[n].tower) for n in self.names
        ]
        self.present: Bools = np.stack(reading, axis=1)
        self._place = np.where(self.present, self.present.cumsum(axis=0) - 1, -1)
        self._rows = catalog.frame.rows(named=True) if tuned else []
        self._costs = self._costs_of_items()
        self.parts = self._parts()

    def _parts(self) -> list[tuple[str, str | None]]:
        """What can be hidden of an item: a tower, or one of the modalities of a tower that reads several."""
        parts: list[tuple[str, str | None]] = []
        for name in self.names:
            tower = self.tuned[name].tower if name in self.tuned else None
            several = tower is not None and reads_parts(name, tower)
            parts += [(name, m) for m in reads(name, tower)] if several and tower else [(name, None)]
        return parts

    def _costs_of_items(self) -> Ints:
        """About how much work live towers have with each item: letters, a file as much as 2^16."""
        costs = np.zeros(self.size, dtype=np.int64)
        for name, tuned in self.tuned.items():
            for modality in reads(name, tuned.tower):
                column = self.catalog.frame[modality]
                if modality == "text":
                    costs += column.str.len_chars().fill_null(0).to_numpy().astype(np.int64)
                else:
                    costs += column.is_not_null().to_numpy().astype(np.int64) << 16
        return costs

    def there(self, items: Ints) -> Bools:
        """Which of its parts each item has, bool [n, parts]."""
        columns = [
            self.present[items, self.names.index(name)]
            if modality is None
            else np.array([self._rows[item][modality] is not None for item in items])
            for name, modality in self.parts
        ]
        return np.stack(columns, axis=1)

    # ---- batches --------------------------------------------------------------------------------

    def chunks(self, items: Ints) -> list[Ints]:
        """Places of the items that go through together; live towers get those of about the same cost."""
        if not self.tuned:
            return [np.arange(len(items))]
        order = np.argsort(-self._costs[items], kind="stable")
        return [order[i : i + self.chunk] for i in range(0, len(order), self.chunk)]

    def ready(
        self, places: Ints, items: Ints, keep: Bools | None = None, *, pool: ThreadPoolExecutor | None = None
    ) -> Chunk:
        """Everything of a chunk that needs no model: contents read, decoded and collated.

        Args:
            places: as in `Chunk`.
            items: int64 [n], the items' numbers.
            keep: bool [n, parts], what is not hidden; None: all.
            pool: threads to load in.
        """
        if keep is None:
            keep = np.ones((len(items), len(self.parts)), dtype=np.bool_)
        live = {
            name: self._collated(name, items, keep, pool) for name in self.tuned if self._any(name, items)
        }
        columns = [
            np.logical_or.reduce([keep[:, k] for k, (own, _) in enumerate(self.parts) if own == name])
            for name in self.names
        ]
        return Chunk(places, items, live, np.stack(columns, axis=1))

    def _any(self, name: str, items: Ints) -> bool:
        return bool(self.present[items, self.names.index(name)].any())

    def _collated(self, name: str, items: Ints, keep: Bools, pool: ThreadPoolExecutor | None) -> Collated:
        tower = self.tuned[name].tower
        readers = np.flatnonzero(self.present[items, self.names.index(name)]).tolist()
        hideable = [(k, part) for k, (own, part) in enumerate(self.parts) if own == name and part is not None]

        def load(place: int) -> Any:
            row = dict(self._rows[items[place]])
            gone = [part for k, part in hideable if not keep[place, k]]
            if any(row[part] is not None for _, part in hideable if part not in gone):
                row.update(dict.fromkeys(gone))
            return load_item(name, tower, row, contents_of(self.catalog, name, tower, row))

        media = reads(name, tower) != ("text",)  # a text loads faster than a thread is told to
        flat, sizes = flattened(list(pool.map(load, readers) if pool and media else map(load, readers)))
        return Collated(tower.collate(flat), torch.from_numpy(sizes))

    # ---- vectors --------------------------------------------------------------------------------

    def batch(self, chunk: Chunk) -> Batch:
        """Features of a chunk: gathered, or computed by the towers that learn."""
        places = self._place[chunk.items]
        values = {}
        for column, name in enumerate(self.names):
            if name in chunk.live:
                with self._autocast():
                    found = self.tuned[name](chunk.live[name].batch)
                values[name] = chunk.live[name].mean(found.float())
            elif name in self._values:
                rows = torch.from_numpy(places[places[:, column] >= 0, column]).to(self.device)
                values[name] = self._values[name].index_select(0, rows)
        return Batch(values, torch.from_numpy(places >= 0).to(self.device))

    def vectors(self, chunk: Chunk) -> Tensor:
        """Vectors of a chunk's items, float [n, dim]."""
        found: Tensor = self.heads(self.batch(chunk), torch.from_numpy(chunk.keep).to(self.device))
        return found

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self._precision
        if wanted == "auto":
            fast = self.device == "cuda" and torch.cuda.is_bf16_supported()
            wanted = "bfloat16" if fast else "float32"
        return torch.autocast(self.device, torch.bfloat16) if wanted == "bfloat16" else nullcontext()

    @torch.no_grad()
    def all_vectors(self, *, raw: bool = False) -> Tensor:
        """Vectors of all items, float32 [n, d], without dropout, of the towers as they are."""
        self.train(False)
        found: Tensor | None = None
        step = self.chunk if self.tuned else CHUNK
        everything = np.arange(self.size)
        for start in range(0, self.size, step):
            items = everything[start : start + step]
            chunk = self.ready(items, items)
            part = self.heads.raw(self.batch(chunk)) if raw else self.vectors(chunk)
            if found is None:
                found = part.new_empty(self.size, part.shape[1])
            found[start : start + step] = part
        assert found is not None  # noqa: S101 - a catalogue has at least one item
        return found

    @torch.no_grad()
    def fit_scales(self) -> None:
        """Standardise the heads' input over all items, that of live towers over up to 4,096 of them."""
        for name, values in self._values.items():
            chunks = [flat(values[i : i + CHUNK].double()) for i in range(0, len(values), CHUNK)]
            self.heads.fit_scale(name, torch.cat(chunks))
        if not self.tuned:
            return
        self.train(False)
        some = np.unique(np.linspace(0, self.size - 1, min(self.size, MOST_SCALED)).astype(np.int64))
        found: dict[str, list[Tensor]] = {name: [] for name in self.tuned}
        for start in range(0, len(some), self.chunk):
            items = some[start : start + self.chunk]
            batch = self.batch(self.ready(items, items))
            for name in found:
                if name in batch.values:
                    found[name].append(flat(batch.values[name].double()))
        for name, parts in found.items():
            self.heads.fit_scale(name, torch.cat(parts))

    def train(self, mode: bool) -> None:
        """Dropout on or off."""
        self.heads.train(mode)
        for tuned in self.tuned.values():
            tuned.train(mode)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name: the heads' first, then the towers' under `towers.`."""
        found = {f"heads.{name}": p for name, p in self.heads.named_parameters()}
        for name, tuned in self.tuned.items():
            live = tuned.named_parameters()
            found |= {f"towers.{name}.{part}": p for part, p in live if p.requires_grad}
        return found
