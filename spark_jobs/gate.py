"""The quality gate: a silo's rows against what its dataset promises, before anything is trained on them.

Great Expectations runs the checks. Invariants, each against one of its habits:

1. **Counts only.** Its results carry raw values (up to 20 of them by default; a `max` is a real person's
   number). Of a result only integers under allow-listed names are taken; nothing else of it is kept,
   and its own log, progress bars and exception texts go nowhere.
2. **Rows are counted**, always: an empty table passes every other check.
3. **NaN is null.** Spark counts it as a number, and it would pass a null check.
4. **A check that cannot run is not a check that failed**: it is a mistake in what somebody wrote or
   configured, with exit code 2 and not 3. Only the class of what went wrong is passed on.
5. The session is used as it is: nothing is persisted, restarted or configured.
6. A check on values runs only on a column that is there and has the declared type. So no comparison makes
   Spark cast a row's value; a cast that fails would put the value into its message.

Importing Great Expectations takes seconds, so it happens when the first gate runs.

Example::

    report = run_gate(frame, dataset, spec.columns_read(dataset))
    print(report.failure("UA") or "passed")
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedhouse.dataset import Column, ColumnType, Dataset
from fedhouse.encoding import digest_of
from fedhouse.errors import ConfigurationError, SourceError
from fedhouse.spark_jobs.failures import failure_class
from fedhouse.spark_jobs.prepare import quoted

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from pyspark.sql import DataFrame

# Names of Spark's types (`DataType.typeName()`), and of its classes, that a declared type accepts. An
# integer serves as a number; nothing is cast, so a number in a string column is a mistyped column.
_INTEGERS = {"byte": "ByteType", "short": "ShortType", "integer": "IntegerType", "long": "LongType"}
_FLOATS = {"float": "FloatType", "double": "DoubleType"}
_TYPES: Mapping[ColumnType, Mapping[str, str]] = {
    "integer": _INTEGERS,
    "number": _INTEGERS | _FLOATS | {"decimal": "DecimalType"},
    "string": {"string": "StringType"},
    "boolean": {"boolean": "BooleanType"},
    "date": {"date": "DateType"},
    "timestamp": {"timestamp": "TimestampType", "timestamp_ntz": "TimestampNTZType"},
}

_EXISTS = "expect_column_to_exist"
_TYPE = "expect_column_values_to_be_in_type_list"
_NOT_NULL = "expect_column_values_to_not_be_null"
_BETWEEN = "expect_column_values_to_be_between"
_IN_SET = "expect_column_values_to_be_in_set"
_ROW_COUNT = "expect_table_row_count_to_be_between"

# The only fields that are taken out of a result, and what they are called in a report.
_COUNTS: Mapping[str, Mapping[str, str]] = {
    _ROW_COUNT: {"observed_value": "row_count"},
    _NOT_NULL: {"element_count": "element_count", "unexpected_count": "null_count"},
    _BETWEEN: {
        "element_count": "element_count",
        "unexpected_count": "unexpected_count",
        "missing_count": "null_count",
    },
    _IN_SET: {
        "element_count": "element_count",
        "unexpected_count": "unexpected_count",
        "missing_count": "null_count",
    },
}

_FAULTS: Mapping[str, str] = {
    _EXISTS: "column {column} is missing",
    _TYPE: "column {column} has type {found}",
    _NOT_NULL: "column {column} is null in {null_count:,} of {element_count:,} rows",
    _BETWEEN: "column {column} is out of its bounds in {unexpected_count:,} of {element_count:,} rows",
    _IN_SET: "column {column} holds values not allowed in {unexpected_count:,} of {element_count:,} rows",
    _ROW_COUNT: "the table has {row_count:,} rows",
}

# Great Expectations keeps its current project in a global, so gates of one process take turns.
_ONE_AT_A_TIME = threading.Lock()

_NAMED_FAILURES = 3


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One expectation, whether it held, and counts; `column` is None for the table's own.

    `found` is the type that a mistyped column has.
    """

    expectation: str
    column: str | None
    passed: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    found: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The check as a JSON value."""
        return {
            "expectation": self.expectation,
            "column": self.column,
            "passed": self.passed,
            "counts": dict(self.counts),
            "found": self.found,
        }

    def describe(self) -> str:
        """What is wrong, if the check did not pass: counts, never values."""
        return _FAULTS[self.expectation].format(column=self.column, found=self.found, **self.counts)


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found in one silo's table. It holds column names and counts, and no values."""

    dataset: str
    checks: tuple[GateCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def digest(self) -> str:
        """Digest of the report."""
        return digest_of("fedhouse-gate/1", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON value."""
        return {
            "dataset": self.dataset,
            "passed": self.passed,
            "checks": [check.to_json() for check in self.checks],
        }

    def failure(self, silo: str) -> str:
        """One line with the first failed checks and their counts; empty if every check passed."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return ""
        named = "; ".join(check.describe() for check in failed[:_NAMED_FAILURES])
        more = f"; and {len(failed) - _NAMED_FAILURES} more" if len(failed) > _NAMED_FAILURES else ""
        return (
            f"Silo {silo}: {len(failed)} of {len(self.checks)} quality checks of dataset {self.dataset} "
            f"failed: {named}{more}."
        )


@dataclass(frozen=True, slots=True)
class _Planned:
    """A check that will be run: Great Expectations' name for it, our column, its arguments."""

    kind: str
    column: str | None
    arguments: Mapping[str, Any]


def run_gate(frame: DataFrame, dataset: Dataset, columns: Sequence[str]) -> GateReport:
    """Check `columns` of a silo's rows, and their number, against the dataset. Reads the rows a few times.

    Raises
    ------
    ConfigurationError
        If a check could not run: a column that the dataset does not declare, or allowed values that are
        not of the column's type.
    SourceError
        If it could not run because the rows cannot be read.
    """
    undeclared = [name for name in columns if name not in dataset.columns]
    if undeclared:
        raise ConfigurationError(
            f"Column {undeclared[0]} is not in dataset {dataset.name}.",
            mend=f"It has {', '.join(dataset.columns)}.",
        )
    found = {item.name: item.dataType.typeName() for item in frame.schema.fields}
    places = {f"c{index}": name for index, name in enumerate(columns) if name in found}
    selected = _select(frame, places, found)
    planned = _plan(dataset, columns, places, found)
    with _ONE_AT_A_TIME, _quiet(), _own_project():
        try:
            results = _validate(selected, planned)
        except Exception:  # noqa: BLE001 - its text may hold a value
            raise _could_not_run(selected, planned[0]) from None
    checks: list[GateCheck] = []
    for item, result in zip(planned, results, strict=True):
        check = _keep(item, result, found)
        if check is None:
            raise _could_not_run(selected, item) from None
        checks.append(check)
    return GateReport(dataset.name, tuple(checks))


def _select(frame: DataFrame, places: Mapping[str, str], found: Mapping[str, str]) -> DataFrame:
    """The columns under names without dots (those would read a struct's field), NaN turned into null."""
    from pyspark.sql import functions as F

    chosen = []
    for place, name in places.items():
        column = F.col(quoted(name))
        if found[name] in _FLOATS:
            column = F.when(~F.isnan(column), column)
        chosen.append(column.alias(place))
    return frame.select(*chosen)


def _plan(
    dataset: Dataset, columns: Sequence[str], places: Mapping[str, str], found: Mapping[str, str]
) -> list[_Planned]:
    """Every check that applies: the table's own first, then column by column."""
    place_of = {name: place for place, name in places.items()}
    rows = {"min_value": dataset.min_rows, "max_value": dataset.max_rows}
    planned = [_Planned(_ROW_COUNT, None, rows)]
    for name in columns:
        if name in place_of:
            column = {"column": place_of[name]}
            planned.append(_Planned(_EXISTS, name, column))
            planned += _plan_column(name, column, dataset.columns[name], found[name])
        else:
            planned.append(_Planned(_EXISTS, name, {"column": f"missing {name}"}))
    return planned


def _plan_column(name: str, column: Mapping[str, Any], declared: Column, found: str) -> Iterator[_Planned]:
    """The checks on one column that is there: its type and, if that fits, its values."""
    accepted = _TYPES[declared.type]
    yield _Planned(_TYPE, name, {**column, "type_list": sorted(accepted.values())})
    if found not in accepted:
        return
    # Rounded, because 1 - 0.98 is a little more than 0.02, and a table on its bound would fail.
    yield _Planned(_NOT_NULL, name, {**column, "mostly": round(1.0 - declared.max_null_fraction, 12)})
    if declared.minimum is not None or declared.maximum is not None:
        bounds = {"min_value": declared.minimum, "max_value": declared.maximum}
        yield _Planned(_BETWEEN, name, {**column, **bounds})
    if declared.allowed is not None:
        yield _Planned(_IN_SET, name, {**column, "value_set": _allowed(name, declared)})


def _allowed(name: str, declared: Column) -> list[int] | list[str]:
    """The allowed values in the column's own type: otherwise Spark would cast the rows to theirs."""
    values = declared.allowed or ()
    if declared.type == "string":
        return [str(value) for value in values]
    try:
        return [int(value) for value in values]
    except ValueError:
        raise ConfigurationError(
            f"Column {name} is an integer, and its allowed values are not.", mend="Write them as integers."
        ) from None


def _validate(frame: DataFrame, planned: Sequence[_Planned]) -> list[ExpectationValidationResult]:
    """Run the checks; results in the order of `planned`."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.enable_analytics(enable=False)
    source = context.data_sources.add_spark("silo", persist=False)
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(
        "gate",
        expectations=[ExpectationConfiguration(item.kind, dict(item.arguments)) for item in planned],
    )
    definition = gx.ValidationDefinition(name="gate", data=batch, suite=context.suites.add(suite))
    outcome = definition.run(
        batch_parameters={"dataframe": frame},
        # With BOOLEAN_ONLY there are no counts.
        result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
    )
    by_id = {item.expectation_config.id: item for item in outcome.results if item.expectation_config}
    return [by_id[expectation.id] for expectation in suite.expectations]


def _keep(
    planned: _Planned, result: ExpectationValidationResult, found: Mapping[str, str]
) -> GateCheck | None:
    """What may be kept of a result; None if the check did not run to its end."""
    if _raised(result.exception_info):
        return None
    counts: dict[str, int] = {}
    for source, target in _COUNTS.get(planned.kind, {}).items():
        value = result.result.get(source)
        if value is None and result.result.get("element_count") == 0:
            value = 0  # Spark's sum over no rows is null
        if type(value) is not int:
            return None
        counts[target] = value
    passed = bool(result.success)
    # A column whose type did not fit is there, and its type is not a value.
    told = found.get(planned.column or "") if planned.kind == _TYPE and not passed else None
    return GateCheck(planned.kind, planned.column, passed, counts, told)


def _raised(info: Any) -> bool:
    """Whether a check raised: the field is a record, or a record for each of the check's metrics."""
    if not isinstance(info, Mapping):
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(_raised(item) for item in info.values())


def _could_not_run(frame: DataFrame, planned: _Planned) -> ConfigurationError:
    """The error to raise, as far as it can be told without a value: Great Expectations keeps only a text,
    so one plain pass over the rows finds out whether they can be read at all."""
    from pyspark.sql import functions as F

    where = f"on column {planned.column}" if planned.column is not None else "on the table"
    what = f"Quality check {planned.kind} {where} could not run"
    try:
        frame.agg(F.count(F.lit(1)), *(F.count(F.col(name)) for name in frame.columns)).collect()
    except Exception as error:  # noqa: BLE001 - whatever it is, only its class is passed on
        return SourceError(
            f"{what}: reading the rows failed with {failure_class(error)}.",
            mend="Check that the table's files are whole and readable.",
        )
    return ConfigurationError(f"{what}.", mend="Look at the bounds in the dataset's file.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations logs what it catches, values and all: its loggers are off while it runs."""
    import great_expectations  # noqa: F401 - makes its loggers, so that all of them are found

    known = logging.Logger.manager.loggerDict
    loggers = [
        logger
        for name, logger in list(known.items())
        if name.partition(".")[0] == "great_expectations" and isinstance(logger, logging.Logger)
    ]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextlib.contextmanager
def _own_project() -> Iterator[None]:
    """Leave the process's current project as it was, and let go of the frame afterwards."""
    from great_expectations.data_context.data_context.context_factory import project_manager
    from great_expectations.exceptions.exceptions import DataContextError

    try:
        before = project_manager.get_current_project()
    except DataContextError:
        before = None
    try:
        yield
    finally:
        project_manager.set_project(before)
