"""The same rows give the same numbers, whoever computes them: Spark, Arrow, plain PyTorch, scoring."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import fedhouse
from fedhouse.federation.evaluation import auc_from_histograms
from fedhouse.federation.statistics import StatisticsPlan
from fedhouse.local_rows import split, table_statistics
from fedhouse.scoring import encode_table
from fedhouse.spark_jobs.prepare import partitioned
from fedhouse.spark_jobs.rows import expand
from fedhouse.spark_jobs.statistics import local_statistics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

Rows = Callable[..., pa.Table]


def _awkward(rows: Rows) -> pa.Table:
    """The shared rows with NaN, infinities of meaning, odd words and rows without a label."""
    table = rows(1, 400)
    amount = table.column("amount").to_pylist()
    amount[:4] = [float("nan"), -0.0, 1e-300, 999.99999999]
    late = table.column("late").to_pylist()
    late[7] = None
    colour = table.column("colour").to_pylist()
    colour[:3] = ["RED", "red ", ""]
    columns = {"amount": pa.array(amount, pa.float64()), "late": pa.array(late, pa.int64()), "colour": colour}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def test_spark_and_arrow_count_the_same_statistics(
    spark: SparkSession, workplace: Any, rows: Rows, write: Callable[..., Any]
) -> None:
    job = workplace.job()
    table = _awkward(rows)
    frame = spark.read.parquet(str(write(workplace.folder / "t", table)))
    training, held = split(table, job.spec, job.dataset)
    assert local_statistics(frame, job.spec) == table_statistics(training, held.num_rows, job.spec)
    assert training.num_rows + held.num_rows == 399


def test_federated_statistics_equal_those_of_the_pooled_rows(workplace: Any, rows: Rows) -> None:
    job = workplace.job()
    plan = StatisticsPlan(job.spec)
    tables = [rows(seed, 100 * seed) for seed in (1, 2, 3)]
    sums = np.zeros(plan.length, np.int64)
    for table in tables:
        training, held = split(table, job.spec, job.dataset)
        sums += plan.encode(table_statistics(training, held.num_rows, job.spec))
    told = plan.decode(sums)
    pooled, _ = split(pa.concat_tables(tables), job.spec, job.dataset)
    amount = pooled.column("amount").drop_null().to_numpy()
    age = pooled.column("age").to_numpy()
    encoder = told.encoder(job.spec)
    assert told.rows == pooled.num_rows
    assert float(told.numbers["amount"].null_fraction) == pooled.column("amount").null_count / pooled.num_rows
    # Statistics count in units of 2^-16; ages are whole, so theirs are exact.
    assert encoder.encodings[0].mean == pytest.approx(amount.mean(), abs=2**-16)  # type: ignore[union-attr]
    assert encoder.encodings[0].scale == pytest.approx(amount.std(), abs=2**-15)  # type: ignore[union-attr]
    assert encoder.encodings[1].mean == pytest.approx(age.mean(), rel=1e-15)  # type: ignore[union-attr]
    assert encoder.encodings[1].scale == pytest.approx(age.std(), rel=1e-14)  # type: ignore[union-attr]
    words = pooled.column("colour").to_pylist()
    assert told.categories["colour"] == (
        words.count("red"),
        words.count("green"),
        sum(word not in ("red", "green") for word in words),
    )


@pytest.mark.parametrize("files", [1, 5])
@pytest.mark.parametrize("batch", [7, 10_000])
def test_spark_and_arrow_encode_the_same_bits_in_the_same_order(
    spark: SparkSession, workplace: Any, rows: Rows, write: Callable[..., Any], files: int, batch: int
) -> None:
    job = workplace.job(partitions=1)
    table = _awkward(rows)
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(table.num_rows)))
    frame = spark.read.parquet(str(write(workplace.folder / "t", shuffled, files)))
    training, held = split(table, job.spec, job.dataset)
    plan = StatisticsPlan(job.spec)
    counted = plan.encode(table_statistics(training, held.num_rows, job.spec)).astype(np.int64)
    encoder = plan.decode(counted).encoder(job.spec)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch))
    try:
        for evaluation, part in ((False, training), (True, held)):
            told = partitioned(frame, job.spec, job.dataset, encoder, evaluation=evaluation).collect()
            compact = np.array([row["row"] for row in told], np.float32)
            wide = expand(compact, encoder)
            assert wide[:, :-1].tobytes() == encode_table(encoder, part).tobytes()
            assert wide[:, -1].tolist() == part.column("late").to_pylist()
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


def test_plain_pytorch_gives_the_weights_of_a_rehearsal_bit_for_bit(workplace: Any) -> None:
    job = workplace.job()
    rehearsal = job.rehearse(data=workplace.tables["alpha"])
    # The user's own file, run by itself: no fedhouse from here on but the rows' order.
    code = runpy.run_path(str(workplace.folder / "small.py"))
    rows = torch.from_numpy(rehearsal.rows)
    features, labels = rows[:, :-1].contiguous(), rows[:, -1].contiguous()

    class Loader:
        passes = 0

        def __iter__(self) -> Any:
            generator = torch.Generator().manual_seed(rehearsal.seed + self.passes)
            order = torch.randperm(len(rows), generator=generator)
            self.passes += 1
            for chosen in order.split(job.spec.batch_size):
                yield features[chosen], labels[chosen]

    model = code["Net"](job.spec.width)
    shared = [value for value in model.state_dict().values() if value.is_floating_point()]
    at = 0
    for value in shared:
        value.copy_(torch.from_numpy(rehearsal.base[at : at + value.numel()].copy()).reshape(value.shape))
        at += value.numel()
    torch.manual_seed(rehearsal.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        code["train"](model, Loader(), **job.spec.train_args)
    finally:
        torch.set_num_threads(threads)
    state = [value for value in model.state_dict().values() if value.is_floating_point()]
    weights = torch.cat([value.reshape(-1) for value in state])
    assert weights.numpy().tobytes() == rehearsal.weights.tobytes()
    assert rehearsal.update_norm > 0


def test_scores_of_the_exported_model_are_those_of_its_evaluation(
    spark: SparkSession, workplace: Any, rows: Rows
) -> None:
    run = fedhouse.simulate(workplace.job(), workplace.tables, out=workplace.folder / "run", spark=spark)
    held = [
        split(fedhouse_table, run_spec, dataset)[1] for fedhouse_table, run_spec, dataset in _parts(workplace)
    ]
    table = pa.concat_tables(held)
    model = fedhouse.ScoringModel.load(run.folder / "model")
    scores = model.score(table)
    counts = np.zeros((2, 1024), np.int64)
    labels = table.column("late").to_numpy()
    for row, positive in ((0, labels == 1), (1, labels == 0)):
        bins = np.minimum((scores[positive].astype(np.float64) * 1024).astype(int), 1023)
        counts[row] = np.bincount(bins, minlength=1024)
    assert auc_from_histograms(counts[0], counts[1]) == run.history.rounds[-1].metrics["auc"]
    # Every kind of frame gives the same scores, whatever else is in it and in whatever order.
    frame = table.to_pandas()
    pandas_scores = fedhouse.score(frame, model=run.folder / "model")
    np.testing.assert_array_equal(pandas_scores.to_numpy(), scores)
    assert pandas_scores.index.equals(frame.index)
    spark_scores = fedhouse.score(
        spark.createDataFrame(frame[["id", "colour", "age", "amount"]]), model=model
    )
    by_id = {row["id"]: row["score"] for row in spark_scores.collect()}
    expected = np.array([by_id[identity] for identity in table.column("id").to_pylist()], np.float32)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert isinstance(run.model, torch.nn.Module)
    assert not run.model.training


def _parts(workplace: Any) -> Any:
    from fedhouse.local_rows import as_table

    job = workplace.job()
    return [(as_table(path), job.spec, job.dataset) for path in workplace.tables.values()]


def test_a_run_gives_the_same_bits_twice_prepared_or_not(spark: SparkSession, workplace: Any) -> None:
    job = workplace.job()
    digests = {
        fedhouse.simulate(
            job,
            workplace.tables,
            out=workplace.folder / f"run-{prepare}-{number}",
            spark=spark,
            prepare=prepare,
        ).model_digest
        for prepare, number in ((True, 1), (True, 2), (False, 1))
    }
    assert len(digests) == 1
    assert not list(workplace.folder.glob("run-*/prepared/*/*"))


def test_frames_and_paths_give_the_same_model(spark: SparkSession, workplace: Any, rows: Rows) -> None:
    job = workplace.job(rounds=1)
    by_path = fedhouse.simulate(job, workplace.tables, out=workplace.folder / "a", spark=spark)
    frames = {
        "alpha": rows(1),
        "beta": rows(2),
        "gamma": rows(3),
    }
    by_frame = fedhouse.simulate(job, frames, out=workplace.folder / "b", spark=spark)
    assert by_frame.model_digest == by_path.model_digest
