"""What happened in one job: who decided, which rounds there were, who took part, and what is missing.

A **gap** is something that an auditor asks about: a round that was never closed, a silo that handed something
over and was left out, an approval that came late or not at all. Being there says nothing about fault; a round
without quorum leaves gaps too.

What no ledger shows: that a silo which said nothing also read nothing. Its own gate and its warehouse's
access log show that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedhouse.audit.walk import Told
from fedhouse.governance.families.jobs import JobRecord
from fedhouse.governance.state import State

GapKind = Literal[
    "approval-late",
    "approval-missing",
    "approvals-fewer",
    "attestation-missing",
    "gate-failed",
    "left-out",
    "no-commitment",
    "round-not-closed",
    "round-not-published",
    "not-ended",
]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something to ask about; `index` is the entry to begin at."""

    job: str
    kind: GapKind
    text: str
    index: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word on a job: `approved` or `declined`, in the name of a member."""

    member: str
    actor: str
    verdict: Literal["approved", "declined"]
    time: int
    index: int
    late: bool
    """Whether the first round had been opened by then."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job: statistics, an update or an evaluation."""

    round: int
    purpose: str
    index: int
    opened: int
    cohort: tuple[str, ...]
    committed: tuple[tuple[str, int], ...] = ()
    """The silos that committed, and when, in the ledger's order."""
    contributors: tuple[str, ...] = ()
    closed: int | None = None
    published: int | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        return "statistics" if self.purpose == "statistics" else f"round {self.round}, {self.purpose}"

    @property
    def ended(self) -> int:
        """When it was last heard of."""
        times = [self.opened, *(time for _, time in self.committed), self.closed or 0, self.published or 0]
        return max(times)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Silos that committed and were not summed, once the set was closed."""
        silos = () if self.closed is None else tuple(silo for silo, _ in self.committed)
        return tuple(silo for silo in silos if silo not in self.contributors)

    @property
    def silent(self) -> tuple[str, ...]:
        """Silos that were asked and did not commit before the set was closed."""
        done = {silo for silo, _ in self.committed}
        return () if self.closed is None else tuple(silo for silo in self.cohort if silo not in done)


@dataclass(frozen=True, slots=True)
class CheckCount:
    """One expectation of a silo's gate: counts, never values."""

    name: str
    looked_at: int
    unexpected: int
    passed: bool


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a silo's quality gate found for the job."""

    member: str
    time: int
    index: int
    passed: bool
    rows: int
    checks: tuple[CheckCount, ...]

    @property
    def unexpected(self) -> int:
        """Values that some expectation did not hold for."""
        return sum(check.unexpected for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the expectations that did not pass."""
        return tuple(check.name for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True)
class JobFinding:
    """A job's whole course."""

    digest: str
    record: JobRecord
    """As it is at the end."""
    proposed: int
    index: int
    asked: int
    """How many entities had to approve, by the charter when it was proposed."""
    approved: int | None
    """When enough had."""
    decisions: tuple[Decision, ...]
    steps: tuple[Step, ...]
    attestations: tuple[Attestation, ...]
    ended: int | None
    """When it was closed or cancelled."""
    reason: str
    """Why it was closed, by its operator's word; `cancelled` if it was."""
    gaps: tuple[Gap, ...] = ()

    @property
    def name(self) -> str:
        """The job's name, which other jobs may have too."""
        return self.record.name

    @property
    def began(self) -> int | None:
        """When its first step was opened."""
        return self.steps[0].opened if self.steps else None

    def decision_of(self, member: str) -> Decision | None:
        """The member's last word on the job."""
        return next((one for one in reversed(self.decisions) if one.member == member), None)


def job_finding(digest: str, history: Sequence[Told], state: State) -> JobFinding:
    """The course of a job, without its gaps, from the accepted events that name it."""
    proposed = history[0]
    changes = [(told.time, change) for told in history for change in told.changes if change.subject == digest]
    approved = [time for time, change in changes if change.kind == "job" and change.value == "approved"]
    ended = [told for told in history if told.type in ("job.closed", "job.cancelled")]
    steps = _steps(history)
    began = steps[0].index if steps else None
    return JobFinding(
        digest=digest,
        record=state.jobs.jobs[digest],
        proposed=proposed.time,
        index=proposed.index,
        asked=next(int(change.value) for _, change in changes if change.kind == "asked"),
        approved=approved[0] if approved else None,
        decisions=tuple(_decisions(history, began)),
        steps=steps,
        attestations=tuple(_attestation(told) for told in history if told.type == "quality.attested"),
        ended=ended[0].time if ended else None,
        reason=str(ended[0].body.get("reason", "cancelled")) if ended else "",
    )


def _decisions(history: Iterable[Told], began: int | None) -> Iterable[Decision]:
    for told in history:
        if told.type in ("job.approved", "job.declined"):
            verdict: Literal["approved", "declined"] = (
                "approved" if told.type == "job.approved" else "declined"
            )
            late = began is not None and told.index > began
            yield Decision(told.member, told.actor, verdict, told.time, told.index, late)


def _attestation(told: Told) -> Attestation:
    body = told.body
    checks = tuple(
        CheckCount(_check_name(check), check["looked_at"], check["unexpected"], check["passed"])
        for check in body["checks"]
    )
    return Attestation(told.member, told.time, told.index, body["passed"], body["rows"], checks)


def _check_name(check: dict[str, Any]) -> str:
    column = check.get("column")
    return str(check["expectation"]) if column is None else f"{check['expectation']} {column}"


def _steps(history: Iterable[Told]) -> tuple[Step, ...]:
    """The rules let one step of a job be under way at a time, so each event is about the last one opened."""
    found: list[Step] = []
    committed: list[tuple[str, int]] = []
    fields: dict[str, Any] = {}
    for told in history:
        if told.type == "round.opened":
            committed, body = [], told.body
            fields = {"round": body["round"], "purpose": body["purpose"], "cohort": tuple(body["cohort"])}
            fields |= {"index": told.index, "opened": told.time}
            found.append(Step(**fields))
            continue
        if told.type == "round.committed":
            committed.append((told.member, told.time))
            fields["committed"] = tuple(committed)
        elif told.type == "round.commits-closed":
            fields |= {"closed": told.time, "contributors": tuple(told.body["contributors"])}
        elif told.type == "round.aggregate-published":
            fields["published"] = told.time
        else:
            continue
        found[-1] = Step(**fields)
    return tuple(found)
