"""The k smallest of a matrix in blocks, against sorting it."""

import numpy as np
import pytest

from qarm.quantizer.kmeans.top_k import keep_smallest


@pytest.mark.parametrize(("columns", "step"), [(5000, 5000), (5000, 1500), (3000, 1024), (70, 33), (10, 10)])
def test_blocks_give_what_sorting_gives(columns: int, step: int) -> None:
    rng = np.random.default_rng(columns)
    matrix = rng.normal(size=(20, columns)).astype(np.float32)
    skip = rng.integers(-1, columns, size=20)
    values = np.full((20, 7), np.inf, dtype=np.float32)
    found = np.full((20, 7), -1, dtype=np.int64)
    for start in range(0, columns, step):
        keep_smallest(np.ascontiguousarray(matrix[:, start : start + step]), start, skip, values, found)
    for row in range(20):
        expected = [j for j in matrix[row].argsort().tolist() if j != skip[row]][:7]
        assert sorted(found[row].tolist()) == sorted(expected)
        assert values[row, 0] == values[row].max()
        assert np.array_equal(values[row], matrix[row, found[row]])


def test_falling_columns_replace_everything() -> None:
    matrix = np.arange(4096, 0, -1, dtype=np.float32)[None]
    values, found = np.full((1, 3), np.inf, dtype=np.float32), np.full((1, 3), -1, dtype=np.int64)
    keep_smallest(matrix, 100, np.array([100 + 4095]), values, found)
    assert sorted(values[0].tolist()) == [2, 3, 4]
    assert sorted(found[0].tolist()) == [100 + 4092, 100 + 4093, 100 + 4094]


def test_fewer_columns_than_wanted_leave_empty_slots() -> None:
    values, found = np.full((1, 4), np.inf, dtype=np.float32), np.full((1, 4), -1, dtype=np.int64)
    keep_smallest(np.array([[2.0, 1.0]], dtype=np.float32), 0, np.array([-1]), values, found)
    assert sorted(found[0].tolist()) == [-1, -1, 0, 1]
