"""Code tree, and the items of the static explorer."""

from qarm.schemas.base import Count, Schema

__all__ = ["ExplorerItems", "Tree"]


class TreeLimits(Schema):
    nodes: Count
    examples: Count


class TreeNode(Schema):
    """A prefix; name: words that set its items apart, None where an earlier qarm wrote none."""

    prefix: str
    name: str | None = None
    items: Count
    codes: Count
    examples: list[str]


class TreeBranch(TreeNode):
    branches: list[TreeNode]


class TreeCard(Schema):
    title: str | None
    picture: str | None


class Tree(Schema):
    """`report/tree.json`; `qarm.report.tree.tree_content` says what each field means."""

    items: Count
    levels: Count
    limits: TreeLimits
    nodes: list[TreeNode]
    first: list[TreeBranch]
    cards: dict[str, TreeCard]


class ItemLimits(Schema):
    items: Count
    neighbours: Count
    picture_bytes: Count
    sound_bytes: Count


class ItemCounts(Schema):
    coded: Count
    listed: Count
    pictures: Count
    sounds: Count


class ExplorerItem(Schema):
    item: str
    title: str | None
    text: str | None
    codes: list[Count]
    suffix: Count | None
    raw: list[str] | None
    aligned: list[str] | None
    picture: str | None
    sound: str | None


class ExplorerItems(Schema):
    """`report/explorer.json`; `qarm.report.item_data.items_json` says what each field means."""

    limits: ItemLimits
    counts: ItemCounts
    items: list[ExplorerItem]
