"""Training and evaluation on partitions: the function that Spark's `mapInArrow` runs in a worker.

Invariants
----------
1. One model a partition. A partition's rows arrive whole and in key order, tagged with its number.
2. What is returned depends on job, round, silo and partition, never on the attempt: a retried task
   gives the same bytes. The attempt is returned beside them, as a fact.
3. Results leave in rows of at most 4 MiB. The driver checks that every chunk is there: Spark's own
   `collect` has been seen to return nothing, without an error, when the driver's heap ran out.
4. The number of examples and the digest of the code are attested here, beside the training, where a
   retried task cannot count twice.
5. A failure of user code is a result, not an exception: Spark would run it again, and print it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedhouse.encoder import Encoder
from fedhouse.encoding import canonical_json, derive_seed
from fedhouse.errors import FedhouseError, IntegrityError
from fedhouse.spark_jobs.task import ChildTask

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

CHUNK_BYTES = 4 * 2**20

RESULT_SCHEMA = (
    "partition int, attempt int, status string, examples bigint, header string, "
    "chunk int, chunks int, payload binary"
)


@dataclass(frozen=True)
class PartitionTask:
    """What every partition of one silo and round is told; pickled into Spark's closure.

    `child.seed` is replaced for each partition by a seed from `job`, `round_number`, `silo` and the
    partition's number.
    """

    job: str
    round_number: int
    silo: str
    encoder: Encoder
    child: ChildTask

    def for_partition(self, partition: int) -> ChildTask:
        """The child's task on one partition."""
        seed = derive_seed(self.child.operation, self.job, self.round_number, self.silo, partition)
        return replace(self.child, seed=seed)


def run_partitions(task: PartitionTask, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Spool each partition in `batches`, run user code on it, and give its result in chunks.

    `batches` have columns `partition` (int) and `row` (list of float32, compact). As a rule a task
    holds one partition; where it holds several, one behind the other, they are run in turn.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    attempt = context.attemptNumber() if context is not None else 0
    for partition, matrices in _by_partition(batches, task.encoder):
        yield from _chunks(partition, attempt, *_run_one(task, partition, matrices))


def _by_partition(
    batches: Iterable[pa.RecordBatch], encoder: Encoder
) -> Iterator[tuple[int, Iterator[NDArray[np.float32]]]]:
    """The partitions of a stream of batches, each as a stream of matrices. Consume each before the next."""
    pieces = (piece for batch in batches for piece in _pieces(batch, encoder))
    for partition, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        yield partition, (matrix for _, matrix in group)


def _pieces(batch: pa.RecordBatch, encoder: Encoder) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """One batch, cut where the partition changes: compact rows, float32 [n, C]."""
    import numpy as np

    from fedhouse.spark_jobs.rows import compact_width

    width = compact_width(encoder)
    rows = batch.column("row")
    values = rows.flatten()
    if rows.null_count or values.null_count or len(values) != len(rows) * width:
        raise IntegrityError("Prepared rows are not of the encoder's width.", mend="Run the job anew.")
    matrix = values.to_numpy(zero_copy_only=True).reshape(len(rows), width)
    partitions = batch.column("partition").to_numpy(zero_copy_only=False)
    cuts = [0, *(np.flatnonzero(np.diff(partitions)) + 1), len(partitions)]
    for start, stop in itertools.pairwise(cuts):
        if stop > start:
            yield int(partitions[start]), matrix[start:stop]


def _run_one(
    task: PartitionTask, partition: int, matrices: Iterable[NDArray[np.float32]]
) -> tuple[str, int, dict[str, Any], bytes]:
    """Status, examples, header and payload of one partition."""
    from fedhouse.spark_jobs.child import run_forked
    from fedhouse.spark_jobs.rows import expand
    from fedhouse.spark_jobs.spool import Spool

    with Spool(task.encoder.width + 1) as spool:
        for matrix in matrices:
            spool.append(expand(matrix, task.encoder))
        try:
            answer = run_forked(task.for_partition(partition), spool.read_only(), spool.rows)
        except FedhouseError as error:
            report = {"error": type(error).__name__, "what": error.what, "mend": error.mend}
            return "error", spool.rows, report, b""
        header = {
            "digest": task.child.bundle_digest,
            "cpu_class": str(answer.header.get("cpu_class", ""))[:32],
            "metrics": _told_metrics(task.child, answer.header.get("metrics")),
            "milliseconds": int(answer.header["seconds"] * 1000),
        }
        return "ok", spool.rows, header, answer.payload


def _told_metrics(task: ChildTask, told: object) -> dict[str, str]:
    """The reported metrics, as hexadecimal doubles: nothing else that the child may have put there."""
    if task.operation != "evaluate" or not isinstance(told, dict):
        return {}
    return {name: float.fromhex(str(told[name])).hex() for name in task.report if name in told}


def _chunks(
    partition: int, attempt: int, status: str, examples: int, header: dict[str, Any], payload: bytes
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    count = max(1, -(-len(payload) // CHUNK_BYTES))
    text = canonical_json(header).decode()
    for number in range(count):
        part = payload[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        yield pa.RecordBatch.from_pydict(
            {
                "partition": pa.array([partition], pa.int32()),
                "attempt": pa.array([attempt], pa.int32()),
                "status": pa.array([status], pa.string()),
                "examples": pa.array([examples], pa.int64()),
                "header": pa.array([text if number == 0 else ""], pa.string()),
                "chunk": pa.array([number], pa.int32()),
                "chunks": pa.array([count], pa.int32()),
                "payload": pa.array([part], pa.binary()),
            }
        )
