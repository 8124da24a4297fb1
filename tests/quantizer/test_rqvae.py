"""RQ-VAE: it learns, uses its codes, and touches nobody's random numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from qarm.errors import ArtifactError, InputError
from qarm.quantizer.rqvae import RQVAE, _replace_dead

RNG = np.random.default_rng(0)
GROUP = RNG.integers(6, size=900)
X = (RNG.normal(size=(6, 12))[GROUP] * 3 + 0.3 * RNG.normal(size=(900, 12)) + 50).astype(np.float32)
SMALL = {"latent": 6, "hidden": 32, "epochs": 20, "batch": 128, "lr": 5e-3}


@parametrize_with_checks([RQVAE(1, 4, latent=2, hidden=4, epochs=2)])
@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_groups_come_back_and_decode() -> None:
    model = RQVAE(1, 6, **SMALL).fit(X)
    codes = model.transform(X)[:, 0]
    assert len({(g, c) for g, c in zip(GROUP, codes, strict=True)}) == 6
    left = np.square(X - model.inverse_transform(codes[:, None])).sum() / np.square(X - X.mean(0)).sum()
    assert left < 0.1


def test_every_code_is_used() -> None:
    codes = RQVAE(2, 16, **SMALL).fit(X).transform(X)
    assert [len(np.unique(codes[:, level])) for level in range(2)] == [16, 16]


def test_dead_codes_move_to_residuals_of_rows() -> None:
    vectors = torch.tensor([[1.0], [1.0]])
    books = [nn.Parameter(torch.tensor([[0.75], [9.0]])), nn.Parameter(torch.tensor([[5.0], [0.0]]))]
    used = [torch.tensor([True, False]), torch.tensor([False, True])]
    _replace_dead(vectors, nn.Identity(), books, used)
    assert books[0].tolist() == [[0.75], [1.0]]
    assert books[1].tolist() == [[0.0], [0.0]]  # the row is now coded exactly by the first level


def test_random_numbers_of_the_caller_stay() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = RQVAE(1, 4, **SMALL).fit(X)
    assert torch.equal(torch.rand(3), expected)
    other = RQVAE(1, 4, **SMALL, seed=1).fit(X)
    assert not np.array_equal(first.codebooks_[0], other.codebooks_[0])


def test_equal_rows() -> None:
    same = np.full((30, 3), 2.0, dtype=np.float32)
    model = RQVAE(2, 4, **SMALL).fit(same)
    np.testing.assert_allclose(model.inverse_transform(model.transform(same)), same, atol=1e-3)


@pytest.mark.parametrize("settings", [{"levels": 0}, {"epochs": 0}, {"lr": 0.0}, {"commitment": -1.0}])
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"need counts of 1 or more, lr above 0"):
        RQVAE(**settings).fit(X)  # type: ignore[arg-type]


def test_too_few_rows_and_a_lost_layer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 5 items, need at least width=8; lower quantizer.width"):
        RQVAE(1, 8).fit(X[:5])
    model = RQVAE(1, 4, **SMALL).fit(X)
    del model.weights_["decoder.2.bias"]
    model.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"no tensor 'decoder\.2\.bias'"):
        RQVAE.from_pretrained(tmp_path)
