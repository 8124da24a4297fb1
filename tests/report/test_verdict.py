"""Verdict on planted figures: each finding's outcome, cause and command, and the words of the whole."""

from collections.abc import Mapping
from typing import Any

import pytest

from qarm.report.verdict import verdict_lines, verdict_of
from qarm.report.verdict_figures import MORE_SEEDS, RunFigures
from qarm.schemas.base import Check
from qarm.schemas.codes import CodeQuality
from qarm.schemas.encoder import EmbeddingQuality
from qarm.schemas.pairs import PairQuality
from qarm.schemas.results import Row
from qarm.schemas.retrieval import RetrievalFigures, RetrievalResults
from qarm.schemas.verdict import Finding, Verdict

GOOD: dict[str, tuple[float | None, float | None]] = {
    "id": (0.70, 0.50),
    "id+frozen": (0.72, 0.66),
    "id+rq+vq": (0.74, 0.70),
    "popularity": (0.60, 0.50),
    "content-knn": (0.62, 0.64),
}
ITEMS = ("raw", "aligned")


def rows(aucs: Mapping[str, tuple[float | None, float | None]], seed: int = 0) -> list[Row]:
    return [
        Row(variant=v, seed=seed, slice=part, auc=auc, uauc=auc, gauc=auc, logloss=None, rows=9, users=1000)
        for v, of_parts in aucs.items()
        for part, auc in zip(("warm", "cold"), of_parts, strict=True)
    ]


def vectors(difference: float | None, interval: list[float] | None) -> EmbeddingQuality:
    row: dict[str, Any] = {"method": "aligned", "against": "raw", "slice": "all", "cutoff": "50"}
    row |= {"difference": difference, "difference_interval": interval, "ratio": 2.0, "ratio_interval": None}
    rates = [
        {"method": m, "slice": "all", "hit_rate": {"50": r}} for m, r in zip(ITEMS, (0.1, 0.2), strict=True)
    ]
    content: dict[str, Any] = dict.fromkeys(("users", "clicks", "queries", "each"), 10) | {"items": 500}
    content |= {"cutoffs": {"50": 50}, "slices": {}, "hit_rates": rates, "differences": [row]}
    return EmbeddingQuality.model_validate(content | {"pairs": {"count": 0, "recall": {}}, "geometry": {}})


def codes(collisions: float = 0.01, dead: int = 0) -> CodeQuality:
    level: dict[str, Any] = dict.fromkeys(("utilisation", "entropy", "gini", "energy_left"), 0.5)
    level |= {"level": 1, "width": 10, "used": 10 - dead, "dead": dead, "perplexity": 2.0}
    per_code = {"mean": 1.0, "max": 1, "histogram": {"1": 9}}
    full = {"distinct": 9, "collision_rate": collisions, "items_per_code": per_code}
    content = {"items": 9, "levels": [level], "full_codes": full, "neighbour_overlap_at_10": None}
    return CodeQuality.model_validate(content)


def pairs(lift: float) -> PairQuality:
    spread, score = {"mean": 1.0, "max": 2}, {"min": 0.0, "median": 0.5, "max": 1.0}
    named = ("users_per_pair", "users_per_random_pair", "users_per_matched_pair")
    intervals = ("lift_interval", "matched_lift", "matched_lift_interval")
    measured = {"lift": lift, **dict.fromkeys(named, 0.5), **dict.fromkeys(intervals)}
    source: dict[str, Any] = {"pairs": 9, "items": 9, "items_share": 0.9, "users_share": 0.5, "score": score}
    source |= {"count": spread, "per_item": spread, "lift": measured}
    content: dict[str, Any] = {"pairs": 9, "items": 9, "users": 9, "per_item": spread, "popularity": []}
    content |= {"sources": {"item2item": source}, "overlap": {"pairs": 0, "share": {}}}
    return PairQuality.model_validate(content)


def retrieval(ndcg: Mapping[str, float]) -> RetrievalResults:
    figures = [
        RetrievalFigures(retriever=r, slice="all", masked=True, cut=10, recall=v, ndcg=v, users=9)
        for r, v in ndcg.items()
    ]
    blend: dict[str, Any] = {"weights": {}, "intercept": 0.0, "counting": {}}
    return RetrievalResults.model_validate({"figures": figures, "lists": [], "blend": blend, "epochs": []})


def planted(
    *parts: list[Row],
    alignment: tuple[float | None, list[float] | None] = (0.1, [0.08, 0.12]),
    **changed: Any,
) -> Verdict:
    check = Check(items=9, users=10, interactions=200, unknown_interactions=0, bad_images={}, bad_sounds={})
    figures: dict[str, Any] = {"codes": codes(), "pairs": pairs(2.0), "check": check}
    figures |= {"retrieval": retrieval({"item-knn": 0.05, "model": 0.06, "blend": 0.07}), **changed}
    chosen = [row for part in parts or (rows(GOOD),) for row in part]
    return verdict_of(RunFigures(rows=chosen, vectors=vectors(*alignment), **figures))


def named(verdict: Verdict, name: str) -> Finding:
    (found,) = [finding for finding in verdict.findings if finding.name == name]
    return found


def test_a_run_where_the_codes_gain_passes_and_asks_for_more_seeds() -> None:
    verdict = planted()
    assert [finding.outcome for finding in verdict.findings] == ["pass"] * 7
    assert verdict.sentence == (
        "The codes add to the ids, in AUC +0.0400 on warm items, +0.2000 on cold items. "
        "Of 7 checks all pass. One seed: no interval."
    )
    assert (verdict.outcome, verdict.seeds, verdict.command) == ("pass", 1, MORE_SEEDS)
    over = {(g.against, g.slice): round(g.mean, 6) for f in verdict.findings[:5] for g in f.gains}
    assert over["id", "cold"] == 0.2
    assert over["id+frozen", "warm"] == 0.02
    assert over["content-knn", "warm"] == 0.12
    assert over["popularity", "cold"] == 0.2
    assert all(finding.cause is None and finding.command is None for finding in verdict.findings)


def test_an_untrained_baseline_that_wins_fails_with_its_cause_and_command() -> None:
    verdict = planted(rows(GOOD | {"content-knn": (0.62, 0.76)}))
    finding = named(verdict, "codes over untrained baselines")
    assert verdict.outcome == finding.outcome == "fail"
    assert finding.sentence.startswith("content-knn, which is not trained, is ahead on cold items; ")
    assert "-0.0600 on cold items" in finding.sentence
    assert finding.cause is not None
    assert finding.cause.startswith("content decides what is chosen")
    assert verdict.command == finding.command == "qarm run CONFIG --out RUN --quantizer.levels 2"
    popular = named(planted(rows(GOOD | {"popularity": (0.8, 0.5)})), "codes over untrained baselines")
    assert popular.cause is not None
    assert popular.cause.startswith("choices follow popularity")
    assert popular.command == "qarm run CONFIG --out RUN --ranker.patience 6 --ranker.epochs 40"


def test_few_events_of_a_user_are_the_cause_where_they_are_few() -> None:
    few = Check(items=9, users=100, interactions=230, unknown_interactions=0, bad_images={}, bad_sounds={})
    worse = rows(GOOD | {"id+rq+vq": (0.60, 0.40)})
    finding = named(planted(worse, check=few), "codes over ids")
    assert finding.outcome == "fail"
    assert (finding.cause, finding.command) == (
        "2.3 events a user are few to learn from",
        "qarm check CONFIG",
    )


@pytest.mark.parametrize(
    ("changed", "outcome", "cause"),
    [
        ({"id": (0.70, 0.40)}, "warn", "an id without training events says nothing"),
        ({"id": (0.45, 0.50)}, "fail", "labels are turned round"),
        ({"id+rq+vq": (0.74, 0.40)}, "fail", "labels are turned round"),
        ({"id": (0.70, 0.498)}, "pass", None),
    ],
)
def test_scores_below_chance(
    changed: dict[str, tuple[float | None, float | None]], outcome: str, cause: str | None
) -> None:
    finding = named(planted(rows(GOOD | changed)), "scores above chance")
    assert finding.outcome == outcome
    assert (finding.cause or "").startswith(cause or "")
    assert finding.command == (None if cause is None else "qarm check CONFIG")


def test_a_difference_that_few_users_may_show_by_chance_warns_and_asks_for_seeds() -> None:
    finding = named(planted(rows(GOOD | {"id+frozen": (0.7390, 0.7010)})), "codes over the fixed vector")
    assert (finding.outcome, finding.command) == ("warn", MORE_SEEDS)
    assert finding.cause == "the difference is smaller than one seed and 1,000 users can show"
    assert finding.figure == "+0.0010 on warm items, -0.0010 on cold items"


def test_several_seeds_have_an_interval_that_decides_and_baselines_count_for_each() -> None:
    trained = {name: aucs for name, aucs in GOOD.items() if "id" in name}
    later = [
        rows({name: ((warm or 0) + step, (cold or 0) + step) for name, (warm, cold) in trained.items()}, seed)
        for seed, step in ((1, 0.01), (2, -0.01))
    ]
    verdict = planted(rows(GOOD), *later)
    assert (verdict.seeds, verdict.command) == (3, "qarm compare CONFIG --out RUN")
    assert verdict.sentence.endswith("3 seeds: 95 % intervals in brackets.")
    gains = {(g.against, g.slice): g for f in verdict.findings[:5] for g in f.gains}
    assert gains["id", "warm"].low == pytest.approx(0.04)
    # t of 0.975 with 2 degrees of freedom, times 0.01 / sqrt(3)
    content = gains["content-knn", "warm"]
    assert content.mean == pytest.approx(0.12)
    assert content.low == pytest.approx(0.12 - 4.302653 * 0.01 / 3**0.5)


@pytest.mark.parametrize(
    ("alignment", "lift", "outcome", "command"),
    [
        ((0.1, [0.08, 0.12]), 2.0, "pass", None),
        ((0.1, [-0.01, 0.2]), 2.0, "warn", "qarm run CONFIG --out RUN --encoder.epochs 20"),
        ((-0.1, [-0.12, -0.08]), 1.05, "fail", "qarm check CONFIG"),
        ((0.1, None), 2.0, "warn", "qarm run CONFIG --out RUN --encoder.epochs 20"),
        ((None, None), 2.0, "not measured", None),
    ],
)
def test_alignment_against_raw(
    alignment: tuple[float | None, list[float] | None], lift: float, outcome: str, command: str | None
) -> None:
    finding = named(planted(alignment=alignment, pairs=pairs(lift)), "alignment over raw vectors")
    assert (finding.outcome, finding.command) == (outcome, command)
    if lift < 1.2:
        assert finding.cause == "the mined pairs are hardly better than random ones (lift 1.05)"
        assert "10.00 % before and 20.00 % after: -10.00 [-12.00, -8.00] points" in finding.sentence


@pytest.mark.parametrize(
    ("quality", "outcome", "command"),
    [
        (codes(0.05), "pass", None),
        (codes(0.1), "warn", "qarm run CONFIG --out RUN --quantizer.levels 2"),
        (codes(0.3), "fail", "qarm run CONFIG --out RUN --quantizer.levels 2"),
        (codes(0.0, dead=2), "warn", "qarm run CONFIG --out RUN --quantizer.width 8"),
        (codes(0.0, dead=5), "fail", "qarm run CONFIG --out RUN --quantizer.width 5"),
    ],
)
def test_collisions_and_dead_codes(quality: CodeQuality, outcome: str, command: str | None) -> None:
    finding = named(planted(codes=quality), "collisions and dead codes")
    assert (finding.outcome, finding.command) == (outcome, command)


@pytest.mark.parametrize(
    ("ndcg", "outcome"),
    [
        ({"item-knn": 0.05, "model": 0.06, "blend": 0.07}, "pass"),
        ({"item-knn": 0.05, "model": 0.04, "blend": 0.07}, "warn"),
        ({"item-knn": 0.05, "popularity": 0.08, "model": 0.06, "blend": 0.07}, "fail"),
        ({"model": 0.06, "blend": 0.06}, "not measured"),
    ],
)
def test_retrieval_against_counting(ndcg: dict[str, float], outcome: str) -> None:
    finding = named(planted(retrieval=retrieval(ndcg)), "retrieval over counting")
    assert finding.outcome == outcome
    if outcome == "fail":
        assert (
            finding.sentence
            == "NDCG at 10 over the whole catalogue: blend 0.0700, model 0.0600, popularity 0.0800."
        )
        assert (
            finding.cause == "the sequence model learned less from the log than popularity, which only counts"
        )


def test_what_a_run_does_not_have_is_not_judged() -> None:
    verdict = planted(rows({"id": (0.7, None), "id+frozen": (0.72, None)}), retrieval=None)
    missing = {finding.name for finding in verdict.findings if finding.outcome == "not measured"}
    assert missing == {
        "codes over ids",
        "codes over the fixed vector",
        "codes over untrained baselines",
        "retrieval over counting",
    }
    assert verdict.sentence.startswith("The codes were not compared with ids. Of 3 checks all pass.")
    assert verdict.command == "qarm run CONFIG --out RUN --ranker.variants '[id, id+frozen, id+rq+vq]'"


def test_codes_without_a_fixed_vector_stand_for_the_codes() -> None:
    aucs = {"id": (0.7, 0.5), "id+rq": (0.71, 0.6), "id+vq": (0.72, 0.61), "id+frozen+rq+vq": (0.8, 0.8)}
    assert {gain.method for gain in named(planted(rows(aucs)), "codes over ids").gains} == {"id+vq"}


def test_lines_of_a_terminal() -> None:
    lines = verdict_lines(planted(codes=codes(0.3)))
    assert lines[0].startswith("verdict: fail. The codes add to the ids, in AUC +0.0400 on warm items")
    at = next(number for number, line in enumerate(lines) if "collisions and dead codes" in line)
    assert lines[at : at + 3] == [
        "  fail          collisions and dead codes: 30.00 % of the items share a full code, "
        "0.00 % of the codes have no item.",
        "                likely cause: too few codes for the items",
        "                next: qarm run CONFIG --out RUN --quantizer.levels 2",
    ]
    assert lines[-1] == "  next command: qarm run CONFIG --out RUN --quantizer.levels 2"
