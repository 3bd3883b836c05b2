"""The audit report: one HTML page that carries its pictures in itself, without scripts or anything to load.

The page shows what `fedhouse.audit.findings` has drawn from the entries, in the order in which an auditor
asks: what needs an answer, who approved what, how each job went, what the rules refused, stops, permissions,
members and keys, texts off the ledger. The same ledger gives the same bytes.

It is made from entries that somebody holds. That they are the ledger's is shown by verifying them:
`fedhouse ledger verify`, or `fedhouse audit verify` of a pack.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fedhouse.audit import pictures
from fedhouse.audit.axis import lasting, short_date, short_time
from fedhouse.audit.findings import Findings, find
from fedhouse.audit.jobs import JobFinding
from fedhouse.encoding import write_atomic
from fedhouse.errors import FedhouseError
from fedhouse.governance.ledger import Entry
from fedhouse.governance.state import State

# Tables longer than this say how much they leave out; an export has everything.
ROWS_SHOWN: Final = 200


def write_report(entries: Iterable[Entry], state: State, out: Path) -> Findings:
    """Write the page; gives what it shows.

    Parameters
    ----------
    entries
        All entries of a ledger, from the first.
    state
        The state after them.

    Raises
    ------
    VerificationError
        If an entry's verdict is not that of the rules, or the state is another.
    FedhouseError
        If the file cannot be written.
    """
    findings = find(entries, state)
    try:
        write_atomic(out, render(findings).encode())
    except OSError as error:
        raise FedhouseError(
            f"{out} could not be written ({error.strerror}).", mend="Name another place, or make room."
        ) from error
    return findings


def render(findings: Findings) -> str:
    """The page."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"moment": short_time, "day": short_date, "lasting": lasting}
    source = files("fedhouse.audit").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        f=findings,
        consortium=findings.state.consortium,
        names={job.digest: job.name for job in findings.jobs},
        matrices=pictures.approval_matrices(findings),
        refused=pictures.refusal_bars(findings.refused_by_code) if findings.refusals else "",
        jobs=[(job, _pictures(job, findings)) for job in findings.jobs],
        most=ROWS_SHOWN,
        steps_shown=pictures.STEPS_SHOWN,
    )


def _pictures(job: JobFinding, findings: Findings) -> dict[str, Markup]:
    """The pictures of a job; empty where there is nothing to show."""
    found = dict.fromkeys(("rounds", "contributions", "quality"), Markup(""))
    found["approvals"] = pictures.approvals_over_time(job)
    if job.steps:
        stops = [
            stop
            for stop in findings.stops
            if stop.scope == "consortium"
            or stop.subject == job.digest
            or (stop.scope == "member" and stop.subject in job.record.silos)
        ]
        found["rounds"] = pictures.rounds_over_time(job, stops, findings.last)
        found["contributions"] = pictures.contributions(job)
    if job.attestations:
        found["quality"] = pictures.quality_bars(job.attestations)
    return found
