"""Rows that are on this machine already: the same splitting, ordering and counting as on Spark, by Arrow.

For rehearsals, and the oracle that Spark's figures are tested against.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.dataset import Dataset
from fedhouse.errors import JobError, SourceError
from fedhouse.jobspec import Holdout, JobSpec
from fedhouse.spark_jobs.contract import STATISTICS_FRACTION_BITS, LocalStatistics, NumberStatistics

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def as_table(rows: Any) -> pa.Table:
    """A pyarrow table from a table, a pandas frame, or the path of a Parquet file or directory.

    Raises
    ------
    SourceError
        If a path cannot be read as Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, (str, Path)):
        try:
            return pq.read_table(rows)
        except (OSError, pa.ArrowInvalid) as error:
            raise SourceError(
                f"{rows} cannot be read as Parquet ({type(error).__name__}).",
                mend="Give a Parquet file or folder.",
            ) from None
    return pa.Table.from_pandas(rows, preserve_index=False)


def split(table: pa.Table, spec: JobSpec, dataset: Dataset) -> tuple[pa.Table, pa.Table]:
    """Training and held-out rows that have a label, each in the order of the dataset's key.

    Raises
    ------
    JobError
        If a column that the job reads is missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = spec.columns_read(dataset)
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise JobError(f"The rows have no column '{missing[0]}'.", mend=f"Job {spec.name} reads it.")
    table = _plain(table.select(list(wanted)))
    label = table.column(spec.label).cast(pa.float64())
    table = table.filter(pc.and_(pc.is_valid(label), pc.invert(pc.fill_null(pc.is_nan(label), True))))
    # Nulls first, as Spark sorts them; Arrow's own option for it is in the middle of a change of names.
    ranked: dict[str, pa.ChunkedArray] = {}
    for name in dataset.key:
        column = table.column(name)
        ranked |= {f"{name} known": pc.is_valid(column).cast(pa.int8()), name: column}
    order = pc.sort_indices(pa.table(ranked), sort_keys=[(name, "ascending") for name in ranked])
    table = table.take(order)
    mask = held_out_mask(table, spec.holdout)
    return table.filter(pa.array(~mask)), table.filter(pa.array(mask))


def _plain(table: pa.Table) -> pa.Table:
    """The table with dictionaries decoded: folders such as `month=1`, and categoricals, come as those."""
    import pyarrow as pa

    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def held_out_mask(table: pa.Table, holdout: Holdout | None) -> NDArray[np.bool_]:
    """Which rows are kept for evaluation, bool [N]."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if holdout is None:
        return np.zeros(table.num_rows, dtype=bool)
    column = table.column(holdout.column)
    if holdout.modulo is None:
        words = pa.array([str(value) for value in holdout.values or ()], pa.string())
        return np.asarray(pc.is_in(column.cast(pa.string()), value_set=words).to_numpy(), dtype=bool)
    known = np.asarray(pc.is_valid(column).to_numpy(), dtype=bool)
    value = np.asarray(pc.fill_null(column, 0).to_numpy(), dtype=np.int64)
    chosen: NDArray[np.bool_] = known & (value % holdout.modulo == holdout.remainder)
    return chosen


def table_statistics(training: pa.Table, held_out: int, spec: JobSpec) -> LocalStatistics:
    """The sums that `spark_jobs.statistics` computes, from training rows as `split` gives them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers, categories = {}, {}
    for column in spec.columns:
        values = training.column(column.name)
        if column.vocabulary is None:
            floats = np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)
            floats = floats[~np.isnan(floats)]
            units = [int(unit) for unit in np.floor(floats * 2.0**STATISTICS_FRACTION_BITS + 0.5)]
            numbers[column.name] = NumberStatistics(
                len(units), sum(units), sum(unit * unit for unit in units)
            )
        else:
            places = pc.index_in(values.cast(pa.string()), value_set=pa.array(list(column.vocabulary)))
            filled = pc.fill_null(places, len(column.vocabulary)).to_numpy()
            categories[column.name] = tuple(
                int(count) for count in np.bincount(filled, minlength=column.width)
            )
    return LocalStatistics(training.num_rows, held_out, numbers, categories)
