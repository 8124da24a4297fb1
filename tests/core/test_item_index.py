"""Item index: rows of ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qarm.core.item_index import ItemIndex
from qarm.errors import InputError

INDEX = ItemIndex(["b", "a", "c"])


def test_rows_follow_the_order_of_the_ids() -> None:
    assert list(INDEX) == ["b", "a", "c"]
    assert len(INDEX) == 3
    assert [INDEX[item] for item in "abc"] == [1, 0, 2]
    assert INDEX.get("c") == 2
    np.testing.assert_array_equal(INDEX.rows(["c", "b", "c"]), [2, 0, 2])
    assert INDEX.rows([]).shape == (0,)


def test_unknown_ids_are_minus_one_none_or_no_member() -> None:
    found = INDEX.find(["x", "a", "y"])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [-1, 1, -1])
    assert INDEX.get("x") is None
    assert "x" not in INDEX
    assert 1 not in INDEX
    with pytest.raises(KeyError, match="x"):
        INDEX["x"]


def test_unknown_ids_are_named_in_the_error() -> None:
    with pytest.raises(InputError, match=r"^no item x, y; give ids of the 3 known items$"):
        INDEX.rows(["x", "a", "y"])
    with pytest.raises(InputError, match=r"^no vector for items x \(3 there\)$"):
        INDEX.rows(["x"], missing="no vector for items {items} ({count} there)")
    with pytest.raises(InputError, match=r"no item 0, 1, 2, 3, 4 \.\.\. \(9 in all\); give"):
        INDEX.rows([str(number) for number in range(9)])


@given(ids=st.lists(st.text(max_size=3), unique=True), asked=st.lists(st.text(max_size=3)))
def test_it_answers_as_a_dict(ids: list[str], asked: list[str]) -> None:
    index, rows = ItemIndex(ids), {item: row for row, item in enumerate(ids)}
    assert index.find(asked).tolist() == [rows.get(item, -1) for item in asked]
    assert [index.get(item) for item in asked] == [rows.get(item) for item in asked]
    assert [item in index for item in asked] == [item in rows for item in asked]
    known = [item for item in asked if item in rows]
    assert index.rows(known).tolist() == [rows[item] for item in known]
