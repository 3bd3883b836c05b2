"""Opening a Spark session, and refusing one in which training would not be reproducible or private.

Invariants
----------
1. The session that a silo trains in has no speculation (a speculated task would train twice) and does
   not ignore missing or corrupt files (rows would vanish silently).
2. With Spark's I/O encryption on, training is refused: the spooled partition would lie unencrypted
   beside encrypted shuffle files.
3. Workers come from `fedhouse.spark_jobs.daemon`, which has torch loaded. Without it they work as
   well, seconds slower.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fedhouse.config import FrozenModel
from fedhouse.errors import EnvironmentUnfitError, PolicyRefusedError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAEMON_MODULE = "fedhouse.spark_jobs.daemon"
SUPPORTED_JAVA = (17, 21)

_LOG4J = Path(__file__).resolve().with_name("log4j2.properties")

# Keys whose values Spark's own pages and event logs must not show.
_REDACTION = r"(?i)secret|password|passwd|token|credential|access[.]?key|api[.]?key|private[.]?key|sas"


class SparkSettings(FrozenModel):
    """What a silo says about its Spark: where it runs, the driver's heap, further configuration.

    `conf` must not hold secrets: Spark configuration is shown on web pages and in event logs.
    """

    master: str | None = Field(
        default=None, description="left out where the platform or spark-submit sets it"
    )
    driver_memory: str = Field(default="1g", pattern=r"^[1-9][0-9]*[mgMG]$")
    conf: dict[str, str] = Field(default_factory=dict)


def java_version() -> int | None:
    """Major version of the Java that Spark would start, or None if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(found.group(1)) if found else None


def open_session(
    settings: SparkSettings, *, app_name: str = "fedhouse", static_conf: Mapping[str, str] | None = None
) -> SparkSession:
    """The active session, checked; or a new one by `settings` and the connectors' static configuration.

    Raises
    ------
    EnvironmentUnfitError
        If pyspark or a fitting Java is missing.
    PolicyRefusedError
        If the session breaks one of the invariants above.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise EnvironmentUnfitError(
            "pyspark is not installed in this environment.",
            mend="Install fedhouse[local-spark], or start through the platform's spark-submit.",
        ) from error
    _silence_quotes()
    active = SparkSession.getActiveSession()
    if active is not None:
        check_session(active)
        return active
    if java_version() not in SUPPORTED_JAVA:
        raise EnvironmentUnfitError(
            f"Spark needs Java 17 or 21, and found {java_version() or 'none'}.",
            mend="Run 'fedhouse doctor' for the command that installs it.",
        )
    # Workers must run this interpreter, also when the environment was never activated.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    for key, value in _configuration(settings, static_conf or {}).items():
        builder = builder.config(key, value)
    session: SparkSession = builder.getOrCreate()
    check_session(session)
    return session


def _silence_quotes() -> None:
    """Stop pyspark's own logger, which repeats the message of every Spark error, values and all."""
    with contextlib.suppress(ImportError):  # older versions have no such logger
        from pyspark.logger import PySparkLogger

        PySparkLogger.getLogger("SQLQueryContextLogger").disabled = True


def _configuration(settings: SparkSettings, static_conf: Mapping[str, str]) -> dict[str, str]:
    local = settings.master is not None and settings.master.startswith("local")
    conf = {
        "spark.python.daemon.module": DAEMON_MODULE,
        "spark.redaction.regex": _REDACTION,
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
        "spark.speculation": "false",
    }
    if local:
        conf |= {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "4",
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}",
            # Spark would make these folders in the working directory.
            "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "fedhouse-spark-warehouse"),
        }
    if settings.master is not None:
        conf["spark.master"] = settings.master
        conf["spark.driver.memory"] = settings.driver_memory
    return conf | dict(static_conf) | settings.conf


def check_session(spark: SparkSession) -> None:
    """Check the invariants of this module on a session that may come from elsewhere.

    Raises
    ------
    PolicyRefusedError
        Naming the setting and how to change it.
    """
    refused = {
        "spark.speculation": "a speculated task would train a partition twice",
        "spark.sql.files.ignoreMissingFiles": "missing rows would go unnoticed",
        "spark.sql.files.ignoreCorruptFiles": "missing rows would go unnoticed",
        "spark.io.encryption.enabled": "the training spool would not be encrypted",
    }
    for key, reason in refused.items():
        if str(spark.conf.get(key, "false")).lower() == "true":
            raise PolicyRefusedError(
                f"The Spark session has {key}=true, and {reason}.", mend=f"Set {key}=false for this job."
            )
