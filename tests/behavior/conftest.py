"""Small logs from lists of events."""

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import pytest

from qarm.behavior.log import Log


@pytest.fixture(scope="session")
def make_log() -> Callable[[Iterable[tuple[Any, ...]]], Log]:
    """Builds a log from (user, item, time) or (user, item, time, label); rows count as given."""

    def make(events: Iterable[tuple[Any, ...]]) -> Log:
        rows = [(str(u), str(i), t, *(rest or (1,)), n) for n, (u, i, t, *rest) in enumerate(events)]
        schema = {
            "user_id": pl.String,
            "item_id": pl.String,
            "time": pl.Int64,
            "label": pl.Int8,
            "row": pl.Int64,
        }
        return Log(pl.DataFrame(rows, schema=schema, orient="row").sort("user_id", "time", "row"))

    return make
