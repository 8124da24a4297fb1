"""Text tables and the texts of figures, by hand."""

from qarm.core.text_tables import aligned_table, figure_text, interval_text, markdown_table, percent_text


def test_columns_are_aligned() -> None:
    assert aligned_table([["name", "n"], ["a", "100"]]) == "name    n\na     100"
    assert aligned_table([["name", "n"], ["a", "100"]], left=2) == "name  n  \na     100"


def test_markdown_has_a_header_and_a_rule() -> None:
    assert markdown_table([["", "n"], ["a", ""]]) == "| | n |\n|---|---|\n| a |  |"
    assert markdown_table([["m", "n"]], alignment=["---", "---:"]) == "| m | n |\n|---|---:|"


def test_figures_shares_and_intervals() -> None:
    assert [figure_text(0.5), figure_text(None), figure_text(12.0, form=".4g")] == ["0.5000", "-", "12"]
    assert [percent_text(0.1234), percent_text(1, unit=""), percent_text(None)] == ["12.34 %", "100.00", "-"]
    assert interval_text(0.25, (0.125, 0.5), form="+.2f") == "+0.25 [+0.12, +0.50]"
    assert [interval_text(2.0, None, form=".1f"), interval_text(None, None, form=".1f")] == ["2.0", "-"]
