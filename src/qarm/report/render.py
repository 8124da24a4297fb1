"""The run's pages from its JSON: the report and the static explorer; they render and compute nothing."""

import json
from pathlib import Path
from typing import Any

from qarm.core.atomic_io import read_json, write_text
from qarm.report import charts, lines
from qarm.report.comparison import comparison_parts
from qarm.report.explorer import explorer_page
from qarm.report.page import chart, environment
from qarm.report.provenance import stages_done
from qarm.report.results_table import result_lines
from qarm.report.retrieval import gain_lines, gallery, geometry_lines, hit_lines

__all__ = ["render_report"]


def render_report(run: Path, work: Path) -> None:
    """Write `index.html` and `explorer.html` into `work`.

    Args:
        run: a run folder whose earlier stages have finished; a finished `compare/` is shown too.
        work: the report's folder, which already holds `summary.json`, `tree.json` and `explorer.json`.

    Raises:
        ArtifactError: a stage has not finished, or its JSON is damaged.
    """
    tree = read_json(work / "tree.json")
    page = environment().get_template("page.html.j2")
    write_text(work / "index.html", page.render(name=run.name, tree=tree, **_content(run, work)))
    write_text(work / "explorer.html", explorer_page(tree=tree, items=read_json(work / "explorer.json")))


def _content(run: Path, work: Path) -> dict[str, Any]:
    summary = read_json(work / "summary.json")
    codes = read_json(run / "codes" / "quality.json")
    pairs = read_json(run / "pairs" / "quality.json")
    vectors = read_json(run / "embeddings" / "quality.json")
    metrics = [json.loads(line) for line in (run / "encoder" / "metrics.jsonl").read_text().splitlines()]
    return {
        "stages": stages_done(run),
        "results": result_lines(summary),
        "differences": [d for d in summary["differences"] if d["metric"] == "auc"],
        "against": summary["against"],
        "check": lines.leaves(read_json(run / "check" / "check.json")),
        "pairs": {"sources": lines.pair_lines(pairs), "all": lines.leaves(pairs)},
        "codes": {
            "levels": lines.level_lines(codes),
            "collisions": lines.collision_lines(codes),
            "agreement": lines.agreement_lines(codes),
            "all": lines.leaves(codes),
            "quality": codes,
        },
        "retrieval": {
            "quality": vectors,
            "hits": hit_lines(vectors),
            "gains": gain_lines(vectors),
            "geometry": geometry_lines(vectors),
        },
        "gallery": gallery(read_json(run / "embeddings" / "neighbours.json")),
        "charts": {
            "alignment": chart(charts.alignment_chart(metrics)),
            "recall": chart(charts.recall_chart(metrics)),
            "levels": chart(charts.levels_chart(codes)),
            "results": chart(charts.results_chart(summary), first=True),
            "gains": chart(charts.gains_chart(summary)),
        },
        "comparison": _comparison(run),
    }


def _comparison(run: Path) -> dict[str, Any] | None:
    path = run / "compare" / "results.json"
    return comparison_parts(read_json(path), first=False) if path.is_file() else None
