"""The code tree: prefixes with their sizes and example items, and cards of the examples shown first."""

from typing import Any

from qarm.data.catalog import Catalog
from qarm.data.media import read_media
from qarm.data.previews import small_picture, title_of
from qarm.quantizer.code_tree import CodeTree, Node, prefix_text

__all__ = ["node_json", "tree_json"]

NODES, EXAMPLES = 6000, 6
FIRST, SECOND, PICTURES = 24, 3, 4


def tree_json(tree: CodeTree, catalog: Catalog) -> dict[str, Any]:
    """Content of `report/tree.json`.

    Args:
        tree: of all coded items.
        catalog: what is known of them; appended items need not be in it.

    Returns:
        items: coded; levels; limits: `nodes` that are kept at most, `examples` at each. nodes: `prefix`
        (`12-3`), `items`, `codes` (of the next level, all of them), `examples` (item ids), sorted by codes.
        first: the largest prefixes of level 1 with the largest of level 2 under each, and the examples that
        the report shows of them. cards: `title` and `picture` of those examples, None where there is none.
    """
    nodes = tree.nodes(most=NODES, examples=EXAMPLES)
    first = _first(nodes)
    shown = {item for entry in first for item in _named(entry)}
    return {
        "items": len(tree),
        "levels": tree.levels,
        "limits": {"nodes": NODES, "examples": EXAMPLES},
        "nodes": [node_json(node) for node in nodes],
        "first": first,
        "cards": _cards(catalog, shown),
    }


def node_json(node: Node) -> dict[str, Any]:
    return {
        "prefix": prefix_text(node.prefix),
        "items": node.items,
        "codes": node.codes,
        "examples": node.examples,
    }


def _first(nodes: list[Node]) -> list[dict[str, Any]]:
    entries = []
    for node in _largest(nodes, (), FIRST):
        entry: dict[str, Any] = node_json(node)
        entry["branches"] = [
            node_json(branch) | {"examples": branch.examples[:PICTURES]}
            for branch in _largest(nodes, node.prefix, SECOND)
        ]
        entries.append(entry)
    return entries


def _largest(nodes: list[Node], parent: tuple[int, ...], count: int) -> list[Node]:
    level = len(parent) + 1
    children = [node for node in nodes if len(node.prefix) == level and node.prefix[:-1] == parent]
    return sorted(children, key=lambda node: -node.items)[:count]


def _named(entry: dict[str, Any]) -> list[str]:
    return [*entry["examples"], *(item for branch in entry["branches"] for item in branch["examples"])]


def _cards(catalog: Catalog, shown: set[str]) -> dict[str, dict[str, str | None]]:
    cards: dict[str, dict[str, str | None]] = {
        item: {"title": None, "picture": None} for item in sorted(shown)
    }
    for item, text, source in catalog.frame.select("item_id", "text", "image").iter_rows():
        if item in cards:
            picture = None if source is None else small_picture(read_media(catalog, source))
            cards[item] = {"title": title_of(text), "picture": picture}
    return cards
