"""Charts and tables say what the JSON says: intervals, shares and counts by hand."""

from typing import Any

import pytest

from qarm.report.charts import gains_chart
from qarm.report.comparison import comparison_page, comparison_parts
from qarm.report.lines import agreement_lines, collision_lines, leaves, level_lines, pair_lines
from qarm.report.page import chart


def difference(variant: str, mean: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    values = {"mean": mean, "low": low, "high": high}
    return {"variant": variant, "against": "id", "slice": "all", "metric": "auc", "seeds": 2, **values}


def test_gains_have_their_interval_and_none_without_one() -> None:
    rows = [difference("id+rq", 0.02, 0.01, 0.05), difference("id+vq", 0.03, None, None)]
    rows += [difference("odd", None, None, None), difference("id+rq", 9.0, 9.0, 9.0) | {"metric": "logloss"}]
    (trace,) = gains_chart({"against": "id", "differences": rows}).data
    assert list(trace.y) == ["id+rq", "id+vq"]
    assert list(trace.x) == [0.02, 0.03]
    assert list(trace.error_x.array) == pytest.approx([0.03, 0.0])
    assert list(trace.error_x.arrayminus) == pytest.approx([0.01, 0.0])


GAIN = {"negatives": "uniform", "slice": "all", "measure": "gauc", "error": 0.01, "p": 0.001}
MEAN = {"auc": 0.7, "logloss": 0.4, "calibration": 1.0, "gauc": 0.7123, "uauc": 0.7, "rows": 10, "users": 5}
MEAN |= {"gauc_spread": None, "uauc_spread": None}


def compared() -> dict[str, Any]:
    gains = [
        GAIN | {"method": "id+rq", "against": "id", "mean": 0.25, "low": 0.125, "high": 0.5},
        GAIN | {"method": "id+rq", "against": "id+frozen", "mean": 9.0, "low": 8.0, "high": 10.0},
        GAIN | {"method": "knn", "against": "id", "mean": -0.25, "low": -0.5, "high": 0.0},
        GAIN | {"method": "knn", "against": "id", "mean": 7.0, "low": 7.0, "high": 7.0, "measure": "uauc"},
    ]
    means = [
        MEAN | {"negatives": kind, "slice": part, "method": name}
        for kind, part, name in (
            ("uniform", "all", "id"),
            ("uniform", "all", "id+rq"),
            ("popular", "cold", "id"),
            ("uniform", "L1", "id"),
        )
    ]
    return {
        "seeds": [0, 1],
        "catalogue": [{"method": "id", "recall": 0.25, "ndcg": None}],
        "means": means,
        "differences": gains,
        "primary": gains[0] | {"smallest_effect": 0.005},
        "holm": {"id+rq against id": True, "knn against id": False},
    }


def test_the_comparison_is_a_plot_with_intervals_and_a_table() -> None:
    parts = comparison_parts(compared(), first=True)
    assert parts["base"] == "id"
    assert [(part["negatives"], part["slice"]) for part in parts["parts"]] == [
        ("uniform", "all"),
        ("popular", "cold"),
    ]
    plot = str(parts["parts"][0]["chart"])
    assert '"array":[0.25,0.25]' in plot
    assert '"arrayminus":[0.125,0.25]' in plot
    assert '"x":[0.25,-0.25]' in plot
    assert len(plot) > 1_000_000 > len(str(parts["parts"][1]["chart"]))  # the first brings the library along
    page = comparison_page(compared(), name="a <run>")
    assert "a &lt;run&gt;" in page
    assert "+0.2500 [+0.1250, +0.5000]" in page
    assert "<td>0.7123</td>" in page
    assert "id+rq against id" in page
    assert "knn against id" not in page


def test_charts_have_distinct_fixed_names() -> None:
    figure = gains_chart({"against": "id", "differences": []})
    assert str(chart(figure)) == str(chart(figure))
    assert 'id="chart-gain"' in str(chart(figure))


def test_pairs_codes_and_collisions_as_tables() -> None:
    source = {"pairs": 12_345, "items": 90, "items_share": 0.9}
    lift = {"lift": 2.184, "lift_interval": [1.94, 2.41], "matched_lift": None, "matched_lift_interval": None}
    quality = {"sources": {"item2item": source | {"lift": lift}, "user2item": source}}
    _, first, second = pair_lines(quality)
    assert first == ["item2item", "12,345", "90", "90.00 %", "2.18 [1.94, 2.41]", "-", "-"]
    assert second[4:] == ["-", "-", "-"]
    level = dict.fromkeys(("utilisation", "entropy", "perplexity", "gini", "energy_left"), 0.5)
    codes = {
        "levels": [{"level": 1, "width": 64, "used": 60, **level}],
        "full_codes": {"items_per_code": {"histogram": {"1": 1966, "2": 17}}},
        "pairs": {"agreement": [{"levels": 1, "share": 0.1622, "chance": 0.0169}]},
    }
    assert level_lines(codes)[1][:4] == ["1", "64", "60", "0.5"]
    assert collision_lines(codes)[1:] == [["1", "1,966"], ["2", "17"]]
    assert agreement_lines(codes)[1:] == [["first 1", "16.22 %", "1.69 %"]]
    assert agreement_lines({"pairs": None})[1:] == []


def test_any_json_as_lines() -> None:
    found = leaves({"a": {"b": 1234, "c": None}, "d": [1, 2], "e": [{"f": 1}], "g": True, "h": 0.123456})
    assert found == [("a.b", "1,234"), ("a.c", "-"), ("d", "1, 2"), ("g", "yes"), ("h", "0.1235")]
