"""Coding and fitting on a CUDA GPU, with the bytes of a CPU.

The kernel chooses by rounded scores and marks every row for which rounding may have chosen wrong. Marked
rows go through it again in full float32, and those that are still marked through the CPU's exact search.
Sums are the CPU's fixed-point integers, which add up to the same in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qarm.core.parallel.torchrun import current
from qarm.errors import InputError
from qarm.quantizer.kmeans.assignment import Codebook, prepared, tile_codes
from qarm.quantizer.kmeans.exact_sums import FixedPointSums
from qarm.quantizer.vectors import ResidualRows, subtract_centroids

__all__ = ["GpuAssignment", "chosen_device", "code_on_gpu", "gpu_codes"]

Codes = npt.NDArray[np.int32]
Books = Sequence[npt.NDArray[np.float32]]
_TILE_VALUES = 1 << 24  # of rows on their way at once: 64 MB
_RESIDENT_SHARE = 0.5  # of the free memory that rows may take to stay there from iteration to iteration
_ERRORS = {"tf32": (2.0**-9, 2.0**-22), "ieee": (0.0, 2.0**-23)}  # of a product: fixed, and per dimension
_ROWS, _WIDE, _DIMS = 64, 128, 64


def chosen_device(device: str | None) -> torch.device | None:
    """The GPU to use, or None for the CPU.

    Args:
        device: "cpu", "cuda", or None: a GPU if there is one that can be used.

    Raises:
        InputError: "cuda" where there is none, or Triton is missing.
    """
    if device == "cpu":
        return None
    there, kernels = torch.cuda.is_available(), find_spec("triton") is not None
    if there and kernels:
        return torch.device("cuda", torch.cuda.current_device())
    if device == "cuda":
        lacking = "torch sees no CUDA device" if not there else "the package triton is not installed"
        raise InputError(f'got device="cuda", but {lacking}; use device="cpu"')
    return None


@dataclass(frozen=True)
class _Levels:
    """Codebooks side by side on the GPU: what `nearest_levels` reads."""

    books: Tensor
    half_norms: Tensor
    reaches: Tensor
    starts: Tensor

    @classmethod
    def of(cls, books: Books, device: torch.device) -> "_Levels":
        """Codebooks of all levels on the device."""
        squares = [np.square(book.astype(np.float64)).sum(axis=1) for book in books]
        every = {
            "books": np.concatenate(books),
            "half_norms": (np.concatenate(squares) / 2).astype(np.float32),
            "reaches": np.array([1.001 * np.sqrt(square.max()) for square in squares], dtype=np.float32),
            "starts": np.cumsum([0, *(len(book) for book in books)]).astype(np.int32),
        }
        return cls(**{name: torch.from_numpy(values).to(device) for name, values in every.items()})


def gpu_codes(rows: Tensor, books: Books) -> Tensor:
    """The nearest centroid of each row at every level, and of what it leaves at the next.

    Args:
        rows: float32 [n, d] on the GPU; left as they are.
        books: float32 [width, d] per level.

    Returns:
        Codes int32 [n, levels] on the GPU; equal distances go to the lowest index, measured in float64.
    """
    levels = _Levels.of(books, rows.device)
    codes = torch.empty((len(rows), len(books)), dtype=torch.int32, device=rows.device)
    open_rows = torch.arange(len(rows), device=rows.device)
    for precision in _ERRORS:
        found, doubts = _scored(rows[open_rows], levels, precision)
        codes[open_rows] = found
        open_rows = open_rows[doubts]
        if not len(open_rows):
            return codes
    codes[open_rows] = torch.from_numpy(_exact(rows[open_rows].cpu().numpy(), books)).to(rows.device)
    return codes


def code_on_gpu(values: npt.NDArray[Any], books: Books, device: torch.device) -> Codes:
    """Codes int32 [n, levels] of rows [n, d] in any float type, tile by tile."""
    codes = np.empty((len(values), len(books)), dtype=np.int32)
    step = max(_TILE_VALUES // values.shape[1], 1)
    for start in range(0, len(values), step):
        tile = np.array(values[start : start + step], dtype=np.float32, order="C")
        codes[start : start + step] = gpu_codes(torch.from_numpy(tile).to(device), books).cpu().numpy()
    return codes


def _scored(rows: Tensor, levels: _Levels, precision: str) -> tuple[Tensor, Tensor]:
    """Codes int32 [n, levels], and whether they are near ties, bool [n]; `rows` become residuals."""
    from qarm.quantizer.kmeans.gpu_kernel import nearest_levels

    rows = rows.contiguous()
    count, dim = rows.shape
    many = len(levels.reaches)
    codes = torch.empty((count, many), dtype=torch.int32, device=rows.device)
    doubts = torch.empty(count, dtype=torch.int8, device=rows.device)
    fixed, each = _ERRORS[precision]
    blocks: dict[str, Any] = {
        "LEVELS": many,
        "ROWS": _ROWS,
        "WIDE": _WIDE,
        "DIMS": _DIMS,
        "PRECISION": precision,
    }
    nearest_levels[(-(-count // _ROWS),)](
        rows, codes, doubts, levels.books, levels.half_norms, levels.reaches, levels.starts,
        count, dim, fixed + (dim + 16) * each, **blocks,
    )  # fmt: skip
    return codes, doubts.bool()


def _exact(rows: npt.NDArray[np.float32], books: Books) -> Codes:
    codes = np.empty((len(rows), len(books)), dtype=np.int32)
    for level, book in enumerate(books):
        codes[:, level] = tile_codes(rows, prepared(book))
        subtract_centroids(rows, book, codes[:, level])
    return codes


class GpuAssignment:
    """One level's assignment step on a GPU; takes the place of `kmeans.assign_rows` in Lloyd's iterations.

    Rows stay on the GPU where half of its free memory holds them, and pass through it in tiles otherwise.
    """

    def __init__(self, rows: ResidualRows, device: torch.device) -> None:
        self._rows = rows
        self._device = device

    def __call__(self, codebook: Codebook, codes: Codes, sums: FixedPointSums) -> int:
        """As `kmeans.assign_rows`: brings codes [n] and sums up to date, returns how many rows moved."""
        shard = current()
        first, last = shard.stretch(len(self._rows))
        totals, counts = (
            torch.from_numpy(np.zeros_like(s)).to(self._device) for s in (sums.totals, sums.counts)
        )
        moved, step = 0, max(_TILE_VALUES // self._rows.dim, 1)
        for start in range(first, last, step):
            stop = min(start + step, last)
            rows = self._tile(start, stop)
            new = gpu_codes(rows, [codebook.centroids])[:, 0].long()
            old = torch.from_numpy(codes[start:stop]).to(self._device).long()
            changed = torch.nonzero(new != old)[:, 0]
            values = torch.round(rows[changed].double() * sums.scale).long()
            _take(totals, counts, values, new[changed], 1)
            was = old[changed] >= 0
            _take(totals, counts, values[was], old[changed][was], -1)
            codes[start:stop] = new.int().cpu().numpy()
            moved += len(changed)
        every = totals.cpu().numpy(), counts.cpu().numpy(), np.array([moved])
        shard.add_up_arrays(*every)
        sums.totals += every[0]
        sums.counts += every[1]
        return int(every[2][0])

    def _tile(self, start: int, stop: int) -> Tensor:
        if self._resident is not None:
            first, _ = current().stretch(len(self._rows))
            return self._resident[start - first : stop - first]
        return torch.from_numpy(self._rows.tile(start, stop)).to(self._device)

    @cached_property
    def _resident(self) -> Tensor | None:
        """This process's residual rows, if they fit."""
        first, last = current().stretch(len(self._rows))
        shape = (last - first, self._rows.dim)
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            if 4 * shape[0] * shape[1] > _RESIDENT_SHARE * free:
                return None
        rows = torch.empty(shape, device=self._device)
        step = max(_TILE_VALUES // self._rows.dim, 1)
        for start in range(first, last, step):
            stop = min(start + step, last)
            rows[start - first : stop - first].copy_(torch.from_numpy(self._rows.tile(start, stop)))
        return rows


def _take(totals: Tensor, counts: Tensor, values: Tensor, codes: Tensor, sign: int) -> None:
    """Add values int64 [m, d] to the totals of their codes, or take them away."""
    totals.index_add_(0, codes, values, alpha=sign)
    counts.index_add_(0, codes, torch.full_like(codes, sign))
