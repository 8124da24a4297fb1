"""torch.export programs of fusion head and RQ codes, for systems without this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.core.atomic_io import atomic, write_json
from qarm.data.catalog import Catalog
from qarm.encoder.encoder import Encoder
from qarm.encoder.feature_cache import Features, tower_features
from qarm.encoder.heads import Batch, Heads, flat
from qarm.errors import InputError
from qarm.quantizer.base import Quantizer
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.schemas.bundle import Differences, PortableReport

__all__ = ["PortableCodes", "PortableHead", "dense", "write_portable"]

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SAMPLE = 1000


class _DenseHeads(Heads):
    """The heads over features with a row for every item, whatever stands in the rows of missing ones.

    Which rows are there is then a mask and not a selection, as a program with a dynamic batch needs it.
    """

    def _part(self, column: int, name: str, batch: Batch, there: Tensor) -> Tensor:
        part = self.missing[column].expand(there.shape[0], -1)
        return torch.where(there[:, column, None], self._project(name, batch.values[name]), part)

    def raw(self, batch: Batch, there: Tensor | None = None) -> Tensor:
        """Raw vectors of the features, before the heads."""
        mask = batch.present if there is None else there
        parts = [
            functional.normalize(self.scale[name](flat(batch.values[name].to(self.missing.dtype))), dim=1)
            * mask[:, column, None]
            for column, name in enumerate(self.modalities)
        ]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)


class PortableHead(nn.Module):
    """From the towers' features to aligned vectors of unit length [n, d].

    Called with a tuple of features, float [n, ...] each, in the order of the heads' `modalities`, and a mask,
    bool [n, towers]: which of them each item has.
    """

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        settings = {name: getattr(heads, name) for name in ("dim", "hidden", "dropout", "fusion", "anchor")}
        self.heads = _DenseHeads(heads.shapes, **settings)
        self.heads.load_state_dict(heads.state_dict())
        self.eval()

    def forward(self, features: tuple[Tensor, ...], present: Tensor) -> Tensor:
        """Aligned vectors float32 [n, d] of the towers' features; present: bool [n, modalities]."""
        values = dict(zip(self.heads.modalities, features, strict=True))
        aligned: Tensor = self.heads(Batch(values, present))
        return aligned


class PortableCodes(nn.Module):
    """RQ codes int64 [n, levels] of vectors [n, d]: per level the nearest centroid of what is left.

    Args:
        books: k-means levels.
        exact: compare distances in double precision, as the codes of a run are; else in that of the vectors.
    """

    def __init__(self, books: ResidualKMeans, *, exact: bool = True) -> None:
        super().__init__()
        self.exact = exact
        self.levels = len(books.codebooks_)
        for level, (book, lift) in enumerate(zip(books.codebooks_, books.lifts_, strict=True)):
            prices = np.zeros(len(book)) if lift is None else np.square(lift.astype(np.float64))
            self.register_buffer(f"level_{level}", torch.from_numpy(book.copy()))
            self.register_buffer(f"prices_{level}", torch.from_numpy(prices))

    def forward(self, vectors: Tensor) -> Tensor:
        """RQ codes int64 [n, levels] of vectors float32 [n, d]."""
        residual, codes = vectors, []
        for level in range(self.levels):
            book, prices = (self.get_buffer(f"{name}_{level}") for name in ("level", "prices"))
            rows, centroids = (residual.double(), book.double()) if self.exact else (residual, book)
            costs = centroids.square().sum(1) + prices.to(rows.dtype) - 2 * rows @ centroids.T
            code = costs.argmin(1)
            codes.append(code)
            residual = residual - book[code]
        return torch.stack(codes, dim=1)


def dense(features: Features, shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Features as `PortableHead` takes them: float32, zeros where one is missing, and the mask."""
    nobody = np.zeros(len(features), dtype=np.bool_)
    values, masks = [], []
    for name, shape in shapes.items():
        there = features.present.get(name, nobody)
        rows = np.zeros((len(features), *shape), dtype=np.float32)
        if there.any():
            rows[there] = features.values[name]
        values.append(torch.from_numpy(rows))
        masks.append(torch.from_numpy(there))
    return tuple(values), torch.stack(masks, dim=1)


def write_portable(
    folder: Path, encoder: Encoder, books: Quantizer, catalog: Catalog, *, cache: Path | None = None
) -> PortableReport:
    """Write `head.pt2`, `codes.pt2` and `report.json`, which is returned.

    The report compares the codes of up to 1,000 items with those of the run: both programs in single
    precision as they were written, and the whole in half precision.

    Args:
        folder: to write to.
        catalog: items that can be read, for the comparison.
        cache: of tower features.

    Raises:
        InputError: a last level that is not k-means, or an anchor of cold items.
    """
    if not isinstance(books, ResidualKMeans):
        raise InputError(
            f"--portable takes k-means levels, got {type(books).__name__}; set quantizer.last to kmeans, "
            "or export without it"
        )
    if encoder.anchor_cold is not None:
        raise InputError(
            "--portable knows no items, and encoder.anchor_cold treats those of the training apart; "
            "align without it, or export without --portable"
        )
    sample = Catalog(catalog.frame.head(SAMPLE), catalog.folder)
    features = tower_features(sample, encoder.towers, cache=cache)
    inputs = dense(features, encoder.heads.shapes)
    head, codes = PortableHead(encoder.heads).cpu().float(), PortableCodes(books)
    vectors = encoder.embed(sample, cache=cache).vectors
    rows = torch.export.Dim("items", min=1)
    shapes = (tuple({0: rows} for _ in inputs[0]), {0: rows})
    _save(head, inputs, shapes, folder / "head.pt2")
    _save(codes, (torch.from_numpy(vectors),), ({0: rows},), folder / "codes.pt2")
    expected = books.transform(vectors)
    report = PortableReport(
        items=len(sample),
        modalities=encoder.heads.modalities,
        precisions={
            "float32": _compared(head, codes, inputs, vectors, expected),
            **{
                name: _compared(
                    PortableHead(encoder.heads).to(kind),
                    PortableCodes(books, exact=False).to(kind),
                    (tuple(values.to(kind) for values in inputs[0]), inputs[1]),
                    vectors,
                    expected,
                )
                for name, kind in HALVES.items()
            },
        },
    )
    write_json(folder / "report.json", report)
    return report


def _save(module: nn.Module, inputs: tuple[Any, ...], shapes: tuple[Any, ...], path: Path) -> None:
    """Trace a module and write the program, without the names of the files it was traced from."""
    with torch.no_grad():
        program = torch.export.export(module, _twice(inputs), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    program.example_inputs = None
    with atomic(path) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream)


def _twice(inputs: Any) -> Any:
    """Two rows of each input: one alone would be taken for a constant."""
    if isinstance(inputs, tuple):
        return tuple(_twice(part) for part in inputs)
    return torch.cat([inputs[:1], inputs[:1]])


@torch.inference_mode()
def _compared(
    head: PortableHead,
    codes: PortableCodes,
    inputs: tuple[Any, ...],
    vectors: npt.NDArray[np.float32],
    expected: npt.NDArray[np.int32],
) -> Differences:
    """Shares of codes that differ, by level and of full codes, and how far off the vectors are at most."""
    aligned = head(*inputs)
    other = codes(aligned).numpy() != expected
    return Differences(
        levels=other.mean(axis=0).tolist(),
        full_codes=float(other.any(axis=1).mean()),
        largest_difference=float(np.abs(aligned.float().numpy() - vectors).max()),
    )
