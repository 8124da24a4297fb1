"""Text tables for terminals and Markdown, and the texts of figures, shares and intervals in them."""

from collections.abc import Sequence

__all__ = ["aligned_table", "figure_text", "interval_text", "markdown_table", "percent_text"]

Lines = Sequence[Sequence[str]]


def aligned_table(lines: Lines, *, left: int = 1) -> str:
    """Columns of equal width, two spaces apart; the first `left` are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def markdown_table(lines: Lines, *, alignment: Sequence[str] | None = None) -> str:
    """A Markdown table of a header and rows.

    Args:
        alignment: `---`, or `---:` for a column that is aligned right, for each column; default: none is.
    """
    header, *rows = lines
    rule = ["---"] * len(header) if alignment is None else alignment
    first = "|".join(f" {cell} " if cell else " " for cell in header)
    return "\n".join([f"|{first}|", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)])


def figure_text(value: float | None, *, form: str = ".4f") -> str:
    """A figure in a number format; `-` for None."""
    return "-" if value is None else format(value, form)


def percent_text(share: float | None, *, unit: str = " %") -> str:
    """A share in percent with two decimals; `-` for None."""
    return "-" if share is None else f"{100 * share:.2f}{unit}"


def interval_text(value: float | None, interval: Sequence[float] | None, *, form: str) -> str:
    """A figure with its interval, as `+0.01 [+0.00, +0.02]`, or alone without one; `-` for None."""
    if value is None or interval is None:
        return figure_text(value, form=form)
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
