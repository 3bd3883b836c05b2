"""Parquet tables on any URI that Spark reads: disks, HDFS, object stores.

A table is a file or folder under the profile's `root`. Its pin is the list of its files with sizes and
modification times and, on disks that the driver sees, a digest of each file's footer; elsewhere, and
with ``pin: content``, a digest of each whole file, computed where Spark reads. Size, time and footer
notice a rewritten file, though not one in which two values changed places within the clock's
resolution; `content` notices that too, for one more pass over the bytes.

Files on a disk cannot be read as of yesterday: after a change `read` may give new rows, and `verify`
raises. Whole-file digests go through Spark's `binaryFile` source, which takes files up to 2 GB.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.connectors.connector import Capabilities, Capability, Condition, Pin, SourceRef
from fedhouse.connectors.profiles import Profile, Secret
from fedhouse.errors import PolicyRefusedError, SourceChangedError, SourceError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_TABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_MAGIC = b"PAR1"
_MAX_FOOTER = 256 * 2**20
_HIDDEN = re.compile(r"(^|/)[._]")


class ParquetConnector:
    """Opened with a profile of type `parquet`: option `root`, a path or URI."""

    kind = "parquet"
    capabilities = Capabilities(
        query=Capability(False, "Parquet files have no query engine of their own; give a table."),
        snapshot_read=Capability(False, "Files on a disk keep no history; a change is noticed, not undone."),
        column_push_down=Capability(True),
        predicate_push_down=Capability(True),
    )

    def __init__(self, profile: Profile) -> None:
        profile.known("root")
        root = profile.text("root").rstrip("/")
        self.profile = profile
        # Spark takes URIs as Hadoop writes them: nothing is percent-encoded.
        self.root = root if _SCHEME.match(root) else f"file://{Path(root).absolute()}"
        # The root may come from a secret, and then no message shows it.
        self._shown = "the profile's root" if isinstance(profile.options["root"], Secret) else root

    def __repr__(self) -> str:
        return f"ParquetConnector({self.profile.name!r})"

    def spark_conf(self) -> Mapping[str, str]:
        """None: Spark reads Parquet by itself."""
        return {}

    def columns(self, spark: SparkSession, source: SourceRef, pin: Pin) -> Mapping[str, str]:
        """See `Connector.columns`; a table without files has none."""
        files = self._paths(source, pin)
        if not files:
            return {}
        with _failures(source, "its columns are read"):
            schema = self._open(spark, source, files).schema
        return {field.name: field.dataType.simpleString() for field in schema.fields}

    def resolve(self, spark: SparkSession, source: SourceRef) -> Pin:
        """See `Connector.resolve`."""
        table = self._table(source)
        listed = self._list(spark, source, table)
        details = {"mode": source.pin, "table": source.table, "files": listed}
        return Pin(self.kind, details)

    def read(self, spark: SparkSession, source: SourceRef, pin: Pin, columns: Sequence[str]) -> DataFrame:
        """See `Connector.read`. A table without files gives no rows, with every column as text."""
        from pyspark.sql import functions as F

        for key in ("spark.sql.files.ignoreMissingFiles", "spark.sql.files.ignoreCorruptFiles"):
            if str(spark.conf.get(key, "false")).lower() == "true":
                raise PolicyRefusedError(
                    f"The Spark session has {key}=true: rows would vanish unnoticed.", mend="Set it to false."
                )
        files = self._paths(source, pin)
        if not files:
            empty = ", ".join(f"`{name}` string" for name in columns)
            return spark.createDataFrame([], schema=empty)
        with _failures(source, "it is opened"):
            frame = self._open(spark, source, files)
            missing = [name for name in columns if name not in frame.columns]
            if missing:
                raise SourceError(
                    f"Table {source.table} has no column '{missing[0]}'.",
                    mend=f"It has {', '.join(frame.columns)}.",
                )
            for condition in source.predicate:
                if condition.column not in frame.columns:
                    raise SourceError(
                        f"Table {source.table} has no column '{condition.column}' to filter by."
                    )
            if source.predicate:
                frame = frame.filter(reduce(lambda a, b: a & b, map(_condition, source.predicate)))
            return frame.select(*(F.col(f"`{name}`") for name in columns))

    def verify(self, spark: SparkSession, source: SourceRef, pin: Pin) -> None:
        """See `Connector.verify`; names how many files changed and the first of them."""
        before = {item[0]: item for item in pin.details["files"]}
        after = {item[0]: item for item in self._list(spark, source, self._table(source))}
        changed = {
            "removed": sorted(before.keys() - after.keys()),
            "added": sorted(after.keys() - before.keys()),
            "rewritten": sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
        }
        told = ", ".join(f"{len(names)} {what}" for what, names in changed.items() if names)
        if told:
            first = next(names[0] for names in changed.values() if names)
            raise SourceChangedError(
                f"Table {source.table} changed after it was pinned: files {told}, first {first}.",
                mend="Run again when nothing writes to it; a running job needs the table as it was.",
            )

    def _table(self, source: SourceRef) -> str:
        """The table's URI. What a job or silo file names must lie under the profile's root."""
        if source.table is None:
            raise SourceError(f"Profile {self.profile.name}: {self.capabilities.query.reason}")
        if not _TABLE.fullmatch(source.table):
            raise SourceError(
                f"{source.table!r} cannot name a Parquet table.",
                mend="Give a path below the profile's root, of letters, digits and . _ - = /.",
            )
        return f"{self.root}/{source.table}"

    def _paths(self, source: SourceRef, pin: Pin) -> list[str]:
        table = self._table(source)
        return [f"{table}/{name}" if name else table for name, *_ in pin.details["files"]]

    def _open(self, spark: SparkSession, source: SourceRef, files: list[str]) -> DataFrame:
        reader = spark.read.option("mergeSchema", "false").option("ignoreMissingFiles", "false")
        table = self._table(source)
        if files != [table]:  # the folder above partition folders such as month=1
            reader = reader.option("basePath", table)
        return reader.option("ignoreCorruptFiles", "false").parquet(*(_escaped(name) for name in files))

    def _list(self, spark: SparkSession, source: SourceRef, table: str) -> list[list[Any]]:
        """Every file of the table: [relative name, size, modification time in ms, digest], by name."""
        from pyspark.sql import functions as F

        local = _local_path(table)
        if local is not None and source.pin == "metadata":
            return _list_local(local, source, self._shown)
        with _failures(source, "its files are listed"):
            files = (
                spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(_escaped(table))
            )
            told = files.select(
                "path",
                "length",
                F.unix_millis("modificationTime").alias("time"),
                F.sha2("content", 256).alias("digest"),
            ).collect()
        listed = []
        for row in told:
            name = row["path"].partition(table.partition(":")[2].lstrip("/"))[2].lstrip("/")
            if not _HIDDEN.search(name):
                listed.append([name, row["length"], row["time"], row["digest"]])
        return sorted(listed)


def _condition(condition: Condition) -> Column:
    """A comparison as a typed expression: the value is a literal, never SQL text."""
    from pyspark.sql import functions as F

    column = F.col(f"`{condition.column}`")
    value = condition.value
    if isinstance(value, tuple):
        return column.isin(*value)
    comparisons: dict[str, Column] = {
        "=": column == value,
        "!=": column != value,
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
    }
    return comparisons[condition.op]


def _local_path(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":")
    return Path("/" + path.lstrip("/")) if scheme == "file" else None


def _list_local(table: Path, source: SourceRef, root: str) -> list[list[Any]]:
    """As `ParquetConnector._list`, by the file system, with a digest of each footer."""
    try:
        if table.is_file():
            return [_describe(table, "")]
        if not table.is_dir():
            raise SourceError(
                f"Table {source.table} is not there: nothing of that name is to be seen under {root}.",
                mend="Check the profile's root, the table's name and their permissions.",
            )
        names = [path for path in table.rglob("*") if path.is_file()]
        found = [(path, path.relative_to(table).as_posix()) for path in names]
        return sorted(_describe(path, name) for path, name in found if not _HIDDEN.search(name))
    except OSError as error:
        raise SourceError(
            f"Table {source.table} cannot be listed: {error.strerror}.", mend="Check its permissions."
        ) from None


def _describe(path: Path, name: str) -> list[Any]:
    """One file: name, size, time in ms, and the digest of its footer (the format's last 8 bytes give
    the footer's length and the magic number)."""
    with path.open("rb") as file:
        status = path.stat()
        file.seek(max(0, status.st_size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or not 0 < length <= min(_MAX_FOOTER, status.st_size - 12):
            raise SourceError(
                f"File {name or path.name} of the table is not whole Parquet.", mend="Write it again."
            )
        file.seek(status.st_size - 8 - length)
        footer = file.read(length)
    return [name, status.st_size, status.st_mtime_ns // 10**6, hashlib.sha256(footer).hexdigest()]


def _escaped(uri: str) -> str:
    """A file's URI with Hadoop's glob characters made literal."""
    return re.sub(r"([\\*?{}\[\]])", r"\\\1", uri)


class _failures:
    """Turn Spark's exceptions into `SourceError`, by their error class alone."""

    def __init__(self, source: SourceRef, when: str) -> None:
        self.source, self.when = source, when

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or not type(error).__module__.startswith(("pyspark", "py4j", "grpc")):
            return
        condition = getattr(error, "getCondition", None)
        told = condition() if callable(condition) else None
        raise SourceError(
            f"Table {self.source.table} cannot be read while {self.when}: {told or type(error).__name__}.",
            mend="Check the profile's root, the table's name, and that its files are whole Parquet.",
        ) from None
