"""The GPU's kernel to the CPU's bytes: under Triton's interpreter, or on a GPU where there is one."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qarm.errors import InputError
from qarm.quantizer import residual_kmeans as residual
from qarm.quantizer.kmeans import gpu
from qarm.quantizer.kmeans import lloyd as kmeans
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import ResidualRows

pytest.importorskip("triton", reason="Triton runs on Linux only")

FloatRows = npt.NDArray[np.float32]
CUDA = torch.cuda.is_available()
WHERE = [
    pytest.param(
        "cpu", id="interpreter", marks=pytest.mark.skipif(CUDA, reason="the GPU runs the same tests")
    ),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]),
]


@pytest.fixture(params=WHERE)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Small blocks, so that small data crosses their edges."""
    for name, size in (("_ROWS", 16), ("_WIDE", 16), ("_DIMS", 16)):
        monkeypatch.setattr(gpu, name, size)
    return torch.device(request.param)


def normal(rows: int, dim: int, *, seed: int = 0) -> FloatRows:
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


def coded(rows: FloatRows, books: list[FloatRows], device: torch.device) -> npt.NDArray[np.int32]:
    found: npt.NDArray[np.int32] = gpu.gpu_codes(torch.from_numpy(rows).to(device), books).cpu().numpy()
    return found


def brute(rows: FloatRows, books: list[FloatRows]) -> npt.NDArray[np.int64]:
    """Level by level in float64; argmin takes the first of equals."""
    left, codes = rows.copy(), []
    for book in books:
        gaps = left[:, None].astype(np.float64) - book[None].astype(np.float64)
        codes.append(np.square(gaps).sum(axis=2).argmin(axis=1))
        left = left - book[codes[-1]]
    return np.stack(codes, axis=1)


@pytest.mark.parametrize(
    ("rows", "dim", "widths"),
    [(50, 24, [20, 7]), (33, 16, [16]), (17, 5, [1, 3, 40]), (1, 1, [2]), (40, 33, [5, 5])],
)
def test_codes_are_the_nearest_centroids(
    device: torch.device, rows: int, dim: int, widths: list[int]
) -> None:
    x = normal(rows, dim)
    books = [normal(width, dim, seed=width) for width in widths]
    assert (coded(x, books, device) == brute(x, books)).all()


def test_four_points_by_hand(device: torch.device) -> None:
    x = np.array([[0, 0], [0, 3], [10, 0], [10, 4]], dtype=np.float32)
    books = [np.array([[0, 1], [10, 1]], dtype=np.float32), np.array([[0, -1], [0, 2]], dtype=np.float32)]
    assert coded(x, books, device).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_ties_go_to_the_lowest_index_across_blocks(device: torch.device) -> None:
    book = np.zeros((40, 4), dtype=np.float32)
    book[[3, 17, 39]] = 1.0
    assert coded(np.ones((5, 4), dtype=np.float32), [book], device).tolist() == [[3]] * 5


def test_what_float32_cannot_tell_apart_is_measured_in_float64(device: torch.device) -> None:
    """Centroids far from zero, one unit in the last place apart: scores of 10^6 hide the difference."""
    x = np.full((8, 16), 1000.0, dtype=np.float32)
    near, far = np.nextafter(x[0], np.float32(2000.0)), x[0] + np.float32(0.25)
    assert coded(x, [np.stack([far, far, near])], device).tolist() == [[2]] * 8


def test_a_doubtful_row_is_never_left_to_rounding(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bounds as wide as everything, each row takes the exact path; with honest ones hardly any does."""
    x, book = normal(60, 16), normal(30, 16, seed=1)
    exact: list[int] = []
    real = gpu._exact

    def counting(rows: FloatRows, books: gpu.Books) -> gpu.Codes:
        exact.append(len(rows))
        return real(rows, books)

    monkeypatch.setattr(gpu, "_exact", counting)
    honest = coded(x, [book], device)
    assert sum(exact) <= 1
    monkeypatch.setattr(gpu, "_ERRORS", {"tf32": (10.0, 0.0), "ieee": (10.0, 0.0)})
    assert (coded(x, [book], device) == honest).all()
    assert exact[-1] == 60


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fit_and_transform_give_the_cpus_bytes(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    x = normal(150, 12).astype(dtype)
    x[:20] = x[20:40]
    settings = {"levels": 2, "width": [6, 18], "iterations": 3}
    expected = ResidualKMeans(**settings, device="cpu").fit(x)  # type: ignore[arg-type]
    codes = expected.transform(x)
    monkeypatch.setattr(residual, "chosen_device", lambda _: device)
    monkeypatch.setattr(gpu, "_TILE_VALUES", 12 * 64)  # three tiles
    found = ResidualKMeans(**settings).fit(x)  # type: ignore[arg-type]
    assert [b.tobytes() for b in found.codebooks_] == [b.tobytes() for b in expected.codebooks_]
    assert (found.energies_, found.n_iter_) == (expected.energies_, expected.n_iter_)
    assert (found.transform(x) == codes).all()


def test_rows_that_do_not_fit_pass_through_in_tiles(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ResidualRows(normal(90, 8))
    start = rows.values[:5].copy()
    expected = lloyd(rows, start, iterations=2)
    monkeypatch.setattr(kmeans.GpuAssignment, "_resident", None)
    monkeypatch.setattr(gpu, "_TILE_VALUES", 8 * 40)
    found = lloyd(rows, start, iterations=2, device=device)
    assert found.centroids.tobytes() == expected.centroids.tobytes()
    assert (found.codes == expected.codes).all()


def test_balanced_levels_stay_on_the_cpu(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(60, 6)
    expected = ResidualKMeans(2, 4, balance="last", device="cpu").fit(x)
    monkeypatch.setattr(residual, "chosen_device", lambda _: device)
    found = ResidualKMeans(2, 4, balance="last").fit(x)
    assert (found.transform(x) == expected.transform(x)).all()


@pytest.mark.skipif(CUDA, reason="says what is missing where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert gpu.chosen_device(None) is None
    assert gpu.chosen_device("cpu") is None
    with pytest.raises(
        InputError, match='got device="cuda", but torch sees no CUDA device; use device="cpu"'
    ):
        ResidualKMeans(1, 2, device="cuda").fit(normal(9, 3))
