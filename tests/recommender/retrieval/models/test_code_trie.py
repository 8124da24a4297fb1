"""Code trie by hand and against sets of prefixes."""

import numpy as np
import pytest

from qarm.errors import InputError
from qarm.recommender.retrieval.models.code_trie import CodeTrie


def test_children_are_the_existing_continuations() -> None:
    trie = CodeTrie.of(np.array([[1, 2], [0, 5], [1, 0], [1, 2]]))
    roots, parents = trie.children(0, np.zeros(1, np.int64))
    assert trie.codes[0][roots].tolist() == [0, 1]
    assert parents.tolist() == [0, 0]
    leaves, parents = trie.children(1, roots[1:])
    assert trie.codes[1][leaves].tolist() == [0, 2]
    assert sorted(trie.leaf_items(int(leaves[1])).tolist()) == [0, 3]


def test_every_prefix_is_a_node_once() -> None:
    codes = np.random.default_rng(0).integers(0, 4, (200, 3))
    trie = CodeTrie.of(codes)
    for level in range(3):
        assert len(trie.codes[level]) == len({tuple(row[: level + 1]) for row in codes.tolist()})
    walked = set()
    for root in range(len(trie.codes[0])):
        for second in trie.children(1, np.array([root]))[0]:
            for leaf in trie.children(2, np.array([second]))[0]:
                path = (trie.codes[0][root], trie.codes[1][second], trie.codes[2][leaf])
                walked.add(tuple(int(code) for code in path))
                assert all(codes[item].tolist() == [*map(int, path)] for item in trie.leaf_items(int(leaf)))
    assert walked == {tuple(row) for row in codes.tolist()}


def test_no_items_are_refused() -> None:
    with pytest.raises(InputError, match="need at least one item"):
        CodeTrie.of(np.empty((0, 3), np.int64))
