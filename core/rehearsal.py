"""Rehearsing a job: its own code, on this machine, in seconds, before anybody else runs it.

A rehearsal trains once on all rows as one partition, in the same child process and by the same code
as a silo's worker, and evaluates on the held-out rows. It shows what the code prints and the text of
its exceptions: the rows are mock rows or the caller's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedhouse.encoding import derive_seed
from fedhouse.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedhouse.encoder import Encoder
    from fedhouse.jobs import Job


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal gave. `rows` are the training rows as the loader saw them, float32 [N, F + 1],
    the label last; with `seed`, `base` and `weights` (float32 [P]) plain PyTorch can retrace it."""

    encoder: Encoder
    examples: int
    held_out: int
    metrics: dict[str, float]
    update_norm: float
    seconds: float
    seed: int
    rows: NDArray[np.float32] = field(repr=False)
    base: NDArray[np.float32] = field(repr=False)
    weights: NDArray[np.float32] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON value, without rows and weights."""
        return {
            "examples": self.examples,
            "held_out": self.held_out,
            "features": self.encoder.width,
            "parameters": len(self.base),
            "metrics": self.metrics,
            "update_norm": self.update_norm,
            "seconds": self.seconds,
        }


def rehearse(job: Job, *, rows: int = 2000, data: Any = None, show_output: bool = True) -> Rehearsal:
    """Train and evaluate once on mock rows of the dataset's schema, or on `data`.

    `data` is a pyarrow table, a pandas frame or the path of a Parquet file or folder.

    Raises
    ------
    JobError
        If no rows are left for training.
    UserCodeError, UpdateRejectedError, TimeLimitError
        If the job's code fails; with its message.
    """
    import numpy as np

    from fedhouse.connectors.mock import mock_rows
    from fedhouse.federation.statistics import StatisticsPlan
    from fedhouse.local_rows import as_table, split, table_statistics
    from fedhouse.scoring import encode_table
    from fedhouse.snapshot import snapshot_vector
    from fedhouse.spark_jobs.results import PartitionResult, sum_evaluations, sum_updates

    table = mock_rows(job.dataset, rows, job.spec.seed) if data is None else as_table(data)
    training, held = split(table, job.spec, job.dataset)
    if training.num_rows == 0:
        raise JobError("No rows are left for training.", mend="Look at the label and the holdout.")
    plan = StatisticsPlan(job.spec)
    counted = plan.encode(table_statistics(training, held.num_rows, job.spec)).astype(np.int64)
    encoder = plan.decode(counted).encoder(job.spec)
    matrices = [
        np.column_stack([encode_table(encoder, part), _labels(part, job.spec.label)]).astype(np.float32)
        for part in (training, held)
    ]
    base = snapshot_vector(job.bundle.layout, job.bundle.weights)
    seed = derive_seed("train", job.digest, 1, "rehearsal", 0)

    def run(operation: Any, weights: NDArray[np.float32], matrix: NDArray[np.float32]) -> PartitionResult:
        answer = _run(job, operation, weights, matrix, seed, show_output)
        header = {**answer.header, "milliseconds": int(answer.header["seconds"] * 1000)}
        return PartitionResult(0, 0, len(matrix), header, answer.payload)

    trained = run("train", base, matrices[0])
    update = sum_updates([trained], base)
    weights = np.frombuffer(trained.payload, dtype="<f4")
    metrics: dict[str, float] = {}
    if held.num_rows:
        metrics = _metrics(job, sum_evaluations([run("evaluate", weights, matrices[1])], job.spec.report))
    return Rehearsal(
        encoder=encoder,
        examples=training.num_rows,
        held_out=held.num_rows,
        metrics=metrics,
        update_norm=float(np.linalg.norm(update.delta)),
        seconds=update.seconds,
        seed=seed,
        rows=matrices[0],
        base=base,
        weights=weights,
    )


def _labels(table: Any, label: str) -> Any:
    import pyarrow as pa

    return table.column(label).cast(pa.float64()).to_numpy().astype("<f4")


def _metrics(job: Job, told: Any) -> dict[str, float]:
    from fedhouse.federation.evaluation import auc_from_histograms

    auc = auc_from_histograms(told.positives, told.negatives)
    return dict(told.metrics) | ({} if auc is None else {"auc": auc})


def _run(
    job: Job, operation: Any, weights: NDArray[np.float32], matrix: NDArray[np.float32], seed: int, show: bool
) -> Any:
    from fedhouse.spark_jobs.child import run_spawned
    from fedhouse.spark_jobs.spool import Spool
    from fedhouse.spark_jobs.task import child_task

    with Spool(matrix.shape[1]) as spool:
        spool.append(matrix)
        task = child_task(
            job.spec,
            job.bundle,
            operation,
            weights.astype("<f4").tobytes(),
            matrix.shape[1] - 1,
            seed=seed,
            show_output=show,
        )
        return run_spawned(task, spool.read_only(), spool.rows)
