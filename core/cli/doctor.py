"""`fedhouse doctor`: prints what `fedhouse.doctor` finds."""

from __future__ import annotations

import json

import typer

from fedhouse.doctor import Finding, examine
from fedhouse.errors import ConfigurationError

_COLOURS = {"ok": "green", "note": "yellow", "missing": "red"}


def doctor(*, json_output: bool) -> None:
    """Print the findings; exit with the code of a configuration error if something required is missing."""
    found = examine()
    if json_output:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        for finding in found.findings:
            _print(finding)
        if found.fit:
            typer.echo("Everything that training needs is here.")
        else:
            typer.echo("Something that training needs is missing; see above.")
    if not found.fit:
        raise typer.Exit(ConfigurationError.exit_code)


def _print(finding: Finding) -> None:
    # An optional thing that is missing is no fault.
    status = "note" if finding.status == "missing" and not finding.required else finding.status
    label = typer.style(f"{status:8}", fg=_COLOURS[status])
    typer.echo(f"{label}{finding.name:26}{finding.found}")
    if finding.mend:
        typer.echo(f"{'':34}{finding.mend}")
