"""`fedhouse job …`: what a model owner does with a job, and those who let it run."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.errors import IntegrityError

if TYPE_CHECKING:
    from fedhouse.consortium_folder import Signing
    from fedhouse.governance.families.jobs import JobRecord
    from fedhouse.governance.state import State
    from fedhouse.jobs import Job


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


def list_all(*, ledger: Path, json_output: bool) -> None:
    """Print every job of a ledger, and where it stands."""
    from fedhouse.consortium_folder import read_state

    state = read_state(ledger)
    rows = [_summary(digest, job, state) for digest, job in _by_name(state)]
    if json_output:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for title in ("job", "digest", "status", "approved by", "rounds done", "purpose"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            row["name"],
            row["job"][:12],
            row["status"],
            ", ".join(row["approvals"]) or "nobody",
            f"{row['rounds_done']} of {row['rounds']}",
            row["purpose"],
        )
    Console().print(table)


def show(*, ledger: Path, job: str, json_output: bool) -> None:
    """Print what a job would run: code, difference to the last approved version, columns, bounds."""
    from fedhouse.consortium_folder import find_job, load_job_files, read_state
    from fedhouse.proposals import terms, untrue

    state = read_state(ledger)
    digest = find_job(state, job)
    record = state.jobs.jobs[digest]
    files = load_job_files(ledger, digest)
    earlier = _last_approved(ledger, state, digest)
    told = _summary(digest, record, state) | {
        "proposer": record.proposer,
        "bundle": record.bundle,
        "dataset": record.dataset,
        "columns": list(record.columns),
        "silos": list(record.silos),
        "min_cohort": record.min_cohort,
        "entries": files.bundle.entries.to_json(),
        "arguments": {"model": dict(files.bundle.model_args), "train": dict(files.bundle.train_args)},
        "bounds": dict(files.bundle.bounds),
        "parameters": files.bundle.layout.size,
        "sources": dict(files.bundle.sources),
        "untrue": untrue(record, terms(files)),
        "compared_with": earlier,
        "difference": "" if earlier is None else _difference(load_job_files(ledger, earlier), files),
    }
    if json_output:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    _print_job(told)


def decide(verdict: str, signing: Signing, *, job: str, json_output: bool) -> None:
    """Approve, decline or cancel a job as the person whose key it is.

    Raises
    ------
    PolicyRefusedError
        If the rules refuse it; a proposer approving its own job, for example.
    """
    from fedhouse.consortium_folder import find_job, load_job_files, read_state

    state = read_state(signing.ledger)
    digest = find_job(state, job)
    body: dict[str, Any] = {"job": digest}
    if verdict == "approved":
        # Who approves names the code that lies here to be read, and not what the ledger claims.
        files = load_job_files(signing.ledger, digest)
        body["bundle"] = files.bundle.digest
        _require_true(state.jobs.jobs[digest], files)
    answer = signing.record(f"{verdict}-{digest[:16]}", f"job.{verdict}", body)
    status = read_state(signing.ledger).jobs.jobs[digest].status
    if json_output:
        sys.stdout.write(json.dumps({"job": digest, "status": status, "entry": answer.index}) + "\n")
    else:
        sys.stdout.write(f"{verdict.capitalize()} as entry {answer.index}; the job is {status}.\n")


def _require_true(record: JobRecord, files: Job) -> None:
    """Refuse to approve a job of which the proposal says something else than its files."""
    from fedhouse.proposals import terms, untrue

    if wrong := untrue(record, terms(files)):
        raise IntegrityError(
            f"The proposal on the ledger is untrue about {', '.join(wrong)}: the job's files say otherwise.",
            mend="Do not approve it; ask whoever proposed it.",
        )


def _by_name(state: State) -> list[tuple[str, JobRecord]]:
    return sorted(state.jobs.jobs.items(), key=lambda item: (item[1].name, item[0]))


def _summary(digest: str, job: JobRecord, state: State) -> dict[str, Any]:
    return {
        "job": digest,
        "name": job.name,
        "status": job.status,
        "purpose": job.purpose,
        "approvals": dict(sorted(job.approvals.items())),
        "declined": dict(sorted(job.declined.items())),
        "rounds": job.rounds,
        "rounds_done": state.rounds.of(digest).finished,
    }


def _last_approved(folder: Path, state: State, digest: str) -> str | None:
    """The latest job of the same name that was proposed before this one, and approved by anybody."""
    from fedhouse.consortium_folder import proposed_jobs

    name = state.jobs.jobs[digest].name
    order = proposed_jobs(folder)
    before = order[: order.index(digest)]
    fit = [other for other in before if (job := state.jobs.jobs[other]).name == name and job.approvals]
    return fit[-1] if fit else None


def _difference(old: Job, new: Job) -> str:
    """A unified difference of all source files, and of the description."""
    lines: list[str] = []
    before = dict(old.bundle.sources) | {"job.json": _described(old)}
    after = dict(new.bundle.sources) | {"job.json": _described(new)}
    for path in sorted(before.keys() | after.keys()):
        lines += difflib.unified_diff(
            before.get(path, "").splitlines(),
            after.get(path, "").splitlines(),
            f"approved/{path}",
            f"proposed/{path}",
            lineterm="",
        )
    if old.bundle.weights != new.bundle.weights:
        lines.append("The first weights differ.")
    return "\n".join(lines)


def _described(job: Job) -> str:
    return json.dumps(job.spec.model_dump(mode="json"), indent=1, sort_keys=True)


def _print_job(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None)
    bounds = ", ".join(f"{name} {value:,}" for name, value in told["bounds"].items())
    people = "; ".join(f"{member}: {person}" for member, person in told["approvals"].items())
    refused = "; ".join(f"{member}: {person}" for member, person in told["declined"].items())
    for title, value in (
        ("job", told["job"]),
        ("status", f"{told['status']}, {told['rounds_done']} of {told['rounds']} rounds done"),
        ("proposed by", told["proposer"]),
        ("approved by", people or "nobody"),
        ("declined by", refused or "nobody"),
        ("purpose", told["purpose"]),
        ("reads", f"{told['dataset']}: {', '.join(told['columns'])}"),
        ("at", f"{', '.join(told['silos'])}; sums of at least {told['min_cohort']}"),
        ("runs", ", ".join(f"{name} {entry}" for name, entry in told["entries"].items() if entry)),
        ("with", json.dumps(told["arguments"])),
        ("bounds", f"{bounds}; {told['parameters']:,} parameters"),
        ("bundle", told["bundle"]),
    ):
        table.add_row(title, str(value))
    console.print(table)
    if told["untrue"]:
        wrong = ", ".join(told["untrue"])
        console.print(f"[bold red]The proposal says otherwise than these files: {wrong}. Do not approve it.")
    for path, text in told["sources"].items():
        console.rule(f"[bold]{path}", align="left")
        console.print(Syntax(text, "python", line_numbers=True, background_color="default"))
    if told["compared_with"] is None:
        console.rule("No version of this job was approved before", align="left")
    else:
        console.rule(f"Difference to {told['compared_with'][:16]}, approved before", align="left")
        console.print(Syntax(told["difference"] or "none", "diff", background_color="default"))
