"""Variants of the ranker on the same rows: the train stage, cell by cell, so that a killed run resumes."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from qarm.config import RankerConfig
from qarm.core.atomic_io import read_model, write_json
from qarm.core.parallel.torchrun import processes
from qarm.core.tables.parquet import write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import Split
from qarm.errors import InputError, Problems
from qarm.recommender.baselines import best_likeness, likeness, popularity
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import ItemTable, item_table
from qarm.recommender.ranking.evaluate import evaluate, evaluate_ranker
from qarm.recommender.ranking.fitting import FittedRanker, fit_ranker, thin_examples
from qarm.recommender.ranking.model import Ranker
from qarm.schemas.base import Figure
from qarm.schemas.results import Baselines, Cell, LabelFigures, LabelRow, Results, Row

__all__ = ["run_variants", "training_rows"]


def run_variants(
    split: Split,
    catalog_ids: Sequence[str],
    *,
    codes: Codes,
    aligned: Embeddings,
    raw: Embeddings,
    config: RankerConfig,
    folder: Path,
    pool: Sequence[str] | None = None,
    codebooks: Sequence[npt.NDArray[np.float32]] | None = None,
    pool_vectors: npt.NDArray[np.float32] | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """Figures of every variant and seed of `config`, trained and evaluated, and of the baselines.

    Writes `eval.parquet`, `results.json` (a row per variant, seed and slice of the test part; beside them
    `labels`, a row per auxiliary label too, where the log has any),
    `<variant>/` (the first seed's ranker) and `cells/<variant>-<seed>.json`: a cell that is there is
    not trained again, so the folder must belong to these inputs and settings. A cell under way goes on from
    its last epoch, which `progress/` holds until the end.

    Under torchrun every process comes here; they train together, and the first one evaluates and writes.

    Args:
        split: training, validation and test part; catalog_ids: all items, cold ones included.
        codes, aligned: of all items, for the variants; raw: vectors for the content-kNN and `id+raw`.
        pool: items of the VQ code's pool, in the order of their pool ids, for `cross`.
        codebooks: centroids of each level, for code tables that start from them; pool_vectors: those of the
            pool's items, for a VQ table that does.
        seed: of the evaluation rows; training draws by the seeds in `config`.

    Returns:
        rows: evaluation rows; test AUC per variant over all items, mean over seeds. Nothing where another
        process writes.

    Raises:
        InputError: one label only, items without codes or vectors, numbers that are not finite; every problem
            is listed before anything is trained.
    """
    table_of = partial(
        item_table,
        catalog_ids,
        codes=codes,
        embeddings=aligned,
        raw=raw,
        pool=pool,
        scale_by=split.train.items,
        missing_codes=config.missing_codes,
        codebooks=codebooks,
        pool_vectors=pool_vectors,
    )
    tables = _tables(split, catalog_ids, config, table_of)
    rank = processes("cuda" if torch.cuda.is_available() else "cpu").rank
    path = None if rank else folder / "eval.parquet"
    valid, test = _evaluation(split, catalog_ids, config, seed, path=path)
    for number in config.seeds:
        training = training_rows(split, catalog_ids, config, seed=number)
        _train_cells(folder, training, valid, test, tables, config=config, seed=number, rank=rank)
    if rank:
        return {}
    shutil.rmtree(folder / "progress", ignore_errors=True)
    results = _results(folder, config.seeds, list(tables), auxiliary=bool(test.tasks))
    results.rows += _baselines(training.events, valid, test, raw, folder, seed=config.seeds[0])
    write_json(folder / "results.json", results)
    figures: dict[str, Figure] = {"rows": len(valid) + len(test)}
    if without := {len(table.without) for table in tables.values() if table.without}:
        figures["items_without_codes"] = without.pop()
    return figures | _mean_auc(results.rows)


def _train_cells(
    folder: Path,
    training: TrainingRows,
    valid: Examples,
    test: Examples,
    tables: Mapping[str, ItemTable],
    *,
    config: RankerConfig,
    seed: int,
    rank: int,
) -> None:
    """Train and evaluate the variants of one seed that have no cell yet; the first process writes."""
    for variant, table in tables.items():
        cell = folder / "cells" / f"{variant}-{seed}.json"
        progress = folder / "progress" / f"{variant}-{seed}"
        if not cell.is_file():
            fitted = fit_ranker(
                training,
                valid,
                table,
                settings=config,
                seed=seed,
                checkpoint=progress,
                name=f"train {variant}, seed {seed}",
            )
            if rank:
                continue
            if seed == config.seeds[0]:
                fitted.ranker.save_pretrained(folder / variant)
            _write_cell(cell, fitted, test, drawn=bool(training.negatives))
        if rank == 0:
            shutil.rmtree(progress, ignore_errors=True)


def _results(folder: Path, seeds: Sequence[int], variants: Sequence[str], *, auxiliary: bool) -> Results:
    """Figures of all cells, seed by seed; auxiliary: those of the auxiliary labels too."""
    rows: list[Row] = []
    labels: list[LabelRow] = []
    for seed in seeds:
        for variant in variants:
            cell = read_model(folder / "cells" / f"{variant}-{seed}.json", Cell)
            rows += [Row(variant=variant, seed=seed, **dict(figures)) for figures in cell.rows]
            labels += [LabelRow(variant=variant, seed=seed, **dict(figures)) for figures in cell.labels or []]
    return Results(rows=rows, labels=labels) if auxiliary else Results(rows=rows)


def _write_cell(path: Path, fitted: FittedRanker, test: Examples, *, drawn: bool) -> None:
    """Write one trained ranker's figures on the test part."""
    figures = evaluate_ranker(fitted.ranker, test, drawn=drawn)
    cell = Cell(rows=figures, epochs=fitted.epochs, best=fitted.best)
    if test.tasks:
        cell.labels = _label_figures(fitted.ranker, test)
    write_json(path, cell)


def _tables(
    split: Split, catalog_ids: Sequence[str], config: RankerConfig, table_of: Callable[[str], ItemTable]
) -> dict[str, ItemTable]:
    """Features of every variant, or one error with what is wrong with them or with the training rows."""
    tables, problems = {}, Problems()
    for variant in dict.fromkeys((*config.variants, "raw")):  # content-kNN reads raw vectors
        try:
            tables[variant] = table_of(variant)
        except InputError as error:
            problems.extend(error)
    try:
        training_rows(split, catalog_ids, config, seed=config.seeds[0])
    except InputError as error:
        problems.extend(error)
    if problems.messages:
        raise InputError(list(dict.fromkeys(problems.messages)))
    return {variant: tables[variant] for variant in config.variants}


def _label_figures(ranker: Ranker, test: Examples) -> list[LabelFigures]:
    """Figures of the auxiliary labels by slice, on the rows where each is known."""
    return [
        LabelFigures(label=label, **dict(figures))
        for label in test.tasks
        for figures in evaluate_ranker(ranker, test, drawn=False, label=label)
    ]


def _evaluation(
    split: Split, catalog_ids: Sequence[str], config: RankerConfig, seed: int, *, path: Path | None
) -> tuple[Examples, Examples]:
    """Rows of the validation and of the test part with their histories; written where there is a path."""
    frame = evaluation_rows(
        {"valid": split.valid, "test": split.test},
        split.train,
        item_ids=catalog_ids,
        trained_items=split.train.items,
        touched=[split.left_out],
        negatives=config.negatives.eval,
        seed=seed,
    )
    if path is not None:
        write_parquet(path, frame)
    past = [split.train, split.valid, split.test]
    valid, test = (
        read_examples(
            frame.filter(pl.col("part") == part),
            past,
            item_ids=catalog_ids,
            history=config.history,
            long_history=config.long_history,
        )
        for part in ("valid", "test")
    )
    return valid, test


def training_rows(
    split: Split, catalog_ids: Sequence[str], config: RankerConfig, *, since: Log | None = None, seed: int
) -> TrainingRows:
    """Rows of the training part by a config; since, seed: as of `TrainingRows`."""
    return TrainingRows(
        split.train,
        item_ids=catalog_ids,
        explicit=split.explicit,
        history=config.history,
        long_history=config.long_history,
        negatives=config.negatives.train,
        since=since,
        seed=seed,
    )


def _baselines(
    train: Examples, valid: Examples, test: Examples, raw: Embeddings, folder: Path, *, seed: int
) -> list[Row]:
    """Popularity and content-kNN; they draw nothing, so they stand under the first seed only."""
    cell = folder / "cells" / "baselines.json"
    if not cell.is_file():
        kind = best_likeness(raw, thin_examples(valid))
        rows = {
            "popularity": evaluate(test, popularity(train, test).astype(np.float64), logits=False),
            "content-knn": evaluate(test, likeness(raw, test, kind=kind), logits=False),
        }
        write_json(cell, Baselines(knn=kind, rows=rows))
    return [
        Row(variant=name, seed=seed, **dict(figures))
        for name, rows in read_model(cell, Baselines).rows.items()
        for figures in rows
    ]


def _mean_auc(rows: list[Row]) -> dict[str, Figure]:
    """Test AUC of each variant over all items, mean over seeds."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.slice == "all" and row.auc is not None:
            values.setdefault(row.variant, []).append(row.auc)
    return {variant: round(float(np.mean(of_seeds)), 4) for variant, of_seeds in values.items()}
