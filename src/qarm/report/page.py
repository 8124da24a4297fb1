"""What our pages share: templates, and charts that look alike and need no network."""

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

__all__ = ["chart", "environment"]

INK, GREEN, SAND = "#1d2a35", "#2d7d5a", "#b0771d"


def environment() -> Environment:
    return Environment(
        loader=PackageLoader("qarm.report", "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def chart(figure: go.Figure, *, first: bool = False, height: int = 320) -> Markup:
    """A figure as HTML; the first of a page brings the library along."""
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"color": INK},
        colorway=[GREEN, SAND, INK, "#8aa0b5"],
    )
    # the fixed ids keep the page's bytes the same for the same run
    name = figure.layout.title.text.split(" ")[0].lower()
    html = figure.to_html(full_html=False, include_plotlyjs=first, div_id=f"chart-{name}")
    return Markup(html)  # noqa: S704 - made by plotly from numbers and names that it escapes
