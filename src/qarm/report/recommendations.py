"""Recommendations in the report: three users' lists with pictures, and the retrievers' figures as tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qarm.core.atomic_io import read_model
from qarm.core.text_tables import aligned_table, figure_text, percent_text
from qarm.data.catalog import Catalog
from qarm.recommender.retrieval.recommender import Recommender
from qarm.report.tree import item_cards
from qarm.schemas.recommendations import ExampleItem, ExampleUser, RecommendationExamples
from qarm.schemas.retrieval import RetrievalFigures, RetrievalResults

__all__ = ["EXAMPLES", "RecommendationsContent", "example_text", "recommendation_examples", "recommendations"]

EXAMPLES = "recommendations.json"
USERS, PAST, LIST, FEWEST = 3, 8, 10, 2  # users; shown of a history; of a list; events of a user
CUT = 10  # of the tables by slice

Lines = list[list[str]]


@dataclass(frozen=True)
class RecommendationsContent:
    """Variables of `recommendations.html.j2`; a table is a header and rows."""

    examples: RecommendationExamples | None
    masked: Lines
    unmasked: Lines
    slices: Lines
    lists: Lines
    weights: Lines


def recommendation_examples(
    recommender: Recommender, catalog: Catalog, *, seed: int
) -> RecommendationExamples:
    """Content of `report/recommendations.json`.

    Args:
        catalog: texts and media of the items; appended items need not be in it. seed: of the draw of users.
    """
    asked = np.flatnonzero(recommender.histories.lengths >= FEWEST)
    drawn = np.random.default_rng([seed, 43]).permutation(asked)[:USERS].tolist()
    names = list(recommender.users)
    users = []
    for place, found in zip(
        drawn, recommender.recommend([names[place] for place in drawn], k=LIST), strict=True
    ):
        past = recommender.histories[place]
        users.append(
            ExampleUser(
                user=names[place],
                events=len(past),
                history=[recommender.item_ids[row] for row in past[-PAST:].tolist()],
                items=[ExampleItem(item=i.item_id, why=i.why, because=i.because) for i in found.items],
            )
        )
    shown = {item for user in users for item in _named(user)}
    return RecommendationExamples(users=users, cards=item_cards(catalog, shown))


def _named(user: ExampleUser) -> list[str]:
    because = [item.because for item in user.items if item.because is not None]
    return [*user.history, *(item.item for item in user.items), *because]


def example_text(examples: RecommendationExamples) -> str:
    """The first user's list for a terminal; nothing without users."""
    if not examples.users:
        return ""
    user = examples.users[0]
    names = {item: card.title or item for item, card in examples.cards.items()}
    past = ", ".join(names[item] for item in user.history)
    latest = f"the latest {len(user.history)} of {user.events}" if user.events > len(user.history) else "all"
    rows = [
        [
            f"{rank}",
            names[item.item],
            item.why,
            "" if item.because is None else f"after {names[item.because]}",
        ]
        for rank, item in enumerate(user.items, start=1)
    ]
    table = aligned_table([["rank", "item", "why", ""], *rows], left=4)
    head = f"user {user.user} had ({latest}): {past}"
    return "\n".join([head, "recommended:", *(line.rstrip() for line in table.splitlines())])


# ---- figures ------------------------------------------------------------------------------------


def recommendations(run: Path, work: Path) -> RecommendationsContent | None:
    """The report's chapter on recommendations; None for a run without a retriever.

    Args:
        run: the run folder; work: the report's folder, with `recommendations.json` where it was made.

    Raises:
        ArtifactError: damaged JSON.
    """
    path = run / "retriever" / "results.json"
    if not path.is_file():
        return None
    results = read_model(path, RetrievalResults)
    there = (work / EXAMPLES).is_file()
    return RecommendationsContent(
        examples=read_model(work / EXAMPLES, RecommendationExamples) if there else None,
        masked=overall_lines(results, masked=True),
        unmasked=overall_lines(results, masked=False),
        slices=slice_lines(results),
        lists=list_lines(results),
        weights=weight_lines(results),
    )


def overall_lines(results: RetrievalResults, *, masked: bool) -> Lines:
    """A header and a row per retriever: recall and NDCG over all targets at every cut."""
    rows = [row for row in results.figures if row.masked == masked and row.slice == "all"]
    found = {(row.retriever, row.cut): row for row in rows}
    cuts = sorted({row.cut for row in rows})
    lines = [["retriever", *(f"{name} at {cut}" for name in ("recall", "NDCG") for cut in cuts)]]
    for name in _retrievers(results):
        figures = [found[name, cut] for cut in cuts]
        lines.append(
            [
                name,
                *(figure_text(figure.recall) for figure in figures),
                *(figure_text(figure.ndcg) for figure in figures),
            ]
        )
    return lines


def slice_lines(results: RetrievalResults) -> Lines:
    """A header and a row per retriever: recall at 10 of each slice of targets, users' own items left out."""
    rows = [row for row in results.figures if row.masked and row.cut == CUT]
    found: dict[tuple[str, str], RetrievalFigures] = {(row.retriever, row.slice): row for row in rows}
    slices = [part for part in dict.fromkeys(row.slice for row in rows) if part != "all"]
    users = {part: max(row.users for row in rows if row.slice == part) for part in slices}
    kept = [part for part in slices if users[part]]
    names = [f"{part.replace('group-', 'popularity group ')} ({users[part]:,} users)" for part in kept]
    return [
        ["retriever", *names],
        *([name, *(figure_text(found[name, part].recall) for part in kept)] for name in _retrievers(results)),
    ]


def list_lines(results: RetrievalResults) -> Lines:
    """A header and a row per retriever: coverage, Gini coefficient and cold share of the lists of ten."""
    rows = [
        [row.retriever, percent_text(row.coverage), figure_text(row.gini, form=".3f"), percent_text(row.cold)]
        for row in results.lists
    ]
    return [["retriever", "catalogue coverage", "Gini", "cold items in lists"], *rows]


def weight_lines(results: RetrievalResults) -> Lines:
    """A header and a row per part of the blend, and the intercept of cold items."""
    weights = [[name, f"{weight:g}"] for name, weight in results.blend.weights.items()]
    return [["part of the blend", "weight"], *weights, ["cold items get", f"{results.blend.intercept:+.3f}"]]


def _retrievers(results: RetrievalResults) -> list[str]:
    return list(dict.fromkeys(row.retriever for row in results.figures))
