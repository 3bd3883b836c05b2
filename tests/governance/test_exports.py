"""Tables of entries: the same rows in every format, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fedhouse.errors import EnvironmentUnfitError, FedhouseError
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.exports import (
    COLUMNS,
    entry_rows,
    iso_time,
    write_csv,
    write_json_lines,
    write_json_rows,
    write_parquet,
)
from fedhouse.governance.sandbox import START, named

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]  # noqa: RUF001 - full width, meant


@pytest.fixture
def rows(world: Any) -> list[dict[str, Any]]:
    """A job, and refused events whose fields are of every wrong type."""
    world.run()
    world.play(world.sandbox.step("late", 0, "statistics", named("late bundle"), named("encoder")))
    reason = PayloadRef("reason", named("reason"), "incident")
    world.must("B6/officer", "stop.declared", {"scope": "member", "subject": "B6"}, payloads=[reason])
    for text in FORMULAS:
        assert world.say("AA/owner", "job.cancelled", {"job": text, "name": f'a,"b"\r\n{text}'}) == "schema"
    wrong = {"job": 7, "round": "3", "purpose": ["x"], "passed": 1, "rows": {}, "name": None, "reason": True}
    assert world.say("AA/owner", "job.cancelled", wrong) == "schema"
    assert world.say("AA/owner", "nothing.known", {"round": -5, "rows": 2**53 - 1}) == "unknown-type"
    return list(entry_rows(world.entries))


def test_a_row_says_who_what_when_and_the_verdict(rows: list[dict[str, Any]]) -> None:
    (opened,) = (row for row in rows if row["type"] == "round.opened")
    assert list(opened) == list(COLUMNS)
    assert opened | {"key": "", "digest": "", "body": ""} == dict.fromkeys(COLUMNS) | {
        "index": opened["index"],
        "time": START,
        "time_iso": "2026-09-21T14:13:20Z",
        "verdict": "accepted",
        "type": "round.opened",
        "signer": "AA/operator",
        "member": "AA",
        "key": "",
        "sequence": 1,
        "issued": START,
        "job": named("late"),
        "round": 0,
        "purpose": "statistics",
        "subject": named("late"),
        "subjects": f"job:{named('late')}",
        "digest": "",
        "body": "",
    }
    assert json.loads(opened["body"])["cohort"] == ["AA", "B6", "DL"]
    (stopped,) = (row for row in rows if row["type"] == "stop.declared")
    assert stopped["payloads"] == f"reason:{named('reason')}"
    assert stopped["scope"] == "member"


def test_a_column_has_one_type_whatever_an_event_says(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for name, kind in COLUMNS.items():
            assert row[name] is None or type(row[name]) is kind, name
    wrong = rows[-2]
    assert [wrong[name] for name in ("job", "round", "purpose", "passed", "rows", "name", "reason")] == [
        None
    ] * 7
    assert json.loads(wrong["body"])["round"] == "3"
    assert (rows[-1]["round"], rows[-1]["rows"]) == (-5, str(2**53 - 1))


def test_csv_json_and_parquet_carry_the_same(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_json_rows(rows, tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_bytes()) == rows
    write_json_lines(rows, tmp_path / "e.jsonl")
    assert [json.loads(line) for line in (tmp_path / "e.jsonl").read_bytes().splitlines()] == rows
    write_parquet(rows, tmp_path / "e.parquet")
    assert pq.read_table(tmp_path / "e.parquet").to_pylist() == rows
    write_csv(rows, tmp_path / "e.csv")
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    for row, told in zip(rows, read, strict=True):
        for name, cell in told.items():
            value = row[name]
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert cell in (text, f"'{text}")


def test_no_cell_of_a_csv_file_begins_a_formula(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_csv(rows, tmp_path / "e.csv")
    data = (tmp_path / "e.csv").read_bytes()
    assert data.count(b"\r\n") > len(rows)
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.DictReader(file) for name, cell in row.items() if COLUMNS[name] is str]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", *FORMULAS))]
    assert {f"'{text}" for text in FORMULAS} <= set(cells)
    assert b",-5," in data  # a number stays one


def test_no_entries_give_an_empty_table(tmp_path: Path) -> None:
    write_csv([], tmp_path / "e.csv")
    assert (tmp_path / "e.csv").read_bytes() == ",".join(COLUMNS).encode() + b"\r\n"
    write_json_rows([], tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_bytes()) == []
    write_parquet([], tmp_path / "e.parquet")
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (START, "2026-09-21T14:13:20Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, ""),
        (2**53 - 1, ""),
        (-1, ""),
    ],
)
def test_times_are_utc(time: int, text: str) -> None:
    assert iso_time(time) == text


def test_without_pyarrow_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentUnfitError, match="Install fedhouse"):
        write_parquet([], tmp_path / "e.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FedhouseError, match="could not be written"):
        write_csv([], tmp_path / "file" / "e.csv")
