"""Triton kernel of `device="cuda"`: nearest centroids at every level while a tile is on the chip.

A program codes a tile of rows through all levels. Scores |z|^2 / 2 - r.z come from a matrix product that
runs through the centroids block by block; the best and the second best are kept as they pass. Where these
lie closer together than rounding explains, the row is marked, and `gpu.py` codes it again.
"""

import triton
import triton.language as tl

__all__ = ["nearest_levels"]


@triton.jit
def nearest_levels(  # type: ignore[no-untyped-def]  # triton compiles annotations too
    residuals,
    codes,
    doubts,
    books,
    half_norms,
    reaches,
    starts,
    n,
    dim,
    error,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    DIMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Code rows [n, dim] at every level (QARM, arXiv 2411.11739: RQ code).

    Args:
        residuals: float32 [n, dim], the rows; changed into what the last level leaves.
        codes: int32 [n, LEVELS], filled.
        doubts: int8 [n], filled: 1 where rounding may have chosen wrong at some level.
        books: float32 [all centroids, dim], level after level.
        half_norms: float32 [all centroids], |z|^2 / 2.
        reaches: float32 [LEVELS], the largest |z|.
        starts: int32 [LEVELS + 1], where each level's centroids begin.
        n, dim: of the rows.
        error: what a score may be wrong by, as a share of (|r| + reach) * reach.
        LEVELS: how many.
        ROWS, WIDE, DIMS: rows, centroids and dimensions of a block, powers of two.
        PRECISION: of the products: "tf32", "tf32x3" or "ieee".
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = rows < n
    offsets = rows[:, None].to(tl.int64) * dim
    doubt = tl.zeros([ROWS], tl.int32)
    for level in tl.static_range(LEVELS):
        first = tl.load(starts + level)
        last = tl.load(starts + level + 1)
        best = tl.full([ROWS], float("inf"), tl.float32)
        second = tl.full([ROWS], float("inf"), tl.float32)
        code = tl.zeros([ROWS], tl.int32)
        for block in range(first, last, WIDE):
            columns = block + tl.arange(0, WIDE)
            real = columns < last
            products = tl.zeros([ROWS, WIDE], tl.float32)
            for begin in range(0, dim, DIMS):
                part = begin + tl.arange(0, DIMS)
                inside = part < dim
                r = tl.load(
                    residuals + offsets + part[None, :], mask=here[:, None] & inside[None, :], other=0.0
                )
                places = columns[None, :].to(tl.int64) * dim + part[:, None]
                z = tl.load(books + places, mask=real[None, :] & inside[:, None], other=0.0)
                products = tl.dot(r, z, products, input_precision=PRECISION)
            norms = tl.load(half_norms + columns, mask=real, other=float("inf"))
            scores = norms[None, :] - products
            least = tl.min(scores, axis=1)
            where = tl.argmin(scores, axis=1)
            others = tl.where(tl.arange(0, WIDE)[None, :] == where[:, None], float("inf"), scores)
            runner = tl.min(others, axis=1)
            second = tl.minimum(tl.maximum(best, least), tl.minimum(second, runner))
            code = tl.where(least < best, (block - first + where).to(tl.int32), code)
            best = tl.minimum(best, least)
        square = tl.zeros([ROWS], tl.float32)
        tl.debug_barrier()  # all have read the residuals before any are changed
        for begin in range(0, dim, DIMS):
            part = begin + tl.arange(0, DIMS)
            inside = here[:, None] & (part < dim)[None, :]
            r = tl.load(residuals + offsets + part[None, :], mask=inside, other=0.0)
            square += tl.sum(r * r, axis=1)
            chosen = (first + code)[:, None].to(tl.int64) * dim + part[None, :]
            tl.store(
                residuals + offsets + part[None, :],
                r - tl.load(books + chosen, mask=inside, other=0.0),
                mask=inside,
            )
        tl.debug_barrier()
        reach = tl.load(reaches + level)
        bound = 2.0 * (error * (1.01 * tl.sqrt(square) + reach) * reach + 1e-30)
        doubt = doubt | (second - best <= bound).to(tl.int32)
        tl.store(codes + rows.to(tl.int64) * LEVELS + level, code, mask=here)
    tl.store(doubts + rows, doubt.to(tl.int8), mask=here)
