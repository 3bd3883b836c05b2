"""The quality gate: one failing table for each expectation, and nothing of a row ever comes out."""

from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedhouse.dataset import Dataset
from fedhouse.errors import ConfigurationError, QualityGateError, SourceError
from fedhouse.spark_jobs.contract import Admission
from fedhouse.spark_jobs.gate import GateReport, run_gate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

NUMBER_CANARY = 98765431
STRING_CANARY = "Zyxomma Quillfeather"

EXISTS = "expect_column_to_exist"
TYPE = "expect_column_values_to_be_in_type_list"
NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
ROW_COUNT = "expect_table_row_count_to_be_between"


def dataset(columns: dict[str, dict[str, Any]], **bounds: Any) -> Dataset:
    return Dataset.model_validate(
        {"name": "visits", "columns": columns, "key": [next(iter(columns))], **bounds}
    )


VISITS = dataset(
    {
        "visit": {"type": "integer", "minimum": 0},
        "cost": {"type": "number", "minimum": 0, "maximum": 1000, "max_null_fraction": 0.5},
        "ward": {"type": "string", "allowed": ["north", "south"]},
        "label": {"type": "integer", "allowed": [0, 1]},
    },
    min_rows=2,
    max_rows=6,
)

GOOD: dict[str, list[Any]] = {
    "visit": [1, 2, 3, 4],
    "cost": [1.5, None, 1000.0, 0.0],
    "ward": ["north", "south", "north", "south"],
    "label": [0, 1, 0, 1],
}


@pytest.fixture
def table(spark: SparkSession, tmp_path: Path) -> Callable[[dict[str, Any]], DataFrame]:
    """Columns (lists or Arrow arrays) as a table in a warehouse."""

    def write(columns: dict[str, Any]) -> DataFrame:
        folder = tmp_path / f"table{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        pq.write_table(pa.table(columns), folder / "rows.parquet")
        return spark.read.parquet(folder.as_uri())

    return write


def require_passed(report: GateReport) -> None:
    Admission({}, "", report.to_json(), report.failure("clinic")).require_passed()


def failed(report: GateReport) -> list[tuple[str, str | None, dict[str, int]]]:
    return [(item.expectation, item.column, dict(item.counts)) for item in report.checks if not item.passed]


def test_good_rows_pass_and_every_promise_was_checked(table):
    report = run_gate(table(GOOD), VISITS, tuple(VISITS.columns))
    require_passed(report)
    assert report.passed
    checked = {(item.expectation, item.column) for item in report.checks}
    assert checked == {
        (ROW_COUNT, None),
        *((kind, name) for name in VISITS.columns for kind in (EXISTS, TYPE, NOT_NULL)),
        (BETWEEN, "visit"),
        (BETWEEN, "cost"),
        (IN_SET, "ward"),
        (IN_SET, "label"),
    }
    nulls = next(item for item in report.checks if (item.expectation, item.column) == (NOT_NULL, "cost"))
    assert nulls.counts == {"element_count": 4, "null_count": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"cost": None},
            [(EXISTS, "cost", {})],
            id="missing column",
        ),
        pytest.param(
            {"cost": ["1.5", "2", STRING_CANARY, "3"]},
            [(TYPE, "cost", {})],
            id="numbers as text",
        ),
        pytest.param(
            {"label": [0.0, 1.0, 0.0, 1.0]},
            [(TYPE, "label", {})],
            id="a label of floats is no integer",
        ),
        pytest.param(
            {"ward": [1, 2, 1, 2]},
            [(TYPE, "ward", {})],
            id="a category of integers is no string",
        ),
        pytest.param(
            {"visit": [1, NUMBER_CANARY, -1, -2]},
            [(BETWEEN, "visit", {"element_count": 4, "unexpected_count": 2, "null_count": 0})],
            id="below the minimum",
        ),
        pytest.param(
            {"cost": [1.0, float(NUMBER_CANARY), float("inf"), 2.0]},
            [(BETWEEN, "cost", {"element_count": 4, "unexpected_count": 2, "null_count": 0})],
            id="above the maximum",
        ),
        pytest.param(
            {"cost": [None, None, None, 1.0]},
            [(NOT_NULL, "cost", {"element_count": 4, "null_count": 3})],
            id="more nulls than allowed",
        ),
        pytest.param(
            {"cost": [float("nan"), None, float("nan"), 1.0]},
            [(NOT_NULL, "cost", {"element_count": 4, "null_count": 3})],
            id="NaN counts as null",
        ),
        pytest.param(
            {"label": pa.array([None] * 4, pa.int32())},
            [(NOT_NULL, "label", {"element_count": 4, "null_count": 4})],
            id="all-null label",
        ),
        pytest.param(
            {"ward": ["north", STRING_CANARY, "south", "south"]},
            [(IN_SET, "ward", {"element_count": 4, "unexpected_count": 1, "null_count": 0})],
            id="category that is not allowed",
        ),
        pytest.param(
            {"label": [0, 1, NUMBER_CANARY, 2]},
            [(IN_SET, "label", {"element_count": 4, "unexpected_count": 2, "null_count": 0})],
            id="label outside its set",
        ),
    ],
)
def test_one_fault_fails_its_own_check_and_no_other(table, change, expected):
    columns = {name: change.get(name, values) for name, values in GOOD.items()}
    frame = table({name: values for name, values in columns.items() if values is not None})
    assert failed(run_gate(frame, VISITS, tuple(VISITS.columns))) == expected


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_too_few_and_too_many_rows(table, rows):
    frame = table(
        {
            "visit": pa.array(range(rows), pa.int64()),
            "cost": pa.array([1.0] * rows, pa.float64()),
            "ward": pa.array(["north"] * rows, pa.string()),
            "label": pa.array([0] * rows, pa.int8()),
        }
    )
    report = run_gate(frame, VISITS, tuple(VISITS.columns))
    assert failed(report) == [(ROW_COUNT, None, {"row_count": rows})]
    with pytest.raises(QualityGateError, match=f"the table has {rows} rows"):
        require_passed(report)


def test_nothing_is_there_at_all(table):
    report = run_gate(table({"other": [1, 2]}), VISITS, tuple(VISITS.columns))
    assert failed(report) == [(EXISTS, name, {}) for name in VISITS.columns]


def test_only_the_asked_columns_are_checked(table):
    frame = table({**GOOD, "label": [7, 7, 7, 7]})
    assert run_gate(frame, VISITS, ("visit", "cost")).passed


def test_a_table_exactly_on_its_null_bound_passes(table):
    # 1 - 0.98 is 0.020000000000000018: compared as it is, 98 nulls of 100 would be too many.
    promised = dataset({"age": {"type": "integer", "max_null_fraction": 0.98}})
    assert run_gate(table({"age": pa.array([None] * 98 + [1, 2])}), promised, ("age",)).passed
    over = run_gate(table({"age": pa.array([None] * 99 + [1])}), promised, ("age",))
    assert failed(over) == [(NOT_NULL, "age", {"element_count": 100, "null_count": 99})]


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("integer", pa.array([1, 2], pa.int8())),
        ("integer", pa.array([1, 2], pa.int64())),
        ("number", pa.array([1, 2], pa.int16())),
        ("number", pa.array([1.0, 2.0], pa.float32())),
        ("number", pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal128(20, 2))),
        ("string", pa.array(["a", "b"])),
        ("boolean", pa.array([True, False])),
        ("date", pa.array([dt.date(2013, 1, 1), dt.date(2013, 1, 2)])),
        ("timestamp", pa.array([0, 1], pa.timestamp("us", "UTC"))),
        ("timestamp", pa.array([0, 1], pa.timestamp("us"))),
    ],
)
def test_each_declared_type_accepts_its_family(table, declared, values):
    promised = dataset({"value": {"type": declared}})
    assert run_gate(table({"value": values}), promised, ("value",)).passed


@pytest.mark.parametrize(
    ("declared", "values", "found"),
    [
        ("integer", pa.array([Decimal("1.5")], pa.decimal128(4, 1)), "decimal"),
        ("boolean", pa.array([0, 1]), "long"),
        ("date", pa.array([0], pa.timestamp("us", "UTC")), "timestamp"),
        ("string", pa.array([[STRING_CANARY]]), "array"),
    ],
)
def test_a_mistyped_column_is_named_with_the_type_it_has(table, declared, values, found):
    promised = dataset({"value": {"type": declared}})
    with pytest.raises(QualityGateError, match=f"column value has type {found}") as caught:
        require_passed(run_gate(table({"value": values}), promised, ("value",)))
    assert caught.value.exit_code == 3


def test_bounds_hold_for_decimals_and_floats_at_their_edges(table):
    promised = dataset({"value": {"type": "number", "minimum": 0.1, "maximum": 0.3}})
    exact = pa.array([Decimal("0.1"), Decimal("0.3")], pa.decimal128(5, 1))
    assert run_gate(table({"value": exact}), promised, ("value",)).passed
    beyond = pa.array([0.1, 0.30000000000000004])
    assert not run_gate(table({"value": beyond}), promised, ("value",)).passed


def test_no_check_makes_spark_cast_a_row(table):
    """Text compared with numbers would be cast, and ANSI mode puts the text into the exception."""
    promised = dataset(
        {
            "value": {"type": "integer", "minimum": 0, "allowed": [1]},
            "words": {"type": "string", "allowed": [1, 2]},
        }
    )
    frame = table({"value": [STRING_CANARY], "words": [STRING_CANARY]})
    assert failed(run_gate(frame, promised, ("value", "words"))) == [
        (TYPE, "value", {}),
        (IN_SET, "words", {"element_count": 1, "unexpected_count": 1, "null_count": 0}),
    ]


def test_names_with_dots_are_columns_and_not_fields(table):
    promised = dataset({"patient.age": {"type": "integer", "maximum": 10}, "a-b": {"type": "string"}})
    report = run_gate(table({"patient.age": [11], "a-b": ["x"]}), promised, ("patient.age", "a-b"))
    assert failed(report) == [
        (BETWEEN, "patient.age", {"element_count": 1, "unexpected_count": 1, "null_count": 0})
    ]


def test_the_message_is_one_line_names_three_faults_and_counts_the_rest(table):
    frame = table({"visit": [-1, -1], "ward": [STRING_CANARY] * 2, "label": [NUMBER_CANARY] * 2})
    with pytest.raises(QualityGateError) as caught:
        require_passed(run_gate(frame, VISITS, tuple(VISITS.columns)))
    assert str(caught.value) == (
        "Silo clinic: 4 of 14 quality checks of dataset visits failed: column visit is out of its bounds "
        "in 2 of 2 rows; column cost is missing; column ward holds values not allowed in 2 of 2 rows; "
        "and 1 more. Mend the silo's table; the bounds are in the dataset's file."
    )


def test_the_report_is_json_and_its_digest_follows_the_counts(table):
    first = run_gate(table(GOOD), VISITS, tuple(VISITS.columns))
    again = run_gate(table(GOOD), VISITS, tuple(VISITS.columns))
    other = run_gate(table({**GOOD, "cost": [None, None, 1.0, 2.0]}), VISITS, tuple(VISITS.columns))
    assert json.loads(json.dumps(first.to_json())) == again.to_json()
    assert first.digest == again.digest != other.digest


def test_a_column_that_the_dataset_does_not_declare_is_a_mistake_in_the_job(table):
    with pytest.raises(ConfigurationError, match="Column salary is not in dataset visits") as caught:
        run_gate(table(GOOD), VISITS, ("visit", "salary"))
    assert caught.value.exit_code == 2


def test_allowed_values_of_another_type_than_the_column(table):
    promised = dataset({"value": {"type": "integer", "allowed": ["one"]}})
    with pytest.raises(ConfigurationError, match="Column value is an integer") as caught:
        run_gate(table({"value": [1]}), promised, ("value",))
    assert caught.value.exit_code == 2


def test_rows_that_cannot_be_read_are_a_matter_of_configuration(spark, tmp_path, capfd, caplog):
    """A check that raises ends with exit code 2, and its foreign message stays inside."""
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "table"
    folder.mkdir()
    pq.write_table(pa.table(GOOD), folder / "rows.parquet")
    frame = spark.read.parquet(folder.as_uri())
    (folder / "rows.parquet").unlink()
    with pytest.raises(SourceError, match="could not run: reading the rows failed with") as caught:
        run_gate(frame, VISITS, tuple(VISITS.columns))
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not [item for item in caplog.records if item.name.startswith("great_expectations")]
    assert "Calculating Metrics" not in capfd.readouterr().err


def test_a_computed_column_that_raises_gives_only_its_error_class(table, capfd, caplog):
    from pyspark.sql import functions as F

    caplog.set_level(logging.DEBUG)
    frame = table({**GOOD, "cost": ["1", STRING_CANARY, "2", "3"]})
    frame = frame.withColumn("cost", F.col("cost").cast("double"))
    with pytest.raises(SourceError, match="CAST_INVALID_INPUT") as caught:
        run_gate(frame, VISITS, tuple(VISITS.columns))
    assert STRING_CANARY not in repr(caught.value)
    assert caught.value.__suppress_context__
    ours = [item.getMessage() for item in caplog.records if not item.name.startswith("py4j")]
    assert not [text for text in ours if STRING_CANARY in text]


def test_the_current_project_and_the_loggers_stay_as_they_were(table):
    import great_expectations as gx
    from great_expectations.data_context.data_context.context_factory import project_manager

    mine = gx.get_context(mode="ephemeral")
    logger = logging.getLogger("great_expectations.validator.validation_graph")
    assert run_gate(table(GOOD), VISITS, tuple(VISITS.columns)).passed
    assert project_manager.get_current_project() is mine
    assert not logger.disabled


def test_gates_of_several_silos_in_one_process_do_not_mix(table):
    frames = {
        "good": table(GOOD),
        "few": table({name: values[:1] for name, values in GOOD.items()}),
        "odd": table({**GOOD, "label": [0, 1, 2, 3]}),
    }
    found: dict[str, GateReport] = {}

    def check(name: str) -> None:
        found[name] = run_gate(frames[name], VISITS, tuple(VISITS.columns))

    threads = [threading.Thread(target=check, args=(name,)) for name in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed(found["good"]) == []
    assert [item[0] for item in failed(found["few"])] == [ROW_COUNT]
    assert [item[0] for item in failed(found["odd"])] == [IN_SET]


def test_nothing_is_persisted(spark, table):
    assert run_gate(table(GOOD), VISITS, tuple(VISITS.columns)).passed
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == 0


def test_canaries_of_every_failing_column_occur_nowhere(tmp_path):
    """All logs at DEBUG, Spark's event log on: neither they nor any file left behind hold a value."""
    promised = {
        "name": "visits",
        "key": ["visit"],
        "columns": {
            "visit": {"type": "integer", "minimum": 0, "maximum": 10},
            "cost": {"type": "number", "minimum": 0, "maximum": 10},
            "ward": {"type": "string", "allowed": ["north"]},
            "label": {"type": "integer", "allowed": [0, 1]},
            "age": {"type": "integer", "minimum": 0},
            "name": {"type": "string"},
            "gone": {"type": "string"},
        },
        "max_rows": 2,
    }
    half = NUMBER_CANARY + 0.4375
    rows = {
        "visit": [NUMBER_CANARY, 1, 2],
        "cost": [half, float("nan"), 1.0],
        "ward": [STRING_CANARY, "north", "north"],
        "label": [NUMBER_CANARY, 0, 1],
        "age": [STRING_CANARY, "4", "5"],
        "name": [STRING_CANARY, None, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    (tmp_path / "dataset.json").write_text(json.dumps(promised))
    (tmp_path / "tmp").mkdir()
    script = Path(__file__).with_name("gate_canary_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[0])
    assert {item["expectation"] for item in report["checks"] if not item["passed"]} == {
        EXISTS, TYPE, NOT_NULL, BETWEEN, IN_SET, ROW_COUNT,
    }  # fmt: skip
    assert "DEBUG:" in done.stderr
    events = [path for path in (tmp_path / "events").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in events) > 10_000

    canaries = [STRING_CANARY, *STRING_CANARY.split(), str(NUMBER_CANARY), "9.8765431"]
    places = {"output": done.stdout, "log": done.stderr}
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name not in ("rows.parquet", "dataset.json"):
            places[str(path.relative_to(tmp_path))] = path.read_bytes().decode("latin-1")
    found = [(place, canary) for place, text in places.items() for canary in canaries if canary in text]
    assert found == []
