"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def group(help_text: str) -> typer.Typer:
    """A group of commands that shows its help when it is called without one."""
    return typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False)


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.", show_default=False)]
JobName = Annotated[
    str, typer.Argument(metavar="JOB", help="Its name, or the beginning of its digest.", show_default=False)
]
Profiles = Annotated[
    Path, typer.Argument(metavar="PROFILES.yaml", help="The connectors' profiles.", show_default=False)
]
ProfileName = Annotated[str, typer.Argument(metavar="NAME", help="The profile.", show_default=False)]
Ledger = Annotated[
    Path,
    typer.Option(
        "--ledger",
        envvar="FEDHOUSE_LEDGER",
        metavar="DIR",
        file_okay=False,
        help="The consortium's folder.",
        show_default=False,
    ),
]
Key = Annotated[
    str,
    typer.Option(
        envvar="FEDHOUSE_KEY",
        metavar="FILE",
        help="Your key file, or a pkcs11: URI. Its password is taken from --password-file, from "
        "FEDHOUSE_KEY_PASSWORD, or asked.",
        show_default=False,
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file of mode 0600 with the key's password.", show_default=False),
]
Actor = Annotated[
    str | None,
    typer.Option("--as", metavar="MEMBER/NAME", help="Who signs; needed with a token.", show_default=False),
]
