"""`fedhouse connector …`: is a warehouse reachable, and what must Spark be started with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedhouse.connectors.connector import Connector, SourceRef


def _open(profiles: Path, name: str) -> Connector:
    from fedhouse.connectors.profiles import load_profiles
    from fedhouse.connectors.registry import open_connector

    return open_connector(load_profiles(profiles)[name])


def spark_conf(*, profiles: Path, name: str) -> None:
    """Print the static configuration as spark-submit arguments, one a line."""
    from fedhouse.spark_jobs.session import DAEMON_MODULE

    conf = {"spark.python.daemon.module": DAEMON_MODULE} | dict(_open(profiles, name).spark_conf())
    for key, value in conf.items():
        sys.stdout.write(f"--conf {key}={value}\n")


def test(*, profiles: Path, name: str, table: str, json_output: bool) -> None:
    """Reach, pin, read the columns and count the rows of a table, saying each step.

    Raises
    ------
    SourceError, ProfileError
        At the step that fails.
    """
    from fedhouse.spark_jobs.failures import spark_failures
    from fedhouse.spark_jobs.session import SparkSettings, open_session

    connector = _open(profiles, name)
    source = SourceRef(profile=name, table=table)
    spark = open_session(SparkSettings(master="local[2]"), static_conf=connector.spark_conf())
    told: dict[str, Any] = {"profile": name, "kind": connector.kind, "table": table}
    pin = connector.resolve(spark, source)
    told["pin"] = pin.digest
    told["columns"] = dict(connector.columns(spark, source, pin))
    with spark_failures(f"counting the rows of {table}"):
        told["rows"] = connector.read(spark, source, pin, list(told["columns"])).count()
    connector.verify(spark, source, pin)
    if json_output:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    sys.stdout.write(f"{name} ({connector.kind}) is reachable; {table} is pinned as {pin.digest[:16]}…\n")
    sys.stdout.write(f"{told['rows']:,} rows\n")
    for column, kind in told["columns"].items():
        sys.stdout.write(f"  {column}: {kind}\n")
