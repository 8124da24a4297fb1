"""Codes as trainable ids: against numpy, and from a run folder written by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qarm.core.atomic_io import write_json
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions.archive import write_codes
from qarm.recommender.code_embedding import CodeEmbedding, joined

CODES = Codes(
    ["b", "c", "a"],
    np.array([[0, 2], [3, 0], [1, 1]], dtype=np.int32),
    np.array([[6, 0, 5], [1, 2, 3], [4, 4, 0]], dtype=np.int32),
)


def write_run(folder: Path, codes: Codes) -> Path:
    codes.write(folder / "codes" / "codes.parquet")
    levels = [{"counts": [1] * width, "energy_left": 0.5} for width in (4, 3)]
    write_json(folder / "codes" / "profile.json", {"items": 4, "levels": levels})
    if codes.vq is not None:
        write_json(folder / "codes" / "nearest" / "config.json", {"pool_size": 7})
    return folder


def quantized(folder: Path) -> tuple[Embeddings, ResidualKMeans]:
    """A run's codes as the quantisers save them; the vectors, and their codebooks."""
    random = np.random.default_rng(0)
    vectors = Embeddings([f"i{n}" for n in range(40)], random.normal(size=(40, 6)).astype(np.float32))
    books = ResidualKMeans(2, [5, 3], seed=0).fit(vectors)
    nearest = NearestCodes(4).fit(vectors)
    codes = Codes(vectors.item_ids, books.transform(vectors.vectors), nearest.codes(vectors))
    write_codes(folder / "codes", codes, books, nearest, known=vectors)
    return vectors, books


def test_vectors_are_rows_of_the_tables_and_the_mean_of_the_list() -> None:
    torch.manual_seed(0)
    module = CodeEmbedding([4, 3], pool=7, dim=5)
    table = torch.from_numpy(joined(CODES))
    first, second, pool = (weight.detach().numpy() for weight in module.parameters())
    assert (first.shape, second.shape, pool.shape) == ((4, 5), (3, 5), (7, 5))
    expected = [
        np.stack([first[rq[0]], second[rq[1]], pool[vq].mean(axis=0)])
        for rq, vq in zip(CODES.rq, CODES.vq, strict=True)
    ]
    np.testing.assert_allclose(module.parts(table).detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(module(table).detach().numpy(), np.reshape(expected, (3, 15)), rtol=1e-6)


def test_shapes() -> None:
    module = CodeEmbedding([4, 3], pool=7, dim=5)
    assert (module.fields, module.out_dim) == (3, 15)
    codes = torch.from_numpy(joined(CODES))
    assert module(codes[0]).shape == (15,)
    history = codes[[0, 1, 2, 1, 0, 0]].reshape(2, 3, 5)
    assert module(history).shape == (2, 3, 15)
    assert torch.equal(module(history)[1, 0], module(codes)[1])
    assert module(codes[:0]).shape == (0, 15)
    without = CodeEmbedding([4, 3], dim=5)
    assert (without.fields, without.out_dim, without.nearest) == (2, 10, None)
    assert without(codes[:, :2]).shape == (3, 10)


def test_a_new_table_is_small_and_its_means_as_long_as_its_rows() -> None:
    torch.manual_seed(0)
    module = CodeEmbedding([3000], pool=3000, dim=8, std=0.02)
    codes = torch.randint(0, 3000, (2000, 26))
    level, listed = module.parts(codes).unbind(1)
    assert level.std().item() == pytest.approx(0.02, rel=0.05)
    assert listed.std().item() == pytest.approx(0.02, rel=0.05)


def test_gradient_reaches_the_rows_that_were_used_and_no_others() -> None:
    module = CodeEmbedding([4, 3], pool=7, dim=5)
    module(torch.from_numpy(joined(CODES))[:1]).sum().backward()  # codes 0 and 2, list 6, 0, 5
    moved = [weight.grad.abs().sum(1).nonzero().flatten().tolist() for weight in module.parameters()]
    assert moved == [[0], [2], [0, 5, 6]]


def test_from_run(tmp_path: Path) -> None:
    module = CodeEmbedding.from_run(write_run(tmp_path, CODES), dim=5)
    # sized by the codebooks and the pool, not by the largest code in the file
    assert [tuple(weight.shape) for weight in module.parameters()] == [(4, 5), (3, 5), (7, 5)]
    found = module.lookup(["a", "b", "a"])
    assert found.dtype == torch.int64
    assert found.tolist() == [[1, 1, 4, 4, 0], [0, 2, 6, 0, 5], [1, 1, 4, 4, 0]]
    assert module(found).shape == (3, 15)
    assert module.lookup([]).shape == (0, 5)


def test_from_a_run_without_a_list(tmp_path: Path) -> None:
    module = CodeEmbedding.from_run(write_run(tmp_path, Codes(CODES.item_ids, CODES.rq)))
    assert (module.fields, module.dim) == (2, 64)
    assert module.lookup(["c"]).tolist() == [[3, 0]]


def test_from_what_the_quantizers_save(tmp_path: Path) -> None:
    vectors, _ = quantized(tmp_path)
    module = CodeEmbedding.from_run(tmp_path, dim=2)
    assert [tuple(weight.shape) for weight in module.parameters()] == [(5, 2), (3, 2), (40, 2)]
    assert module(module.lookup(vectors.item_ids)).shape == (40, 6)


def test_unknown_items_are_named(tmp_path: Path) -> None:
    module = CodeEmbedding.from_run(write_run(tmp_path, CODES))
    with pytest.raises(InputError, match="no codes for items x, y; code them with qarm encode"):
        module.lookup(["a", "x", "y"])


def test_a_folder_without_codes(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no finished codes; run: qarm quantize"):
        CodeEmbedding.from_run(tmp_path)


# ---- options ------------------------------------------------------------------------------------


def test_a_list_is_weighed_by_place() -> None:
    torch.manual_seed(0)
    module = CodeEmbedding([4, 3], pool=7, dim=5, nearest=3)
    plain = CodeEmbedding([4, 3], pool=7, dim=5)
    plain.load_state_dict(module.state_dict(), strict=False)
    table = torch.from_numpy(joined(CODES))
    assert torch.allclose(module(table), plain(table), atol=1e-6)  # all places alike at first
    with torch.no_grad():
        module.place.copy_(torch.log(torch.tensor([2.0, 1.0, 1.0])))
    pool = module.nearest.weight
    expected = pool[6] / 2 + pool[0] / 4 + pool[5] / 4
    assert torch.allclose(module.parts(table)[0, 2], expected, atol=1e-6)
    module(table).sum().backward()
    assert module.place.grad.abs().sum() > 0


def test_prefixes_have_rows_of_their_own() -> None:
    """As many rows as asked for; equal prefixes share one, and hashing spreads the others."""
    module = CodeEmbedding([64, 64, 5], dim=4, prefixes=4096)
    first, second = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    codes = torch.stack([first.flatten(), second.flatten(), torch.zeros(4096, dtype=torch.int64)], dim=1)
    assert module.fields == 4
    prefix = module.parts(codes)[:, 3]
    other = codes.clone()
    other[:, 2] = 4
    assert torch.equal(module.parts(other)[:, 3], prefix)
    used = len(torch.unique(prefix.detach(), dim=0))
    assert used > 0.55 * 4096  # thrown at random, 63 % of the rows would be hit
    with pytest.raises(InputError, match="need two levels"):
        CodeEmbedding([4], prefixes=8)


def test_tables_start_as_centroids_on_their_principal_axes() -> None:
    random = np.random.default_rng(0)
    books = [random.normal(size=(n, 6)) * np.array([9, 5, 3, 1, 0.1, 0.1]) for n in (40, 30)]
    module = CodeEmbedding([40, 30], dim=4, std=0.02)
    module.start_from(books)
    for table, book in zip(module.levels, books, strict=True):
        start = table.weight.detach().numpy().astype(np.float64)
        assert start.std() == pytest.approx(0.02, rel=0.15)
        apart = np.linalg.norm(book[:, None] - book[None], axis=2)
        found = np.linalg.norm(start[:, None] - start[None], axis=2)
        assert np.corrcoef(apart.ravel(), found.ravel())[0, 1] > 0.999
    with pytest.raises(InputError, match=r"got codebooks of \[40\] centroids for tables of \[40, 30\] rows"):
        module.start_from(books[:1])


def test_the_vq_table_starts_as_the_pools_vectors(tmp_path: Path) -> None:
    """Six axes hold all six dimensions: rows are as far apart as the pool's vectors, levels as without."""
    quantized(tmp_path)
    torch.manual_seed(0)
    plain = CodeEmbedding.from_run(tmp_path, dim=8)
    torch.manual_seed(0)
    module = CodeEmbedding.from_run(tmp_path, dim=8, start="pool")
    for one, other in zip(plain.levels, module.levels, strict=True):
        assert torch.equal(one.weight, other.weight)
    assert module.nearest is not None
    assert plain.nearest is not None
    start = module.nearest.weight.detach().numpy().astype(np.float64)
    assert start.std() == pytest.approx(plain.nearest.weight.std().item(), rel=0.02)
    pool = NearestCodes.from_pretrained(tmp_path / "codes" / "nearest").pool_vectors_
    apart = np.linalg.norm(pool[:, None] - pool[None], axis=2)
    found = np.linalg.norm(start[:, None] - start[None], axis=2)
    np.testing.assert_allclose(found / found.mean(), apart / apart.mean(), atol=1e-5)
    with pytest.raises(InputError, match="got 3 vectors for a VQ table of 40 rows"):
        module.start_from_pool(pool[:3])
    with pytest.raises(InputError, match="got 40 vectors for a VQ table of 0 rows"):
        CodeEmbedding([4], dim=2).start_from_pool(pool)


def test_from_run_with_all_options(tmp_path: Path) -> None:
    vectors, books = quantized(tmp_path)
    module = CodeEmbedding.from_run(tmp_path, dim=8, weighted=True, prefixes=16, start="codebooks")
    assert module(module.lookup(vectors.item_ids)).shape == (40, 32)
    start = module.levels[0].weight.detach()
    assert torch.equal(start[:, 6:], torch.zeros(5, 2))  # six dimensions have no more axes
    apart = np.linalg.norm(books.codebooks_[0][0] - books.codebooks_[0][1])
    other = np.linalg.norm(books.codebooks_[0][0] - books.codebooks_[0][2])
    found = (start[0] - start[1]).norm() / (start[0] - start[2]).norm()
    assert found.item() == pytest.approx(apart / other, rel=1e-4)
