"""Retrieval arms: figures by hand, differences by hand, and arms that are fitted once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qarm.comparison.code_sources import permute_codes
from qarm.comparison.rivals.retrieval_arms import SeedRetrieval, compare_retrieval, user_figures
from qarm.config import RetrieverConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.counting import ContentKnn
from qarm.recommender.retrieval.histories import Histories
from qarm.schemas.comparison import ComparedRetrieval

NAN = float("nan")


def test_user_figures_by_hand() -> None:
    angles = np.arange(30) * 0.1
    part = ContentKnn.of(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    cold = np.zeros(30, bool)
    cold[1] = True
    past = Histories.of([[0], [0], [0]])
    found = user_figures(Blend({"p": part}, {"p": 1.0}, cold), past, Histories.of([[1], [15], []]))
    expected = [[1, 1, 1, 1], [0, 0, 1, NAN], [NAN] * 4]  # ranks 0 and 14 among the 29 that are left
    np.testing.assert_allclose(found, expected)


class Sources:
    """Vectors and codes of a seed; counts how often codes are asked for."""

    def __init__(self, log: Log, codes: Codes, vectors: Embeddings) -> None:
        split = split_log(log, kind="user_tail", test=0.2, valid=0.2)
        self.windows, self.seed, self.aligned = SimpleNamespace(split=split), 0, vectors
        self.catalog = SimpleNamespace(item_ids=codes.item_ids)
        self.coded, self.asked = codes, 0

    def codes(self, source: str) -> tuple[Codes, list[str]]:
        self.asked += 1
        groups = np.zeros(len(self.coded), np.int64)
        return (permute_codes(self.coded, groups, seed=0) if source == "placebo" else self.coded), []


def of_toy(toy: Any, folder: Path, **settings: Any) -> SeedRetrieval:
    config = RetrieverConfig(
        dim=8, epochs=1, min_steps=150, batch=64, negatives=0, cold_items=0.0, **settings
    )
    return SeedRetrieval(Sources(*toy), config, folder)


def test_all_arms_are_fitted_once_and_codes_beat_the_placebo(
    toy: tuple[Log, Codes, Embeddings], tmp_path: Path
) -> None:
    seed = of_toy(toy, tmp_path / "seed-0")
    assert seed.arms == [*seed.config.blend, "blend", "model@placebo", "model (ids alone)"]
    seed.run()
    again = of_toy(toy, tmp_path / "seed-0")
    again.run()
    assert again.sources.asked == 0  # nothing was fitted again
    other = of_toy(toy, tmp_path / "seed-0", lags=2)
    assert other.folder != seed.folder  # other settings, other figures
    results = compare_retrieval([again])
    means = {entry.method: entry.figures for entry in results.means}
    assert set(means) == set(seed.arms)
    cold = "recall at 10 of cold items"
    assert means["model"][cold] > means["model@placebo"][cold]
    assert ComparedRetrieval.model_validate_json(results.model_dump_json()) == results


def test_differences_are_paired_by_user_and_seed(
    toy: tuple[Log, Codes, Embeddings], tmp_path: Path, make_log: Callable[..., Log]
) -> None:
    seeds = [of_toy(toy, tmp_path / name, blend=["item-knn", "popularity"]) for name in "ab"]
    assert seeds[0].arms == ["item-knn", "popularity", "blend"]
    users = len(seeds[0].users)
    for number, seed in enumerate(seeds):
        for arm, base in (("item-knn", 0.2), ("popularity", 0.1), ("blend", 0.4)):
            figures = np.full((users, 4), base)
            figures[:, 0] += 0.1 * number * (arm == "blend")
            figures[0, 3] = NAN
            seed.folder.mkdir(parents=True, exist_ok=True)
            np.save(seed.folder / f"{arm}.npy", figures)
    results = compare_retrieval(seeds)
    gains = {(g.figure, g.method, g.against): g for g in results.differences}
    assert {pair[1:] for pair in gains} == {("blend", "item-knn"), ("blend", "popularity")}
    recall = gains["recall at 10", "blend", "item-knn"]
    assert recall.mean == pytest.approx((0.2 + 0.3) / 2)
    assert gains["NDCG at 10", "blend", "popularity"].mean == pytest.approx(0.3)
    assert gains["recall at 10 of cold items", "blend", "item-knn"].error == pytest.approx(0, abs=1e-12)
