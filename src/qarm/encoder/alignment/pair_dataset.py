"""Pair dataset: pairs as item numbers, checked, from memory or streamed from Parquet; their random order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.paths import as_path
from qarm.core.tables import as_ids, column
from qarm.core.tables.parquet import scan_parquet
from qarm.errors import InputError, Problems, shown

__all__ = ["Shuffle", "TrainingPairs", "read_pairs"]

FEWEST_TO_HOLD_OUT = 100
VALID_SHARE, MOST_VALID = 0.05, 2_000
ROWS = 1 << 20  # read, checked and written at a time
SIDES = ("trigger_id", "target_id")
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
ROUNDS = 4  # of a Feistel network: from four on, no pattern is known short of an attack

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs of item numbers: triggers, targets int [pairs]; weights float32 [pairs], positive.

    The arrays may be memory maps.
    """

    triggers: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.triggers)

    def take(self, rows: Any) -> "TrainingPairs":
        """Pairs of these rows."""
        return TrainingPairs(self.triggers[rows], self.targets[rows], self.weights[rows])

    def parts(self) -> Iterator["TrainingPairs"]:
        """A million pairs at a time."""
        for start in range(0, len(self), ROWS):
            yield self.take(slice(start, start + ROWS))


def _draw(pairs: TrainingPairs, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each unordered pair, the same whatever its direction and source."""
    low, high = np.minimum(pairs.triggers, pairs.targets), np.maximum(pairs.triggers, pairs.targets)
    key = np.random.default_rng([seed, 2]).integers(0, 2**63, dtype=np.uint64)
    mixed = (low.astype(np.uint64) ^ key) * MIX[0]
    mixed = ((mixed ^ (mixed >> np.uint64(31))) + high.astype(np.uint64)) * MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * MIX[0]
    drawn: npt.NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return drawn


def read_pairs(
    pairs: pl.DataFrame | Path | str,
    item_ids: Sequence[str],
    *,
    folder: Path,
    seed: int,
    source_weights: Mapping[str, float] | None = None,
) -> tuple[TrainingPairs, TrainingPairs]:
    """Training and validation pairs, as positions in `item_ids`, checked.

    A frame becomes arrays. A Parquet file is read a stretch at a time into files under `folder`, 12 bytes a
    pair, which are mapped, so that memory does not grow with the number of pairs. A twentieth is held out,
    about 2,000 pairs at most and none of fewer than 100; both directions and all sources of a pair go
    together.

    Args:
        pairs: trigger_id, target_id and, optionally, a positive weight and a source; or the file that holds
            them.
        item_ids: the items that may be named.
        folder: where the mapped files go.
        seed: of the draw of those held out.
        source_weights: factor for each source's weights; a source that is not named keeps its own, one of 0
            is left out.

    Raises:
        InputError: every problem found; no pairs, or one.
    """
    mapped = not isinstance(pairs, pl.DataFrame)
    count, frames = (
        (pairs.height, iter([pairs])) if isinstance(pairs, pl.DataFrame) else _stretches(as_path(pairs))
    )
    if count == 0:
        raise InputError("no pairs to learn from; mine more of them: a longer log, or a wider pairs.window")
    share = 0.0 if count < FEWEST_TO_HOLD_OUT else min(VALID_SHARE, MOST_VALID / count)
    place = pl.DataFrame({"id": item_ids, "place": np.arange(len(item_ids), dtype=np.int32)})
    train, valid = _Writer(folder if mapped else None), _Writer(None)
    for part, frame in enumerate(frames):
        found = _weighted(_number(frame, place, part * ROWS), frame, source_weights or {})
        held = _draw(found, seed) < share
        train.add(found.take(~held))
        valid.add(found.take(held))
    return _enough(train.finish()), valid.finish()


def _stretches(path: Path) -> tuple[int, Iterator[pl.DataFrame]]:
    """Number of pairs, and a million of them at a time."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; mine pairs first")
    try:
        table = scan_parquet(path)
        names = [n for n in (*SIDES, "weight", "source") if n in table.collect_schema().names()]
        count: int = table.select(pl.len()).collect().item()
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: not a table of pairs ({' '.join(str(error).split())[:200]})") from None
    return count, (table.select(names).slice(first, ROWS).collect() for first in range(0, count, ROWS))


def _number(frame: pl.DataFrame, place: pl.DataFrame, first: int) -> TrainingPairs:
    problems = Problems()
    sides = [_places(frame, name, place, problems) for name in SIDES]
    weights = _weights(frame, first, problems)
    problems.raise_any()
    numbered = TrainingPairs(sides[0], sides[1], weights)
    same = np.flatnonzero(numbered.triggers == numbered.targets)
    if len(same):
        raise InputError(f"pairs of an item with itself in rows {shown(same + first)}; remove them")
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


def _weights(pairs: pl.DataFrame, first: int, problems: Problems) -> Any:
    if "weight" not in pairs.columns:
        return np.ones(pairs.height, dtype=np.float32)
    series = pairs["weight"]
    if not series.dtype.is_numeric():
        problems.add(f"pairs.weight is {series.dtype}, need numbers")
        return None
    weights = series.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        problems.add(f"pairs.weight: not a positive number in rows {shown(wrong + first)}; drop those pairs")
    return weights


def _weighted(pairs: TrainingPairs, frame: pl.DataFrame, factors: Mapping[str, float]) -> TrainingPairs:
    if not factors:
        return pairs
    if "source" not in frame.columns:
        raise InputError(
            f"source_weights = {dict(factors)}, and the pairs have no column source; leave it out"
        )
    factor = frame["source"].replace_strict(dict(factors), default=1.0, return_dtype=pl.Float32).to_numpy()
    kept = factor > 0
    return replace(pairs, weights=pairs.weights * factor).take(kept)


def _enough(pairs: TrainingPairs) -> TrainingPairs:
    if len(pairs) < 2:
        raise InputError(
            f"got {len(pairs)} pairs, need at least 2: a pair is told apart from others; mine more, or weigh "
            "a source with more than 0"
        )
    return pairs


class _Writer:
    """Collects stretches of pairs: in memory, or in files that are mapped in the end."""

    KINDS = (("triggers", np.int32), ("targets", np.int32), ("weights", np.float32))

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._parts: list[TrainingPairs] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name, _ in self.KINDS:
                (folder / f"{name}.bin").write_bytes(b"")

    def add(self, pairs: TrainingPairs) -> None:
        """Append a stretch of pairs to the files."""
        if self.folder is None:
            self._parts.append(pairs)
            return
        for name, kind in self.KINDS:
            with (self.folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(getattr(pairs, name), dtype=kind).data)

    def finish(self) -> TrainingPairs:
        """Pairs that were written, mapped from the files."""
        if self.folder is not None:
            return TrainingPairs(*(self._mapped(self.folder / f"{n}.bin", kind) for n, kind in self.KINDS))
        columns = ([getattr(p, name) for p in self._parts] for name, _ in self.KINDS)
        joined: list[Any] = [np.concatenate(parts) for parts in columns]
        return TrainingPairs(*joined)

    @staticmethod
    def _mapped(path: Path, kind: Any) -> Any:
        return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)


class Shuffle:
    """A permutation of 0..n-1, drawn by seed: a Feistel network (Luby & Rackoff 1988) with cycle walking."""

    def __init__(self, n: int, *, seed: int | list[int]) -> None:
        self.n = n
        self._half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        self._keys = np.random.default_rng(seed).integers(0, 2**63, ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return self.n

    def take(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Places start..stop-1 of the order, int64 [stop - start]."""
        values = self._once(np.arange(start, min(stop, self.n), dtype=np.uint64))
        while (outside := values >= self.n).any():
            values[outside] = self._once(values[outside])
        return values.astype(np.int64)

    def _once(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        bits = np.uint64(self._half)
        mask = (np.uint64(1) << bits) - np.uint64(1)
        left, right = values >> bits, values & mask
        for key in self._keys:
            mixed = (right ^ key) * MIX[0]
            mixed = (mixed ^ (mixed >> np.uint64(32))) * MIX[1]
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) & mask)
        return (left << bits) | right
