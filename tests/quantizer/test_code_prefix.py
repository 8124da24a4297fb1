"""Code prefixes: text and back, and the rows that begin with one, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qarm.errors import InputError
from qarm.quantizer.code_prefix import parse_prefix, prefix_stretch, prefix_text, text_range


def test_prefixes_as_text() -> None:
    assert parse_prefix("12-3", levels=3) == (12, 3)
    assert parse_prefix("", levels=3) == ()
    assert prefix_text((12, 3)) == "12-3"
    for wrong in ("a", "1-", "-1", "1-2-3-4", "1 ", "1_0", "²", "1" * 10):
        with pytest.raises(InputError, match="codes joined by -"):
            parse_prefix(wrong, levels=3)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1), st.lists(st.integers(0, 3), max_size=3))
def test_rows_that_begin_with_a_prefix(rows: list[tuple[int, ...]], prefix: list[int]) -> None:
    table = np.array(sorted(rows), dtype=np.int32)
    first, last = prefix_stretch(np.ascontiguousarray(table.T), prefix)
    expected = [row for row in sorted(rows) if list(row[: len(prefix)]) == prefix]
    assert [tuple(row) for row in table[first:last].tolist()] == expected


def test_longer_prefixes_lie_between_the_bounds_of_their_text() -> None:
    low, high = text_range((12, 3))
    assert all(low < text < high for text in ("12-3-0", "12-3-99", "12-3-7-1"))
    assert not any(low < text < high for text in ("12-3", "12-30", "12-30-1", "12-4", "12-2-9", "1-23-1"))
