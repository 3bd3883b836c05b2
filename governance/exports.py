"""The ledger's entries as a table: CSV, JSON, JSON lines, Parquet.

A row is an entry, whether the rules accepted it or not. The columns are the same in every format and for
every event; what an event does not have is empty. `body` is the event's whole body as canonical JSON, so the
table loses nothing but signatures, and `digest` finds the entry in a pack again.

A refused event may hold any text where its schema wants another thing. So a column has one type whatever the
event says, and cells of a CSV file that a spreadsheet would take for a formula begin with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedhouse.encoding import canonical_json, write_atomic
from fedhouse.errors import EnvironmentUnfitError, FedhouseError
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.ledger import Entry

Row = dict[str, Any]
"""A cell is a text, an integer, a truth value or None, by column; see `COLUMNS`."""

COLUMNS: Final[Mapping[str, type]] = {
    "index": int,
    "time": int,
    "time_iso": str,
    "verdict": str,
    "type": str,
    "signer": str,
    "member": str,
    "key": str,
    "sequence": int,
    "issued": int,
    "job": str,
    "round": int,
    "purpose": str,
    "dataset": str,
    "name": str,
    "scope": str,
    "reason": str,
    "passed": bool,
    "rows": str,
    "subject": str,
    "subjects": str,
    "payloads": str,
    "digest": str,
    "body": str,
}
"""Every column, in order, with its type."""

# Columns that are taken out of a body, if they are there with the column's type.
_FLAT = ("job", "round", "purpose", "dataset", "name", "scope", "reason", "passed")
# Excel, LibreOffice and Google Sheets compute what begins so; tabs and carriage returns are skipped first.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full width, meant
# The last second of the year 9999: what a calendar can show.
_LAST = 253_402_300_799


def entry_rows(entries: Iterable[Entry]) -> Iterator[Row]:
    """A row for each entry, in order.

    Raises
    ------
    EnvelopeError
        If an entry is no envelope.
    """
    for entry in entries:
        envelope = parse_envelope(entry.envelope)
        statement, body = envelope.statement, envelope.statement.body
        row: Row = dict.fromkeys(COLUMNS)
        row |= {name: _typed(body.get(name), COLUMNS[name]) for name in _FLAT}
        row |= {
            "index": entry.index,
            "time": entry.outcome.time,
            "time_iso": iso_time(entry.outcome.time),
            "verdict": entry.outcome.verdict,
            "type": statement.event,
            "signer": statement.signer,
            "member": statement.signer.partition("/")[0],
            "key": envelope.key_id,
            "sequence": statement.sequence,
            "issued": statement.issued,
            # A count in an attestation, a range in a registration.
            "rows": str(body["rows"]) if type(body.get("rows")) in (int, str) else None,
            "subject": statement.subjects[0][1],
            "subjects": " ".join(f"{name}:{digest}" for name, digest in statement.subjects),
            "payloads": " ".join(f"{one.name}:{one.digest}" for one in statement.payloads) or None,
            "digest": envelope.digest,
            "body": canonical_json(dict(body)).decode(),
        }
        yield row


def iso_time(time: int) -> str:
    """Seconds since 1970 as UTC, `2026-09-21T14:13:20Z`; empty beyond the year 9999."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if 0 <= time <= _LAST else ""


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as CSV (RFC 4180): UTF-8, CRLF, a header, and no cell that a spreadsheet computes.

    Raises
    ------
    FedhouseError
        If the file cannot be written.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    _write(path, out.getvalue().encode())


def write_json_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as one JSON array, a row a line.

    Raises
    ------
    FedhouseError
        If the file cannot be written.
    """
    _write(path, b"[\n" + b",\n".join(canonical_json(row) for row in rows) + b"\n]\n")


def write_json_lines(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines: an object a line.

    Raises
    ------
    FedhouseError
        If the file cannot be written.
    """
    _write(path, b"".join(canonical_json(row) + b"\n" for row in rows))


def write_parquet(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a Parquet file.

    Raises
    ------
    EnvironmentUnfitError
        If pyarrow is not installed.
    FedhouseError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise EnvironmentUnfitError(
            "Parquet files are written by pyarrow, which is not installed here.",
            mend="Install fedhouse[worker], or export CSV or JSON.",
        ) from error
    kinds = {int: pa.int64(), str: pa.string(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist(list(rows), schema=schema)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    _write(path, sink.getvalue().to_pybytes())


def _typed(value: object, kind: type) -> Any:
    """`value` if it is of the column's type; truth values are no integers here."""
    return value if type(value) is kind else None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    # Numbers are left alone: a spreadsheet shows -5 as what it is.
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise FedhouseError(
            f"{path} could not be written ({error.strerror}).", mend="Name another place, or make room."
        ) from error
