"""Data frames of other libraries as polars frames: pandas, Arrow tables, `datasets.Dataset`."""

import sys
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.errors import InputError, shown

__all__ = ["ArrowStream", "Frame", "ToPolars", "as_frame"]

# polars panics on some tables, and a PanicException is no Exception; a pandas series asks for pyarrow
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, ImportError, TypeError, ValueError)


@runtime_checkable
class ArrowStream(Protocol):
    """Table with the Arrow PyCapsule interface: polars, pyarrow, DuckDB, narwhals, pandas and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Capsule of an `ArrowArrayStream`."""
        ...


@runtime_checkable
class ToPolars(Protocol):
    """Table with a method for polars, such as `datasets.Dataset`."""

    def to_polars(self) -> Any:
        """The table as a polars frame."""
        ...


Frame = pl.DataFrame | pl.LazyFrame | ArrowStream | ToPolars


def as_frame(table: Frame) -> pl.DataFrame:
    """Polars frame of a table in memory; what is missing in pandas (NaN, NaT, NA, None) is null.

    A pandas column whose values are of several types becomes a column of `pl.Object`, which whoever reads it
    refuses; columns that nobody reads do no harm. pandas is converted here, because polars and narwhals need
    pyarrow for it.

    Raises:
        InputError: no table of a known kind, or two columns of one name.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        return _of_pandas(table)
    reason = "it has no Arrow stream"
    try:
        frame = table.to_polars() if isinstance(table, ToPolars) else table
        if isinstance(frame, pl.DataFrame | pl.LazyFrame):
            return frame.lazy().collect()
        if isinstance(table, ArrowStream):
            return pl.DataFrame(table)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"a {type(table).__module__}.{type(table).__name__} is no table ({reason}); give a path, a frame of "
        "polars or pandas, an Arrow table, or one split of a datasets.DatasetDict"
    )


def _of_pandas(table: Any) -> pl.DataFrame:
    names = [str(name) for name in table.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the frame has several columns {shown(repeated)}; give each a name of its own")
    columns = [_column(table.iloc[:, place], name) for place, name in enumerate(names)]
    return pl.DataFrame(columns)


def _column(series: Any, name: str) -> pl.Series:
    """A pandas column as a polars one."""
    kind = series.dtype
    if type(kind).__name__ == "ArrowDtype":
        return pl.Series(name, series.array.__arrow_array__())
    if isinstance(kind, np.dtype) and kind.kind in "iufb" and kind != np.float16:
        return pl.Series(name, series.to_numpy(), nan_to_null=True)
    if getattr(kind, "kind", None) == "M":
        zone = getattr(kind, "tz", None)
        moments = series if zone is None else series.dt.tz_convert("UTC").dt.tz_localize(None)
        times = moments.to_numpy()
        if np.datetime_data(times.dtype)[0] == "s":
            times = times.astype("datetime64[ms]")
        plain = pl.Series(name, times)
        return plain if zone is None else plain.dt.replace_time_zone("UTC")
    return _of_objects(_objects(series), name)


def _objects(series: Any) -> npt.NDArray[np.object_]:
    """Values of a pandas column as Python objects, None where one is missing."""
    if hasattr(series, "cat"):  # the values of the categories: numbers would become floats beside a NaN
        categories = np.append(series.cat.categories.to_numpy(dtype=object), [None])
        chosen: npt.NDArray[np.object_] = categories[series.cat.codes.to_numpy()]
        return chosen
    values: npt.NDArray[np.object_] = series.to_numpy(dtype=object, copy=True)
    values[series.isna().to_numpy()] = None
    return values


def _of_objects(objects: npt.NDArray[np.object_], name: str) -> pl.Series:
    values = [v.tolist() if isinstance(v, np.ndarray | np.generic) else v for v in objects]
    if len({type(value) for value in values if value is not None}) > 1:
        return pl.Series(name, values, dtype=pl.Object)
    try:
        return pl.Series(name, values, strict=True)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
        return pl.Series(name, values, dtype=pl.Object)
