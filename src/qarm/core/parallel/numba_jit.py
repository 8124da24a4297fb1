"""Numba compilation with types: kernels that release the interpreter lock and are cached on disk."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(*, reorder: bool = False) -> Callable[[Function], Function]:
    """Compile a function with numba, keeping its type for callers.

    Args:
        reorder: let the compiler add in any order, fuse a product with a sum, and assume that no NaN and no
            signed zero occurs, so that it works on 16 values at a time. For bounds, and where another
            rounding is as good; never for codes.
    """
    fastmath = {"reassoc", "contract", "nnan", "nsz"} if reorder else False
    decorator = numba.njit(fastmath=fastmath, nogil=True, cache=True)
    return cast(Callable[[Function], Function], decorator)
