"""Killed and resumed; kept apart from each other's warehouses; run on a cluster that has the wheel alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PROGRAM = """
import json, sys
from pathlib import Path

opened = []
TABLES = json.loads(sys.argv[2])


def watch(event, arguments):
    # Connectors list and read tables through these; user code runs in other processes.
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, Path)):
        path = str(arguments[0])
        if "/warehouses/" in path:
            opened.append((threading.current_thread().name, current.get(threading.get_ident()), path))


import threading

current = {}
sys.addaudithook(watch)
import fedhouse
from fedhouse.spark_jobs import runner
from fedhouse.spark_jobs.session import SparkSettings, open_session

read_by = []


def told(name):
    real = getattr(runner.SparkSiloRunner, name)

    def call(self, *arguments):
        # One of these calls another: what is inside belongs to the same silo.
        outer = current.get(threading.get_ident())
        current[threading.get_ident()] = self.silo
        try:
            return real(self, *arguments)
        finally:
            current[threading.get_ident()] = outer

    setattr(runner.SparkSiloRunner, name, call)


for name in ("admit", "statistics", "train", "evaluate"):
    told(name)

real_rows = runner.SparkSiloRunner._rows


def rows(self):
    frame, pin = real_rows(self)
    read_by.append((self.silo, frame.inputFiles()))
    return frame, pin


runner.SparkSiloRunner._rows = rows
folder, master = Path(sys.argv[1]), sys.argv[3]
job = fedhouse.load_job(folder / "job.yaml", {"rounds": 3})
spark = open_session(SparkSettings(master=master, conf={"spark.sql.shuffle.partitions": "2"}))
run = fedhouse.simulate(job, TABLES, out=sys.argv[4], spark=spark, resume=sys.argv[5] == "resume")
print(json.dumps({"digest": run.model_digest, "opened": opened, "read_by": read_by,
                  "metrics": run.history.rounds[-1].metrics}))
spark.stop()
"""


def _start(
    workplace: Any, out: Path, master: str, mode: str, environment: dict[str, str]
) -> subprocess.Popen[str]:
    program = workplace.folder / "program.py"
    program.write_text(PROGRAM)
    tables = json.dumps({silo: str(path) for silo, path in workplace.tables.items()})
    return subprocess.Popen(
        [sys.executable, str(program), str(workplace.folder), tables, master, str(out), mode],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-3000:]
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def test_a_killed_run_resumes_with_the_same_bits_and_no_silo_reads_anothers_files(workplace: Any) -> None:
    calm = _finish(_start(workplace, workplace.folder / "calm", "local[2]", "new", _environment()))
    _read_only_its_own(calm, workplace)
    out = workplace.folder / "killed"
    process = _start(workplace, out, "local[2]", "new", _environment())
    # In the middle of round 2: a first silo has stored its update, the round is not closed.
    while not list(out.glob("silos/*/contributions/update-0002.json")):
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stored = {path: path.read_bytes() for path in out.glob("silos/*/contributions/update-*.sealed")}
    resumed = _finish(_start(workplace, out, "local[2]", "resume", _environment()))
    assert resumed["digest"] == calm["digest"]
    assert resumed["metrics"] == calm["metrics"]
    kept = [path for path in stored if path.with_suffix(".json").exists()]
    assert all(path.read_bytes() == stored[path] for path in kept)
    assert not list((out / "prepared").glob("*/*"))


def _read_only_its_own(told: dict[str, Any], workplace: Any) -> None:
    """By Spark's own list of input files, and by every file that Python opened for a silo."""
    assert {silo for silo, _ in told["read_by"]} == set(workplace.tables)
    for silo, files in told["read_by"]:
        assert files
        assert all(f"/warehouses/{silo}/" in name for name in files)
    by_silo = [(silo, path) for _, silo, path in told["opened"] if silo is not None]
    assert {silo for silo, _ in by_silo} == set(workplace.tables)
    assert all(f"/warehouses/{silo}" in path for silo, path in by_silo)


def test_the_main_path_runs_on_a_cluster_whose_executors_have_the_wheel_alone(
    workplace: Any, cluster_environment: dict[str, str]
) -> None:
    local = _finish(_start(workplace, workplace.folder / "local", "local[2]", "new", _environment()))
    cluster = _finish(
        _start(workplace, workplace.folder / "cluster", "local-cluster[2,1,1024]", "new", cluster_environment)
    )
    assert cluster["digest"] == local["digest"]
    assert cluster["metrics"] == local["metrics"]
