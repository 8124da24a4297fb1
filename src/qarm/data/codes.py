"""Item codes with their item ids, and their Parquet file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.paths import as_path
from qarm.core.tables.parquet import read_parquet
from qarm.core.tables.writer import write_table
from qarm.core.text_tables import ROWS, html_table

__all__ = ["Codes"]


@dataclass(frozen=True, repr=False)
class Codes:
    """Codes with the ids of their items.

    item_ids: n distinct strings; rq: int32 [n, levels]; vq: int32 [n, nearest], pool ids, or None;
    version: number of the codebooks that made them; suffix: int32 [n], tells items with one full code
    apart, or None.
    """

    item_ids: list[str]
    rq: npt.NDArray[np.int32]
    vq: npt.NDArray[np.int32] | None = None
    version: int = 1
    suffix: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        arrays = {"rq": self.rq, "vq": self.vq, "suffix": self.suffix}
        shapes = [f"{name} {list(table.shape)}" for name, table in arrays.items() if table is not None]
        return f"Codes({len(self):,} items, {', '.join(shapes)}, version {self.version})"

    def _repr_html_(self) -> str:
        names = [name for name in ("rq", "vq", "suffix") if getattr(self, name) is not None]
        tables = [getattr(self, name)[:ROWS].tolist() for name in names]
        rows = list(zip(self.item_ids[:ROWS], *tables, strict=True))
        return html_table(repr(self), ["item_id", *names], rows)

    def frame(self) -> pl.DataFrame:
        """Columns item_id, rq, vq, version and suffix, vq and suffix where there are any."""
        columns: dict[str, object] = {"item_id": self.item_ids, "rq": _fixed(self.rq)}
        if self.vq is not None:
            columns["vq"] = _fixed(self.vq)
        versions = pl.repeat(self.version, len(self), dtype=pl.Int32, eager=True)
        frame = pl.DataFrame(columns).with_columns(versions.alias("version"))
        return frame if self.suffix is None else frame.with_columns(pl.Series("suffix", self.suffix))

    def write(self, path: Path | str) -> None:
        """File of the codes: `item_id`, `rq`, `vq`, `suffix`, `version`, in the format of its ending."""
        write_table(as_path(path), self.frame())

    @classmethod
    def read(cls, path: Path | str) -> "Codes":
        """Codes of a file that `write` made."""
        frame = read_parquet(as_path(path))
        vq = frame["vq"].to_numpy().astype(np.int32) if "vq" in frame.columns else None
        rq = frame["rq"].to_numpy().astype(np.int32)
        suffix = frame["suffix"].to_numpy().astype(np.int32) if "suffix" in frame.columns else None
        return cls(frame["item_id"].to_list(), rq, vq, int(frame["version"][0]), suffix)


def _fixed(codes: npt.NDArray[np.int32]) -> pl.Series:
    return pl.Series(codes, dtype=pl.Array(pl.Int32, codes.shape[1]))
