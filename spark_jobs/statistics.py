"""A silo's sums for standardisation and category counts, exact, in one pass over its rows.

A number x counts as the integer floor(x·2^16 + 1/2), so that sums and squares are integers and do not
depend on the order in which they are added. Spark's own exact type, a decimal of 38 digits, takes
minutes where these sums take seconds; so each task adds up in NumPy and gives one row of sums.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fedhouse.errors import SourceError
from fedhouse.jobspec import JobSpec
from fedhouse.spark_jobs.contract import STATISTICS_FRACTION_BITS, LocalStatistics, NumberStatistics
from fedhouse.spark_jobs.failures import spark_failures
from fedhouse.spark_jobs.prepare import held_out, labelled, number, place

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

# Larger magnitudes would not leave room for the squares of 10^9 rows in the limbs that carry them.
_LARGEST = float(2**31)
# An integer below 2^47 in magnitude is cut here, so that products of its parts stay below 2^48.
_CUT = 24
# So many rows at a time: their products add up within 63 bits.
_ROWS = 2**14


def local_statistics(frame: DataFrame, spec: JobSpec) -> LocalStatistics:
    """Sums over the training rows of `frame`, which holds the job's columns as read.

    Raises
    ------
    SourceError
        If a number is larger than 2^31 in magnitude.
    SparkFailureError
        If Spark fails.
    """
    numbers = [column for column in spec.columns if column.vocabulary is None]
    categories = [column for column in spec.columns if column.vocabulary is not None]
    rows = labelled(frame, spec).select(
        held_out(spec.holdout).alias("held_out"),
        *(number(column.name).alias(f"number{index}") for index, column in enumerate(numbers)),
        *(place(c.name, c.vocabulary or ()).alias(f"place{index}") for index, c in enumerate(categories)),
    )
    sums = functools.partial(_sum_batches, len(numbers), [column.width for column in categories])
    with spark_failures("computing statistics"):
        told = [json.loads(row["sums"]) for row in rows.mapInArrow(sums, "sums string").collect()]
    for index, column in enumerate(numbers):
        large = sum(part["numbers"][index][3] for part in told)
        if large:
            raise SourceError(
                f"Column {column.name} has {large} values beyond ±2^31.",
                mend="Bound it in the dataset, or give it in another unit.",
            )
    return LocalStatistics(
        rows=sum(part["rows"] for part in told),
        held_out=sum(part["held_out"] for part in told),
        numbers={
            column.name: NumberStatistics(
                *(sum(part["numbers"][index][k] for part in told) for k in range(3))
            )
            for index, column in enumerate(numbers)
        },
        categories={
            column.name: tuple(
                sum(part["categories"][index][word] for part in told) for word in range(column.width)
            )
            for index, column in enumerate(categories)
        },
    )


def _sum_batches(
    numbers: int, widths: list[int], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """One row of sums, as JSON (whose integers have no bound), from the rows of a task."""
    import numpy as np
    import pyarrow as pa

    told: dict[str, Any] = {
        "rows": 0,
        "held_out": 0,
        "numbers": [[0, 0, 0, 0] for _ in range(numbers)],
        "categories": [[0] * width for width in widths],
    }
    for whole in batches:
        for start in range(0, whole.num_rows, _ROWS):
            batch = whole.slice(start, _ROWS)
            held = batch.column("held_out").to_numpy(zero_copy_only=False).astype(bool)
            told["held_out"] += int(held.sum())
            told["rows"] += int((~held).sum())
            for index, sums in enumerate(told["numbers"]):
                values = batch.column(f"number{index}").to_numpy(zero_copy_only=False).astype(np.float64)
                _add_numbers(sums, values[~held])
            for index, counts in enumerate(told["categories"]):
                places = batch.column(f"place{index}").to_numpy(zero_copy_only=False)[~held]
                for word, count in enumerate(np.bincount(places, minlength=len(counts))):
                    counts[word] += int(count)
    yield pa.RecordBatch.from_pydict({"sums": pa.array([json.dumps(told)], pa.string())})


def _add_numbers(sums: list[int], values: NDArray[np.float64]) -> None:
    """Add count, total, sum of squares and number of too large values; NaN stands for null."""
    import numpy as np

    values = values[~np.isnan(values)]
    small = values[np.abs(values) <= _LARGEST]
    units = np.floor(small * 2.0**STATISTICS_FRACTION_BITS + 0.5).astype(np.int64)
    high, low = units >> _CUT, units & (2**_CUT - 1)
    sums[0] += len(values)
    sums[1] += int(units.sum())
    sums[2] += (
        (int((high * high).sum()) << 2 * _CUT)
        + (int((high * low).sum()) << _CUT + 1)
        + int((low * low).sum())
    )
    sums[3] += len(values) - len(small)
