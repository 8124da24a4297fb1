"""Evidence of a comparison as Parquet: judged rows with every method's scores, and each user's AUC."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from qarm.comparison.code_sources import training_frequency_groups
from qarm.comparison.results import ASKED, LENGTHS, history_thirds, slices_of
from qarm.comparison.seed_run import SeedRun
from qarm.core.tables.parquet import write_parquet
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import grouped_auc

__all__ = ["write_evidence"]


def write_evidence(seeds: Sequence[SeedRun], folder: Path) -> list[Path]:
    """Write `seed-<n>-<negatives>.parquet` with the rows of each seed, and `users-<n>.parquet` beside them.

    Rows: user_id, item_id, label, event; frequency_group of the item, 0 where it is cold; history, the third
    of the user's history length; and a column of scores for each method. Users: negatives, slice, method,
    user_id, auc and rows, on the slices of the questions. Returns the files.
    """
    written: list[Path] = []
    for seed in seeds:
        figures: list[pl.DataFrame] = []
        methods = [*(variant.name for variant in seed.variants), *seed.anchors]
        scores = {method: seed.scores(method) for method in methods}
        for kind, rows in seed.evaluation.test.items():
            columns = {f"score {method}": scores[method][kind] for method in methods}
            frame = _rows(seed, rows).with_columns(**columns)
            written.append(folder / f"seed-{seed.seed}-{kind}.parquet")
            write_parquet(written[-1], frame)
            figures += _users(seed, kind, rows, {method: scores[method][kind] for method in methods})
        written.append(folder / f"users-{seed.seed}.parquet")
        write_parquet(written[-1], pl.concat(figures))
    return written


def _rows(seed: SeedRun, rows: Examples) -> pl.DataFrame:
    groups = training_frequency_groups(rows.item_ids, seed.windows.split.train)
    thirds = history_thirds(rows)
    return pl.DataFrame(
        {
            "user_id": pl.Series(rows.user_ids, dtype=pl.String).gather(rows.users),
            "item_id": pl.Series(rows.item_ids, dtype=pl.String).gather(rows.items),
            "label": rows.labels,
            "event": rows.events,
            "frequency_group": groups[rows.items],
            "history": pl.Series(LENGTHS, dtype=pl.String).gather(thirds),
        }
    )


def _users(seed: SeedRun, kind: str, rows: Examples, scores: dict[str, np.ndarray]) -> Iterator[pl.DataFrame]:
    slices, ids = slices_of(seed, rows), pl.Series(rows.user_ids, dtype=pl.String)
    for part in ASKED:
        own = slices[part]
        for method, values in scores.items():
            each = grouped_auc(rows.users[own], rows.labels[own], values[own])
            yield pl.DataFrame(
                {
                    "negatives": pl.repeat(kind, len(each), dtype=pl.String, eager=True),
                    "slice": pl.repeat(part, len(each), dtype=pl.String, eager=True),
                    "method": pl.repeat(method, len(each), dtype=pl.String, eager=True),
                    "user_id": ids.gather(each.users.astype(np.int64)),
                    "auc": each.auc,
                    "rows": each.impressions,
                }
            )
