"""Lists of three users in the report, the first one in a terminal, and the retrievers' tables."""

from pathlib import Path

import numpy as np
import pytest

from qarm.core.atomic_io import write_json
from qarm.data.catalog import Catalog
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.counting import ContentKnn
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.recommender import Recommender
from qarm.recommender.retrieval.storage import StoredRetriever
from qarm.report.page import environment
from qarm.report.recommendations import (
    EXAMPLES,
    example_text,
    list_lines,
    overall_lines,
    recommendation_examples,
    recommendations,
    slice_lines,
    weight_lines,
)
from qarm.schemas.retrieval import (
    BlendShape,
    CountingSettings,
    ListFigures,
    RetrievalFigures,
    RetrievalResults,
)


@pytest.fixture
def recommender(catalog: Catalog) -> Recommender:
    """Items on a circle; u3 has too few events to be an example."""
    angles = np.arange(12) * 0.1
    blend = Blend(
        {"content-knn": ContentKnn.of(np.stack([np.cos(angles), np.sin(angles)], axis=1))},
        {"content-knn": 1.0},
        np.zeros(12, bool),
    )
    counts = np.ones(12, np.int64)
    histories = Histories.of([[0, 1], list(range(10)), [5, 4], [7]])
    users = ["u0", "u1", "u2", "u3"]
    return Recommender(
        StoredRetriever(blend, catalog.item_ids, counts, counts, users, histories, CountingSettings())
    )


def figures(retriever: str, part: str, masked: bool, cut: int, recall: float | None) -> RetrievalFigures:
    users = 0 if recall is None else 7
    ndcg = None if recall is None else recall / 2
    return RetrievalFigures(
        retriever=retriever, slice=part, masked=masked, cut=cut, recall=recall, ndcg=ndcg, users=users
    )


@pytest.fixture
def results() -> RetrievalResults:
    rows = [
        figures(name, part, masked, cut, None if part == "cold" else base + cut / 1000 - 0.01 * (not masked))
        for name, base in (("item-knn", 0.1), ("blend", 0.2))
        for masked in (True, False)
        for part in ("all", "cold", "group-1")
        for cut in (5, 10)
    ]
    lists = [ListFigures(retriever="blend", coverage=0.25, gini=0.5, cold=0.1)]
    blend = BlendShape(weights={"item-knn": 1.0}, intercept=0.25, counting=CountingSettings())
    return RetrievalResults(figures=rows, lists=lists, blend=blend, epochs=[])


def test_three_users_with_at_least_two_events_are_drawn_the_same_each_time(
    recommender: Recommender, catalog: Catalog
) -> None:
    found = recommendation_examples(recommender, catalog, seed=0)
    assert found == recommendation_examples(recommender, catalog, seed=0)
    assert {user.user for user in found.users} == {"u0", "u1", "u2"}
    by_name = {user.user: user for user in found.users}
    assert by_name["u0"].history == ["i0", "i1"]
    assert [one.item for one in by_name["u0"].items][:2] == ["i2", "i3"]
    assert by_name["u0"].items[0].because == "i1"
    assert (by_name["u1"].events, by_name["u1"].history) == (10, [f"i{n}" for n in range(2, 10)])
    named = {item for user in found.users for item in (*user.history, *(one.item for one in user.items))}
    assert set(found.cards) == named
    assert found.cards["i0"].picture.startswith("data:image/webp")
    assert found.cards["i1"].picture is None


def test_the_terminal_shows_the_first_user(recommender: Recommender, catalog: Catalog) -> None:
    examples = recommendation_examples(recommender, catalog, seed=0)
    first = next(user for user in examples.users if user.user == "u0")
    text = example_text(examples.model_copy(update={"users": [first]}))
    lines = text.splitlines()
    assert lines[0] == "user u0 had (all): Thing 0, Thing 1"
    assert lines[3].split()[:3] == ["1", "Thing", "2"]
    assert lines[3].endswith("after Thing 1")
    assert example_text(examples.model_copy(update={"users": []})) == ""


def test_tables_have_the_right_figures(results: RetrievalResults) -> None:
    assert overall_lines(results, masked=True) == [
        ["retriever", "recall at 5", "recall at 10", "NDCG at 5", "NDCG at 10"],
        ["item-knn", "0.1050", "0.1100", "0.0525", "0.0550"],
        ["blend", "0.2050", "0.2100", "0.1025", "0.1050"],
    ]
    assert overall_lines(results, masked=False)[1][1] == "0.0950"
    assert slice_lines(results) == [  # a slice without a user has no column
        ["retriever", "popularity group 1 (7 users)"],
        ["item-knn", "0.1100"],
        ["blend", "0.2100"],
    ]
    assert list_lines(results)[1] == ["blend", "25.00 %", "0.500", "10.00 %"]
    assert weight_lines(results)[1:] == [["item-knn", "1"], ["cold items get", "+0.250"]]


def test_the_chapter_shows_pictures_and_leaves_texts_text(
    recommender: Recommender, catalog: Catalog, results: RetrievalResults, tmp_path: Path
) -> None:
    assert recommendations(tmp_path, tmp_path) is None
    write_json(tmp_path / "retriever" / "results.json", results)
    examples = recommendation_examples(recommender, catalog, seed=0)
    hostile = "<img src=x onerror=alert(1)>"
    examples.cards["i2"] = examples.cards["i2"].model_copy(update={"title": hostile})
    write_json(tmp_path / EXAMPLES, examples)
    content = recommendations(tmp_path, tmp_path)
    page = environment().from_string(
        "{% macro near(item, card) %}<i>{{ card.picture or '' }}{{ card.title }}</i>{% endmacro %}"
        "{% macro grid(lines) %}<b>{{ lines[0] | join(',') }}</b>{% endmacro %}"
        "{% include 'recommendations.html.j2' %}"
    )
    html = page.render(recommendations=content)
    assert "data:image/webp" in html
    assert hostile not in html
    assert html.count("<h3>User") == 3
    assert "content-knn, after Thing 1" in html
