"""Charts say what the JSON says: intervals by hand."""

from typing import Any

import pytest

from qarm.report.charts import gains_chart
from qarm.report.page import chart
from qarm.schemas.results import Summary


def difference(variant: str, mean: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    values = {"mean": mean, "low": low, "high": high}
    return {"variant": variant, "against": "id", "slice": "all", "metric": "auc", "seeds": 2, **values}


def summary(differences: list[dict[str, Any]]) -> Summary:
    content = {"against": "id", "confidence": 0.95, "means": [], "differences": differences}
    return Summary.model_validate(content)


def test_gains_have_their_interval_and_none_without_one() -> None:
    rows = [difference("id+rq", 0.02, 0.01, 0.05), difference("id+vq", 0.03, None, None)]
    rows += [difference("odd", None, None, None), difference("id+rq", 9.0, 9.0, 9.0) | {"metric": "logloss"}]
    (trace,) = gains_chart(summary(rows)).data
    assert list(trace.y) == ["id+rq", "id+vq"]
    assert list(trace.x) == [0.02, 0.03]
    assert list(trace.error_x.array) == pytest.approx([0.03, 0.0])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.01, 0.0])


def test_charts_have_distinct_fixed_names() -> None:
    figure = gains_chart(summary([]))
    assert str(chart(figure)) == str(chart(figure))
    assert 'id="chart-gain"' in str(chart(figure))
