"""Run by test_gate in a process of its own: a gate that fails every check, with every log turned on.

Usage: gate_canary_run.py FOLDER. Rows are in FOLDER/rows.parquet; Spark's event log goes to FOLDER/events.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from fedhouse.dataset import Dataset
from fedhouse.errors import FedhouseError
from fedhouse.spark_jobs.contract import Admission
from fedhouse.spark_jobs.gate import run_gate
from fedhouse.spark_jobs.session import SparkSettings, open_session


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    events = folder / "events"
    events.mkdir()
    conf = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    spark = open_session(SparkSettings(master="local[2]", driver_memory="1g", conf=conf))
    dataset = Dataset.model_validate(json.loads((folder / "dataset.json").read_text()))
    frame = spark.read.parquet((folder / "rows.parquet").as_uri())
    report = run_gate(frame, dataset, tuple(dataset.columns))
    sys.stdout.write(f"{json.dumps(report.to_json())}\n{report!r}\n")
    try:
        Admission({}, "", report.to_json(), report.failure("canary")).require_passed()
    except FedhouseError as error:
        sys.stdout.write(f"{error!r} {error}\n")
        logging.getLogger("test").exception("the gate failed")
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
