"""Family `round`: opened, committed to, closed, its sum published; one step at a time.

A job's steps are the statistics (round 0), then for each round the update and, where the job has a
holdout, the evaluation. A step is opened by the coordinator for a cohort and a base model; silos commit
to the digest of what they will hand over, before anybody has seen it; the coordinator closes the set, and
publishes the digest of what the sum gave.

An agent that skips its own checks gains nothing here: its commitment is refused by the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedhouse.governance.event import (
    Body,
    DecimalText,
    Digest,
    Event,
    EventType,
    Label,
    Result,
    require,
    require_kind,
)
from fedhouse.governance.records import Map, Record, ordered

if TYPE_CHECKING:
    from fedhouse.governance.families.jobs import JobRecord
    from fedhouse.governance.state import State

Purpose = Literal["statistics", "update", "evaluation"]
RoundNumber = Annotated[int, Field(ge=0, le=10_000)]
Silos = Annotated[tuple[Label, ...], Field(min_length=1, max_length=64, strict=False)]


@dataclass(frozen=True)
class JobRounds(Record):
    """Where a job's rounds stand: the present step, and the models that earlier ones gave."""

    round: int = 0
    purpose: Purpose = "statistics"
    phase: Literal["before", "open", "closed", "published"] = "before"
    base: str = ""
    cohort: tuple[str, ...] = ()
    commitments: Map[str] = field(default_factory=Map)
    contributors: tuple[str, ...] = ()
    finished: int = 0
    """Rounds whose update has been published."""
    model: str = ""
    """Digest of the latest model."""
    models: Map[int] = field(default_factory=Map)
    """The round that gave each model, by the model's digest."""

    def next_step(self, job: JobRecord) -> tuple[int, Purpose] | None:
        """The step that may be opened now; None while one is under way, or after the last."""
        if self.phase == "before":
            return 0, "statistics"
        if self.phase != "published":
            return None
        if self.purpose == "update" and job.evaluated:
            return self.round, "evaluation"
        return (self.round + 1, "update") if self.round < job.rounds else None


@dataclass(frozen=True)
class RoundsState(Record):
    """The rounds of every job that has begun."""

    jobs: Map[JobRounds] = field(default_factory=Map)

    def of(self, job: str) -> JobRounds:
        """Where the job stands; at its beginning if it has none."""
        return self.jobs.get(job) or JobRounds()


class _OfStep(Body):
    job: Digest
    round: RoundNumber
    purpose: Purpose

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The job."""
        return (("job", self.job),)


class Opened(_OfStep):
    """The coordinator opens a step for these silos, from this base."""

    base: Digest
    """Digest of the model to train from or to evaluate; for the statistics, of the bundle."""
    cohort: Silos


class Committed(_OfStep):
    """A silo's agent commits to what it will hand over: the SHA-256 of the sealed contribution."""

    base: Digest
    commitment: Digest


class CommitsClosed(_OfStep):
    """The coordinator closes the step: exactly these silos' contributions will be summed."""

    contributors: Silos


class AggregatePublished(_OfStep):
    """The coordinator has opened the sum, and says what it gave."""

    result: Digest
    """Digest of the encoder (statistics), of the next model (update), of the metrics (evaluation)."""
    metrics: Annotated[dict[Label, DecimalText], Field(max_length=64)] = Field(default_factory=dict)


def opened(state: State, event: Event[Opened], _: int) -> Result:
    """By the job's operator: the next step, for silos of the job, from the model that the last one gave."""
    require_kind(event, "operator")
    body = event.body
    job, rounds = state.runnable(body.job), state.rounds.of(body.job)
    job.require_operator(event)
    require((body.round, body.purpose) == rounds.next_step(job), "order")
    require(ordered(body.cohort) == body.cohort and set(body.cohort) <= set(job.silos), "cohort")
    require(len(state.consortium.entities(body.cohort)) >= job.min_cohort, "cohort")
    if body.purpose == "statistics":
        require(body.base == job.bundle, "base")
    elif rounds.model:
        require(body.base == rounds.model, "base")
    step = JobRounds(
        round=body.round,
        purpose=body.purpose,
        phase="open",
        base=body.base,
        cohort=body.cohort,
        finished=rounds.finished,
        model=rounds.model,
        models=rounds.models,
    )
    return _with(state, body.job, step), ()


def committed(state: State, event: Event[Committed], time: int) -> Result:
    """By the agent of a silo of the cohort, once, while the step is open and the silo may take part."""
    require_kind(event, "agent")
    body = event.body
    rounds = _step(state, body, "open")
    state.may_take_part(body.job, event.member, time)
    require(event.member in rounds.cohort, "cohort")
    require(event.member not in rounds.commitments, "already-committed")
    require(body.base == rounds.base, "base")
    quality = state.data.quality.get(f"{body.job}/{event.member}")
    require(quality is not None and quality.passed, "quality-gate")
    commitments = rounds.commitments.set(event.member, body.commitment)
    return _with(state, body.job, rounds.changed(commitments=commitments)), ()


def commits_closed(state: State, event: Event[CommitsClosed], time: int) -> Result:
    """By the job's operator: silos that have committed and may still take part, enough entities of them."""
    require_kind(event, "operator")
    body = event.body
    job = state.runnable(body.job)
    job.require_operator(event)
    rounds = _step(state, body, "open")
    require(ordered(body.contributors) == body.contributors, "order")
    for silo in body.contributors:
        require(silo in rounds.commitments, "not-committed")
        state.may_take_part(body.job, silo, time)
    require(len(state.consortium.entities(body.contributors)) >= job.min_cohort, "cohort")
    step = rounds.changed(phase="closed", contributors=body.contributors)
    return _with(state, body.job, step), ()


def aggregate_published(state: State, event: Event[AggregatePublished], _: int) -> Result:
    """By the job's operator, after the set was closed."""
    require_kind(event, "operator")
    body = event.body
    state.runnable(body.job).require_operator(event)
    rounds = _step(state, body, "closed")
    step = rounds.changed(phase="published")
    if body.purpose == "update":
        models = rounds.models.set(body.result, body.round)
        step = step.changed(finished=body.round, model=body.result, models=models)
    return _with(state, body.job, step), ()


def _step(state: State, body: _OfStep, phase: str) -> JobRounds:
    """The job's rounds, if the event is about the present step and that is in `phase`."""
    state.jobs.known(body.job)
    rounds = state.rounds.of(body.job)
    require((body.round, body.purpose) == (rounds.round, rounds.purpose), "other-step")
    require(rounds.phase == phase, "closed" if rounds.phase in ("closed", "published") else "not-open")
    return rounds


def _with(state: State, job: str, rounds: JobRounds) -> State:
    return state.changed(rounds=RoundsState(state.rounds.jobs.set(job, rounds)))


EVENTS = {
    "round.opened": EventType(Opened, opened),
    "round.committed": EventType(Committed, committed),
    "round.commits-closed": EventType(CommitsClosed, commits_closed),
    "round.aggregate-published": EventType(AggregatePublished, aggregate_published),
}
