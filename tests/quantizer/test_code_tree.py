"""The code tree on nine items that fit on a page, and against counting by hand on random ones."""

from collections import Counter

import numpy as np

from qarm.data.codes import Codes
from qarm.quantizer.code_tree import CodeTree

ROWS = [(0, 1, 0), (0, 1, 2), (0, 0, 0), (0, 1, 2), (5, 3, 1), (5, 3, 1), (5, 4, 0), (7, 7, 7), (0, 1, 2)]


def codes(rows: list[tuple[int, ...]]) -> Codes:
    return Codes([f"i{row}" for row in range(len(rows))], np.array(rows, dtype=np.int32))


def test_the_tree_of_nine_items() -> None:
    nodes = {node.prefix: node for node in CodeTree(codes(ROWS)).nodes()}
    assert {prefix: (node.items, node.codes) for prefix, node in nodes.items()} == {
        (): (9, 3),
        (0,): (5, 2),
        (0, 0): (1, 1),
        (0, 0, 0): (1, 0),
        (0, 1): (4, 2),
        (0, 1, 0): (1, 0),
        (0, 1, 2): (3, 0),
        (5,): (3, 2),
        (5, 3): (2, 1),
        (5, 3, 1): (2, 0),
        (5, 4): (1, 1),
        (5, 4, 0): (1, 0),
        (7,): (1, 1),
        (7, 7): (1, 1),
        (7, 7, 7): (1, 0),
    }
    assert nodes[0, 1, 2].examples == ["i1", "i3", "i8"]
    assert nodes[0, 1].examples == ["i1", "i0", "i3", "i8"]  # in turn, the larger branch first
    assert nodes[0,].examples == ["i1", "i2", "i0", "i3", "i8"]
    assert nodes[()].examples == ["i1", "i4", "i7", "i2", "i6", "i0"]


def test_the_largest_prefixes_are_kept_with_their_parents() -> None:
    tree = CodeTree(codes(ROWS))
    assert [node.prefix for node in tree.nodes(most=4)] == [(), (0,), (0, 1), (0, 1, 2), (5,)]
    assert [node.prefix for node in tree.nodes(depth=1)] == [(), (0,), (5,), (7,)]
    assert [node.prefix for node in tree.nodes((5,), most=2)] == [(5,), (5, 3), (5, 3, 1)]
    assert tree.nodes((9,)) == []
    assert [node.prefix for node in tree.nodes((7, 7, 7))] == [(7, 7, 7)]


def test_sizes_are_those_of_counting() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (400, 3))
    tree = CodeTree(codes([tuple(map(int, row)) for row in rows]))
    counted = Counter(tuple(map(int, row[:level])) for row in rows for level in range(4))
    assert {node.prefix: node.items for node in tree.nodes()} == counted
    for node in tree.nodes(examples=3):
        assert len(node.examples) == min(3, node.items) == len(set(node.examples))
        for item in node.examples:
            assert tuple(rows[int(item[1:])][: len(node.prefix)]) == node.prefix


def test_items_under_a_prefix_page_by_page() -> None:
    tree = CodeTree(codes(ROWS))
    assert tree.items((0, 1)) == (4, ["i0", "i1", "i3", "i8"])
    assert tree.items((0, 1), start=1, most=2) == (4, ["i1", "i3"])
    assert tree.items((0, 1), start=9, most=2) == (4, [])
    assert tree.items((4,)) == (0, [])
    assert tree.items(most=2) == (9, ["i2", "i0"])
