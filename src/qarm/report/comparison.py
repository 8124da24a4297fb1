"""Page of a comparison: differences with their intervals, and every table; it computes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import Markup

from qarm.report.charts import Point, interval_points
from qarm.report.page import chart, environment
from qarm.schemas.comparison import CatalogueGain, Compared, Gain, Means

__all__ = ["ComparisonContent", "ComparisonPart", "comparison_content", "comparison_page"]

SHOWN = ("all", "warm", "cold")


@dataclass(frozen=True)
class ComparisonPart:
    """Chart of differences and rows of means for one slice and kind of negatives."""

    negatives: str
    slice: str
    chart: Markup
    rows: list[Means]


@dataclass(frozen=True)
class ComparisonContent:
    """Content of `comparison_body.html.j2`; base: the method that every chart subtracts."""

    results: Compared
    base: str
    parts: list[ComparisonPart]


def comparison_page(results: Compared, *, name: str) -> str:
    """HTML of `compare/results.json`, self-contained; name: of the run."""
    page = environment().get_template("comparison.html.j2")
    return page.render(name=name, comparison=comparison_content(results, first=True))


def comparison_content(results: Compared, *, first: bool) -> ComparisonContent:
    """Charts and rows of the comparison's page.

    Args:
        results: content of `compare/results.json`.
        first: whether the page has no chart before these.
    """
    means = results.means
    base = results.primary.against if results.primary else means[0].method
    parts = [
        ComparisonPart(
            kind,
            part,
            chart(
                _differences(results.differences, kind, part, base),
                first=first and number == 0,
                height=460,
            ),
            [mean for mean in means if (mean.negatives, mean.slice) == (kind, part)],
        )
        for number, (kind, part) in enumerate(_shown(means))
    ]
    return ComparisonContent(results, base, parts)


def _shown(means: Sequence[Means]) -> list[tuple[str, str]]:
    slices = dict.fromkeys((mean.negatives, mean.slice) for mean in means)
    return [(kind, part) for kind, part in slices if part in SHOWN]


def _differences(gains: Sequence[Gain | CatalogueGain], kind: str, part: str, base: str) -> go.Figure:
    """GAUC minus the base's, with 95 % intervals."""
    points = [
        Point(gain.method, gain.mean, gain.low, gain.high)
        for gain in gains
        if (gain.negatives, gain.slice, gain.measure, gain.against) == (kind, part, "gauc", base)
    ]
    figure = go.Figure()
    interval_points(figure, points, size=9)
    figure.add_vline(x=0, line_width=1, line_dash="dot")
    figure.update_layout(
        title=f"{kind}-{part} negatives: GAUC minus that of {base}, 95 % intervals", xaxis_title="GAUC"
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure
