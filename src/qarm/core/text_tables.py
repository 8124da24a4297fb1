"""Tables for terminals, Markdown and notebooks, and the texts of figures, shares and intervals in them."""

from collections.abc import Sequence
from html import escape

__all__ = [
    "ROWS",
    "aligned_table",
    "figure_text",
    "html_table",
    "interval_text",
    "markdown_table",
    "percent_text",
    "picture_cell",
]

Lines = Sequence[Sequence[str]]
ROWS = 10  # of an object that a notebook shows


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


# ---- HTML ---------------------------------------------------------------------------------------


class PictureCell(str):
    """Element of a picture, which is not escaped again."""

    __slots__ = ()


def picture_cell(uri: str) -> PictureCell:
    """Cell with a picture by its data URI."""
    return PictureCell(f'<img src="{escape(uri)}" alt="" style="max-height:48px">')


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of the first ten rows; None is an empty cell."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:ROWS])
    body = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, PictureCell):
        return f"<td>{value}</td>"
    return f"<td>{'' if value is None else escape(str(value))}</td>"
