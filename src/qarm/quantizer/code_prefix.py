"""Code prefixes: the first codes of an item, their text `12-3`, and the search for items that have them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError

__all__ = ["Prefix", "parse_prefix", "prefix_stretch", "prefix_text", "text_range"]

Prefix = tuple[int, ...]
JOINT = "-"


def prefix_text(prefix: Sequence[int]) -> str:
    """`12-3` for the codes 12 and 3."""
    return JOINT.join(map(str, prefix))


def parse_prefix(text: str, *, levels: int) -> Prefix:
    """The codes of `12-3`; none of an empty text.

    Raises:
        InputError: something else than whole numbers joined by `-`, or more of them than there are levels.
    """
    parts = text.split(JOINT) if text else []
    if len(parts) > levels or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise InputError(f"got the prefix {text[:40]!r}, need 1 to {levels} codes joined by -, such as 12-3")
    return tuple(int(part) for part in parts)


def prefix_stretch(columns: npt.NDArray[np.int32], prefix: Sequence[int]) -> tuple[int, int]:
    """First and last + 1 of the rows that begin with a prefix.

    Args:
        columns: codes int32 [levels, n] of rows in lexicographic order.
        prefix: codes from level 1 on, at most one for each level.
    """
    first, last = 0, columns.shape[1]
    for code, column in zip(prefix, columns, strict=False):
        rows = column[first:last]
        low, high = (int(np.searchsorted(rows, code, side=side)) for side in ("left", "right"))
        first, last = first + low, first + high
    return first, last


def text_range(prefix: Sequence[int]) -> tuple[str, str]:
    """Bounds of the texts of longer prefixes: `12-3-...` lies between `12-3-` and `12-3.`."""
    text = prefix_text(prefix)
    return f"{text}{JOINT}", f"{text}{chr(ord(JOINT) + 1)}"
