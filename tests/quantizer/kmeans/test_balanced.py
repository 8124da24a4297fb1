"""Balanced codes: sizes, least energy by an assignment solver, and what is done where balance is hard."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.utils.estimator_checks import parametrize_with_checks

from qarm.quantizer.kmeans import balanced as prices
from qarm.quantizer.kmeans.balanced import balanced, nearly_balanced
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import ResidualRows

RNG = np.random.default_rng(0)
GROUPS = RNG.choice(5, p=[0.6, 0.2, 0.1, 0.05, 0.05], size=1003)
X = (RNG.normal(size=(5, 8))[GROUPS] + RNG.normal(size=(1003, 8))).astype(np.float32)
START = X[:16].copy()


@parametrize_with_checks([ResidualKMeans(levels=2, width=4, balance="all")])
@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def least_energy(x: np.ndarray, centroids: np.ndarray, sizes: np.ndarray) -> float:
    """Of all assignments with these sizes, by the Hungarian algorithm on one column per place."""
    cost = ((x[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    rows, places = linear_sum_assignment(np.repeat(cost, sizes, axis=1))
    return float(np.repeat(cost, sizes, axis=1)[rows, places].sum())


def test_four_points_by_hand() -> None:
    # 0 is nearest for three points; with two each, 3 goes to 10, because it is the nearest of them
    x = np.array([[0.0], [1.0], [3.0], [10.0]], dtype=np.float32)
    found = balanced(ResidualRows(x), np.array([[0.0], [10.0]], dtype=np.float32), iterations=0)
    assert found.clustering.codes.tolist() == [0, 0, 1, 1]
    assert found.clustering.energy == 1 + 49
    # 1 must prefer code 0, at 1 against 81, and 3 code 1, at 49 against 9: the price is between 40 and 80
    price = found.lift.astype(np.float64) ** 2
    assert price[0] - price[1] == pytest.approx(60, abs=1)


@pytest.mark.parametrize("pairs", [1 << 21, 0], ids=["all-pairs", "candidates"])
@pytest.mark.parametrize("width", [3, 16, 40])
def test_sizes_are_equal_and_the_energy_is_the_least(
    width: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "_ALL_PAIRS", pairs)
    monkeypatch.setattr(prices, "_LAST_PAIRS", pairs)
    start = X[:width].copy()
    found = balanced(ResidualRows(X), start, iterations=3).clustering
    sizes = np.bincount(found.codes, minlength=width)
    assert set(sizes.tolist()) == {1003 // width, 1003 // width + 1}
    assert found.energy == pytest.approx(least_energy(X, found.centroids, sizes), rel=1e-9)


def test_means_and_assignment_alternate() -> None:
    energies = [balanced(ResidualRows(X), START, iterations=i).clustering.energy for i in range(6)]
    assert energies == sorted(energies, reverse=True)
    first = balanced(ResidualRows(X), START, iterations=0).clustering
    means = np.stack([X[first.codes == code].astype(np.float64).mean(0) for code in range(16)])
    again = balanced(ResidualRows(X), START, iterations=1).clustering
    np.testing.assert_allclose(again.centroids, means, atol=1e-6)


@pytest.mark.parametrize("balance", ["last", "all", "last-approximate", "all-approximate"])
def test_transform_fills_balanced_levels_evenly(balance: str, tmp_path: Path) -> None:
    model = ResidualKMeans(2, [8, 20], balance=balance, iterations=5).fit(X)
    codes = model.transform(X)
    plain = ResidualKMeans(2, [8, 20], iterations=5).fit(X)
    for level, width in enumerate([8, 20]):
        sizes = np.bincount(codes[:, level], minlength=width)
        if balance.startswith("last") and level == 0:
            assert model.lifts_[0] is None
            assert np.array_equal(codes[:, 0], plain.transform(X)[:, 0])
        elif balance.endswith("approximate"):
            assert sizes.max() <= 1.5 * 1003 / width
            assert sizes.max() < np.bincount(plain.transform(X)[:, level]).max()
        else:
            assert set(sizes.tolist()) == {1003 // width, 1003 // width + 1}
    residual = X - model.inverse_transform(codes)
    assert model.energies_[-1] == pytest.approx(float((residual.astype(np.float64) ** 2).sum()), rel=1e-5)
    model.save_pretrained(tmp_path)
    loaded = ResidualKMeans.from_pretrained(tmp_path)
    assert loaded.balance == balance
    assert np.array_equal(loaded.transform(X), codes)


def test_codes_minimise_distance_plus_price() -> None:
    model = ResidualKMeans(1, 12, balance="all").fit(X)
    assert model.lifts_[0] is not None
    cost = ((X[:, None].astype(np.float64) - model.codebooks_[0][None]) ** 2).sum(-1)
    cost += model.lifts_[0].astype(np.float64) ** 2
    assert np.array_equal(model.transform(X)[:, 0], cost.argmin(1))


@pytest.mark.parametrize("balance", ["all", "all-approximate"])
def test_the_same_bytes_for_any_number_of_threads(
    balance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 3):
        monkeypatch.setattr("torch.get_num_threads", lambda count=threads: count)
        monkeypatch.setattr("torch.set_num_threads", lambda count: None)
        ResidualKMeans(2, 8, balance=balance).fit(X).save_pretrained(tmp_path / str(threads))
    one, three = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("1", "3"))
    assert one == three


def test_equal_rows_stay_together_without_harm() -> None:
    same = np.full((30, 3), 7.0, dtype=np.float32)
    found = balanced(ResidualRows(same), same[:4].copy(), iterations=2)
    assert sorted(np.bincount(found.clustering.codes).tolist()) == [7, 7, 8, 8]
    model = ResidualKMeans(2, 4, balance="all").fit(same)
    assert np.array_equal(model.inverse_transform(model.transform(same)), same)


def test_groups_far_apart_do_not_change_sides_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_ALL_PAIRS", 0)
    monkeypatch.setattr(prices, "_LAST_PAIRS", 0)
    monkeypatch.setattr(prices, "_CANDIDATES", 4)
    rng = np.random.default_rng(3)
    far = (rng.normal(size=(8, 6))[rng.integers(8, size=2000)] * 1000).astype(np.float32)
    far += rng.normal(size=far.shape).astype(np.float32)
    exact = balanced(ResidualRows(far), far[:30].copy(), iterations=2).clustering
    assert set(np.bincount(exact.codes, minlength=30).tolist()) == {66, 67}
    near = nearly_balanced(ResidualRows(far), far[:30].copy(), iterations=5, rng=rng)
    assert np.bincount(near.clustering.codes).max() < 400  # one group holds 250 rows
