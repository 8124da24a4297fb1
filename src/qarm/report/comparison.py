"""The page of a comparison: differences with their intervals, and every table; it computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from qarm.report.page import chart, environment

__all__ = ["comparison_page", "comparison_parts"]

SHOWN = ("all", "warm", "cold")


def comparison_page(results: Mapping[str, Any], *, name: str) -> str:
    """HTML of `compare/results.json`, self-contained.

    Args:
        results: its content.
        name: of the run.
    """
    page = environment().get_template("comparison.html.j2")
    return page.render(name=name, comparison=comparison_parts(results, first=True))


def comparison_parts(results: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    """What `comparison_body.html.j2` shows: `results`, `base`, and a part per slice and kind of negatives.

    Args:
        results: content of `compare/results.json`.
        first: whether the page has no chart before these.
    """
    means = results["means"]
    base = results["primary"]["against"] if results["primary"] else means[0]["method"]
    parts = [
        {
            "negatives": kind,
            "slice": part,
            "chart": chart(
                _differences(results["differences"], kind, part, base),
                first=first and number == 0,
                height=460,
            ),
            "rows": [m for m in means if (m["negatives"], m["slice"]) == (kind, part)],
        }
        for number, (kind, part) in enumerate(_shown(means))
    ]
    return {"results": results, "base": base, "parts": parts}


def _shown(means: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    there = dict.fromkeys((m["negatives"], m["slice"]) for m in means)
    return [(kind, part) for kind, part in there if part in SHOWN]


def _differences(differences: Sequence[Mapping[str, Any]], kind: str, part: str, base: str) -> go.Figure:
    """GAUC minus the base's, with 95 % intervals."""
    own = [
        d
        for d in differences
        if (d["negatives"], d["slice"], d["measure"], d["against"]) == (kind, part, "gauc", base)
    ]
    figure = go.Figure()
    figure.add_scatter(
        x=[d["mean"] for d in own],
        y=[d["method"] for d in own],
        mode="markers",
        marker={"size": 9},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [d["high"] - d["mean"] for d in own],
            "arrayminus": [d["mean"] - d["low"] for d in own],
        },
    )
    figure.add_vline(x=0, line_width=1, line_dash="dot")
    figure.update_layout(
        title=f"{kind}-{part} negatives: GAUC minus that of {base}, 95 % intervals", xaxis_title="GAUC"
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure
