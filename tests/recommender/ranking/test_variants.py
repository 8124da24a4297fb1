"""The train stage: its files and rows, and a killed run that goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from qarm.config import Negatives, RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.recommender.examples import read_examples
from qarm.recommender.ranking import variants as stage
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.schemas.results import Results

Toy = tuple[Log, Codes, Embeddings]
CONFIG = RankerConfig(
    variants=["id", "id+rq"],
    seeds=[0, 1],
    negatives=Negatives(train=2, eval=10),
    dim=4,
    hidden=[4],
    epochs=2,
    history=10,
    lr=0.02,
)
CELLS = ["id-0", "id+rq-0", "id-1", "id+rq-1"]


def run(toy: Toy, folder: Path, split: Split | None = None, **changes: Any) -> dict[str, Any]:
    log, codes, vectors = toy
    return stage.run_variants(
        split or split_log(log),
        codes.item_ids,
        codes=codes,
        aligned=vectors,
        raw=vectors,
        config=CONFIG.model_copy(update=changes),
        folder=folder,
    )


def results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["rows"]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def finished(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(toy, folder)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Variant and seed of every ranker that is trained; killed before the one whose name follows `stop`."""
    calls: list[str] = []
    fit: Callable[..., Any] = stage.fit_ranker

    def counted(rows: Any, valid: Any, items: Any, *, settings: Any, seed: int, **more: Any) -> Any:
        name = f"id{'+rq' if items.rq is not None else ''}-{seed}"
        if f"stop {name}" in calls:
            raise KeyboardInterrupt
        calls.append(name)
        return fit(rows, valid, items, settings=settings, seed=seed, **more)

    monkeypatch.setattr(stage, "fit_ranker", counted)
    return calls


def test_a_row_per_variant_seed_and_slice(finished: tuple[Path, dict[str, Any]]) -> None:
    rows = results(finished[0])
    Results.model_validate_json((finished[0] / "results.json").read_text())
    names = [(row["variant"], row["seed"], row["slice"]) for row in rows]
    expected = [(variant, seed) for seed in (0, 1) for variant in ("id", "id+rq")]
    expected += [("popularity", 0), ("content-knn", 0)]
    assert names == [(*pair, part) for pair in expected for part in ("all", "warm", "cold")]
    figures = {"auc", "uauc", "gauc", "logloss", "rows", "users"}
    assert all(set(row) == {"variant", "seed", "slice"} | figures for row in rows)
    baseline = [row["variant"] in ("popularity", "content-knn") for row in rows]
    assert [row["logloss"] is None for row in rows] == baseline
    by_slice = {row["slice"]: row["rows"] for row in rows}
    assert all(row["rows"] == by_slice[row["slice"]] for row in rows)
    assert by_slice["all"] == by_slice["warm"] + by_slice["cold"]
    assert by_slice["cold"] > 0


def test_the_files(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    ranker = ("config.json", "items.parquet", "model.safetensors")
    assert set(contents(folder)) == {
        "eval.parquet",
        "results.json",
        "cells/baselines.json",
        *(f"cells/{cell}.json" for cell in CELLS),
        *(f"{variant}/{name}" for variant in CONFIG.variants for name in ranker),
    }
    assert summary["rows"] == pl.read_parquet(folder / "eval.parquet").height
    means: dict[str, list[float]] = {}
    for row in results(folder):
        if row["slice"] == "all":
            means.setdefault(row["variant"], []).append(row["auc"])
    assert {k: v for k, v in summary.items() if k != "rows"} == {
        variant: round(float(np.mean(values)), 4) for variant, values in means.items()
    }


def test_the_saved_ranker_and_rows_give_the_reported_figures(
    toy: Toy, finished: tuple[Path, dict[str, Any]]
) -> None:
    frame = pl.read_parquet(finished[0] / "eval.parquet").filter(pl.col("part") == "test")
    examples = read_examples(frame, [toy[0]], item_ids=toy[1].item_ids, history=CONFIG.history)
    reported = {(row["variant"], row["slice"]): row["auc"] for row in results(finished[0]) if not row["seed"]}
    cold = frame["cold"].to_numpy()
    for variant in CONFIG.variants:
        logits = score_examples(Ranker.from_pretrained(finished[0] / variant), examples)
        for name, chosen in (("all", cold | ~cold), ("warm", ~cold), ("cold", cold)):
            expected = roc_auc_score(examples.labels[chosen], logits[chosen])
            assert reported[variant, name] == pytest.approx(expected, abs=1e-12)


def test_the_codes_help_where_they_must(finished: tuple[Path, dict[str, Any]]) -> None:
    found = {(row["variant"], row["slice"]): row["auc"] for row in results(finished[0])}
    assert found["content-knn", "cold"] > 0.8
    assert found["popularity", "cold"] == 0.5  # nobody has met them
    assert found["id+rq", "cold"] > found["id", "cold"] + 0.1


def test_variants_of_one_seed_learn_from_the_same_rows(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: dict[int, set[bytes]] = {}
    fit: Callable[..., Any] = stage.fit_ranker

    def watched(rows: Any, valid: Any, items: Any, **settings: Any) -> Any:
        epochs = b"".join(rows.epoch(number).items.tobytes() for number in range(2))
        met.setdefault(settings["seed"], set()).add(epochs + valid.items.tobytes())
        return fit(rows, valid, items, **settings)

    monkeypatch.setattr(stage, "fit_ranker", watched)
    run(toy, tmp_path, epochs=1)
    assert [len(rows) for rows in met.values()] == [1, 1]
    assert met[0] != met[1]


# ---- resuming ---------------------------------------------------------------------------------


def test_a_finished_run_trains_nothing(
    toy: Toy, finished: tuple[Path, dict[str, Any]], trained: list[str]
) -> None:
    before = contents(finished[0])
    assert run(toy, finished[0]) == finished[1]
    assert trained == []
    assert contents(finished[0]) == before


@pytest.mark.parametrize("cell", ["id+rq-0", "id-1"])
def test_only_the_missing_cell_is_trained(
    toy: Toy, finished: tuple[Path, dict[str, Any]], trained: list[str], cell: str
) -> None:
    before = contents(finished[0])
    (finished[0] / "cells" / f"{cell}.json").unlink()
    (finished[0] / "results.json").unlink()
    run(toy, finished[0])
    assert trained == [cell]
    assert contents(finished[0]) == before


def test_a_killed_run_goes_on(
    toy: Toy, finished: tuple[Path, dict[str, Any]], trained: list[str], tmp_path: Path
) -> None:
    trained.append("stop id-1")
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path)
    assert not (tmp_path / "results.json").exists()
    assert trained.pop(0) == "stop id-1"
    assert trained == CELLS[:2]
    run(toy, tmp_path)
    assert trained == CELLS
    assert contents(tmp_path) == contents(finished[0])


# ---- what must not leak -----------------------------------------------------------------------


def test_the_test_part_does_not_reach_training(toy: Toy, tmp_path: Path) -> None:
    """Other labels in the test part of an explicit log: the same rankers and epochs, other figures."""
    log = toy[0]
    explicit = Log(log.frame.with_columns(label=(pl.col("row") % 3 > 0).cast(pl.Int8)))
    split = split_log(explicit)
    flipped = Log(split.test.frame.with_columns(label=1 - pl.col("label")))
    other = replace(split, test=flipped)
    for name, given in (("one", split), ("other", other)):
        run(toy, tmp_path / name, given, seeds=[0])
    for variant in CONFIG.variants:
        one, two = (tmp_path / name / variant / "model.safetensors" for name in ("one", "other"))
        assert one.read_bytes() == two.read_bytes()
        cells = [
            json.loads((tmp_path / n / "cells" / f"{variant}-0.json").read_text()) for n in ("one", "other")
        ]
        assert cells[0]["epochs"] == cells[1]["epochs"]
        assert cells[0]["rows"] != cells[1]["rows"]
    assert pl.read_parquet(tmp_path / "one" / "eval.parquet").height == len(split.valid) + len(split.test)


def test_the_seed_draws_the_evaluation_rows(toy: Toy, tmp_path: Path) -> None:
    log, codes, vectors = toy
    frames = []
    for seed in (0, 1):
        stage.run_variants(
            split_log(log),
            codes.item_ids,
            codes=codes,
            aligned=vectors,
            raw=vectors,
            config=CONFIG.model_copy(update={"variants": ["id"], "seeds": [0], "epochs": 1}),
            folder=tmp_path / str(seed),
            seed=seed,
        )
        frames.append(pl.read_parquet(tmp_path / str(seed) / "eval.parquet"))
    assert frames[0].filter(label=1).equals(frames[1].filter(label=1))
    assert not frames[0].equals(frames[1])


def test_what_a_user_touched_is_no_negative_even_where_it_was_held_out(toy: Toy, tmp_path: Path) -> None:
    """Events of items held out as cold belong to no part, and yet their users touched them."""
    log, *_ = toy
    split = split_log(log, cold_items=0.2, seed=1)
    assert len(split.left_out)
    run(toy, tmp_path, split, variants=["id"], seeds=[0], epochs=1)
    frame = pl.read_parquet(tmp_path / "eval.parquet")
    negatives = frame.filter((pl.col("label") == 0) & pl.col("cold"))
    touched = log.frame.select("user_id", "item_id")
    assert negatives.height
    assert negatives.join(touched, on=["user_id", "item_id"], how="semi").height == 0
