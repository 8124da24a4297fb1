"""Scores over HTTP of real trained rankers: those that the training's own evaluation gives."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from tests.serving.conftest import SMALL
from tests.serving.fakes import Fakes

from qarm.config import Config, load_config
from qarm.core.atomic_io import read_json, write_json
from qarm.core.sealed_folder import MANIFEST, seal
from qarm.data.interactions import read_log
from qarm.data.users import read_users
from qarm.pipeline import run_stages
from qarm.recommender.examples import Examples, read_examples
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.serving.bundle import Bundle, export_bundle
from qarm.serving.code_store import NewCode

VARIANT = "id+rq+vq+frozen+cross"
READS = {
    "ranker.variants": f"[id, {VARIANT}]",
    "ranker.time": "true",
    "ranker.history": "3",
    "ranker.long_history": "6",
    "data.users.features": "[age, member]",
}


@pytest.fixture(scope="module")
def trained(
    run: Path, world: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path, Config]:
    """The run with rankers that read gaps of time, features of users and a short long history; its bundle."""
    folder = tmp_path_factory.mktemp("scoring")
    moved = Path(shutil.copytree(world, folder / "world"))
    log = pl.read_parquet(moved / "interactions.parquet")
    users = log["user_id"].unique().sort()
    ages = [("18", "25", None)[n % 3] for n in range(len(users))]
    features = {"age": ages, "member": [n % 2 == 0 for n in range(len(users))]}
    pl.DataFrame({"user_id": users, **features}).write_parquet(moved / "users.parquet")
    text = read_json(run / "encoder" / "manifest.json")["config"]["encoder"]["text"]
    flags = {"data.root": str(moved), "encoder.text": str(text), **SMALL, **READS}
    config = load_config(flags=flags, environment={})
    copy = Path(shutil.copytree(run, folder / "run"))
    done = list(run_stages(config, copy, last="train"))
    assert [stage.stage for stage in done if not stage.fresh] == ["train"]
    export_bundle(copy, folder / "bundle", items=(moved / "items.parquet",))
    return copy, moved, folder / "bundle", config


def examples_of(run: Path, world: Path, config: Config) -> tuple[pl.DataFrame, Examples]:
    log = read_log(world / "interactions.parquet")
    log = log.with_users(read_users(world / "users.parquet", features=["age", "member"]))
    rows = pl.read_parquet(run / "recommender" / "eval.parquet").filter(pl.col("part") == "test")
    items = Ranker.from_pretrained(run / "recommender" / VARIANT).item_ids
    limits = {"history": config.ranker.history, "long_history": config.ranker.long_history}
    return rows, read_examples(rows, [log], item_ids=items, **limits)


def request_of(log: pl.DataFrame, users: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    """What a shop would send: all that the user did before, and how long ago."""
    user, now = rows["user_id"][0], rows["time"][0]
    past = log.filter(pl.col("user_id") == user, pl.col("time") < now).sort("time", maintain_order=True)
    about = users.filter(pl.col("user_id") == user).drop("user_id").to_dicts()[0]
    gaps = (now - past["time"]).to_list()
    return {
        "history": past["item_id"].to_list(), "gaps": gaps, "user": about,
        "candidates": rows["item_id"].to_list(),
    }  # fmt: skip


def test_the_served_score_is_the_one_of_the_evaluation(
    trained: tuple[Path, Path, Path, Config], tmp_path: Path
) -> None:
    run, world, folder, config = trained
    rows, examples = examples_of(run, world, config)
    offline = score_examples(Ranker.from_pretrained(run / "recommender" / VARIANT), examples)
    log = read_log(world / "interactions.parquet").positives().frame
    users = pl.read_parquet(world / "users.parquet")
    bundle = Bundle.load(folder)
    assert len(rows) > 50
    assert max(np.unique(log["user_id"].to_numpy(), return_counts=True)[1]) > 6  # more than is read
    with TestClient(Fakes(tmp_path, load=lambda folder: bundle).app) as client:
        for event in rows["event"].unique(maintain_order=True).to_list()[:12]:
            asked = request_of(log, users, rows.filter(pl.col("event") == event))
            answer = client.post("/v1/score", json=asked).json()
            expected = offline[(rows["event"] == event).to_numpy()]
            scores = [item["score"] for item in answer["items"]]
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            age = asked["user"]["age"]
            assert answer["unknown_user_features"] == (["age"] if age is None else [])
        other = client.post("/v1/score", json={**asked, "user": {}, "gaps": [10**9] * len(asked["gaps"])})
        assert not np.allclose([item["score"] for item in other.json()["items"]], scores, atol=1e-5)
        read = client.get("/v1/ranker").json()
    assert (read["history"], read["long_history"], read["gaps"]) == (3, 6, True)
    assert [feature["name"] for feature in read["user_features"]] == ["age", "member"]


def test_a_stored_item_is_scored_by_its_codes(
    trained: tuple[Path, Path, Path, Config], tmp_path: Path
) -> None:
    """A new item with the codes and the vector of a cold published one gets its score."""
    bundle = Bundle.load(trained[2])
    scorer = bundle.scorer
    assert scorer is not None
    known = scorer.ranker.item.known
    item = bundle.item_ids[5]
    known[scorer.ranker.item_ids.index(item)] = 0  # as if the training had no event of it
    row, fakes = bundle.row(item), Fakes(tmp_path, load=lambda folder: bundle)
    new = NewCode(
        "n1", bundle.version, 1, b"content", bundle.codes.rq[row], bundle.codes.vq[row],
        bundle.vectors.vectors[row], {},
    )  # fmt: skip
    other = NewCode(
        "n2", "another bundle", 1, b"content", new.rq, new.vq, new.vector, {},
    )  # fmt: skip
    fakes.service.store.store.append([[new, other]])
    asked = {"history": bundle.item_ids[8:12], "gaps": [9, 5, 2, 1]}
    with TestClient(fakes.app) as client:
        found = client.post("/v1/score", json={**asked, "candidates": [item, "n1"]}).json()["items"]
        assert found[0]["score"] == pytest.approx(found[1]["score"], abs=1e-4)
        assert found[1]["cold"]
        refused = client.post("/v1/score", json={**asked, "candidates": ["n1", "n2"]})
        assert refused.status_code == 422
        assert "n2 are neither published nor stored for this bundle" in refused.json()["detail"]


def test_an_earlier_bundle_has_its_long_history_from_the_config(
    trained: tuple[Path, Path, Path, Config], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained[2], tmp_path / "bundle"))
    path = folder / "recommender" / VARIANT / "config.json"
    write_json(path, {name: value for name, value in read_json(path).items() if name != "long_history"})
    kind = read_json(folder / MANIFEST)["kind"]
    (folder / MANIFEST).unlink()
    seal(folder, kind=kind)
    scorer = Bundle.load(folder).scorer
    assert scorer is not None
    assert scorer.ranker.long_history == 6
