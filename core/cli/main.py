"""The command `fedhouse`: options and exit codes; what a command does lives in its own module.

A command's module is imported when the command runs and not before, so that `fedhouse --help` answers
in half a second on a machine without Spark or torch.

Exit codes: 0 ok, 2 configuration, 3 quality gate, 4 quorum or time-out (retry), 5 policy refused (do
not retry), 6 verification failed, 1 anything else; the errors of `fedhouse.errors` carry them.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fedhouse.cli.governance import add_governance
from fedhouse.cli.options import JobFile, Json, ProfileName, Profiles, group
from fedhouse.errors import FedhouseError

_HELP = """Federated learning that runs inside each enterprise's data warehouse.

Exit codes: 0 ok, 2 configuration, 3 quality gate, 4 quorum or time-out (retry), \
5 policy refused (do not retry), 6 verification failed, 1 anything else.
"""


@dataclass
class _Options:
    """What stands before the command's name."""

    debug: bool = False


app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
job_app = group("Jobs: what is trained, on which columns, by whose code.")
connector_app = group("Connectors: how a silo reaches its warehouse.")
bench_app = group("Benchmarks, each beside its peer in the same run.")
app.add_typer(job_app, name="job")
app.add_typer(connector_app, name="connector")
app.add_typer(bench_app, name="bench")

add_governance(app, job_app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fedhouse {version('fedhouse')}")
        raise typer.Exit


@app.callback()
def _before(
    context: typer.Context,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks. They can hold values of rows: keep private."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.ensure_object(_Options).debug = debug


@app.command()
def demo(
    silos: Annotated[int, typer.Option(min=2, max=16, help="How many airlines take part.")] = 4,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of training.", show_default="the job's")
    ] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="Run every silo in this process.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the results go.")] = Path("demo-out"),
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random.", show_default="the job's")
    ] = None,
    json_output: Json = False,
) -> None:
    """Train one model across airlines of which each has its own warehouse."""
    from fedhouse.cli import demo as command

    command.demo(
        silos=silos,
        rounds=rounds,
        in_process=in_process,
        resume=resume,
        out=out,
        seed=seed,
        json_output=json_output,
    )


@app.command()
def doctor(json_output: Json = False) -> None:
    """Say what is missing on this machine, and the command that mends it."""
    from fedhouse.cli import doctor as command

    command.doctor(json_output=json_output)


@app.command()
def train(
    job: Annotated[Path, typer.Option(metavar="JOB.yaml", help="The job.", show_default=False)],
    silo: Annotated[
        Path, typer.Option(metavar="SILO.yaml", help="This silo: its name and warehouse.", show_default=False)
    ],
    run: Annotated[
        Path,
        typer.Option(file_okay=False, help="The run's folder; its rounds share it.", show_default=False),
    ],
    round_number: Annotated[
        int, typer.Option("--round", min=0, help="Which round to train.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, read and train nothing.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Train one silo's part of one round. Running it again changes nothing."""
    from fedhouse.cli import train as command

    command.train(
        job=job, silo=silo, run=run, round_number=round_number, dry_run=dry_run, json_output=json_output
    )


@job_app.command()
def rehearse(
    job: JobFile,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to make up from the schema.")] = 2000,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH.parquet", help="Use these rows and make up none.", show_default=False),
    ] = None,
    json_output: Json = False,
) -> None:
    """Try a job on this machine, in seconds, before any silo sees it."""
    from fedhouse.cli import job as command

    command.rehearse(job=job, rows=rows, data=data, json_output=json_output)


@connector_app.command("spark-conf")
def spark_conf(profiles: Profiles, name: ProfileName) -> None:
    """Print the static Spark configuration that a profile needs, for spark-submit. Holds no secret."""
    from fedhouse.cli import connector as command

    command.spark_conf(profiles=profiles, name=name)


@connector_app.command("test")
def check_connector(
    profiles: Profiles,
    name: ProfileName,
    table: Annotated[str, typer.Option(help="A table to pin and count.", show_default=False)],
    json_output: Json = False,
) -> None:
    """Reach a warehouse, pin a table, and print its columns and row count."""
    from fedhouse.cli import connector as command

    command.test(profiles=profiles, name=name, table=table, json_output=json_output)


@bench_app.command("training")
def bench_training(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the table.")] = 1_000_000,
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs to take the median of.")] = 9,
    json_output: Json = False,
) -> None:
    """Rows a second into a trained model, beside plain PyTorch."""
    from fedhouse.cli import bench as command

    command.training(rows=rows, pairs=pairs, json_output=json_output)


def run() -> NoReturn:
    """Entry point of the command: runs it, turns every error into one line and an exit code."""
    options = _Options()
    try:
        app(obj=options)
    except FedhouseError as error:
        if options.debug:
            traceback.print_exc()
        _fail(" ".join(str(error).split()), error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort of the process
        if options.debug:
            traceback.print_exc()
        # The message of a foreign error may hold a row's value; its class and place do not.
        _fail(f"Unexpected {type(error).__name__} at {_place(error)}. `fedhouse --debug …` shows more.", 1)
    sys.exit(0)


def _fail(line: str, exit_code: int) -> NoReturn:
    typer.echo(f"fedhouse: {line}", err=True)
    sys.exit(exit_code)


def _place(error: Exception) -> str:
    """Module and line of the innermost frame that is fedhouse's."""
    places = [
        f"{frame.f_globals['__name__']}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith("fedhouse")
    ]
    return places[-1] if places else "an unknown place"
