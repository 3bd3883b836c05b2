"""A silo's sums for standardisation and category counts, exact, in two passes over its training rows.

A number x counts as the integer floor(x·2^16 + 1/2), so that sums and squares are integers and do not
depend on the order in which Spark adds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedhouse.errors import SourceError
from fedhouse.jobspec import FeatureColumn, JobSpec
from fedhouse.spark_jobs.contract import STATISTICS_FRACTION_BITS, LocalStatistics, NumberStatistics
from fedhouse.spark_jobs.failures import spark_failures
from fedhouse.spark_jobs.prepare import held_out, labelled, number, place

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Larger magnitudes would not leave room for the squares of 10^9 rows in Spark's 38 decimal digits.
_LARGEST = float(2**31)


def local_statistics(frame: DataFrame, spec: JobSpec) -> LocalStatistics:
    """Sums over the training rows of `frame`, which holds the job's columns as read.

    Raises
    ------
    SourceError
        If a number is larger than 2^31 in magnitude.
    SparkFailureError
        If Spark fails.
    """
    from pyspark.sql import functions as F

    rows = labelled(frame, spec).withColumn("held out", held_out(spec.holdout))
    training = ~F.col("`held out`")
    numbers = [column for column in spec.columns if column.vocabulary is None]
    sums = [F.count_if(training).alias("rows"), F.count_if(F.col("`held out`")).alias("held_out")]
    for index, column in enumerate(numbers):
        sums += _sums(index, F.when(training, number(column.name)))
    with spark_failures("computing statistics"):
        told = rows.agg(*sums).collect()[0].asDict()
    for index, column in enumerate(numbers):
        if told[f"large{index}"]:
            raise SourceError(
                f"Column {column.name} has {told[f'large{index}']} values beyond ±2^31.",
                mend="Bound it in the dataset, or give it in another unit.",
            )
    return LocalStatistics(
        rows=int(told["rows"]),
        held_out=int(told["held_out"]),
        numbers={
            column.name: NumberStatistics(
                int(told[f"count{index}"]), int(told[f"total{index}"] or 0), int(told[f"squares{index}"] or 0)
            )
            for index, column in enumerate(numbers)
        },
        categories=_category_counts(
            rows.filter(training), [c for c in spec.columns if c.vocabulary is not None]
        ),
    )


def _sums(index: int, value: Column) -> list[Column]:
    from pyspark.sql import functions as F

    small = F.when(F.abs(value) <= _LARGEST, value)
    unit = F.floor(small * F.lit(float(2**STATISTICS_FRACTION_BITS)) + F.lit(0.5)).cast("decimal(18,0)")
    return [
        F.count(value).alias(f"count{index}"),
        F.count_if(F.abs(value) > _LARGEST).alias(f"large{index}"),
        F.sum(unit).alias(f"total{index}"),
        F.sum((unit * unit).cast("decimal(38,0)")).alias(f"squares{index}"),
    ]


def _category_counts(training: DataFrame, columns: list[FeatureColumn]) -> dict[str, tuple[int, ...]]:
    from pyspark.sql import functions as F

    if not columns:
        return {}
    pairs = [
        F.struct(F.lit(index).alias("column"), place(column.name, column.vocabulary or ()).alias("place"))
        for index, column in enumerate(columns)
    ]
    with spark_failures("counting categories"):
        told = (
            training.select(F.explode(F.array(*pairs)).alias("pair"))
            .groupBy("pair.column", "pair.place")
            .count()
            .collect()
        )
    counts = {column.name: [0] * column.width for column in columns}
    for row in told:
        counts[columns[row["column"]].name][row["place"]] = int(row["count"])
    return {name: tuple(values) for name, values in counts.items()}
