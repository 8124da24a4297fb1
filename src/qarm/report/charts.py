"""Charts of the report: results by variant, alignment by step, codes by level, gains with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from qarm.schemas.codes import CodeQuality
from qarm.schemas.encoder import AlignStep
from qarm.schemas.results import Summary

__all__ = [
    "Point",
    "alignment_chart",
    "gains_chart",
    "interval_points",
    "levels_chart",
    "recall_chart",
    "results_chart",
]


class Point(NamedTuple):
    """A figure of a method and its interval."""

    method: str
    mean: float
    low: float
    high: float


def results_chart(summary: Summary) -> go.Figure:
    """Mean AUC of each variant, a mark per slice."""
    figure = go.Figure()
    for part in dict.fromkeys(mean.slice for mean in summary.means):
        means = [mean for mean in summary.means if mean.slice == part and mean.auc is not None]
        figure.add_scatter(
            x=[mean.auc for mean in means],
            y=[mean.variant for mean in means],
            mode="markers",
            marker={"size": 11},
            name=part,
        )
    figure.update_layout(title="AUC by variant and slice", xaxis_title="AUC")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def gains_chart(summary: Summary) -> go.Figure:
    """AUC minus that of the base, with the interval over seeds where there are several."""
    figure = go.Figure()
    points: dict[str, list[Point]] = {}
    for row in summary.differences:
        if row.metric == "auc" and row.mean is not None:
            low, high = (row.mean, row.mean) if row.low is None or row.high is None else (row.low, row.high)
            points.setdefault(row.slice, []).append(Point(row.variant, row.mean, low, high))
    for part, own in points.items():
        interval_points(figure, own, size=10, name=part)
    figure.add_vline(x=0, line_width=1, line_dash="dot")
    figure.update_layout(title=f"Gain in AUC over {summary.against}", xaxis_title="AUC difference")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def interval_points(
    figure: go.Figure, points: Sequence[Point], *, size: int, name: str | None = None
) -> None:
    """Add marks with error bars to a figure, one method below the other."""
    figure.add_scatter(
        x=[point.mean for point in points],
        y=[point.method for point in points],
        mode="markers",
        marker={"size": size},
        name=name,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [point.high - point.mean for point in points],
            "arrayminus": [point.mean - point.low for point in points],
        },
    )


def alignment_chart(steps: Sequence[AlignStep]) -> go.Figure:
    """Loss of alignment on training and validation pairs by step."""
    figure = _by_step(steps, {"loss": "training pairs", "valid_loss": "held-out pairs"})
    figure.update_layout(title="Alignment loss by step", xaxis_title="step", yaxis_title="loss, nats")
    return figure


def recall_chart(steps: Sequence[AlignStep]) -> go.Figure:
    """Recall of held-out pairs by step, before and after alignment."""
    figure = _by_step(steps, {"raw_recall": "before training", "valid_recall": "after the step"})
    figure.update_layout(title="Recall of held-out pairs by step", xaxis_title="step", yaxis_title="share")
    return figure


def _by_step(steps: Sequence[AlignStep], labels: dict[str, str]) -> go.Figure:
    figure = go.Figure()
    for field, label in labels.items():
        if any(field in step.model_fields_set for step in steps):
            rows = [step for step in steps if getattr(step, field) is not None]
            figure.add_scatter(
                x=[step.step for step in rows], y=[getattr(step, field) for step in rows], name=label
            )
    return figure


def levels_chart(quality: CodeQuality) -> go.Figure:
    """Codes in use and energy left in the residual, by level."""
    figure = go.Figure()
    levels = [str(number + 1) for number, _ in enumerate(quality.levels)]
    for field, label in (("utilisation", "codes in use"), ("energy_left", "energy left in the residual")):
        figure.add_bar(x=levels, y=[getattr(level, field) for level in quality.levels], name=label)
    figure.update_layout(title="Codes by level", xaxis_title="level", yaxis_title="share", barmode="group")
    figure.update_xaxes(type="category")
    return figure
