"""Users table: categorical features of users, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qarm.core.tables import Table, TableColumns, as_ids, as_keys, read_table
from qarm.errors import Problems, shown

__all__ = ["Users", "read_users"]

ID = "user_id"


@dataclass(frozen=True, repr=False)
class Users:
    """frame: user_id str, distinct, and a str column for each feature, null where it is unknown."""

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        return f"Users({len(self):,} users, {', '.join(self.features)})"

    @property
    def features(self) -> list[str]:
        """Names of the feature columns."""
        return [name for name in self.frame.columns if name != ID]

    def of(self, user_ids: Sequence[str]) -> pl.DataFrame:
        """Features of these users, a row each in their order; null for users that the table lacks."""
        asked = pl.DataFrame({ID: pl.Series(user_ids, dtype=pl.String)})
        return asked.join(self.frame, on=ID, how="left", maintain_order="left").select(self.features)


def read_users(table: Table, *, id: str = ID, features: Sequence[str]) -> Users:  # noqa: A002 - as in the config
    """Table of users from a file (Parquet, CSV or JSON Lines) or a frame, as in `read_log`.

    Args:
        table: a row per user.
        id: column of user ids, text or integers.
        features: columns of text, integers or booleans; null where unknown.

    Raises:
        InputError: all problems: missing columns, wrong types, null or duplicate ids.
    """
    problems, wanted = Problems(), (id, *features)
    read = read_table(table, wanted, text=wanted)
    ids = read.column(id, problems=problems)
    if ids is not None:
        ids = as_ids(ids, table=read.name, problems=problems)
    if ids is not None and ids.is_duplicated().any():
        twice = ids.filter(ids.is_duplicated()).unique().sort()
        problems.add(f"{read.name}.{id}: duplicate ids: {shown(twice)}; keep one row per user")
    columns = {feature: _feature(read, feature, problems) for feature in features}
    if not features or ID in features or len({*features}) < len(features):
        problems.add(f"got user features {list(features)}, need distinct columns other than {ID!r}")
    problems.raise_any()
    return Users(pl.DataFrame({ID: ids, **columns}))


def _feature(table: TableColumns, name: str, problems: Problems) -> pl.Series | None:
    series = table.column(name, problems=problems)
    if series is None:
        return None
    keys = as_keys(series)
    if keys is None:
        problems.add(
            f"{table.name}.{name}: got {series.dtype}, a user feature is text, whole numbers or booleans; "
            "bin it"
        )
    return keys
