"""Commands of the recommender: lists for users and histories, items similar to one."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from qarm.cli.arguments import FinishedRun, Json
from qarm.cli.output import print_figures
from qarm.errors import InputError

if TYPE_CHECKING:
    from qarm.recommender.retrieval.recommender import Recommendations, Recommender

__all__ = ["app"]

app = App()

Ids = Annotated[Path | None, Parameter(help="Text file of item ids, one a line.")]


@app.command
def recommend(
    run: FinishedRun,
    *,
    user: Annotated[
        list[str] | None, Parameter(help="User of the log; may be given again.", negative="")
    ] = None,
    users: Annotated[Path | None, Parameter(help="Text file of users, one a line; `all`: all users.")] = None,
    history: Annotated[
        list[str] | None,
        Parameter(help="Items, oldest first, in place of a user.", negative="", consume_multiple=True),
    ] = None,
    k: Annotated[int, Parameter(name=("-k", "--k"), help="Items of a list.")] = 10,
    only: Ids = None,
    without: Ids = None,
    repeat: Annotated[bool, Parameter(help="Also items that the user has had.", negative="")] = False,
    out: Annotated[Path | None, Parameter(help="Table to write; its ending decides the format.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend items of the whole catalogue to users, or after a history."""
    from qarm.core.tables.writer import checked_ending, write_table
    from qarm.recommender.retrieval.recommender import Recommender, recommendations_frame

    given = [name for name, value in (("--user", user), ("--users", users), ("--history", history)) if value]
    if len(given) != 1:
        raise InputError(f"got {' and '.join(given) or 'nobody'}, need one of --user, --users and --history")
    if out is not None:
        checked_ending(out)
    recommender = Recommender.from_run(run)
    names = None if history else user or _users(users, recommender)
    lists = recommender.recommend(
        names,
        histories=[history] if history else None,
        k=k,
        only=_ids(only),
        without=_ids(without),
        repeat=repeat,
    )
    if out is not None:
        write_table(out, recommendations_frame(lists))
        popular = sum(part.popular for part in lists)
        figures = {"users": len(lists), "rows": sum(len(part.items) for part in lists), "popular": popular}
        print_figures("recommend", out, figures, as_json=as_json)
        return
    for part in lists:
        print(json.dumps(asdict(part)) if as_json else _shown(part))


def _users(path: Path | None, recommender: "Recommender") -> list[str]:
    """Users of a file; of the whole log where the name is `all` and there is no such file."""
    if path is None or (str(path) == "all" and not path.exists()):
        return list(recommender.users)
    return _ids(path) or []


def _ids(path: Path | None) -> list[str] | None:
    """Ids of a text file, one a line; None without a file.

    Raises:
        InputError: the file is missing or no text.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: {error}; give a text file with an id a line") from None
    return [line.strip() for line in lines if line.strip()]


def _shown(part: "Recommendations") -> str:
    """A list as text: a line for each item, with what speaks for it."""
    head = f"user {part.user_id}" if part.user_id is not None else "history"
    lines = [f"{head}{': ' + '; '.join(part.notes) if part.notes else ''}"]
    for item in part.items:
        because = f" after {item.because}" if item.because is not None else ""
        lines.append(f"{item.rank:>4}  {item.item_id:<24} {item.score:>7.3f}  {item.why}{because}")
    return "\n".join(lines)


@app.command
def similar(
    run: FinishedRun,
    item: Annotated[str, Parameter(help="Item of the catalogue.")],
    *,
    k: Annotated[int, Parameter(name=("-k", "--k"), help="Items of the list.")] = 10,
    as_json: Json = False,
) -> None:
    """Items whose vectors in the sequence model are nearest to an item's."""
    from qarm.recommender.retrieval.recommender import Recommender

    for rank, (other, cosine) in enumerate(Recommender.from_run(run).similar_items(item, k), start=1):
        row = {"rank": rank, "item_id": other, "cosine": round(cosine, 6)}
        print(json.dumps(row) if as_json else f"{rank:>4}  {other:<24} {cosine:>7.3f}")
