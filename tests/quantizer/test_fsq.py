"""The finite scalar level: its formula, its digits, its settings."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from qarm.errors import InputError
from qarm.quantizer.fsq import ResidualKMeansFSQ, _gain, _thresholds
from qarm.quantizer.residual_kmeans import ResidualKMeans

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(2000, 8)) * np.array([5, 4, 3, 2, 1, 0.5, 0.2, 0.1])).astype(np.float32)


@parametrize_with_checks([ResidualKMeansFSQ(levels=1, width=4, digits=2)])
@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@pytest.mark.parametrize("values", [2, 3, 4, 7])
def test_thresholds_are_where_the_rounded_sigmoid_steps(values: int) -> None:
    z = np.linspace(-12, 12, 10001)
    rounded = np.round((values - 1) / (1 + np.exp(-z)))
    assert np.array_equal((z[:, None] > _thresholds(values)).sum(1), rounded)


def test_three_values_of_a_normal_coordinate_are_equally_full() -> None:
    z = _gain(3) * np.random.default_rng(1).normal(size=100_000)
    shares = np.bincount((z[:, None] > _thresholds(3)).sum(1)) / len(z)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.01)


def test_digits_spell_the_formula() -> None:
    model = ResidualKMeansFSQ(1, 4, digits=5, values=3).fit(X)
    codes = model.transform(X)
    residual = X - model.codebooks_[0][codes[:, 0]]
    digits = np.round(2 / (1 + np.exp(-(residual.astype(np.float64) @ model.weights_))))
    assert np.array_equal(codes[:, 1], digits @ 3 ** np.arange(5))
    assert model.widths_ == [4, 243]


def test_digits_decode_to_the_mean_coordinate() -> None:
    model = ResidualKMeansFSQ(1, 1, digits=2, values=2).fit(X)
    codes = model.transform(X)
    along = (X - model.codebooks_[0]) @ model.directions_
    for digit in range(2):
        high = (codes[:, 1] >> digit) & 1 == 1
        means = [along[~high, digit].mean(), along[high, digit].mean()]
        np.testing.assert_allclose(model.decoded_[digit], means, atol=1e-5)
    np.testing.assert_allclose(np.abs(model.directions_[[0, 1], [0, 1]]), 1.0, atol=1e-2)


def test_first_levels_are_residual_k_means() -> None:
    codes = ResidualKMeansFSQ(2, 8, digits=3).fit(X).transform(X)
    assert np.array_equal(codes[:, :2], ResidualKMeans(2, 8).fit(X).transform(X))


def test_no_more_digits_than_dimensions(tmp_path: Path) -> None:
    model = ResidualKMeansFSQ(1, 4, digits=19).fit(X)
    assert model.widths_ == [4, 3**8]
    model.save_pretrained(tmp_path)
    assert ResidualKMeansFSQ.from_pretrained(tmp_path).widths_ == [4, 3**8]


def test_equal_rows_and_lower_rank() -> None:
    same = np.full((20, 3), 2.0, dtype=np.float32)
    model = ResidualKMeansFSQ(1, 2, digits=3).fit(same)
    assert np.array_equal(model.inverse_transform(model.transform(same)), same)


@pytest.mark.parametrize("settings", [{"digits": 0}, {"values": 1}, {"digits": 20, "values": 3}])
def test_bad_settings(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"got digits=.* need 1 or more, 2 or more"):
        ResidualKMeansFSQ(1, 4, **settings).fit(X)
