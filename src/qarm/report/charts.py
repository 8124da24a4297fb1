"""The report's charts, from the run's JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

__all__ = ["alignment_chart", "gains_chart", "levels_chart", "recall_chart", "results_chart"]


def results_chart(summary: Mapping[str, Any]) -> go.Figure:
    """Mean AUC of each variant, a mark per slice."""
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
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def gains_chart(summary: Mapping[str, Any]) -> go.Figure:
    """AUC minus that of the base, with the interval over seeds where there are several."""
    figure = go.Figure()
    rows = [d for d in summary["differences"] if d["metric"] == "auc" and d["mean"] is not None]
    for part in dict.fromkeys(d["slice"] for d in rows):
        own = [d for d in rows if d["slice"] == part]
        known = [d if d["low"] is not None else {**d, "low": d["mean"], "high": d["mean"]} for d in own]
        figure.add_scatter(
            x=[d["mean"] for d in known],
            y=[d["variant"] for d in known],
            mode="markers",
            marker={"size": 10},
            name=part,
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [d["high"] - d["mean"] for d in known],
                "arrayminus": [d["mean"] - d["low"] for d in known],
            },
        )
    figure.add_vline(x=0, line_width=1, line_dash="dot")
    figure.update_layout(title=f"Gain in AUC over {summary['against']}", xaxis_title="AUC difference")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def alignment_chart(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    figure = _by_step(metrics, [key for row in metrics for key in row if key.endswith("loss")])
    figure.update_layout(title="Alignment loss by step", xaxis_title="step", yaxis_title="loss, nats")
    return figure


def recall_chart(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    figure = _by_step(metrics, [key for row in metrics for key in row if "recall" in key])
    figure.update_layout(title="Recall of held-out pairs by step", xaxis_title="step", yaxis_title="share")
    return figure


def _by_step(metrics: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> go.Figure:
    figure = go.Figure()
    for key in dict.fromkeys(keys):
        rows = [row for row in metrics if row.get(key) is not None]
        figure.add_scatter(
            x=[row["step"] for row in rows], y=[row[key] for row in rows], name=key.replace("_", " ")
        )
    return figure


def levels_chart(quality: Mapping[str, Any]) -> go.Figure:
    figure = go.Figure()
    levels = [str(number + 1) for number, _ in enumerate(quality["levels"])]
    for key, label in (("utilisation", "codes in use"), ("energy_left", "energy left in the residual")):
        figure.add_bar(x=levels, y=[level[key] for level in quality["levels"]], name=label)
    figure.update_layout(title="Codes by level", xaxis_title="level", yaxis_title="share", barmode="group")
    figure.update_xaxes(type="category")
    return figure
