"""Users table: categorical features of users, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qarm.core.tables import Table, as_ids, column, read_table, table_name
from qarm.errors import Problems, shown

__all__ = ["Users", "read_users"]

ID = "user_id"


@dataclass(frozen=True)
class Users:
    """frame: user_id str, distinct, and a str column for each feature, null where it is unknown."""

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

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
    name, problems = table_name(table), Problems()
    frame = read_table(table, text=(id, *features))
    ids = column(frame, id, table=name, problems=problems)
    if ids is not None:
        ids = as_ids(ids, table=name, problems=problems)
    if ids is not None and ids.is_duplicated().any():
        twice = ids.filter(ids.is_duplicated()).unique().sort()
        problems.add(f"{name}.{id}: duplicate ids: {shown(twice)}; keep one row per user")
    columns = {feature: _texts(frame, feature, name, problems) for feature in features}
    if not features or ID in features or len({*features}) < len(features):
        problems.add(f"got user features {list(features)}, need distinct columns other than {ID!r}")
    problems.raise_any()
    return Users(pl.DataFrame({ID: ids, **columns}))


def _texts(table: pl.DataFrame, name: str, where: str, problems: Problems) -> pl.Series | None:
    series = column(table, name, table=where, problems=problems)
    if series is None:
        return None
    kind = series.dtype
    if kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean):
        return series.cast(pl.String)
    problems.add(f"{where}.{name}: got {kind}, a user feature is text, whole numbers or booleans; bin it")
    return None
