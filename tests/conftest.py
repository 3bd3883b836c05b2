"""What all tests share: one Spark session, no litter in the tree, no silent skips in CI."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")

# What Spark and Derby leave in the working directory if nobody tells them otherwise.
LITTER = ("artifacts", "derby.log", "metastore_db", "spark-warehouse")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session that all Spark tests of one run share: two threads, two shuffle partitions."""
    from fedhouse.spark_jobs.session import SparkSettings, open_session

    folder = tmp_path_factory.mktemp("spark")
    conf = {
        "spark.eventLog.enabled": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.ui.enabled": "false",
    }
    session = open_session(SparkSettings(master="local[2]", driver_memory="1g", conf=conf), app_name="tests")
    yield session
    session.stop()


@pytest.fixture(scope="session", autouse=True)
def _no_litter(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves Spark's folders in the source tree."""
    root = request.config.rootpath
    before = {name for name in LITTER if (root / name).exists()}
    yield
    left = {name for name in LITTER if (root / name).exists()} - before
    assert not left, f"a test left {sorted(left)} in the source tree; give it a temporary folder"


def _unlisted(reason: str) -> bool:
    """Whether CI must refuse a skip for this reason."""
    if not os.environ.get("CI"):
        return False
    lines = (line.strip() for line in ALLOWED_SKIPS.read_text().splitlines())
    patterns = [line for line in lines if line and not line.startswith("#")]
    return not any(fnmatch.fnmatchcase(reason, pattern) for pattern in patterns)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip whose reason is not listed into a failure. An expected failure counts as a skip."""
    if not report.skipped:
        return
    reason = getattr(report, "wasxfail", None)
    if reason is None:
        told = report.longrepr
        reason = told[2] if isinstance(told, tuple) else str(told)
    reason = reason.removeprefix("Skipped: ").removeprefix("reason: ")
    if _unlisted(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, and tests/allowed_skips.txt does not list the reason: {reason}"
        vars(report).pop("wasxfail", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def cluster_environment(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, str]:
    """Variables for a driver whose executors run in a second environment: the built wheel, no checkout.

    So a forgotten module or an import of something that only the checkout has is noticed.
    """
    import importlib.util

    folder = tmp_path_factory.mktemp("cluster")
    root = request.config.rootpath
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [
            *uv,
            "build",
            "-q",
            "--wheel",
            "--no-build-isolation",
            "--out-dir",
            str(folder / "wheel"),
            str(root),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "wheel").glob("*.whl")
    python = folder / "environment" / "bin" / "python"
    subprocess.run([*uv, "venv", "-q", "-p", sys.executable, str(python.parents[1])], check=True)
    # From uv's cache, which making the main environment has filled: seconds, and nothing to download.
    worker = [f"fedhouse[worker] @ {wheel.as_uri()}", "-c", str(root / "requirements" / "lock.txt")]
    subprocess.run([*uv, "pip", "install", "-q", "-p", str(python), *worker], check=True)
    spark = importlib.util.find_spec("pyspark")
    assert spark is not None
    assert spark.origin is not None
    kept = ("PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_HOME": str(Path(spark.origin).parent),
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
