"""What every quantiser does: one suite, run for each of them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.fsq import ResidualKMeansFSQ
from qarm.quantizer.opq import ResidualKMeansOPQ
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.rqvae import RQVAE

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 10)).astype(np.float32)
ITEMS = [f"item{i}" for i in range(300)]
QUANTIZERS = [
    pytest.param(lambda: ResidualKMeans(2, 8), id="residual"),
    pytest.param(lambda: ResidualKMeans(3, [16, 8, 4], iterations=3, seed=5), id="residual-widths"),
    pytest.param(lambda: ResidualKMeansFSQ(2, 8, digits=4), id="fsq"),
    pytest.param(lambda: ResidualKMeans(2, 8, balance="all"), id="residual-balanced"),
    pytest.param(lambda: ResidualKMeansOPQ(2, 8, parts=3, values=6), id="opq"),
    pytest.param(lambda: RQVAE(2, 8, latent=8, hidden=32, epochs=30, batch=64, lr=5e-3), id="rqvae"),
]
Make = Callable[[], Any]
every = pytest.mark.parametrize("make", QUANTIZERS)


@every
def test_codes_lie_within_the_widths(make: Make) -> None:
    model = make().fit(X)
    codes = model.transform(X)
    assert codes.dtype == np.int32
    assert codes.shape == (300, len(model.widths_))
    assert codes.min() >= 0
    assert (codes < np.array(model.widths_)).all()


@every
def test_decoding_is_better_than_the_mean(make: Make) -> None:
    model = make().fit(X)
    decoded = model.inverse_transform(model.transform(X))
    assert decoded.dtype == np.float32
    assert np.square(X - decoded).sum() < 0.9 * np.square(X - X.mean(0)).sum()


@pytest.mark.parametrize("make", [case for case in QUANTIZERS if case.id != "rqvae"])
def test_every_level_decodes_better(make: Make) -> None:
    model = make().fit(X)
    codes = model.transform(X)
    decoded = [model.inverse_transform(codes[:, :levels]) for levels in range(codes.shape[1] + 1)]
    errors = [np.square(X - vectors).sum() for vectors in decoded]
    assert all(after < before for before, after in itertools.pairwise(errors))


@every
def test_two_fits_give_the_same_bytes(make: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make().fit(X).save_pretrained(tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@every
def test_a_row_is_coded_alike_in_any_company(make: Make) -> None:
    model = make().fit(X)
    codes, order = model.transform(X), np.random.default_rng(1).permutation(300)
    assert np.array_equal(model.transform(X[order]), codes[order])
    assert np.array_equal(np.concatenate([model.transform(X[i : i + 1]) for i in range(20)]), codes[:20])


@every
def test_vectors_may_be_read_only(make: Make) -> None:
    x = X.copy()
    x.flags.writeable = False
    model = make().fit(x)
    assert np.array_equal(model.transform(x), model.transform(X))
    assert np.array_equal(x, X)


@every
def test_codes_keep_item_ids(make: Make) -> None:
    model = make().fit(Embeddings(ITEMS, X))
    codes = model.codes(Embeddings(ITEMS[40:50], X[40:50]))
    assert codes.item_ids == ITEMS[40:50]
    assert np.array_equal(codes.rq, model.transform(X)[40:50])


@every
def test_saving_keeps_everything(make: Make, tmp_path: Path) -> None:
    model = make().fit(X)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    codes = model.transform(X)
    assert np.array_equal(loaded.transform(X), codes)
    assert np.array_equal(loaded.inverse_transform(codes), model.inverse_transform(codes))
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


@every
def test_changed_and_truncated_files_are_refused(make: Make, tmp_path: Path) -> None:
    model = make().fit(X)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="truncated or changed"):
            type(model).from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        type(model).from_pretrained(tmp_path)
    config = tmp_path / "config.json"
    for damaged in (config.read_bytes()[:-20], b"\xff\xfe\x00", b""):
        config.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"config\.json is not JSON"):
            type(model).from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "Cake"}')
    with pytest.raises(InputError, match="holds Cake, need"):
        type(model).from_pretrained(tmp_path)


@every
def test_wrong_dimension_and_no_fit(make: Make) -> None:
    with pytest.raises(NotFittedError):
        make().transform(X)
    model = make().fit(X)
    with pytest.raises(InputError, match="X has 9 features, but .* is expecting 10 features"):
        model.transform(X[:, :9])
    with pytest.raises(InputError, match="NaN or infinity in rows 0"):
        model.transform(np.full((2, 10), [[np.nan], [0.0]]))


@every
def test_settings_survive_cloning(make: Make) -> None:
    model = make()
    assert clone(model).get_params() == model.get_params()


# ---- scikit-learn's names -----------------------------------------------------------------------


@every
def test_random_state_is_another_name_of_seed(make: Make) -> None:
    model = make()
    seed = model.chosen_seed
    named = clone(model).set_params(seed=None, random_state=seed)
    np.testing.assert_array_equal(named.fit(X).transform(X), clone(model).fit(X).transform(X))
    assert clone(model).set_params(seed=3, random_state=3).chosen_seed == 3
    other = clone(model).set_params(seed=None, random_state=seed + 1)
    assert other.chosen_seed == seed + 1
    for wrong in ({"seed": 1, "random_state": 2}, {"seed": None, "random_state": -1}, {"seed": 0.5}):
        with pytest.raises(InputError, match=r"random_state|seed"):
            clone(model).set_params(**wrong).fit(X)


@every
def test_columns_have_names_and_tables_come_out_where_they_are_set(make: Make, tmp_path: Path) -> None:
    model = make().fit(X)
    names = [f"{type(model).__name__.lower()}{level}" for level in range(len(model.widths_))]
    assert model.get_feature_names_out().tolist() == names
    expected = model.transform(X)
    frame = model.set_output(transform="polars").transform(X)
    assert frame.columns == names
    np.testing.assert_array_equal(frame.to_numpy(), expected)
    codes = model.codes(Embeddings(ITEMS, X))
    assert isinstance(codes.rq, np.ndarray)
    model.save_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(type(model).from_pretrained(tmp_path / "model").transform(X), expected)
