"""From a pinned table to rows that a model can be trained on, as Spark expressions.

The order of rows is total and stable: partitions by the hash of the dataset's key, rows within a
partition by the key, ties by a hash over all columns that are read. So a partition's rows are the same
wherever the files were cut, and in whatever format they lie.

Every cast is `try_cast`: an ANSI cast that fails puts the value into its message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedhouse.dataset import ColumnType, Dataset
from fedhouse.encoder import CategoryEncoding, Encoder
from fedhouse.jobspec import Holdout, JobSpec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


# The types that a tie between equal keys is broken by, whatever width or format a table has them in.
_CANONICAL: Mapping[ColumnType, str] = {
    "integer": "bigint",
    "number": "double",
    "string": "string",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}


def quoted(name: str) -> str:
    """A column's name inside a Spark SQL expression. Names hold no backtick (see `dataset.Name`)."""
    return f"`{name}`"


def number(name: str) -> Column:
    """A column as a double; null where it is null, NaN or no number."""
    from pyspark.sql import functions as F

    value = F.expr(f"try_cast({quoted(name)} as double)")
    return F.when(~F.isnan(value), value)


def held_out(holdout: Holdout | None) -> Column:
    """Whether a row is kept for evaluation. A null is not."""
    from pyspark.sql import functions as F

    if holdout is None:
        return F.lit(False)
    if holdout.modulo is not None:
        value = F.expr(f"try_cast({quoted(holdout.column)} as bigint)")
        return F.coalesce(F.pmod(value, F.lit(holdout.modulo)) == F.lit(holdout.remainder), F.lit(False))
    text = F.expr(f"try_cast({quoted(holdout.column)} as string)")
    return F.coalesce(text.isin([str(value) for value in holdout.values or ()]), F.lit(False))


def labelled(frame: DataFrame, spec: JobSpec) -> DataFrame:
    """The rows that have a label."""
    return frame.filter(number(spec.label).isNotNull())


def place(name: str, vocabulary: tuple[str, ...]) -> Column:
    """Where a category stands in its vocabulary; one past its end for everything else, nulls included."""
    from pyspark.sql import functions as F

    words = F.array(*(F.lit(word) for word in vocabulary))
    text = F.expr(f"try_cast({quoted(name)} as string)")
    found = F.coalesce(F.array_position(words, text), F.lit(0))
    return F.when(found == 0, F.lit(len(vocabulary))).otherwise(found.cast("int") - 1)


def compact_row(encoder: Encoder) -> Column:
    """A row as an array of floats: see `fedhouse.spark_jobs.rows`."""
    from pyspark.sql import functions as F

    values: list[Column] = []
    for item in encoder.encodings:
        if isinstance(item, CategoryEncoding):
            values.append(place(item.column, item.vocabulary).cast("float"))
            continue
        value = number(item.column)
        scaled = (value - F.lit(item.mean)) / F.lit(item.scale)
        values.append(F.coalesce(scaled, F.lit(0.0)).cast("float"))
        if item.flag_missing:
            values.append(value.isNull().cast("float"))
    return F.array(*values, number(encoder.label).cast("float"))


def partitioned(
    frame: DataFrame, spec: JobSpec, dataset: Dataset, encoder: Encoder, *, evaluation: bool
) -> DataFrame:
    """Training or held-out rows as columns `partition` (int) and `row` (array of float), in order.

    `frame` holds the job's columns as read. Spark keeps the number of partitions that is asked for
    here; without the number, adaptive execution may merge them.
    """
    from pyspark.sql import functions as F

    kept = held_out(spec.holdout) if evaluation else ~held_out(spec.holdout)
    canonical = (
        F.expr(f"try_cast({quoted(name)} as {_CANONICAL[dataset.columns[name].type]})")
        for name in spec.columns_read(dataset)
    )
    tie = F.xxhash64(*canonical)
    keys = [F.col(quoted(name)) for name in dataset.key]
    return (
        labelled(frame, spec)
        .filter(kept)
        .select(
            *(key.alias(f"key{index}") for index, key in enumerate(keys)),
            tie.alias("tie"),
            compact_row(encoder).alias("row"),
        )
        .repartition(spec.partitions, *(F.col(f"key{index}") for index in range(len(keys))))
        .sortWithinPartitions(*(F.col(f"key{index}") for index in range(len(keys))), F.col("tie"))
        .select(F.spark_partition_id().alias("partition"), F.col("row"))
    )
