"""`fedhouse job …`: what a model owner does with a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def rehearse(*, job: Path, rows: int, data: Path | None, json_output: bool) -> None:
    """Rehearse the job in a file and print what came out."""
    from fedhouse.jobs import load_job

    opened = load_job(job)
    told = opened.rehearse(rows, data=data)
    if json_output:
        sys.stdout.write(
            json.dumps({"job": opened.digest, "bundle": opened.bundle.digest} | told.to_json()) + "\n"
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Rehearsal of {opened.name}", title_justify="left", show_header=False, box=None)
    figures = told.to_json()
    metrics = figures.pop("metrics")
    for name, value in {**figures, **metrics}.items():
        table.add_row(name.replace("_", " "), f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
    rows_told = (
        "mock rows made up from the schema: metrics mean nothing" if data is None else f"rows of {data}"
    )
    table.add_row("bundle", opened.bundle.digest)
    console = Console()
    console.print(table)
    console.print(f"Trained on {rows_told}.", style="dim")
