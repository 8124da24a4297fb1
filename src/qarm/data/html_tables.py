"""HTML tables of the first rows of an object, for notebooks; every text is escaped."""

from collections.abc import Sequence
from html import escape

__all__ = ["ROWS", "html_table", "picture_cell"]

ROWS = 10


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
