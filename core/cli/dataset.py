"""`fedhouse dataset …`: the catalogue of what members have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedhouse.consortium_folder import Signing, read_state
from fedhouse.errors import ConfigurationError


def register(signing: Signing, *, dataset: Path, json_output: bool) -> None:
    """Register that the signer's member has a table that keeps what a dataset file promises."""
    from fedhouse.dataset import Dataset
    from fedhouse.proposals import registration

    body = registration(Dataset.load(dataset))
    answer = signing.record(f"dataset-{body['schema_digest'][:16]}", "dataset.registered", body)
    told = {"dataset": body["name"], "schema_digest": body["schema_digest"], "entry": answer.index}
    sys.stdout.write(
        json.dumps(told) + "\n"
        if json_output
        else f"{body['name']} is registered as entry {answer.index}: {body['schema_digest']}\n"
    )


def _rows(folder: Path) -> list[dict[str, Any]]:
    state = read_state(folder)
    rows = []
    for place, record in sorted(state.data.datasets.items()):
        member, _, name = place.partition("/")
        rows.append(
            {
                "member": member,
                "dataset": name,
                "columns": list(record.columns),
                "rows": record.rows,
                "schema_digest": record.schema,
                "permitted": [
                    {
                        "purpose": item.purpose,
                        "columns": list(item.columns),
                        "expires": item.expires,
                        "id": digest,
                    }
                    for digest in state.permissions.of_member.get(member, ())
                    if (item := state.permissions.permissions[digest]).dataset == name
                ],
            }
        )
    return rows


def list_all(*, ledger: Path, json_output: bool) -> None:
    """Print every member's datasets: columns and a range of rows, never a value."""
    rows = _rows(ledger)
    if json_output:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for title in ("member", "dataset", "columns", "rows", "permitted for"):
        table.add_column(title)
    for row in rows:
        purposes = ", ".join(sorted({item["purpose"] for item in row["permitted"]})) or "nothing"
        table.add_row(row["member"], row["dataset"], str(len(row["columns"])), row["rows"], purposes)
    Console().print(table)


def show(*, ledger: Path, name: str, json_output: bool) -> None:
    """Print one dataset of one member (`MEMBER/NAME`), or of all that have it (`NAME`)."""
    rows = [row for row in _rows(ledger) if name in (row["dataset"], f"{row['member']}/{row['dataset']}")]
    if not rows:
        raise ConfigurationError(
            f"Nobody has registered a dataset '{name}'.", mend="See fedhouse dataset list."
        )
    if json_output:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for row in rows:
        sys.stdout.write(f"{row['member']}/{row['dataset']}  rows {row['rows']}\n")
        sys.stdout.write(f"  schema  {row['schema_digest']}\n  columns {', '.join(row['columns'])}\n")
        for item in row["permitted"]:
            sys.stdout.write(
                f"  permitted for {item['purpose']} until {_day(item['expires'])}: {len(item['columns'])} "
                f"columns (permission {item['id'][:16]})\n"
            )


def _day(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
