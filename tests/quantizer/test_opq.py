"""The product level: its rotation, what its number spells, and that optimising helps."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from qarm.errors import ArtifactError, InputError
from qarm.quantizer.opq import ResidualKMeansOPQ, _dealt
from qarm.quantizer.residual_kmeans import ResidualKMeans

RNG = np.random.default_rng(0)
MIX = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
X = (RNG.normal(size=(2000, 8)) * np.array([5, 4, 3, 2, 1, 0.5, 0.2, 0.1]) @ MIX).astype(np.float32)


@parametrize_with_checks([ResidualKMeansOPQ(levels=1, width=4, parts=2, values=2)])
@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_the_number_spells_the_nearest_centroid_of_each_piece() -> None:
    model = ResidualKMeansOPQ(1, 4, parts=3, values=5).fit(X)
    codes = model.transform(X)
    residual = (X - model.codebooks_[0][codes[:, 0]]).astype(np.float64)
    rotated = residual @ model.rotation_.T.astype(np.float64)
    assert [piece.shape for piece in model.pieces_] == [(5, 3), (5, 3), (5, 2)]
    spelled = np.zeros(len(X), dtype=int)
    for place, part in enumerate(np.split(rotated, [3, 6], axis=1)):
        spelled += 5**place * ((part[:, None] - model.pieces_[place][None]) ** 2).sum(-1).argmin(1)
    assert (spelled == codes[:, 1]).mean() > 0.999  # rounding decides a tie or two
    assert model.widths_ == [4, 125]


def energy(x: np.ndarray, **settings: int) -> float:
    model = ResidualKMeansOPQ(1, 1, parts=2, values=16, **settings).fit(x)
    np.testing.assert_allclose(model.rotation_ @ model.rotation_.T, np.eye(x.shape[1]), atol=1e-5)
    return float(np.square(x - model.inverse_transform(model.transform(x))).sum())


def test_dealing_out_directions_helps() -> None:

    # without rotation: k-means of either half of the coordinates as they are
    books = [ResidualKMeans(1, 16).fit(half) for half in (X[:, :4], X[:, 4:])]
    plain = sum(book.energies_[0] for book in books)
    assert energy(X, rotations=0) < 0.95 * plain
    assert energy(X, rotations=10) <= energy(X, rotations=0)


def test_alternation_helps_where_directions_say_nothing() -> None:
    # two independent planes of 16 points each, mixed: all directions have the same variance
    rng = np.random.default_rng(1)
    planes = [rng.normal(size=(16, 2)) @ np.diag([1, 1]) for _ in range(2)]
    planes = [
        (plane - plane.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(plane.T)).T) for plane in planes
    ]
    x = np.concatenate([plane[rng.integers(16, size=3000)] for plane in planes], axis=1)
    x = (x @ np.linalg.qr(rng.normal(size=(4, 4)))[0]).astype(np.float32)
    assert energy(x, rotations=40) < 0.9 * energy(x, rotations=0)


def test_directions_are_dealt_out_by_hand() -> None:
    # variances 16, 9, 4, 1: the first piece takes the largest, the second the two next, and so on
    x = np.array([[4, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], dtype=np.float32)
    rotation, sizes = _dealt(np.concatenate([x, -x]), 2)
    assert sizes == [2, 2]
    assert rotation.tolist() == np.eye(4)[[0, 3, 1, 2]].tolist()


def test_first_levels_are_residual_k_means() -> None:
    codes = ResidualKMeansOPQ(2, 8, values=4).fit(X).transform(X)
    assert np.array_equal(codes[:, :2], ResidualKMeans(2, 8).fit(X).transform(X))


def test_no_more_parts_than_dimensions_and_equal_rows(tmp_path: Path) -> None:
    model = ResidualKMeansOPQ(1, 4, parts=19, values=2).fit(X)
    assert model.widths_ == [4, 2**8]
    model.save_pretrained(tmp_path)
    assert ResidualKMeansOPQ.from_pretrained(tmp_path).widths_ == [4, 2**8]
    same = np.full((20, 3), 2.0, dtype=np.float32)
    model = ResidualKMeansOPQ(1, 2, values=2).fit(same)
    assert np.array_equal(model.inverse_transform(model.transform(same)), same)


@pytest.mark.parametrize(
    "settings", [{"parts": 0}, {"values": 1}, {"rotations": -1}, {"parts": 4, "values": 256}]
)
def test_bad_settings(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"got parts=.* need 1, 2 and 0 or more"):
        ResidualKMeansOPQ(1, 4, **settings).fit(X)
    with pytest.raises(InputError, match="got 9 items, need at least values=16; lower values"):
        ResidualKMeansOPQ(1, 4).fit(X[:9])


def test_a_lost_piece(tmp_path: Path) -> None:
    model = ResidualKMeansOPQ(1, 4).fit(X)
    model.pieces_ = [model.pieces_[0], model.pieces_[1][:, :-1]]
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"parts": 2', '"pieces": 2'))
    with pytest.raises(ArtifactError, match=r"config\.json lacks 'parts'"):
        ResidualKMeansOPQ.from_pretrained(tmp_path)
