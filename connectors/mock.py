"""Rows made up from a dataset's schema, so that a job can be tried before anybody's rows are touched."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fedhouse.dataset import Column, Dataset

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# Numbers without bounds are drawn from this range; it means nothing.
_DEFAULT_RANGE = (0.0, 100.0)
_FIRST_DAY = date(2020, 1, 1)


def mock_rows(dataset: Dataset, rows: int, seed: int) -> pa.Table:
    """`rows` made-up rows: types, bounds, allowed values and (half of) the null fractions as declared.

    Columns are independent of each other, so a model learns nothing from them. The same seed gives the
    same rows. Keys are unique where the key's columns have room for as many combinations; of a key's
    columns, none is null.
    """
    import numpy as np
    import pyarrow as pa

    generator = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for name, column in dataset.columns.items():
        values = _values(column, rows, generator)
        nulls = np.zeros(rows, dtype=bool)
        if name not in dataset.key:
            nulls = generator.random(rows) < column.max_null_fraction / 2
        columns[name] = pa.array(values, type=_arrow_type(column), mask=nulls)
    table = pa.table(columns)
    return _with_unique_keys(table, dataset, rows)


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    return {
        "integer": pa.int64(),
        "number": pa.float64(),
        "string": pa.string(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }[column.type]


def _values(column: Column, rows: int, generator: np.random.Generator) -> Any:
    """Values without nulls, as an array or list that Arrow takes."""
    import numpy as np

    if column.allowed is not None:
        chosen = generator.integers(0, len(column.allowed), rows)
        kind: type = int if column.type == "integer" else str
        return [kind(column.allowed[index]) for index in chosen]
    low = _DEFAULT_RANGE[0] if column.minimum is None else column.minimum
    high = max(low, _DEFAULT_RANGE[1]) if column.maximum is None else column.maximum
    low = min(low, high)
    match column.type:
        case "integer":
            return generator.integers(int(np.ceil(low)), int(np.floor(high)) + 1, rows)
        case "number":
            return generator.uniform(low, high, rows)
        case "boolean":
            return generator.integers(0, 2, rows).astype(bool)
        case "string":
            return [f"word{index}" for index in generator.integers(0, 8, rows)]
        case "date":
            return [_FIRST_DAY + timedelta(days=int(day)) for day in generator.integers(0, 1500, rows)]
        case "timestamp":
            start = datetime(2020, 1, 1, tzinfo=UTC)
            return [start + timedelta(minutes=int(m)) for m in generator.integers(0, 2_000_000, rows)]


def _with_unique_keys(table: pa.Table, dataset: Dataset, rows: int) -> pa.Table:
    """Count a roomy integer column of the key up; without one, keys are as unique as chance made them."""
    import numpy as np
    import pyarrow as pa

    for name in dataset.key:
        column = dataset.columns[name]
        low = 0 if column.minimum is None else int(np.ceil(column.minimum))
        room = column.maximum is None or low + rows - 1 <= column.maximum
        if column.type == "integer" and column.allowed is None and room:
            counted: NDArray[np.int64] = np.arange(low, low + rows, dtype=np.int64)
            return table.set_column(table.column_names.index(name), name, pa.array(counted))
    return table
