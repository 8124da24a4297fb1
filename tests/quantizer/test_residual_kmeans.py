"""Residual k-means: levels, settings, bad input, files."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.residual_kmeans import ResidualKMeans

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 12)).astype(np.float32)


@parametrize_with_checks([ResidualKMeans(levels=2, width=4)])
@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_two_levels_by_hand() -> None:
    # two far groups, each of two points 1 to either side: level 2 holds the offsets
    x = np.array([[9.0], [11.0], [-11.0], [-9.0]], dtype=np.float32)
    start = [np.array([[10.0], [-10.0]]), np.array([[1.0], [-1.0]])]
    model = ResidualKMeans(2, 2, init=start).fit(x)
    assert model.transform(x).tolist() == [[0, 1], [0, 0], [1, 1], [1, 0]]
    assert model.inverse_transform(model.transform(x)).tolist() == x.tolist()
    assert model.energies_ == [4.0, 0.0]


def test_every_level_is_greedy_and_energy_falls() -> None:
    model = ResidualKMeans(3, [16, 8, 4], iterations=5).fit(X)
    assert [book.shape for book in model.codebooks_] == [(16, 12), (8, 12), (4, 12)]
    residual, codes = X, model.transform(X)
    for level, book in enumerate(model.codebooks_):
        nearest = ((residual[:, None] - book[None]) ** 2).sum(-1).argmin(1)
        assert np.array_equal(codes[:, level], nearest)
        residual = residual - book[nearest]
        assert model.energies_[level] == pytest.approx((residual.astype(np.float64) ** 2).sum(), rel=1e-6)
    assert codes.dtype == np.int32
    assert sorted(model.energies_, reverse=True) == model.energies_
    np.testing.assert_allclose(model.inverse_transform(codes), X - residual, atol=1e-5)


def test_planted_tree_comes_back() -> None:
    rng = np.random.default_rng(1)
    roots, twigs = rng.normal(size=(5, 8)) * 100, rng.normal(size=(4, 8))
    root, twig = rng.integers(5, size=600), rng.integers(4, size=600)
    codes = ResidualKMeans(2, [5, 4]).fit(x := roots[root] + twigs[twig]).transform(x)
    assert len({(a, b) for a, b in zip(root, codes[:, 0], strict=True)}) == 5
    assert len({(a, b, c) for a, b, c in zip(root, twig, codes[:, 1], strict=True)}) == 20


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_float_types_and_strides_do_not_matter(kind: type) -> None:
    x = X.astype(np.float16)
    model = ResidualKMeans(2, 8).fit(x.astype(np.float32))
    other = ResidualKMeans(2, 8).fit(np.asfortranarray(x.astype(kind)))
    assert all(np.array_equal(a, b) for a, b in zip(model.codebooks_, other.codebooks_, strict=True))
    apart = np.repeat(np.repeat(x.astype(kind), 2, axis=0), 3, axis=1)[::2, ::3]
    assert np.array_equal(model.transform(x), other.transform(apart))


def test_memory_map_and_path_are_read_like_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    expected = ResidualKMeans(2, 8).fit(X)
    for source in (tmp_path / "x.npy", np.load(tmp_path / "x.npy", mmap_mode="r")):
        model = ResidualKMeans(2, 8).fit(source)
        assert np.array_equal(model.transform(source), expected.transform(X))


@pytest.mark.parametrize("threads", [1, 3])
def test_tiles_and_threads_do_not_matter(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ResidualKMeans(3, 16).fit(X)
    monkeypatch.setattr("qarm.quantizer.kmeans.assignment._MOST_ROWS", 37)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    model = ResidualKMeans(3, 16).fit(X)
    assert all(np.array_equal(a, b) for a, b in zip(model.codebooks_, expected.codebooks_, strict=True))
    assert np.array_equal(model.transform(X), expected.transform(X))
    assert model.energies_ == expected.energies_


def test_all_rows_equal_leave_one_code_alive() -> None:
    x = np.full((30, 3), 7.0, dtype=np.float32)
    model = ResidualKMeans(3, 4).fit(x)
    assert set(model.transform(x).ravel().tolist()) == {0}
    assert np.array_equal(model.inverse_transform(model.transform(x)), x)
    assert model.energies_ == [0.0, 0.0, 0.0]


def test_seed_decides() -> None:
    same, other = ResidualKMeans(2, 8, seed=3).fit(X), ResidualKMeans(2, 8, seed=4).fit(X)
    assert np.array_equal(same.codebooks_[0], ResidualKMeans(2, 8, seed=3).fit(X).codebooks_[0])
    assert not np.array_equal(same.codebooks_[0], other.codebooks_[0])


def bad(value: float, *rows: int) -> np.ndarray:
    x = X.copy()
    x[list(rows), 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:5], "got 5 items, need at least width=8; lower quantizer.width"),
        (X[:1], "got 1 item (one sample), need at least width=8; lower quantizer.width"),
        (bad(np.nan, 3, 9), "vectors hold NaN or infinity in rows 3, 9; remove or repair them"),
        (bad(np.inf, 0), "vectors hold NaN or infinity in rows 0; remove or repair them"),
        (bad(-1e20, 4), "vectors hold values above 1e+15 in rows 4; rescale them"),
        (X[:0], "Found array with 0 sample(s)"),
        (X[0], "Expected 2D array, got 1D array"),
        (Path("/nowhere.npy"), "/nowhere.npy: not readable as .npy"),
        (Embeddings(["a", 7] * 200, X), "item ids are of type int and str, need text only"),
        (Embeddings(["a", "b"], X), "got 2 item ids for 400 vectors; give one per row"),
        (Embeddings(["b", "a"] * 200, X), "item ids occur more than once: a, b; keep one row per item"),
    ],
)
def test_bad_vectors(x: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ResidualKMeans(2, 8).fit(x)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "got levels=0"),
        ({"iterations": 0}, "iterations=0"),
        ({"seed": -1}, "seed=-1"),
        ({"width": [4, 4, 4]}, "width has 3 entries, need levels=2; give one per level"),
        ({"width": 0}, "got width=0, need 1 or more codes per level"),
        ({"init": "random"}, "got init='random', need \"k-means++\" or starting centroids"),
        ({"init": np.zeros((2, 4, 5))}, "init has shapes [[4, 5], [4, 5]], need [[4, 12], [4, 12]]"),
        ({"init": np.full((2, 4, 12), np.nan)}, "init holds NaN or infinity"),
        ({"balance": "some"}, "got balance='some'"),
        ({"device": "abacus"}, "got device='abacus'"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ResidualKMeans(**{"levels": 2, "width": 4, **settings}).fit(X)
    assert message in str(caught.value)


def test_bad_codes() -> None:
    model = ResidualKMeans(2, 4).fit(X)
    with pytest.raises(InputError, match=r"level 2 leave 0 \.\. 3 in rows \[1\]"):
        model.inverse_transform([[0, 3], [0, 4]])
    with pytest.raises(InputError, match="need integers"):
        model.inverse_transform([[0.5, 1.0]])
    with pytest.raises(InputError, match="at most 2 levels"):
        model.inverse_transform([[0, 0, 0]])


def test_files_hold_the_levels_by_name(tmp_path: Path) -> None:
    ResidualKMeans(2, [8, 4]).fit(X).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["levels"], config["width"], config["dim"]) == (2, [8, 4], 12)


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model = ResidualKMeans(2, 4).fit(X)
    model.save_pretrained(tmp_path)
    change(tmp_path, dim=11)
    with pytest.raises(ArtifactError, match=r"level_0 is float32 \[4, 12\], need float32 \[4, 11\]"):
        ResidualKMeans.from_pretrained(tmp_path)
    change(tmp_path, width="wide")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        ResidualKMeans.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="no config.json"):
        ResidualKMeans.from_pretrained(tmp_path / "nothing")
