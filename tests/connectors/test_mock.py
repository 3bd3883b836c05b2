"""Made-up rows keep what their dataset declares."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.connectors.mock import mock_rows
from fedhouse.dataset import Dataset

DATASET = Dataset.model_validate(
    {
        "name": "all",
        "key": ["id", "when"],
        "columns": {
            "id": {"type": "integer", "minimum": 5},
            "share": {"type": "number", "minimum": -1, "maximum": 1, "max_null_fraction": 0.5},
            "tiny": {"type": "number", "maximum": -3},
            "word": {"type": "string", "allowed": ["a", "b"]},
            "free": {"type": "string", "max_null_fraction": 1},
            "late": {"type": "integer", "allowed": [0, 1]},
            "flag": {"type": "boolean"},
            "day": {"type": "date"},
            "when": {"type": "timestamp"},
        },
    }
)


@given(st.integers(0, 300), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_rows_are_as_declared(rows: int, seed: int) -> None:
    table = mock_rows(DATASET, rows, seed)
    assert table.equals(mock_rows(DATASET, rows, seed))
    assert table.num_rows == rows
    assert table.column_names == list(DATASET.columns)
    assert table.schema.field("id").type == pa.int64()
    assert len(set(table.column("id").to_pylist())) == rows
    assert min(table.column("id").to_pylist(), default=5) == 5
    assert all(-1 <= value <= 1 for value in table.column("share").to_pylist() if value is not None)
    assert all(value <= -3 for value in table.column("tiny").to_pylist())
    assert set(table.column("word").to_pylist()) <= {"a", "b"}
    assert set(table.column("late").to_pylist()) <= {0, 1}
    assert table.column("when").null_count == table.column("word").null_count == 0


def test_nulls_stay_below_their_bound() -> None:
    table = mock_rows(DATASET, 4000, 1)
    assert 0 < table.column("share").null_count < 2000
    assert mock_rows(DATASET, 10, 1) != mock_rows(DATASET, 10, 2)
