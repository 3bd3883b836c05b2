"""The contract of a connector: resolve a pin once a job, read exactly what it names, verify it again.

Invariants
----------
1. `resolve` reads no more than it needs to name the table's present state; it returns no rows.
2. `read` gives rows of the pinned state or fails; it never gives rows of a later state silently.
   Where an engine cannot promise that (files on a disk), `verify` after reading detects a change.
3. Only the asked columns are read, and the source's predicate is applied by the reader.
4. No message, representation or Spark configuration shows a secret.

The suite that every connector must pass is `fedhouse.connectors.contract`.

Example::

    connector = open_connector(profiles["warehouse"])
    pin = connector.resolve(spark, source)
    frame = connector.read(spark, source, pin, columns=("distance", "late"))
    ...
    connector.verify(spark, source, pin)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import model_validator

from fedhouse.config import FrozenModel
from fedhouse.dataset import Name
from fedhouse.encoding import digest_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class Condition(FrozenModel):
    """One comparison of a source's predicate: structured, so that it can be pushed down and never
    becomes SQL text."""

    column: Name
    op: Literal["=", "!=", "<", "<=", ">", ">=", "in"]
    value: int | float | str | tuple[int | float | str, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.op == "in") != isinstance(self.value, tuple):
            raise ValueError("'in' takes a list, the other comparisons take one value")
        return self


class SourceRef(FrozenModel):
    """Where a silo's rows of a dataset are: a profile's name and a table or query behind it.

    It holds no secret: those are in the profile. `pin` says how a change is noticed: by what the
    engine knows of the table (`metadata`), or by hashing what is read (`content`).
    """

    profile: Name
    table: str | None = None
    query: str | None = None
    predicate: tuple[Condition, ...] = ()
    pin: Literal["metadata", "content"] = "metadata"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table or query")
        return self


@dataclass(frozen=True, slots=True)
class Pin:
    """Which state of a table was read. `details` is a JSON value that lets the connector find that
    state again; its digest identifies the state."""

    connector: str
    details: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Digest of the pinned state."""
        return digest_of("fedhouse-pin/1", {"connector": self.connector, "details": dict(self.details)})

    def to_json(self) -> dict[str, Any]:
        """The pin as a JSON value."""
        return {"connector": self.connector, "details": dict(self.details)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Pin:
        """The pin from what `to_json` gave."""
        return cls(value["connector"], value["details"])


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether an engine can do a thing, and why not where it cannot."""

    supported: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a connector's engine can do. The contract suite skips nothing silently: it asks here."""

    query: Capability
    snapshot_read: Capability
    """Rows of the pinned state can be read after the table has changed."""
    column_push_down: Capability
    predicate_push_down: Capability


class Connector(Protocol):
    """One kind of warehouse, opened with one profile."""

    kind: str
    capabilities: Capabilities

    def spark_conf(self) -> Mapping[str, str]:
        """Static Spark configuration that the session must start with; never a secret."""
        ...

    def columns(self, spark: SparkSession, source: SourceRef, pin: Pin) -> Mapping[str, str]:
        """Name and Spark type (`simpleString`) of every column of the pinned state."""
        ...

    def resolve(self, spark: SparkSession, source: SourceRef) -> Pin:
        """Name the table's present state.

        Raises
        ------
        SourceError
            If the table cannot be reached, or is not what this connector reads.
        """
        ...

    def read(self, spark: SparkSession, source: SourceRef, pin: Pin, columns: Sequence[str]) -> DataFrame:
        """The given columns of the rows that the source's predicate keeps, lazily, as pinned.

        Raises
        ------
        SourceError
            If the table cannot be read or lacks a column.
        """
        ...

    def verify(self, spark: SparkSession, source: SourceRef, pin: Pin) -> None:
        """Check that what `read` gave was the pinned state. Called after reading.

        Raises
        ------
        SourceChangedError
            If the table changed after `resolve`.
        """
        ...
