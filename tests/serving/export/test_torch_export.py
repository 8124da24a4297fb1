"""Programs of torch.export: the codes of the bundle, in any batch, and what half precision changes."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qarm.cli import main
from qarm.data.catalog import read_catalog
from qarm.encoder.encoder import Encoder
from qarm.encoder.feature_cache import tower_features
from qarm.encoder.heads import Batch, Heads, as_batch
from qarm.errors import InputError
from qarm.quantizer.fsq import ResidualKMeansFSQ
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.schemas.bundle import PortableReport
from qarm.serving.bundle import Bundle
from qarm.serving.export.torch_export import PortableCodes, PortableHead, dense, write_portable


@pytest.fixture(scope="module")
def portable(run: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("portable") / "bundle"
    main(["export", str(run), "--out", str(out), "--items", str(world / "items.parquet"), "--portable"])
    return out


def test_loaded_programs_give_the_codes_of_the_bundle(portable: Path, run: Path, world: Path) -> None:
    bundle = Bundle.load(portable)
    encoder = Encoder.from_pretrained(portable / "encoder")
    head, codes = (
        torch.export.load(portable / "portable" / f"{name}.pt2").module() for name in ("head", "codes")
    )
    for table, items in (("items", 40), ("new", 8)):
        catalog = read_catalog(world / f"{table}.parquet")
        vectors, expected = bundle.code(catalog)
        inputs = dense(tower_features(catalog, encoder.towers), encoder.heads.shapes)
        with torch.no_grad():
            found = head(*inputs)
            assert codes(found).tolist() == expected.rq.tolist()
            assert codes(torch.from_numpy(vectors.vectors)).tolist() == expected.rq.tolist()
            one = head(tuple(values[:1] for values in inputs[0]), inputs[1][:1])
        assert np.allclose(found.numpy(), vectors.vectors, atol=1e-6)
        assert torch.allclose(one, found[:1], atol=1e-6)
        assert found.shape == (items, 16)


def test_programs_hold_no_pickle_and_no_path(portable: Path) -> None:
    for name in ("head", "codes"):
        with zipfile.ZipFile(portable / "portable" / f"{name}.pt2") as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        assert not any(content.startswith((b"\x80", b"PK")) for content in parts.values())
        assert not any(b".py" in content and b"File " in content for content in parts.values())
        assert not any(str(Path.cwd()).encode() in content for content in parts.values())


def test_the_report_says_what_differs(portable: Path) -> None:
    report = PortableReport.model_validate_json((portable / "portable" / "report.json").read_text())
    assert report.items == 40
    assert list(report.precisions) == ["float32", "bfloat16", "float16"]
    assert report.precisions["float32"].full_codes == 0
    sizes = [report.precisions[name].largest_difference for name in ("float32", "float16", "bfloat16")]
    assert 0 <= sizes[0] < sizes[1] < sizes[2] < 0.1


def test_half_precision_flips_what_rounding_brings_together() -> None:
    """0.501 is nearer to 1 than to 0; in bfloat16 it is 0.5, a tie, which the lower code wins."""
    books = ResidualKMeans(1, 2).fit(np.array([[0.0], [1.0]] * 4, dtype=np.float32))
    low = int(np.argmin(books.codebooks_[0][:, 0]))
    books.codebooks_ = [np.array([[0.0], [1.0]], dtype=np.float32)]
    assert low in (0, 1)
    row = torch.tensor([[0.501]])
    assert PortableCodes(books)(row).tolist() == [[1]]
    half = PortableCodes(books, exact=False).to(torch.bfloat16)
    assert half(row.to(torch.bfloat16)).tolist() == [[0]]


@pytest.mark.parametrize("balance", [None, "all"])
def test_codes_are_those_of_the_quantiser(balance: str | None) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    books = ResidualKMeans(3, 8, balance=balance, iterations=4).fit(rows)
    assert np.array_equal(PortableCodes(books)(torch.from_numpy(rows)).numpy(), books.transform(rows))


@pytest.mark.parametrize(
    ("fusion", "anchor"), [("concat", 0.0), ("concat", 0.3), ("attention", 0.0), ("attention", 0.3)]
)
def test_the_head_is_that_of_the_encoder_and_exports(fusion: str, anchor: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shapes = {"image": (5,), "audio": (16, 3), "text": (4,)}
    heads = Heads(shapes, dim=8, hidden=8, dropout=0.1, fusion=fusion, anchor=anchor).eval()  # type: ignore[arg-type]
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    present = torch.rand(9, 3) < 0.6
    features = tuple(torch.randn(9, *shape) for shape in heads.shapes.values())
    given = {
        name: values[present[:, column]]
        for column, (name, values) in enumerate(zip(heads.shapes, features, strict=True))
    }
    expected = heads(Batch(given, present))
    head = PortableHead(heads)
    assert torch.allclose(head(features, present), expected, atol=1e-6)
    rows = torch.export.Dim("items", min=1)
    program = torch.export.export(
        head,
        (tuple(values[:2] for values in features), present[:2]),
        dynamic_shapes=(tuple({0: rows} for _ in features), {0: rows}),
        strict=False,
    )
    assert torch.allclose(program.module()(features, present), expected, atol=1e-6)


def test_dense_features_are_those_of_a_batch(run: Path, world: Path) -> None:
    encoder = Encoder.from_pretrained(run / "encoder")
    catalog = read_catalog(world / "items.parquet").without_media(images=["i00002"], sounds=["i00003"])
    features = tower_features(catalog, encoder.towers)
    values, present = dense(features, encoder.heads.shapes)
    batch = as_batch(features, encoder.heads.modalities)
    assert torch.equal(present, batch.present)
    for column, name in enumerate(encoder.heads.modalities):
        assert torch.equal(values[column][present[:, column]], batch.values[name].float())
        assert not values[column][~present[:, column]].any()


def test_other_last_levels_are_refused(run: Path, world: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(run / "encoder")
    books = ResidualKMeansFSQ(1, 4)
    with pytest.raises(InputError, match="k-means levels, got ResidualKMeansFSQ"):
        write_portable(tmp_path, encoder, books, read_catalog(world / "items.parquet"))
    assert json.loads("[]") == list(tmp_path.iterdir())
