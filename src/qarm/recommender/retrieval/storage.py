"""Files of a retriever: `blend.json`, items, histories, and the weights of each part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.sparse import csr_matrix

from qarm.core.atomic_io import atomic, read_model, write_json
from qarm.core.run_folder import verify
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.errors import ArtifactError
from qarm.recommender.retrieval.blend import Blend, DenseRetriever, SparseRetriever
from qarm.recommender.retrieval.counting import ContentKnn, NeighbourTable, Popularity
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.sequence_model import SequenceModel
from qarm.schemas.base import FORMAT
from qarm.schemas.retrieval import BlendShape, CountingSettings

__all__ = ["HISTORIES", "StoredRetriever", "read_retriever", "write_retriever"]

ITEMS, HISTORIES, BLEND, CONTENT = "items.parquet", "histories.parquet", "blend.json", "content.safetensors"
USERS: dict[str, pl.DataType] = {"user_id": pl.String(), "rows": pl.List(pl.Int32)}
DAMAGE = (KeyError, ValueError, RuntimeError, OSError, SafetensorError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class StoredRetriever:
    """Blend with the catalogue that it ranks and the users that it knows.

    item_ids: of the rows; events: of each item in the training part, recent: the latest of them, int64
    [items]; user_ids, histories: of all users with a positive event, up to the end of the log.
    """

    blend: Blend
    item_ids: list[str]
    events: npt.NDArray[np.int64]
    recent: npt.NDArray[np.int64]
    user_ids: list[str]
    histories: Histories
    counting: CountingSettings


def write_retriever(folder: Path, stored: StoredRetriever) -> None:
    """Write `blend.json`, `items.parquet`, `histories.parquet` and the files of each part into a folder."""
    shape = BlendShape(
        format=FORMAT,
        weights=dict(stored.blend.weights),
        intercept=stored.blend.intercept,
        counting=stored.counting,
    )
    write_json(folder / BLEND, shape)
    items = {
        "item_id": stored.item_ids,
        "events": stored.events,
        "recent": stored.recent,
        "cold": stored.blend.cold,
    }
    write_parquet(folder / ITEMS, pl.DataFrame(items))
    lists = [stored.histories[user].tolist() for user in range(len(stored.histories))]
    users = {"user_id": stored.user_ids, "rows": lists}
    write_parquet(folder / HISTORIES, pl.DataFrame(users, schema=USERS))
    for name, part in stored.blend.parts.items():
        if isinstance(part, SequenceModel):
            part.save_pretrained(folder / "model")
        elif isinstance(part, NeighbourTable):
            table = part.table
            _write_arrays(
                folder / f"{name}.safetensors",
                {
                    "offsets": table.indptr.astype(np.int64),
                    "items": table.indices.astype(np.int32),
                    "weights": table.data,
                },
            )
        elif isinstance(part, ContentKnn):
            _write_arrays(folder / CONTENT, {"vectors": part.candidates})


def _write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_retriever(folder: Path) -> StoredRetriever:
    """Read what `write_retriever` wrote; without its file of histories, which a bundle may lack, no users.

    Raises:
        ArtifactError: the folder is missing, changed since it was written, or a file does not fit the others.
    """
    if not (folder / BLEND).is_file():
        raise ArtifactError(
            f"{folder.parent} has no finished retriever; run: qarm retrieve CONFIG --out {folder.parent}"
        )
    verify(folder)
    shape = read_model(folder / BLEND, BlendShape)
    try:
        items, users = read_parquet(folder / ITEMS), _histories(folder / HISTORIES)
        events = items["events"].to_numpy().astype(np.int64)
        parts = {name: _read_part(folder, name, shape.counting, events) for name in shape.weights}
        lists = users["rows"]
        offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy().astype(np.int64))])
        rows = lists.explode(empty_as_null=False).to_numpy().astype(np.int32)
        blend = Blend(parts, shape.weights, items["cold"].to_numpy().astype(bool), shape.intercept)
        if len(rows) and rows.max() >= len(items):
            raise ValueError(f"a history holds row {rows.max()} of {len(items)} items")
    except DAMAGE as error:
        raise ArtifactError(f"{folder}: not a whole retriever ({error}); run qarm retrieve again") from error
    return StoredRetriever(
        blend,
        items["item_id"].to_list(),
        events,
        items["recent"].to_numpy().astype(np.int64),
        users["user_id"].to_list(),
        Histories(rows, offsets),
        shape.counting,
    )


def _histories(path: Path) -> pl.DataFrame:
    return read_parquet(path) if path.is_file() else pl.DataFrame(schema=USERS)


def _read_part(
    folder: Path, name: str, counting: CountingSettings, events: npt.NDArray[np.int64]
) -> DenseRetriever | SparseRetriever:
    if name == "model":
        return SequenceModel.from_pretrained(folder / "model")
    if name == "popularity":
        return Popularity(events)
    if name == "content-knn":
        return ContentKnn(load_file(folder / CONTENT)["vectors"], counting.content_decay)
    arrays = load_file(folder / f"{name}.safetensors")
    size = len(events)
    table = csr_matrix((arrays["weights"], arrays["items"], arrays["offsets"]), shape=(size, size))
    return NeighbourTable(
        table, counting.sequential_decay if name == "sequential-knn" else counting.item_decay
    )
