"""A driver program for the tests: trains one partitioned table, and prints what came back as JSON.

Run as a process of its own, because each test needs another `spark.master`, and a session cannot change
its own. The user's code kills a process of the executor in the middle of an epoch, on its first attempt.

    python partition_program.py MASTER NOTE VICTIM PREPARED

With PREPARED a folder, the rows are read from a prepared copy in it; with `-` they are shuffled anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from fedhouse.dataset import Dataset
from fedhouse.encoder import Encoder, NumberEncoding
from fedhouse.jobs import job
from fedhouse.snapshot import snapshot_vector
from fedhouse.spark_jobs.partition import RESULT_SCHEMA, PartitionTask, run_partitions
from fedhouse.spark_jobs.prepare import partitioned
from fedhouse.spark_jobs.prepared import PreparedCopy
from fedhouse.spark_jobs.results import assemble, sum_updates
from fedhouse.spark_jobs.session import SparkSettings, open_session
from fedhouse.spark_jobs.task import child_task

CODE = """
import os, signal, torch

NOTE, VICTIM = {note!r}, {victim!r}


class Net(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.line = torch.nn.Linear(features, 1)

    def forward(self, x):
        return self.line(x).squeeze(-1)


def parent_of(pid):
    return int(open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[1])


def victim():
    worker = os.getppid()
    if VICTIM == "worker":
        return worker
    # executor (a JVM) -> daemon -> worker -> this process
    return parent_of(parent_of(worker))


def train(model, loader, *, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        for number, (features, label) in enumerate(loader):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(features), label).backward()
            optimizer.step()
            if VICTIM != "nobody" and (epoch, number) == (1, 2):
                try:
                    os.close(os.open(NOTE, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(victim(), signal.SIGKILL)
                signal.pause()


def evaluate(model, loader):
    return {{"loss": 0.0}}
"""


def main(master: str, note: str, victim: str, prepared: str) -> None:
    """Train, and print attempts, examples and a digest of every partition's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "job_code.py").write_text(CODE.format(note=note, victim=victim))
        dataset = Dataset.model_validate(
            {
                "name": "rows",
                "key": ["id"],
                "columns": {"id": {"type": "integer"}, "y": {"type": "integer"}, "x": {"type": "number"}},
            }
        )
        made = job(
            data=dataset,
            directory=folder,
            name="retry",
            columns=["x"],
            label="y",
            model="job_code:Net",
            train="job_code:train",
            evaluate="job_code:evaluate",
            train_args={"epochs": 3},
            batch_size=64,
            partitions=3,
        )
    # Killing leaves traces in the code, so the seeds hang on a fixed name and not on the job's digest.
    spark = open_session(SparkSettings(master=master, conf={"spark.task.maxFailures": "4"}))
    rows = spark.sql("select id, cast(id % 3 = 0 as int) as y, sin(id) as x from range(1500)")
    encoder = Encoder((NumberEncoding("x", 0.0, 1.0),), "y")
    base = snapshot_vector(made.bundle.layout, made.bundle.weights)
    task = PartitionTask(
        "the job",
        1,
        "AA",
        encoder,
        child_task(made.spec, made.bundle, "train", base.astype("<f4").tobytes(), 1),
    )
    frame = partitioned(rows, made.spec, dataset, encoder, evaluation=False)
    if prepared != "-":
        copy = PreparedCopy(spark, Path(prepared).as_uri(), {})
        copy.write(frame, partition_bytes=10_000)
        frame = copy.read()
    collected = [
        row.asDict()
        for row in frame.mapInArrow(functools.partial(run_partitions, task), RESULT_SCHEMA).collect()
    ]
    results = assemble(collected, digest=made.bundle.digest, expected=1500)
    json.dump(
        {
            "attempts": [result.attempt for result in results],
            "examples": [result.examples for result in results],
            "bytes": [hashlib.sha256(result.payload).hexdigest() for result in results],
            "update": sum_updates(results, base).delta.tobytes().hex(),
            "moved": bool(np.any(sum_updates(results, base).delta)),
            "cpu": sorted({str(result.header["cpu_class"]) for result in results}),
            "checkout": os.environ.get("PYTHONPATH"),
        },
        sys.stdout,
    )
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
