"""k-means against points computed by hand, scikit-learn and faiss."""

import faiss
import numpy as np
import pytest
from sklearn.cluster import KMeans

from qarm.quantizer.kmeans.assignment import Products, nearest_centroids, prepared, squared_distances
from qarm.quantizer.kmeans.exact_sums import FixedPointSums
from qarm.quantizer.kmeans.init import kmeans_plusplus, starting_centroids
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.vectors import ResidualRows


def blobs(n: int = 3000, d: int = 16, groups: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d)) * 3
    return (centres[rng.integers(groups, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def brute_force(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    exact = ((x[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    return exact.argmin(axis=1).astype(np.int32)


def test_four_points_by_hand() -> None:
    x = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], dtype=np.float32)
    found = lloyd(ResidualRows(x), x[[0, 3]], iterations=10)
    assert found.centroids.tolist() == [[0, 1], [10, 1]]
    assert found.codes.tolist() == [0, 0, 1, 1]
    assert found.energy == 4.0
    assert found.iterations == 1


def test_a_code_without_rows_takes_half_of_the_code_with_the_most_energy() -> None:
    x = np.array([[0.0], [1.0], [2.0], [9.0]], dtype=np.float32)
    # 50 attracts nobody; 9 alone lies on its side of the mean 3
    found = lloyd(ResidualRows(x), np.array([[1.0], [50.0]], dtype=np.float32), iterations=5)
    assert found.centroids.tolist() == [[1.0], [9.0]]
    assert found.reseeded == 1


def test_many_codes_without_rows_all_find_some() -> None:
    x = blobs()
    start = np.concatenate([x[:1], np.full((19, 16), 1e4, dtype=np.float32)])
    found = lloyd(ResidualRows(x), start, iterations=20)
    assert len(np.unique(found.codes)) == 20
    good = lloyd(
        ResidualRows(x), kmeans_plusplus(ResidualRows(x), 20, rng=np.random.default_rng(0)), iterations=20
    )
    assert found.energy < 1.1 * good.energy


each_path = pytest.mark.parametrize("products", ["int8", "bfloat16", "float32"])


@each_path
def test_ties_go_to_the_lowest_index(products: Products) -> None:
    centroids = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    x = np.array([[0, 0], [1, 0]], dtype=np.float32)
    codes = nearest_centroids(x, prepared(centroids, products=products))
    assert codes.tolist() == [0, 0]
    assert squared_distances(x, centroids, codes).tolist() == [1.0, 0.0]


@each_path
@pytest.mark.parametrize(("width", "d"), [(1, 3), (7, 1), (64, 5), (300, 33), (5, 500)])
def test_assignment_is_the_brute_force_argmin(width: int, d: int, products: Products) -> None:
    rng = np.random.default_rng(width)
    x, centroids = (rng.normal(size=(n, d)).astype(np.float32) for n in (700, width))
    codes = nearest_centroids(x, prepared(centroids, products=products))
    assert np.array_equal(codes, brute_force(x, centroids))
    nearest = ((x.astype(np.float64) - centroids[codes]) ** 2).sum(1)
    np.testing.assert_allclose(squared_distances(x, centroids, codes), nearest, rtol=1e-12)


@each_path
@pytest.mark.parametrize(
    ("offset", "size"),
    # float32 scores of the second kind cannot tell the centroids apart; float64 differences can
    [(0.0, 1.0), (1000.0, 1e-2), (0.0, 1e-25), (0.0, 1e-18), (0.0, 1e-14), (0.0, 1e14)],
)
def test_offsets_and_scales_do_not_blur_the_choice(offset: float, size: float, products: Products) -> None:
    rng = np.random.default_rng(6)
    x, centroids = ((offset + rng.normal(size=(n, 8)) * size).astype(np.float32) for n in (300, 40))
    centroids[1::2] = centroids[::2] * np.float32(1 + 1e-6)  # near ties, some of them exact
    x[:40] = centroids
    codes = nearest_centroids(x, prepared(centroids, products=products))
    assert np.array_equal(codes, brute_force(x, centroids))


@each_path
def test_one_dimension_far_larger_than_the_others(products: Products) -> None:
    rng = np.random.default_rng(7)
    x, centroids = (rng.normal(size=(n, 20)).astype(np.float32) for n in (300, 30))
    x[:, 0] *= 1e4  # leaves nothing of the other dimensions in 8 bits
    assert np.array_equal(
        nearest_centroids(x, prepared(centroids, products=products)), brute_force(x, centroids)
    )


def test_every_iteration_agrees_with_scikit_learn_and_faiss() -> None:
    x = blobs()
    centroids = kmeans_plusplus(ResidualRows(x), 20, rng=np.random.default_rng(1))
    for _ in range(8):
        ours = lloyd(ResidualRows(x), centroids, iterations=1)
        theirs = KMeans(20, init=centroids, n_init=1, max_iter=1, algorithm="lloyd").fit(x)
        np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=1e-4)
        np.testing.assert_allclose(ours.centroids, faiss_kmeans(x, centroids, iterations=1), atol=1e-4)
        centroids = ours.centroids


def test_twenty_iterations_reach_the_same_energy() -> None:
    x = blobs(seed=3)
    start = kmeans_plusplus(ResidualRows(x), 20, rng=np.random.default_rng(1))
    ours = lloyd(ResidualRows(x), start, iterations=20)
    theirs = faiss_kmeans(x, start, iterations=20)
    energy = ((x - theirs[brute_force(x, theirs)]).astype(np.float64) ** 2).sum()
    assert ours.energy == pytest.approx(energy, rel=1e-5)
    sklearn = KMeans(20, init=start, n_init=1, max_iter=300, tol=0).fit(x)
    converged = lloyd(ResidualRows(x), start, iterations=300)
    assert converged.energy == pytest.approx(sklearn.inertia_, rel=1e-5)


def faiss_kmeans(x: np.ndarray, centroids: np.ndarray, *, iterations: int) -> np.ndarray:
    peer = faiss.Kmeans(x.shape[1], len(centroids), niter=iterations, max_points_per_centroid=10**9)
    peer.train(x, init_centroids=centroids)
    return peer.centroids


def test_sums_do_not_depend_on_the_order_of_rows() -> None:
    x = blobs(500, 7)
    codes = np.random.default_rng(0).integers(5, size=500).astype(np.int32)
    start = np.full(500, -1, dtype=np.int32)
    forward, backward = (FixedPointSums.empty(5, 7, rows=500, largest=40.0) for _ in range(2))
    forward.move(x, start, codes)
    backward.move(x[::-1].copy(), start, codes[::-1].copy())
    assert np.array_equal(forward.totals, backward.totals)
    turned = forward.like()
    assert not np.array_equal(forward.totals, turned.totals)
    turned.add(forward)
    turned.move(x, codes, (codes + 1) % 5)
    assert turned.moved == 500
    assert not np.array_equal(forward.totals, turned.totals)
    turned.move(x, (codes + 1) % 5, codes)
    assert np.array_equal(forward.totals, turned.totals)
    expected = np.stack([x[codes == c].astype(np.float64).mean(0) for c in range(5)])
    np.testing.assert_allclose(forward.means(np.zeros((5, 7), np.float32)), expected, rtol=1e-6)


def test_plusplus_follows_the_squared_distances() -> None:
    # from 0 the squared distances are 1, 9 and 0: the second seed is 3 with probability 9/10; from 1 it is
    # 3 with 4/5, from 3 it is 0 with 9/13. Over 900 draws each share is within 4 standard errors.
    x = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    pairs = [
        kmeans_plusplus(ResidualRows(x), 2, rng=np.random.default_rng(s))[:, 0].tolist() for s in range(900)
    ]
    for first, second, chance in [(0, 3, 9 / 10), (1, 3, 4 / 5), (3, 0, 9 / 13)]:
        hits = [b == second for a, b in pairs if a == first]
        assert np.mean(hits) == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / len(hits)))


def test_plusplus_finds_every_separated_group_and_never_the_same_row_twice() -> None:
    centres = np.arange(40, dtype=np.float32)[:, None] * 1000
    x = np.concatenate([centres, centres + 0.25, centres - 0.25])
    seeds = kmeans_plusplus(ResidualRows(x), 40, rng=np.random.default_rng(0))
    assert sorted(np.round(seeds[:, 0] / 1000).tolist()) == list(range(40))
    assert len(np.unique(kmeans_plusplus(ResidualRows(x), 120, rng=np.random.default_rng(0)))) == 120


def test_noise_in_many_dimensions_does_not_collapse() -> None:
    # a few rows of noise lie near the mean; as seeds they attract many times their share
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1500, 100)) * rng.uniform(0.5, 1.5, size=(1500, 1))).astype(np.float32)

    def clustering(start: np.ndarray) -> tuple[int, float]:
        found = lloyd(ResidualRows(x), start, iterations=10)
        return int(np.bincount(found.codes).max()), found.energy

    plain, plain_energy = clustering(kmeans_plusplus(ResidualRows(x), 100, rng=np.random.default_rng(1)))
    pulled, energy = clustering(starting_centroids(ResidualRows(x), 100, rng=np.random.default_rng(1)))
    assert plain > 200
    assert pulled < 100
    assert energy < plain_energy


def test_separated_groups_keep_their_seeds() -> None:
    centres = np.arange(40, dtype=np.float32)[:, None] * 1000
    x = np.concatenate([centres, centres + 0.25, centres - 0.25])
    start = starting_centroids(ResidualRows(x), 40, rng=np.random.default_rng(0))
    assert sorted(start[:, 0].tolist()) == centres[:, 0].tolist()


def test_a_sample_is_enough_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qarm.quantizer.kmeans.init._FEWEST_ROWS", 400)
    x = blobs()
    start = starting_centroids(ResidualRows(x), 12, rng=np.random.default_rng(0))
    assert lloyd(ResidualRows(x), start, iterations=0).energy < 0.5 * np.square(x - x.mean(0)).sum()


def test_fewer_distinct_rows_than_codes() -> None:
    x = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), 10, axis=0)
    start = kmeans_plusplus(ResidualRows(x), 5, rng=np.random.default_rng(0))
    found = lloyd(ResidualRows(x), start, iterations=10)
    assert found.energy == 0.0
    assert len(set(found.codes.tolist())) == 2
