"""Templates and charts that all pages share; charts have one style and need no network."""

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from qarm.report.labels import label

__all__ = ["chart", "environment"]

CONFIG = {"displayModeBar": False, "responsive": True}
INK, COLOURS = "#1d2a35", ("#2d7d5a", "#b0771d", "#4f7cb8", "#a15c8a")


def environment() -> Environment:
    """Jinja environment of the templates; the filter `label` gives words for a key."""
    made = Environment(
        loader=PackageLoader("qarm.report", "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["label"] = label
    return made


def chart(figure: go.Figure, *, first: bool = False, height: int = 320) -> Markup:
    """A figure as HTML; the first of a page contains the library."""
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",  # the background of the page, light or dark
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "system-ui, sans-serif"},
        colorway=COLOURS,
    )
    # the fixed ids keep the page's bytes the same for the same run
    name = figure.layout.title.text.split(" ")[0].lower()
    html = figure.to_html(full_html=False, include_plotlyjs=first, div_id=f"chart-{name}", config=CONFIG)
    return Markup(html)  # noqa: S704 - made by plotly from numbers and names that it escapes
