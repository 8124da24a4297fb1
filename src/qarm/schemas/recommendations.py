"""Lists of some users in the report."""

from qarm.schemas.base import Count, Schema
from qarm.schemas.explorer import TreeCard

__all__ = ["ExampleItem", "ExampleUser", "RecommendationExamples"]


class ExampleItem(Schema):
    """An item of a list, the retriever that gave most, and the history's item that spoke most for it."""

    item: str
    why: str
    because: str | None


class ExampleUser(Schema):
    """A user: the latest items of the history, oldest first, and the list; events: of the whole history."""

    user: str
    events: Count
    history: list[str]
    items: list[ExampleItem]


class RecommendationExamples(Schema):
    """`report/recommendations.json`: lists of users who were drawn at random; cards: of all named items."""

    users: list[ExampleUser]
    cards: dict[str, TreeCard]
