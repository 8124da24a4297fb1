"""Page of a comparison: intervals by hand."""

from qarm.report.comparison import comparison_content, comparison_page
from qarm.schemas.comparison import Compared

GAIN = {"negatives": "uniform", "slice": "all", "measure": "gauc", "error": 0.01, "p": 0.001}
MEAN = {"auc": 0.7, "logloss": 0.4, "calibration": 1.0, "gauc": 0.7123, "uauc": 0.7, "rows": 10, "users": 5}
MEAN |= {"gauc_spread": None, "uauc_spread": None}


def compared() -> Compared:
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
    content = {
        "seeds": [0, 1],
        "catalogue": [{"method": "id", "recall": 0.25, "ndcg": None}],
        "means": means,
        "differences": gains,
        "primary": gains[0] | {"smallest_effect": 0.005},
        "holm": {"id+rq against id": True, "knn against id": False},
    }
    return Compared.model_validate(content)


def test_the_comparison_is_a_plot_with_intervals_and_a_table() -> None:
    content = comparison_content(compared(), first=True)
    assert content.base == "id"
    assert [(part.negatives, part.slice) for part in content.parts] == [
        ("uniform", "all"),
        ("popular", "cold"),
    ]
    plot = str(content.parts[0].chart)
    assert '"array":[0.25,0.25]' in plot
    assert '"arrayminus":[0.125,0.25]' in plot
    assert '"x":[0.25,-0.25]' in plot
    assert len(plot) > 1_000_000 > len(str(content.parts[1].chart))  # the first brings the library along
    page = comparison_page(compared(), name="a <run>")
    assert "a &lt;run&gt;" in page
    assert "+0.2500 [+0.1250, +0.5000]" in page
    assert "<td>0.7123</td>" in page
    assert "id+rq against id" in page
    assert "knn against id" not in page
