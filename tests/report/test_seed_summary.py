"""Means and paired intervals against points computed by hand."""

import pytest

from qarm.report.seed_summary import summarize
from qarm.report.tables import result_lines
from qarm.schemas.results import Row


def row(variant: str, seed: int, auc: float | None, part: str = "all") -> Row:
    figures = {"auc": auc, "uauc": 0.5, "gauc": 0.5, "logloss": 0.7}
    key = {"variant": variant, "seed": seed, "slice": part, "rows": 10, "users": 2}
    return Row.model_validate(key | figures)


def test_paired_interval_by_hand() -> None:
    rows = [row("id", 0, 0.6), row("id", 1, 0.7), row("id", 2, 0.5)]
    rows += [row("id+rq", 0, 0.61), row("id+rq", 1, 0.72), row("id+rq", 2, 0.53)]
    summary = summarize(rows)
    means = {m.variant: m.auc for m in summary.means}
    assert means == pytest.approx({"id": 0.6, "id+rq": 0.62})
    difference = next(d for d in summary.differences if d.metric == "auc")
    # differences .01 .02 .03: mean .02, sd .01, t(2, .975) = 4.302653
    assert difference.mean == pytest.approx(0.02)
    assert difference.low == pytest.approx(0.02 - 4.302653 * 0.01 / 3**0.5)
    assert difference.high == pytest.approx(0.02 + 4.302653 * 0.01 / 3**0.5)


def test_one_seed_has_no_interval() -> None:
    summary = summarize([row("id", 0, 0.6), row("id+rq", 0, 0.7)])
    difference = next(d for d in summary.differences if d.metric == "auc")
    assert (difference.low, difference.high) == (None, None)
    assert difference.mean == pytest.approx(0.1)


def test_a_slice_without_both_labels_stays_empty() -> None:
    summary = summarize([row("id", 0, 0.6), row("id", 0, None, "cold")])
    lines = result_lines(summary)
    assert lines == [
        ["variant", "AUC", "UAUC", "GAUC", "logloss"],
        ["id", "0.6000", "0.5000", "0.5000", "0.7000"],
    ]


def test_columns_appear_with_their_slice() -> None:
    summary = summarize([row("id", 0, 0.6), row("id", 0, 0.55, "cold"), row("popularity", 0, 0.5)])
    header, first, second = result_lines(summary)
    assert header[-1] == "AUC cold"
    assert first[-1] == "0.5500"
    assert second[-1] == "-"
