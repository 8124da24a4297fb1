"""Pages of a run from its JSON: the report and the static explorer; nothing is computed here."""

from pathlib import Path

from qarm.core.atomic_io import read_model, write_text
from qarm.report import charts, tables
from qarm.report.comparison import ComparisonContent, comparison_content
from qarm.report.explorer import explorer_page
from qarm.report.page import chart, environment
from qarm.report.provenance import stages_done
from qarm.report.recommendations import recommendations
from qarm.report.verdict import run_verdict
from qarm.schemas.base import Check
from qarm.schemas.codes import CodeQuality
from qarm.schemas.comparison import Compared
from qarm.schemas.encoder import AlignStep, EmbeddingQuality, Neighbours
from qarm.schemas.explorer import ExplorerItems, Tree
from qarm.schemas.pairs import PairQuality
from qarm.schemas.results import Summary

__all__ = ["render_report"]


def render_report(run: Path, work: Path) -> None:
    """Write `index.html` and `explorer.html` into `work`.

    Args:
        run: a run folder whose earlier stages have finished; a finished `compare/` is shown too.
        work: the report's folder, which already holds `summary.json`, `tree.json`, `explorer.json` and, for a
            run with a retriever, `recommendations.json`.

    Raises:
        ArtifactError: a stage has not finished, or its JSON is damaged.
    """
    tree = read_model(work / "tree.json", Tree)
    page = environment().get_template("page.html.j2")
    write_text(work / "index.html", page.render(name=run.name, tree=tree, **_content(run, work)))
    items = read_model(work / "explorer.json", ExplorerItems)
    write_text(work / "explorer.html", explorer_page(tree=tree, items=items))


def _content(run: Path, work: Path) -> dict[str, object]:
    """Variables of `page.html.j2`."""
    summary = read_model(work / "summary.json", Summary)
    codes = read_model(run / "codes" / "quality.json", CodeQuality)
    pairs = read_model(run / "pairs" / "quality.json", PairQuality)
    vectors = read_model(run / "embeddings" / "quality.json", EmbeddingQuality)
    metrics = (run / "encoder" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [AlignStep.model_validate_json(line) for line in metrics]
    return {
        "verdict": run_verdict(summary, run),
        "stages": stages_done(run),
        "results": tables.result_lines(summary),
        "differences": [d for d in summary.differences if d.metric == "auc"],
        "against": summary.against,
        "check": tables.named_figures(read_model(run / "check" / "check.json", Check).content()),
        "pairs": {"sources": tables.pair_lines(pairs), "all": tables.named_figures(pairs.content())},
        "codes": {
            "levels": tables.level_lines(codes),
            "collisions": tables.collision_lines(codes),
            "agreement": tables.agreement_lines(codes),
            "all": tables.named_figures(codes.content()),
            "quality": codes,
        },
        "retrieval": {
            "quality": vectors,
            "hits": tables.hit_lines(vectors),
            "gains": tables.gain_lines(vectors),
            "geometry": tables.geometry_lines(vectors),
        },
        "gallery": tables.neighbour_cards(read_model(run / "embeddings" / "neighbours.json", Neighbours)),
        "charts": {
            "alignment": chart(charts.alignment_chart(steps)),
            "recall": chart(charts.recall_chart(steps)),
            "levels": chart(charts.levels_chart(codes)),
            "results": chart(charts.results_chart(summary), first=True),
            "gains": chart(charts.gains_chart(summary)),
        },
        "comparison": _comparison(run),
        "recommendations": recommendations(run, work),
    }


def _comparison(run: Path) -> ComparisonContent | None:
    path = run / "compare" / "results.json"
    return comparison_content(read_model(path, Compared), first=False) if path.is_file() else None
