"""Families `permission` and `stop`: what may be done with a member's data, and the emergency brake.

A data-use permission lets columns of a member's dataset be used for a purpose until a date. It is no
consent: under the GDPR, consent belongs to data subjects.

Any person stops work at once; lifting takes several entities, and never the same person.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedhouse.governance.event import (
    Body,
    Digest,
    Effect,
    Event,
    EventType,
    Label,
    Result,
    Seconds,
    require,
    require_role,
)
from fedhouse.governance.records import Map, Record, ordered

if TYPE_CHECKING:
    from fedhouse.governance.families.jobs import JobRecord
    from fedhouse.governance.state import State


@dataclass(frozen=True)
class Permission(Record):
    """What a member allows. An empty list of jobs means all that fit."""

    member: str
    dataset: str
    purpose: str
    columns: tuple[str, ...]
    expires: int
    jobs: tuple[str, ...]

    def covers(self, digest: str, job: JobRecord, time: int) -> bool:
        """Whether the job may read what it asks for at `time`."""
        return (
            self.dataset == job.dataset
            and self.purpose == job.purpose
            and time < self.expires
            and set(job.columns) <= set(self.columns)
            and (not self.jobs or digest in self.jobs)
        )


@dataclass(frozen=True)
class Stop(Record):
    """A stop in force: of everything, of one job, or of one member."""

    scope: str
    subject: str
    actor: str

    def halts(self, job: str, member: str) -> bool:
        """Whether it stops this job at this member."""
        # A member may have a name that is a job's digest.
        return self.scope == "consortium" or self.subject == (job if self.scope == "job" else member)


@dataclass(frozen=True)
class PermissionsState(Record):
    """Permissions and stops in force, by the digests of the events that gave and declared them."""

    permissions: Map[Permission] = field(default_factory=Map)
    of_member: Map[tuple[str, ...]] = field(default_factory=Map)
    stops: Map[Stop] = field(default_factory=Map)

    def why_not(self, digest: str, job: JobRecord, member: str, time: int) -> str:
        """The code of what forbids the job at this member at `time`; empty if nothing does."""
        if any(stop.halts(digest, member) for stop in self.stops.values()):
            return "stopped"
        given = (self.permissions[name] for name in self.of_member.get(member, ()))
        return "" if any(permission.covers(digest, job, time) for permission in given) else "not-permitted"


class Given(Body):
    """A steward permits the use of columns of its member's dataset, for a purpose, until a date."""

    dataset: Label
    purpose: Label
    columns: Annotated[tuple[Label, ...], Field(min_length=1, max_length=2000, strict=False)]
    expires: Seconds
    jobs: Annotated[tuple[Digest, ...], Field(max_length=64, strict=False)] = ()


class Withdrawn(Body):
    """A member takes a permission back, from now on."""

    permission: Digest

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The event that gave it."""
        return (("permission", self.permission),)


class StopDeclared(Body):
    """Work stops: everywhere, for one job (its digest), or at one member (its name)."""

    scope: Literal["consortium", "job", "member"]
    subject: Annotated[str, Field(max_length=64)] = ""


class StopLifted(Body):
    """A vote for going on."""

    stop: Digest

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The event that declared the stop."""
        return (("stop", self.stop),)


def given(state: State, event: Event[Given], time: int) -> Result:
    """By a steward, for columns that its member's dataset has."""
    require_role(event, "steward")
    body = event.body
    dataset = state.data.datasets.get(f"{event.member}/{body.dataset}")
    require(dataset is not None, "unknown-dataset")
    assert dataset is not None
    require(set(body.columns) <= set(dataset.columns), "unknown-column")
    require(body.expires > time, "expired")
    permission = Permission(
        event.member, body.dataset, body.purpose, ordered(body.columns), body.expires, ordered(body.jobs)
    )
    held = state.permissions
    mine = ordered((*held.of_member.get(event.member, ()), event.digest))
    permissions = replace(
        held,
        permissions=held.permissions.set(event.digest, permission),
        of_member=held.of_member.set(event.member, mine),
    )
    return replace(state, permissions=permissions), ()


def withdrawn(state: State, event: Event[Withdrawn], _: int) -> Result:
    """By a steward or officer of the member that gave it, also while that is suspended or gone."""
    require_role(event, "steward", "officer")
    held, name = state.permissions, event.body.permission
    permission = held.permissions.get(name)
    require(permission is not None, "unknown-permission")
    assert permission is not None
    require(permission.member == event.member, "other-member")
    mine = tuple(other for other in held.of_member[event.member] if other != name)
    permissions = replace(
        held, permissions=held.permissions.delete(name), of_member=held.of_member.set(event.member, mine)
    )
    effects = (
        Effect("stop-work", permission.dataset, event.member),
        Effect("delete-prepared", permission.dataset, event.member),
    )
    return replace(state, permissions=permissions), effects


def stop_declared(state: State, event: Event[StopDeclared], _: int) -> Result:
    """By any person of an active member."""
    require_role(event, "owner", "steward", "officer", "admin")
    body = event.body
    if body.scope == "job":
        state.jobs.known(body.subject)
    elif body.scope == "member":
        require(state.consortium.status(body.subject) != "", "unknown-member")
    else:
        require(body.subject == "", "subject")
    stop = Stop(body.scope, body.subject, event.actor)
    stops = state.permissions.stops.set(event.digest, stop)
    effects = (
        Effect(
            "stop-work",
            body.subject if body.scope == "job" else "",
            body.subject if body.scope == "member" else "",
        ),
    )
    return replace(state, permissions=replace(state.permissions, stops=stops)), effects


def stop_lifted(state: State, event: Event[StopLifted], _: int) -> Result:
    """A vote by an officer or administrator who is not the one who stopped; enough entities lift it."""
    require_role(event, "officer", "admin")
    name = event.body.stop
    consortium = state.consortium
    matter = f"lift {name}"
    require(matter not in consortium.decided, "closed")
    stop = state.permissions.stops.get(name)
    require(stop is not None, "unknown-stop")
    assert stop is not None
    require(stop.actor != event.actor, "four-eyes")
    consortium, decided = consortium.vote(matter, event.member, consortium.lift_approvals)
    held = state.permissions
    if decided:
        held = replace(held, stops=held.stops.delete(name))
    return replace(state, consortium=consortium, permissions=held), ()


EVENTS = {
    "permission.given": EventType(Given, given),
    "permission.withdrawn": EventType(Withdrawn, withdrawn, while_inactive=True),
    "stop.declared": EventType(StopDeclared, stop_declared),
    "stop.lifted": EventType(StopLifted, stop_lifted),
}
