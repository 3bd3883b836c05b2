"""Family `job`: proposed, approved by k entities and by each silo for itself, declined, cancelled, closed.

A job is named by its digest, which covers its description, its dataset and the bundle of code that runs.
Whoever proposes it approves it never (four eyes). It may run once enough entities have approved; a silo
takes part only with its own approval besides.

Its rounds are one operator's: the one that the proposal names, else any of the proposing member. Others could
end a job or publish for it, whoever runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fedhouse.governance.event import (
    ActorName,
    Body,
    Count,
    Digest,
    Effect,
    Event,
    EventType,
    Label,
    Refused,
    Result,
    require,
    require_kind,
    require_role,
)
from fedhouse.governance.records import Map, Record, ordered

if TYPE_CHECKING:
    from fedhouse.governance.state import State

JobStatus = Literal["proposed", "approved", "cancelled", "closed"]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=2000, strict=False)]


@dataclass(frozen=True)
class JobRecord(Record):
    """A job as proposed, and who has said what of it: the person by the member it speaks for."""

    name: str
    proposer: str
    bundle: str
    dataset: str
    purpose: str
    columns: tuple[str, ...]
    silos: tuple[str, ...]
    rounds: int
    min_cohort: int
    evaluated: bool
    operator: str = ""
    status: JobStatus = "proposed"
    approvals: Map[str] = field(default_factory=Map)
    declined: Map[str] = field(default_factory=Map)
    model: str = ""
    """Digest of the final model, once the job is closed with one."""

    @property
    def open(self) -> bool:
        """Whether it is neither cancelled nor closed."""
        return self.status in ("proposed", "approved")

    @property
    def owner(self) -> str:
        """The member whose job it is."""
        return self.proposer.partition("/")[0]

    def require_operator(self, event: Event[Any]) -> None:
        """Refuse an event that is not by the operator that runs this job."""
        require_kind(event, "operator")
        runs = event.actor == self.operator if self.operator else event.member == self.owner
        require(runs, "other-operator")


@dataclass(frozen=True)
class JobsState(Record):
    """Every job by its digest."""

    jobs: Map[JobRecord] = field(default_factory=Map)

    def known(self, job: str) -> JobRecord:
        """The job with this digest; refuses the event if there is none."""
        found = self.jobs.get(job)
        if found is None:
            raise Refused("unknown-job")
        return found

    def still_open(self, job: str) -> JobRecord:
        """The job, if it is neither cancelled nor closed."""
        found = self.known(job)
        require(found.open, "closed")
        return found

    def with_job(self, digest: str, job: JobRecord) -> JobsState:
        """The state with this job changed."""
        return replace(self, jobs=self.jobs.set(digest, job))


class JobBounds(Body):
    """What the job's code may use, as its bundle declares."""

    seconds: Count
    parameters: Count
    scratch_mib: Count


class _OfJob(Body):
    job: Digest

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The job."""
        return (("job", self.job),)


class Proposed(_OfJob):
    """An owner wants this job to run on these silos' data, for this purpose."""

    name: Label
    bundle: Digest
    dataset: Label
    purpose: Label
    columns: Labels
    """Every column that a silo reads for it, label, key and holdout included."""
    silos: Annotated[tuple[Label, ...], Field(min_length=1, max_length=64, strict=False)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    min_cohort: Annotated[int, Field(ge=1, le=64)]
    evaluated: bool
    """Whether each round is evaluated on held-out rows."""
    metric: Label
    bounds: JobBounds
    replaces: Digest | None = None
    """An earlier job of the same member, of which this is a new version."""
    operator: ActorName | None = None
    """Who coordinates; by default, any operator of the proposing member."""

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The job, and the bundle that runs."""
        return (("job", self.job), ("bundle", self.bundle))


class Approved(_OfJob):
    """A person has read the bundle with this digest, and lets it run."""

    bundle: Digest


class Declined(_OfJob):
    """A person does not let the job run at its member."""


class Cancelled(_OfJob):
    """The proposing member gives the job up."""


class Closed(_OfJob):
    """The job has ended."""

    reason: Literal["rounds", "target", "patience", "quorum"]
    rounds: Annotated[int, Field(ge=0, le=10_000)]
    model: Digest | None = None


def proposed(state: State, event: Event[Proposed], _: int) -> Result:
    """By an owner. The silos are active members that have registered the dataset with all its columns."""
    require_role(event, "owner")
    body = event.body
    require(body.job not in state.jobs.jobs, "job-known")
    require(ordered(body.silos) == body.silos and ordered(body.columns) == body.columns, "order")
    for silo in body.silos:
        require(state.consortium.status(silo) == "active", "member-inactive")
        dataset = state.data.datasets.get(f"{silo}/{body.dataset}")
        require(dataset is not None and set(body.columns) <= set(dataset.columns), "unknown-dataset")
    require(body.min_cohort <= len(state.consortium.entities(body.silos)), "cohort")
    if body.replaces is not None:
        require(state.jobs.known(body.replaces).owner == event.member, "other-member")
    job = JobRecord(
        name=body.name,
        proposer=event.actor,
        bundle=body.bundle,
        dataset=body.dataset,
        purpose=body.purpose,
        columns=body.columns,
        silos=body.silos,
        rounds=body.rounds,
        min_cohort=body.min_cohort,
        evaluated=body.evaluated,
        operator=body.operator or "",
    )
    return replace(state, jobs=state.jobs.with_job(body.job, job)), ()


def approved(state: State, event: Event[Approved], _: int) -> Result:
    """By a steward or officer who did not propose it, for the bundle that was proposed; once a member."""
    require_role(event, "steward", "officer")
    job = state.jobs.still_open(event.body.job)
    require(event.actor != job.proposer, "four-eyes")
    require(event.body.bundle == job.bundle, "other-bundle")
    require(event.member not in job.approvals, "already-voted")
    approvals = job.approvals.set(event.member, event.actor)
    declined = job.declined.delete(event.member) if event.member in job.declined else job.declined
    job = replace(job, approvals=approvals, declined=declined)
    if job.status == "proposed" and _enough(state, job):
        job = replace(job, status="approved")
    return replace(state, jobs=state.jobs.with_job(event.body.job, job)), ()


def _enough(state: State, job: JobRecord) -> bool:
    counted = tuple(name for name in job.approvals if state.consortium.status(name) == "active")
    return len(state.consortium.entities(counted)) >= state.consortium.job_approvals


def declined(state: State, event: Event[Declined], _: int) -> Result:
    """By a steward or officer; takes back the member's approval, and stops the job there."""
    require_role(event, "steward", "officer")
    job = state.jobs.still_open(event.body.job)
    require(event.member not in job.declined, "already-voted")
    approvals = job.approvals.delete(event.member) if event.member in job.approvals else job.approvals
    job = replace(job, approvals=approvals, declined=job.declined.set(event.member, event.actor))
    effects = (
        Effect("stop-work", event.body.job, event.member),
        Effect("delete-prepared", event.body.job, event.member),
    )
    return replace(state, jobs=state.jobs.with_job(event.body.job, job)), effects


def cancelled(state: State, event: Event[Cancelled], _: int) -> Result:
    """By an owner of the proposing member."""
    require_role(event, "owner")
    job = state.jobs.still_open(event.body.job)
    require(job.owner == event.member, "other-member")
    effects = (Effect("stop-work", event.body.job), Effect("delete-prepared", event.body.job))
    return replace(state, jobs=state.jobs.with_job(event.body.job, replace(job, status="cancelled"))), effects


def closed(state: State, event: Event[Closed], _: int) -> Result:
    """By the job's operator, with one of its models; with none if no round was done.

    The reason cannot be proved here, but it must be possible.
    """
    body = event.body
    require_kind(event, "operator")
    job = state.jobs.still_open(body.job)
    job.require_operator(event)
    rounds = state.rounds.of(body.job)
    require(job.status == "approved", "not-approved")
    require(body.rounds == rounds.finished, "rounds")
    require(body.reason != "rounds" or body.rounds == job.rounds, "reason")
    require(body.reason not in ("target", "patience") or job.evaluated, "reason")
    require((body.model is None) == (body.rounds == 0), "model")
    require(body.model is None or body.model in rounds.models, "model")
    job = replace(job, status="closed", model=body.model or "")
    effects = (Effect("delete-prepared", body.job),)
    return replace(state, jobs=state.jobs.with_job(body.job, job)), effects


EVENTS = {
    "job.proposed": EventType(Proposed, proposed),
    "job.approved": EventType(Approved, approved),
    "job.declined": EventType(Declined, declined),
    "job.cancelled": EventType(Cancelled, cancelled),
    "job.closed": EventType(Closed, closed),
}
