"""The code tree of twelve items whose codes are planted."""

from typing import Any

from qarm.data.catalog import Catalog
from qarm.data.codes import Codes
from qarm.quantizer.code_tree import CodeTree
from qarm.report.tree import tree_content
from qarm.schemas.explorer import Tree


def test_the_tree_names_the_largest_codes_with_pictures(codes: Codes, catalog: Catalog) -> None:
    found: Any = tree_content(CodeTree(codes), catalog).content()
    Tree.model_validate(found)
    assert (found["items"], found["levels"]) == (13, 3)
    sizes = {node["prefix"]: (node["items"], node["codes"]) for node in found["nodes"]}
    assert sizes[""] == (13, 2)
    assert sizes["1"] == (7, 2)
    assert sizes["1-1-2"] == (2, 0)
    assert [entry["prefix"] for entry in found["first"]] == ["1", "0"]  # the larger one first
    assert [branch["prefix"] for branch in found["first"][0]["branches"]] == ["1-1", "1-0"]
    shown = {item for entry in found["first"] for item in entry["examples"]}
    assert shown <= set(found["cards"])
    assert found["cards"]["i6"]["title"] == "Thing 6"
    assert found["cards"]["i6"]["picture"].startswith("data:image/webp;base64,")
    assert found["cards"]["new"] == {"title": None, "picture": None}
    assert tree_content(CodeTree(codes), catalog).content() == found
