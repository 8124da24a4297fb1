"""One self-contained page from a run's JSON; it renders and computes nothing."""

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from qarm.artifacts import read_json, read_manifest, write_text
from qarm.report.page import chart, environment
from qarm.report.retrieval import gain_lines, gallery, geometry_lines, hit_lines
from qarm.report.table import result_lines

__all__ = ["render_report"]


def render_report(run: Path, work: Path) -> None:
    """Write `index.html` into `work`.

    Args:
        run: a run folder whose earlier stages have finished.
        work: the report's folder, which already holds `summary.json`.

    Raises:
        ArtifactError: a stage has not finished, or its JSON is damaged.
    """
    summary = read_json(work / "summary.json")
    codes = read_json(run / "codes" / "quality.json")
    vectors = read_json(run / "embeddings" / "quality.json")
    metrics = [json.loads(line) for line in (run / "encoder" / "metrics.jsonl").read_text().splitlines()]
    page = environment().get_template("page.html.j2")
    text = page.render(
        name=run.name,
        results=result_lines(summary),
        differences=[d for d in summary["differences"] if d["metric"] == "auc"],
        check=_leaves(read_json(run / "check" / "check.json")),
        pairs=_leaves(read_json(run / "pairs" / "quality.json")),
        codes=_leaves(codes),
        retrieval={
            "quality": vectors,
            "hits": hit_lines(vectors),
            "gains": gain_lines(vectors),
            "geometry": geometry_lines(vectors),
        },
        gallery=gallery(read_json(run / "embeddings" / "neighbours.json")),
        charts={
            "results": chart(_results_chart(summary), first=True),
            "alignment": chart(_alignment_chart(metrics)),
            "recall": chart(_recall_chart(metrics)),
            "levels": chart(_levels_chart(codes)),
        },
        manifests=_manifests(run),
    )
    write_text(work / "index.html", text)


def _leaves(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Numbers and short texts of nested JSON as (dotted name, text) lines."""
    if isinstance(content, dict):
        return [
            line for key, value in content.items() for line in _leaves(value, f"{prefix}.{key}".strip("."))
        ]
    if isinstance(content, list):
        return [(prefix, ", ".join(_text(value) for value in content))] if _flat(content) else []
    return [(prefix, _text(content))]


def _flat(values: list[Any]) -> bool:
    return len(values) <= 12 and not any(isinstance(value, dict | list) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _results_chart(summary: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for part in dict.fromkeys(m["slice"] for m in summary["means"]):
        means = [m for m in summary["means"] if m["slice"] == part and m["auc"] is not None]
        figure.add_scatter(
            x=[m["auc"] for m in means],
            y=[m["variant"] for m in means],
            mode="markers",
            marker={"size": 11},
            name=part,
        )
    figure.update_layout(title="AUC by variant and slice", xaxis_title="AUC")
    figure.update_yaxes(autorange="reversed")
    return figure


def _alignment_chart(metrics: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    for key in dict.fromkeys(key for row in metrics for key in row if key.endswith("loss")):
        rows = [row for row in metrics if row.get(key) is not None]
        figure.add_scatter(
            x=[row["step"] for row in rows], y=[row[key] for row in rows], name=key.replace("_", " ")
        )
    figure.update_layout(title="Alignment loss by step", xaxis_title="step", yaxis_title="loss, nats")
    return figure


def _recall_chart(metrics: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    for key in dict.fromkeys(key for row in metrics for key in row if "recall" in key):
        rows = [row for row in metrics if row.get(key) is not None]
        figure.add_scatter(
            x=[row["step"] for row in rows], y=[row[key] for row in rows], name=key.replace("_", " ")
        )
    figure.update_layout(title="Recall of held-out pairs by step", xaxis_title="step", yaxis_title="share")
    return figure


def _levels_chart(quality: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    levels = [str(number + 1) for number, _ in enumerate(quality["levels"])]
    for key, label in (("utilisation", "codes in use"), ("energy_left", "energy left in the residual")):
        figure.add_bar(x=levels, y=[level[key] for level in quality["levels"]], name=label)
    figure.update_layout(title="Codes by level", xaxis_title="level", yaxis_title="share", barmode="group")
    figure.update_xaxes(type="category")
    return figure


def _manifests(run: Path) -> list[dict[str, Any]]:
    """What each finished stage says of itself."""
    found = ((path.parent, read_manifest(path.parent)) for path in sorted(run.glob("*/manifest.json")))
    return [
        {
            "folder": folder.name,
            "rows": _leaves(manifest["rows"]),
            "config": _leaves(manifest["config"]),
            "files": sorted(manifest["outputs"]),
        }
        for folder, manifest in found
        if manifest is not None and folder.name != "report"
    ]
