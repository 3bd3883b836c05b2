"""A task that is killed in the middle of an epoch and run again gives the same bytes.

In `local[2,4]` the Python worker is killed, on a cluster of processes (`local-cluster`) the executor.
The cluster's executors use an environment of their own that holds the built wheel and no checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("partition_program.py")
CLUSTER = "local-cluster[2,1,1024]"

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def _train(
    master: str, folder: Path, victim: str, environment: dict[str, str], *, prepared: bool
) -> dict[str, Any]:
    note = folder / f"{victim}-was-here"
    note.unlink(missing_ok=True)
    copy = str(folder / f"{victim}-rows") if prepared else "-"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), master, str(note), victim, copy],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert note.exists() == (victim != "nobody")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _clean_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run gives."""
    folder = tmp_path_factory.mktemp("calm")
    told = _train("local[2,4]", folder, "nobody", _clean_environment(), prepared=False)
    assert told["attempts"] == [0, 0, 0]
    assert told["moved"]
    return told


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("bytes", "examples", "update", "cpu"))


def test_a_killed_worker_changes_no_bit(tmp_path: Path, calm: dict[str, Any]) -> None:
    killed = _train("local[2,4]", tmp_path, "worker", _clean_environment(), prepared=False)
    assert max(killed["attempts"]) >= 1
    assert _same(killed, calm)


def test_a_killed_executor_changes_no_bit(
    tmp_path: Path, calm: dict[str, Any], cluster_environment: dict[str, str]
) -> None:
    killed = _train(CLUSTER, tmp_path, "executor", cluster_environment, prepared=True)
    assert max(killed["attempts"]) >= 1
    assert killed["checkout"] is None
    assert _same(killed, calm)


def test_an_executor_that_takes_its_shuffle_files_along_changes_no_bit(
    tmp_path: Path, calm: dict[str, Any], cluster_environment: dict[str, str]
) -> None:
    # Spark runs the whole stage again then, and counts its tasks' attempts from 0.
    killed = _train(CLUSTER, tmp_path, "executor", cluster_environment, prepared=False)
    assert _same(killed, calm)
