"""The suite that every connector passes, ours and plug-ins alike. Shipped, so that a plug-in can run it.

Subclass `ConnectorContract` in a test module, give the four fixtures, and run pytest::

    class TestParquet(ConnectorContract):
        @pytest.fixture
        def warehouse(self, tmp_path): ...

A capability that an engine lacks is declared with a reason; the suite checks the reason and what the
connector does instead. It skips nothing silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedhouse.connectors.connector import Condition, Connector, Pin, SourceRef
from fedhouse.errors import SourceChangedError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# Occurs in the profile as a secret where the engine has one, and in no output ever.
SECRET_CANARY = "canary-5e1f8c2b"  # noqa: S105 - planted to be looked for


@dataclass(frozen=True)
class Warehouse:
    """An engine under test: its connector, a table named `source` that holds `contract_rows()`, and ways
    to change that table."""

    connector: Connector
    source: SourceRef
    append: Callable[[], None]
    """Add one row."""
    rewrite: Callable[[], None]
    """Write the table again with one value changed, the same number of rows and columns."""


def contract_rows() -> pa.Table:
    """The table of the suite: 100 rows with an integer key, a number, a text and a group."""
    import pyarrow as pa

    return pa.table(
        {
            "id": pa.array(range(100), pa.int64()),
            "amount": pa.array([index / 4 for index in range(100)], pa.float64()),
            "word": pa.array([f"w{index % 7}" for index in range(100)]),
            "team": pa.array([index % 3 for index in range(100)], pa.int32()),
            "unread": pa.array(["never asked for"] * 100),
        }
    )


def rows_of(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame by their `id`."""
    return sorted((row.asDict() for row in frame.collect()), key=lambda row: row["id"])


def expected(columns: tuple[str, ...], keep: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    """The rows of the suite's table that `keep` keeps, with these columns."""
    return [{name: row[name] for name in columns} for row in contract_rows().to_pylist() if keep(row)]


class ConnectorContract:
    """Subclass it and give the fixtures `spark` and `warehouse` (a `Warehouse`)."""

    def test_gives_exactly_the_asked_columns_and_all_rows(
        self, spark: SparkSession, warehouse: Warehouse
    ) -> None:
        pin = warehouse.connector.resolve(spark, warehouse.source)
        frame = warehouse.connector.read(spark, warehouse.source, pin, ("word", "id"))
        assert frame.columns == ["word", "id"]
        assert rows_of(frame) == expected(("word", "id"), lambda _: True)

    def test_names_its_columns(self, spark: SparkSession, warehouse: Warehouse) -> None:
        pin = warehouse.connector.resolve(spark, warehouse.source)
        told = warehouse.connector.columns(spark, warehouse.source, pin)
        assert set(told) == set(contract_rows().column_names)
        assert told["id"] == "bigint"
        assert told["amount"] == "double"

    def test_reads_only_the_asked_columns(self, spark: SparkSession, warehouse: Warehouse) -> None:
        if not self._supported(warehouse, "column_push_down"):
            return
        assert "unread" not in self._plan(spark, warehouse, warehouse.source)

    def test_applies_every_comparison(self, spark: SparkSession, warehouse: Warehouse) -> None:
        cases: list[tuple[dict[str, Any], Callable[[Mapping[str, Any]], bool]]] = [
            ({"column": "id", "op": "<", "value": 10}, lambda row: row["id"] < 10),
            ({"column": "id", "op": "<=", "value": 10}, lambda row: row["id"] <= 10),
            ({"column": "amount", "op": ">", "value": 20.25}, lambda row: row["amount"] > 20.25),
            ({"column": "amount", "op": ">=", "value": 20.25}, lambda row: row["amount"] >= 20.25),
            ({"column": "word", "op": "=", "value": "w3"}, lambda row: row["word"] == "w3"),
            ({"column": "word", "op": "!=", "value": "w3"}, lambda row: row["word"] != "w3"),
            ({"column": "team", "op": "in", "value": (0, 2)}, lambda row: row["team"] in (0, 2)),
        ]
        pin = warehouse.connector.resolve(spark, warehouse.source)
        for condition, keep in cases:
            source = self._filtered(warehouse, condition)
            frame = warehouse.connector.read(spark, source, pin, ("id", "word"))
            assert rows_of(frame) == expected(("id", "word"), keep), condition

    def test_a_value_of_a_predicate_is_never_sql(self, spark: SparkSession, warehouse: Warehouse) -> None:
        pin = warehouse.connector.resolve(spark, warehouse.source)
        for text in ("' OR 1=1 --", "w3' OR 'a'='a", "\\", "`id`"):
            source = self._filtered(warehouse, {"column": "word", "op": "=", "value": text})
            assert rows_of(warehouse.connector.read(spark, source, pin, ("id",))) == []

    def test_pushes_the_predicate_down(self, spark: SparkSession, warehouse: Warehouse) -> None:
        if not self._supported(warehouse, "predicate_push_down"):
            return
        source = self._filtered(warehouse, {"column": "amount", "op": ">", "value": 20.25})
        assert "GreaterThan(amount,20.25)" in self._plan(spark, warehouse, source)

    def test_a_pin_is_stable_and_survives_json(self, spark: SparkSession, warehouse: Warehouse) -> None:
        first = warehouse.connector.resolve(spark, warehouse.source)
        second = warehouse.connector.resolve(spark, warehouse.source)
        assert first.digest == second.digest
        again = Pin.from_json(json.loads(json.dumps(first.to_json())))
        assert again.digest == first.digest
        warehouse.connector.verify(spark, warehouse.source, again)
        frame = warehouse.connector.read(spark, warehouse.source, again, ("id",))
        assert len(rows_of(frame)) == 100

    def test_an_appended_row_is_noticed(self, spark: SparkSession, warehouse: Warehouse) -> None:
        self._changes(spark, warehouse, warehouse.append)

    def test_a_rewritten_table_is_noticed(self, spark: SparkSession, warehouse: Warehouse) -> None:
        self._changes(spark, warehouse, warehouse.rewrite)

    def test_a_missing_table_is_a_typed_error(self, spark: SparkSession, warehouse: Warehouse) -> None:
        source = warehouse.source.model_copy(update={"table": "no_such_table"})
        error = self._fails(lambda: warehouse.connector.resolve(spark, source))
        assert "no_such_table" in str(error)

    def test_a_missing_column_is_a_typed_error(self, spark: SparkSession, warehouse: Warehouse) -> None:
        pin = warehouse.connector.resolve(spark, warehouse.source)
        for source, columns in (
            (warehouse.source, ("id", "nothing")),
            (self._filtered(warehouse, {"column": "nothing", "op": "=", "value": 1}), ("id",)),
        ):
            error = self._fails(
                lambda source=source, columns=columns: warehouse.connector.read(spark, source, pin, columns)  # type: ignore[misc]
            )
            assert "nothing" in str(error)

    def test_shows_no_secret(self, spark: SparkSession, warehouse: Warehouse) -> None:
        pin = warehouse.connector.resolve(spark, warehouse.source)
        missing = warehouse.source.model_copy(update={"table": "no_such_table"})
        error = self._fails(lambda: warehouse.connector.resolve(spark, missing))
        shown = [
            repr(warehouse.connector),
            str(warehouse.connector),
            repr(warehouse.source),
            json.dumps(pin.to_json()),
            json.dumps(dict(warehouse.connector.spark_conf())),
            repr(error) + repr(error.__cause__) + repr(error.__context__),
        ]
        assert not [text for text in shown if SECRET_CANARY in text]

    def test_a_query_is_read_or_refused_with_the_reason(
        self, spark: SparkSession, warehouse: Warehouse
    ) -> None:
        source = SourceRef(profile=warehouse.source.profile, query="select id from contract")
        capability = warehouse.connector.capabilities.query
        if capability.supported:
            pin = warehouse.connector.resolve(spark, source)
            assert len(rows_of(warehouse.connector.read(spark, source, pin, ("id",)))) == 100
        else:
            assert capability.reason
            assert capability.reason in str(self._fails(lambda: warehouse.connector.resolve(spark, source)))

    @staticmethod
    def _filtered(warehouse: Warehouse, condition: Mapping[str, Any]) -> SourceRef:
        return warehouse.source.model_copy(update={"predicate": (Condition.model_validate(condition),)})

    @staticmethod
    def _supported(warehouse: Warehouse, name: str) -> bool:
        capability = getattr(warehouse.connector.capabilities, name)
        assert capability.supported or capability.reason, f"{name} is declared missing without a reason"
        return bool(capability.supported)

    @staticmethod
    def _plan(spark: SparkSession, warehouse: Warehouse, source: SourceRef) -> str:
        import contextlib
        import io

        pin = warehouse.connector.resolve(spark, source)
        frame = warehouse.connector.read(spark, source, pin, ("id", "amount"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            frame.explain(mode="simple")
        return printed.getvalue()

    @staticmethod
    def _fails(call: Callable[[], object]) -> SourceError:
        import pytest

        with pytest.raises(SourceError) as caught:
            call()
        assert "\n" not in str(caught.value)
        return caught.value

    def _changes(self, spark: SparkSession, warehouse: Warehouse, change: Callable[[], None]) -> None:
        """After `change`: another pin, and either the old rows (a snapshot) or an error from `verify`."""
        connector, source = warehouse.connector, warehouse.source
        pin = connector.resolve(spark, source)
        before = rows_of(connector.read(spark, source, pin, ("id", "amount")))
        change()
        assert connector.resolve(spark, source).digest != pin.digest
        if self._supported(warehouse, "snapshot_read"):
            assert rows_of(connector.read(spark, source, pin, ("id", "amount"))) == before
            connector.verify(spark, source, pin)
            return
        import pytest

        with pytest.raises(SourceChangedError):
            connector.verify(spark, source, pin)
