"""The prepared copy: encoded, partitioned and ordered rows, written once a job and read every round.

A copy of somebody's rows is a matter of policy: without leave, every round reads, checks and shuffles
the table again. A copy has a bound, lies under one directory of the job and silo, and is deleted when
the job ends or its permission is withdrawn. Encryption at rest is the storage's.

Invariants
----------
1. A copy counts only if its manifest is there; the manifest is written last and names pin, encoder,
   job and the number of rows of every partition.
2. Reading gives each partition to one task, whole and in order. A partition is one file of one row
   group: Spark may pack several files into a task, and may cut a file, but a row group goes to exactly
   one of the pieces. The driver checks it all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fedhouse.config import FrozenModel
from fedhouse.encoding import canonical_json, parse_json
from fedhouse.errors import IntegrityError, SourceError
from fedhouse.spark_jobs.failures import spark_failures

if TYPE_CHECKING:
    from pyarrow import fs
    from pyspark.sql import DataFrame, SparkSession

# Spark passes over names that begin with an underscore.
_MANIFEST = "_fedhouse_prepared.json"
_SMALLEST_ROW_GROUP = 128 * 2**20
_LARGEST_ROW_GROUP = 2**31 - 1


class PreparedPolicy(FrozenModel):
    """Whether, where and how much of a silo's rows may be copied for the time of a job.

    `uri` must be reachable by every executor: a shared path, or an object store that both Spark and
    pyarrow know (`file`, `s3`, `gs`, `hdfs`, `abfs`).
    """

    allowed: bool = False
    uri: str | None = Field(default=None, description="directory for the copies; needed where allowed")
    max_rows: int = Field(default=50_000_000, ge=1)


@dataclass(frozen=True)
class PreparedCopy:
    """One part (`train` or `holdout`) of a silo's prepared rows under `uri`."""

    spark: SparkSession
    uri: str
    identity: Mapping[str, Any]
    """What the copy was made from: digests of job, pin and encoder, and the part's name."""

    def counts(self) -> dict[int, int] | None:
        """Rows of each partition if the copy is whole and made from the same things, else None."""
        system, path = _filesystem(self.uri)
        try:
            with system.open_input_stream(f"{path}/{_MANIFEST}") as file:
                manifest = parse_json(file.read(), f"{self.uri}/{_MANIFEST}")
        except (OSError, IntegrityError):
            return None
        if not isinstance(manifest, dict) or manifest.get("identity") != json.loads(
            canonical_json(dict(self.identity))
        ):
            return None
        return {int(partition): count for partition, count in manifest["counts"].items()}

    def write(self, rows: DataFrame, *, partition_bytes: int) -> dict[int, int]:
        """Materialise `rows` (columns `partition`, `row`); returns the rows of each partition.

        `partition_bytes` is about what a partition takes: its file must be one row group.
        """
        row_group = min(max(2 * partition_bytes, _SMALLEST_ROW_GROUP), _LARGEST_ROW_GROUP)
        system, path = _filesystem(self.uri)
        with spark_failures("writing prepared rows"):
            (
                rows.write.mode("overwrite")
                .option("compression", "zstd")
                .option("maxRecordsPerFile", 0)
                .option("parquet.block.size", row_group)
                .parquet(self.uri)
            )
            counts = {
                int(row["partition"]): int(row["count"])
                for row in self.spark.read.parquet(self.uri).groupBy("partition").count().collect()
            }
        manifest = {
            "identity": dict(self.identity),
            "counts": {str(key): counts[key] for key in sorted(counts)},
        }
        with system.open_output_stream(f"{path}/{_MANIFEST}") as file:
            file.write(canonical_json(manifest))
        return counts

    def read(self) -> DataFrame:
        """The rows, columns `partition` and `row`; a partition is never cut between two tasks."""
        return self.spark.read.schema("partition int, row array<float>").parquet(self.uri)


def delete(uri: str) -> None:
    """Delete a directory of prepared rows; nothing happens if it is not there.

    Raises
    ------
    SourceError
        If it cannot be deleted: somebody must look.
    """
    system, path = _filesystem(uri)
    try:
        system.delete_dir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(
            f"Prepared rows at {uri} could not be deleted ({type(error).__name__}).",
            mend="Delete them by hand: they are a copy of the silo's rows.",
        ) from None


def _filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    from pyarrow import ArrowInvalid, fs

    scheme, _, path = uri.partition(":")
    if scheme == "file":  # as Hadoop writes it: nothing is percent-encoded
        return fs.LocalFileSystem(), "/" + path.strip("/")
    if not path:
        raise SourceError(
            f"prepared.uri {uri!r} has no scheme.", mend="Write it as file:///… or as an object store's URI."
        )
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (ArrowInvalid, OSError) as error:
        raise SourceError(f"prepared.uri {uri!r} is not understood ({type(error).__name__}).") from None
    return system, path.rstrip("/")
