"""The commands of governance: jobs' approval, datasets, permissions, stops, ledger, witnesses, audits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedhouse.cli.options import Actor, JobName, Json, Key, Ledger, PasswordFile, group


def add_governance(app: typer.Typer, job: typer.Typer) -> None:
    """Add the commands to the whole, and the ones about jobs to the group of jobs."""
    _add_jobs(job)
    app.add_typer(dataset_app, name="dataset")
    app.add_typer(permission_app, name="permission")
    app.command()(stop)
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(witness_app, name="witness")
    app.add_typer(audit_app, name="audit")


dataset_app = group("Datasets: the catalogue of what members have.")
permission_app = group("Data-use permissions: what may be done with a member's columns, and until when.")
ledger_app = group("The ledger: every event, its verdict, and the proofs.")
witness_app = group("Witnesses: they replay the log and cosign it.")
audit_app = group("Audits: evidence packs that prove themselves offline, and reports.")


def _add_jobs(job: typer.Typer) -> None:
    for name, command in (
        ("list", list_jobs),
        ("show", show_job),
        ("approve", approve_job),
        ("decline", decline_job),
        ("cancel", cancel_job),
    ):
        job.command(name)(command)


def list_jobs(ledger: Ledger, json_output: Json = False) -> None:
    """Print every job, who has approved it, and how far it is."""
    from fedhouse.cli import job as command

    command.list_all(ledger=ledger, json_output=json_output)


def show_job(job: JobName, ledger: Ledger, json_output: Json = False) -> None:
    """Print what will run: code, difference to the last approved version, columns, bounds."""
    from fedhouse.cli import job as command

    command.show(ledger=ledger, job=job, json_output=json_output)


def approve_job(
    job: JobName,
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Let a job run: for the consortium's count, and at your own member."""
    from fedhouse.cli import job as command
    from fedhouse.consortium_folder import Signing

    command.decide("approved", Signing(ledger, key, password_file, actor), job=job, json_output=json_output)


def decline_job(
    job: JobName,
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Do not let a job run at your member; takes an approval back."""
    from fedhouse.cli import job as command
    from fedhouse.consortium_folder import Signing

    command.decide("declined", Signing(ledger, key, password_file, actor), job=job, json_output=json_output)


def cancel_job(
    job: JobName,
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Give up a job that your member has proposed."""
    from fedhouse.cli import job as command
    from fedhouse.consortium_folder import Signing

    command.decide("cancelled", Signing(ledger, key, password_file, actor), job=job, json_output=json_output)


@dataset_app.command("register")
def register_dataset(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET.yaml", help="What the table promises.", show_default=False)
    ],
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Say that your member has a table that keeps what a dataset file promises."""
    from fedhouse.cli import dataset as command
    from fedhouse.consortium_folder import Signing

    command.register(Signing(ledger, key, password_file, actor), dataset=dataset, json_output=json_output)


@dataset_app.command("list")
def list_datasets(ledger: Ledger, json_output: Json = False) -> None:
    """Print every member's datasets."""
    from fedhouse.cli import dataset as command

    command.list_all(ledger=ledger, json_output=json_output)


@dataset_app.command("show")
def show_dataset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or MEMBER/NAME.", show_default=False)],
    ledger: Ledger,
    json_output: Json = False,
) -> None:
    """Print a dataset's columns, and what they may be used for."""
    from fedhouse.cli import dataset as command

    command.show(ledger=ledger, name=name, json_output=json_output)


@permission_app.command("give")
def give_permission(
    ledger: Ledger,
    key: Key,
    dataset: Annotated[str, typer.Option(help="The dataset's name.", show_default=False)],
    purpose: Annotated[str, typer.Option(help="What for.", show_default=False)],
    columns: Annotated[str, typer.Option(help="Column names, with commas between.", show_default=False)],
    days: Annotated[int, typer.Option(min=1, max=3660, help="For how long.")] = 90,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="For this job only.", show_default="all that fit")
    ] = None,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Permit the use of columns of your member's dataset, for a purpose, until a date."""
    from fedhouse.cli import permission as command
    from fedhouse.consortium_folder import Signing

    command.give(
        Signing(ledger, key, password_file, actor),
        dataset=dataset,
        purpose=purpose,
        columns=columns,
        days=days,
        job=job,
        json_output=json_output,
    )


@permission_app.command("withdraw")
def withdraw_permission(
    permission: Annotated[
        str, typer.Argument(metavar="ID", help="The beginning of its digest.", show_default=False)
    ],
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Take a permission back, from now on."""
    from fedhouse.cli import permission as command
    from fedhouse.consortium_folder import Signing

    signing = Signing(ledger, key, password_file, actor)
    command.withdraw(signing, permission=permission, json_output=json_output)


def stop(
    ledger: Ledger,
    key: Key,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Stop this job.", show_default="everything")
    ] = None,
    member: Annotated[
        str | None, typer.Option(metavar="MEMBER", help="Stop all work at this member.", show_default=False)
    ] = None,
    lift: Annotated[
        str | None, typer.Option(metavar="STOP", help="Vote for lifting this stop.", show_default=False)
    ] = None,
    password_file: PasswordFile = None,
    actor: Actor = None,
    json_output: Json = False,
) -> None:
    """Stop work at once: everywhere, of one job or at one member. With --lift, vote for going on."""
    from fedhouse.cli import permission as command
    from fedhouse.consortium_folder import Signing

    signing = Signing(ledger, key, password_file, actor)
    if lift is not None:
        command.lift(signing, stop=lift, json_output=json_output)
    else:
        command.stop(signing, job=job, member=member, json_output=json_output)


@ledger_app.command("show")
def show_ledger(
    ledger: Ledger,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only what is about this job.", show_default=False)
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what the rules refused.")] = False,
    last: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the last N of them.", show_default=False)
    ] = None,
    json_output: Json = False,
) -> None:
    """Print entries: when, who, what, and the rules' verdict."""
    from fedhouse.cli import ledger as command

    command.show(ledger=ledger, job=job, refused=refused, last=last, json_output=json_output)


@ledger_app.command("export")
def export_ledger(
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="It ends in .csv, .json or .parquet.", show_default=False)
    ],
    ledger: Ledger,
    json_output: Json = False,
) -> None:
    """Write all entries as a table: CSV, JSON or Parquet."""
    from fedhouse.cli import ledger as command

    command.export(ledger=ledger, out=out, json_output=json_output)


@ledger_app.command("publish")
def publish_ledger(
    ledger: Ledger,
    key: Key,
    password_file: PasswordFile = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for witnesses.")] = 60.0,
    json_output: Json = False,
) -> None:
    """Publish the log as its operator, with the log's key, and wait until witnesses have made it final."""
    from fedhouse.cli import ledger as command

    command.publish(ledger=ledger, key=key, password_file=password_file, wait=wait, json_output=json_output)


@ledger_app.command("verify")
def verify_ledger(
    ledger: Ledger,
    trust: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The trust file that you were given.", show_default=False),
    ] = None,
    json_output: Json = False,
) -> None:
    """Replay every entry: signatures, rules, outcomes, trees; and check who has cosigned the head."""
    from fedhouse.cli import ledger as command

    command.verify(ledger=ledger, trust=trust, json_output=json_output)


@witness_app.command("start")
def start_witness(
    public: Annotated[Path, typer.Option(metavar="DIR", help="What the log publishes.", show_default=False)],
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="The witness's own copy and state.", show_default=False)
    ],
    consortium: Annotated[
        str, typer.Option(metavar="DIGEST", help="The founding envelope's digest.", show_default=False)
    ],
    key: Key,
    password_file: PasswordFile = None,
    actor: Actor = None,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="How often it looks.")] = 2.0,
    stop_with_stdin: Annotated[
        bool, typer.Option("--stop-with-stdin", help="Stop when standard input closes: for a parent process.")
    ] = False,
) -> None:
    """Follow the log, replay every entry, and cosign what is true. Runs until it is stopped."""
    from fedhouse.cli import witness as command

    command.start(
        public=public,
        folder=folder,
        consortium=consortium,
        key=key,
        password_file=password_file,
        actor=actor,
        poll_seconds=poll_seconds,
        stop_with_stdin=stop_with_stdin,
    )


@audit_app.command("pack")
def pack_audit(
    out: Annotated[Path, typer.Argument(metavar="PACK.zip", help="Where it goes.", show_default=False)],
    ledger: Ledger,
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Prove the entries of this job.", show_default="all entries"),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write an evidence pack, and beside it the trust file that it is verified with."""
    from fedhouse.cli import audit as command

    command.pack(ledger=ledger, job=job, out=out, json_output=json_output)


@audit_app.command("verify")
def verify_audit(
    pack: Annotated[Path, typer.Argument(metavar="PACK.zip", help="The pack.", show_default=False)],
    trust: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The trust file that you were given.", show_default=False),
    ] = None,
    json_output: Json = False,
) -> None:
    """Verify a pack with the network off. Without the trust file, exit code 6: origin unchecked."""
    from fedhouse.cli import audit as command

    command.verify(pack=pack, trust=trust, json_output=json_output)


@audit_app.command("report")
def report_audit(
    out: Annotated[Path, typer.Argument(metavar="REPORT.html", help="Where it goes.", show_default=False)],
    ledger: Ledger,
    json_output: Json = False,
) -> None:
    """Write a page for people: rounds, approvals, gaps, refusals, quality counts."""
    from fedhouse.cli import audit as command

    command.report(ledger=ledger, out=out, json_output=json_output)
