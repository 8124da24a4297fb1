"""Code tree of the report: prefixes with their sizes, example items, and cards of the first ones."""

from qarm.data.catalog import Catalog
from qarm.data.media import read_media
from qarm.data.previews import small_picture, title_of
from qarm.quantizer.code_prefix import prefix_text
from qarm.quantizer.code_tree import CodeTree, Node
from qarm.quantizer.evaluation.code_names import CodeNames
from qarm.schemas.explorer import Tree, TreeBranch, TreeCard, TreeLimits, TreeNode

__all__ = ["item_cards", "tree_content"]

NODES, EXAMPLES = 6000, 6
FIRST, SECOND, PICTURES = 24, 3, 4


def tree_content(tree: CodeTree, catalog: Catalog) -> Tree:
    """Content of `report/tree.json`.

    Args:
        tree: of all coded items.
        catalog: texts and media of the items; appended items need not be in it.
    """
    nodes = tree.nodes(most=NODES, examples=EXAMPLES)
    texts = dict(catalog.frame.select("item_id", "text").iter_rows())
    names = CodeNames(tree, [title_of(texts.get(item)) for item in tree.item_ids])
    first = _first(nodes, names)
    shown = {item for branch in first for node in (branch, *branch.branches) for item in node.examples}
    return Tree(
        items=len(tree),
        levels=tree.levels,
        limits=TreeLimits(nodes=NODES, examples=EXAMPLES),
        nodes=[_node(node, names) for node in nodes],
        first=first,
        cards=item_cards(catalog, shown),
    )


def _node(node: Node, names: CodeNames, *, examples: int = EXAMPLES) -> TreeNode:
    return TreeNode(
        prefix=prefix_text(node.prefix),
        name=names.of(node.prefix),
        items=node.items,
        codes=node.codes,
        examples=node.examples[:examples],
    )


def _first(nodes: list[Node], names: CodeNames) -> list[TreeBranch]:
    return [
        TreeBranch(
            **dict(_node(node, names)),
            branches=[
                _node(branch, names, examples=PICTURES) for branch in _largest(nodes, node.prefix, SECOND)
            ],
        )
        for node in _largest(nodes, (), FIRST)
    ]


def _largest(nodes: list[Node], parent: tuple[int, ...], count: int) -> list[Node]:
    level = len(parent) + 1
    children = [node for node in nodes if len(node.prefix) == level and node.prefix[:-1] == parent]
    return sorted(children, key=lambda node: -node.items)[:count]


def item_cards(catalog: Catalog, shown: set[str]) -> dict[str, TreeCard]:
    """Titles and small pictures of some items, by id; neither for items outside the catalogue."""
    cards = {item: TreeCard(title=None, picture=None) for item in sorted(shown)}
    for item, text, source in catalog.frame.select("item_id", "text", "image").iter_rows():
        if item in cards:
            picture = None if source is None else small_picture(read_media(catalog, source))
            cards[item] = TreeCard(title=title_of(text), picture=picture)
    return cards
