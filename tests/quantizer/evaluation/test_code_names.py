"""Names of codes on planted titles: by hand, level by level, and where there is nothing to say."""

import numpy as np
import pytest

from qarm.data.codes import Codes
from qarm.quantizer.code_tree import CodeTree
from qarm.quantizer.evaluation.code_names import CodeNames

TITLES = {
    (0, 0): ["Lamp oak 3", "Lamp oak brass", "Lamp oak large"],
    (0, 1): ["Lamp steel", "Lamp steel large"],
    (1, 0): ["Chair oak", "Chair oak", "Chair steel"],
    (2, 0): ["Ковёр шерсть", "Ковёр шерсть", "Ковёр лён"],
    (3, 0): ["Sofa"],
    (3, 1): [None, "77"],
}


def named(titles: dict[tuple[int, int], list[str | None]]) -> CodeNames:
    rows = [(code, title) for code, texts in titles.items() for title in texts]
    order = np.random.default_rng(0).permutation(len(rows))
    ids = [f"i{n:02d}" for n in order]
    codes = Codes(ids, np.array([rows[n][0] for n in order], dtype=np.int32))
    tree = CodeTree(codes)
    return CodeNames(tree, [rows[int(item[1:])][1] for item in tree.item_ids])


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        # of 5 items and 12 words; by 23 words in 4 branches A is 5.75: lamp 5/12 log(1 + A/5) = .319,
        # large 2/12 log(1 + A/2) = .226, oak 3/12 log(1 + A/5) = .191, steel 2/12 log(1 + A/3) = .178
        ((0,), "lamp, large, oak"),
        ((0, 0), None),  # of its words lamp and oak are above, and brass and large occur once
        ((0, 1), "steel"),
        ((1,), "chair, oak"),
        ((2,), "ковёр, шерсть"),
        ((3,), None),
        ((3, 0), None),
        ((), None),
        ((9,), None),
    ],
)
def test_names_by_hand(prefix: tuple[int, ...], name: str | None) -> None:
    assert named(TITLES).of(prefix) == name


def test_each_level_adds_words_to_the_last() -> None:
    kinds = {0: "lamp", 1: "chair", 2: "table"}
    makes = {0: "oak wood", 1: "steel frame", 2: "glass top"}
    titles = {
        (kind, make): [f"{kinds[kind]} {makes[make]} new number {n}" for n in range(5)]
        for kind in kinds
        for make in makes
    }
    names = named(titles)
    for kind, word in kinds.items():
        assert names.of((kind,)).split(", ")[0] == word
        for make, words in makes.items():
            found = names.of((kind, make)).split(", ")
            assert set(words.split()) - set(names.of((kind,)).split(", ")) <= set(found)
            assert word not in found
            assert not {"new", "number"} & set(found)  # in more than half of all titles


def test_a_word_of_few_of_many_items_names_nothing() -> None:
    titles = {(0, 0): ["lamp"] * 20 + ["lamp rare"] * 2, (1, 0): ["chair"] * 30}
    assert named(titles).of((0,)) == "lamp"


def test_titles_without_a_word_and_no_titles() -> None:
    assert named({(0, 0): ["12", "13 4"], (1, 0): ["5", None]}).of((0,)) is None
    assert named({(0, 0): [None, None], (1, 0): [None, None]}).of((0,)) is None
