"""One silo's side of a job on Spark: `SiloRunner` for the federation, invariants in `contract`.

The pin is resolved once a job. The table's pin is verified after every pass over it, so a change
between the gate and the training is noticed, whichever comes first.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedhouse.bundle import Bundle
from fedhouse.connectors.connector import Connector, Pin, SourceRef
from fedhouse.dataset import Dataset
from fedhouse.encoder import Encoder
from fedhouse.errors import FedhouseError, QualityGateError
from fedhouse.jobspec import JobSpec
from fedhouse.spark_jobs.contract import Admission, LocalEvaluation, LocalStatistics, LocalUpdate
from fedhouse.spark_jobs.failures import spark_failures
from fedhouse.spark_jobs.gate import run_gate
from fedhouse.spark_jobs.partition import RESULT_SCHEMA, PartitionTask, run_partitions
from fedhouse.spark_jobs.prepare import partitioned
from fedhouse.spark_jobs.prepared import PreparedCopy, PreparedPolicy, delete
from fedhouse.spark_jobs.results import PartitionResult, assemble, sum_evaluations, sum_updates
from fedhouse.spark_jobs.rows import compact_width
from fedhouse.spark_jobs.statistics import local_statistics
from fedhouse.spark_jobs.task import ChildTask, Operation, child_task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession


@dataclass
class SparkSiloRunner:
    """Runs one silo's part of one job; `job` is the job's digest."""

    silo: str
    job: str
    spec: JobSpec
    dataset: Dataset
    bundle: Bundle
    spark: SparkSession
    connector: Connector
    source: SourceRef
    prepared: PreparedPolicy = field(default_factory=PreparedPolicy)
    pinned: Pin | None = field(default=None, init=False)
    _statistics: LocalStatistics | None = field(default=None, init=False)

    def admit(self, earlier: Admission | None = None) -> Admission:
        """See `SiloRunner.admit`."""
        if earlier is not None:
            self.pinned = Pin.from_json(earlier.pin)
            self.connector.verify(self.spark, self.source, self.pinned)
            return earlier
        pin = self.connector.resolve(self.spark, self.source)
        wanted = self.spec.columns_read(self.dataset)
        present = self.connector.columns(self.spark, self.source, pin)
        frame = self.connector.read(
            self.spark, self.source, pin, [name for name in wanted if name in present]
        )
        report = run_gate(frame, self.dataset, wanted)
        self.connector.verify(self.spark, self.source, pin)
        self.pinned = pin
        return Admission(pin.to_json(), pin.digest, report.to_json(), report.failure(self.silo))

    def statistics(self) -> LocalStatistics:
        """See `SiloRunner.statistics`."""
        if self._statistics is None:
            frame, pin = self._rows()
            found = local_statistics(frame, self.spec)
            self.connector.verify(self.spark, self.source, pin)
            if found.rows == 0:
                raise QualityGateError(
                    f"Silo {self.silo}: no rows are left for training.",
                    mend="Look at the label and the holdout.",
                )
            self._statistics = found
        return self._statistics

    def train(self, round_number: int, weights: NDArray[np.float32], encoder: Encoder) -> LocalUpdate:
        """See `SiloRunner.train`."""
        results = self._run("train", round_number, weights, encoder)
        return sum_updates(results, weights)

    def evaluate(self, round_number: int, weights: NDArray[np.float32], encoder: Encoder) -> LocalEvaluation:
        """See `SiloRunner.evaluate`."""
        results = self._run("evaluate", round_number, weights, encoder)
        return sum_evaluations(results, self.spec.report)

    def close(self) -> None:
        """See `SiloRunner.close`."""
        if self.prepared.allowed and self.prepared.uri is not None:
            delete(self._prepared_root())

    def _rows(self) -> tuple[DataFrame, Pin]:
        if self.pinned is None:
            raise FedhouseError(f"Silo {self.silo} was asked for rows before it was admitted.")
        columns = self.spec.columns_read(self.dataset)
        return self.connector.read(self.spark, self.source, self.pinned, columns), self.pinned

    def _run(
        self, operation: Operation, round_number: int, weights: NDArray[np.float32], encoder: Encoder
    ) -> list[PartitionResult]:
        """Run user code on every partition of the training or held-out rows; checked results."""
        evaluation = operation == "evaluate"
        expected: Mapping[int, int] | int
        copy = self._prepared_copy(encoder, evaluation=evaluation)
        if copy is not None:
            expected = self._materialise(copy, encoder, evaluation=evaluation)
            rows = copy.read()
        else:
            rows = partitioned(self._rows()[0], self.spec, self.dataset, encoder, evaluation=evaluation)
            told = self.statistics()
            expected = told.held_out if evaluation else told.rows
        task = PartitionTask(
            self.job, round_number, self.silo, encoder, self._child(operation, weights, encoder)
        )
        with spark_failures(f"running {operation} for silo {self.silo}"):
            collected = rows.mapInArrow(functools.partial(run_partitions, task), RESULT_SCHEMA).collect()
        results = assemble((row.asDict() for row in collected), digest=self.bundle.digest, expected=expected)
        if copy is None and self.pinned is not None:
            self.connector.verify(self.spark, self.source, self.pinned)
        return results

    def _child(self, operation: Operation, weights: NDArray[np.float32], encoder: Encoder) -> ChildTask:
        return child_task(self.spec, self.bundle, operation, weights.astype("<f4").tobytes(), encoder.width)

    def _prepared_root(self) -> str:
        return f"{(self.prepared.uri or '').rstrip('/')}/{self.job[:16]}/{self.silo}"

    def _prepared_copy(self, encoder: Encoder, *, evaluation: bool) -> PreparedCopy | None:
        """Where the copy is or would be; None where policy or its bound says that there is none."""
        if not self.prepared.allowed or self.prepared.uri is None or self.pinned is None:
            return None
        told = self.statistics()
        if told.rows + told.held_out > self.prepared.max_rows:
            return None
        part = "holdout" if evaluation else "train"
        identity = {
            "job": self.job,
            "silo": self.silo,
            "part": part,
            "pin": self.pinned.digest,
            "encoder": encoder.digest,
            "partitions": self.spec.partitions,
        }
        return PreparedCopy(self.spark, f"{self._prepared_root()}/{part}", identity)

    def _materialise(self, copy: PreparedCopy, encoder: Encoder, *, evaluation: bool) -> Mapping[int, int]:
        """The rows of each partition of the copy, which is made if it is not there yet."""
        counts = copy.counts()
        if counts is None:
            frame, pin = self._rows()
            rows = partitioned(frame, self.spec, self.dataset, encoder, evaluation=evaluation)
            told = self.statistics()
            count = told.held_out if evaluation else told.rows
            size = 4 * compact_width(encoder) * count // self.spec.partitions
            counts = copy.write(rows, partition_bytes=size)
            self.connector.verify(self.spark, self.source, pin)
        return counts
