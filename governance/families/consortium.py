"""Families `consortium`, `charter`, `member` and `affiliation`: the charter, who belongs, who is whose.

The envelope that creates a consortium names the charter and all founding members with their keys; its
digest is the consortium's name from then on. A founder counts once its own administrator has joined under
that very charter. Later members are invited by one, join by themselves, and are approved by as many
legal entities as the charter asks for.

Votes count by **entity**, and only those of members that are active when enough have come together.
Affiliates are one entity once both sides have declared it: one alone could silence whomever it names. A
newcomer joins an existing entity only at the invitation of that entity. A vote on what is decided is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from fedhouse.encoding import digest_of
from fedhouse.governance.event import (
    Body,
    Digest,
    Effect,
    Event,
    EventType,
    Label,
    Result,
    require,
    require_role,
)
from fedhouse.governance.families.keys import Binding, KeysState, KeyText
from fedhouse.governance.records import Map, Record, ordered

if TYPE_CHECKING:
    from fedhouse.governance.state import State

REDUCER: Final = "fedhouse-reducer/1"
Status = Literal["founding", "invited", "joined", "active", "suspended", "left"]
Votes = Annotated[int, Field(ge=1, le=64)]


class Rules(Body):
    """How many entities it takes, and how many may collude. What a charter's amendment changes."""

    job_approvals: Votes = 2
    """To let a job run at all; each silo approves for itself besides."""
    member_approvals: Votes = 2
    """To take in or suspend a member, or to amend the charter."""
    lift_approvals: Votes = 2
    """To lift an emergency stop."""
    colluding: Annotated[int, Field(ge=0, le=32)] = 1
    """c: so many entities may act together against the others without harm."""


class Founder(Body):
    """A founding member: the legal entity behind it, and its first keys."""

    member: Label
    entity: Label
    keys: Annotated[tuple[Binding, ...], Field(min_length=1, max_length=32, strict=False)]


class Charter(Body):
    """What the founders agree on."""

    name: Label
    origin: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]{2,127}$")]
    """The log's name in its checkpoints."""
    log: KeyText
    """The key that signs checkpoints; it orders, and can neither add nor change events."""
    reducer: Literal["fedhouse-reducer/1"] = REDUCER
    rules: Rules = Rules()
    founders: Annotated[tuple[Founder, ...], Field(min_length=1, max_length=64, strict=False)]

    def digest(self) -> str:
        """What joining members name: SHA-256 of the charter's canonical form."""
        return digest_of("fedhouse-charter/1", self.model_dump(mode="json"))


@dataclass(frozen=True)
class Member(Record):
    """An organisation. `changes` counts what gave it its status, so that no vote outlives that."""

    entity: str
    status: Status
    changes: int = 0


@dataclass(frozen=True)
class ConsortiumState(Record):
    """The charter in force, the members, and open votes.

    `open_votes` holds, for a matter, the members that have voted; a decided matter is in `decided`.
    `merged` gives, for an entity that became part of another, the one whose name both have now.
    """

    id: str = ""
    name: str = ""
    origin: str = ""
    charter: str = ""
    log_key: str = ""
    job_approvals: int = 0
    member_approvals: int = 0
    lift_approvals: int = 0
    colluding: int = 0
    members: Map[Member] = field(default_factory=Map)
    merged: Map[str] = field(default_factory=Map)
    open_votes: Map[tuple[str, ...]] = field(default_factory=Map)
    decided: Map[bool] = field(default_factory=Map)

    def status(self, member: str) -> str:
        """A member's status; empty for strangers."""
        found = self.members.get(member)
        return "" if found is None else found.status

    def entity(self, member: str) -> str:
        """The legal entity (or group of affiliates) that a member belongs to."""
        return self.members[member].entity

    def entities(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """The entities of `members`, once each, sorted."""
        return ordered(self.entity(member) for member in members)

    def active(self) -> tuple[str, ...]:
        """Names of the active members, sorted."""
        return ordered(name for name, member in self.members.items() if member.status == "active")

    def vote(self, matter: str, member: str, needed: int) -> tuple[ConsortiumState, bool]:
        """The state after `member` has voted for `matter`, and whether that decides it.

        Refuses a second vote of a member, and one on a matter that is decided.
        """
        require(matter not in self.decided, "closed")
        voted = self.open_votes.get(matter, ())
        require(member not in voted, "already-voted")
        voted = ordered((*voted, member))
        counted = tuple(name for name in voted if self.status(name) == "active")
        if len(self.entities(counted)) < needed:
            return replace(self, open_votes=self.open_votes.set(matter, voted)), False
        votes = self.open_votes.delete(matter) if matter in self.open_votes else self.open_votes
        return replace(self, open_votes=votes, decided=self.decided.set(matter, True)), True

    def merge(self, one: str, other: str) -> ConsortiumState:
        """The state in which two entities are one, under the name that sorts first."""
        kept, gone = sorted((one, other))
        members, merged = self.members, self.merged.set(gone, kept)
        for name, member in sorted(members.items()):
            if member.entity == gone:
                members = members.set(name, replace(member, entity=kept))
        for name, into in sorted(merged.items()):
            if into == gone:
                merged = merged.set(name, kept)
        return replace(self, members=members, merged=merged)

    def with_member(self, name: str, member: Member) -> ConsortiumState:
        """The state with this member changed."""
        return replace(self, members=self.members.set(name, member))


class Created(Body):
    """The founding envelope."""

    charter: Charter

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The charter."""
        return (("charter", self.charter.digest()),)


class Amended(Body):
    """A vote for other rules, on top of the charter in force."""

    previous: Digest
    rules: Rules

    def charter(self) -> str:
        """The digest of the charter as amended."""
        return digest_of("fedhouse-charter-amendment/1", self.model_dump(mode="json"))


class Invited(Body):
    """A member's administrator invites another organisation, with its first keys."""

    founder: Founder


class Joined(Body):
    """An invited organisation joins under the charter that it names."""

    charter: Digest


class Approved(Body):
    """A vote for taking in a member that has joined."""

    member: Label


class Suspended(Body):
    """A vote for suspending a member."""

    member: Label


class Left(Body):
    """A member's own administrator ends its membership."""


class AffiliationDeclared(Body):
    """The signer's member and another are affiliates: one entity in every vote and count, if both say so."""

    member: Label


def created(state: State, event: Event[Created], _: int) -> Result:
    """Found the consortium. Signed by an administrator whose key is in the charter."""
    charter = event.body.charter
    require_role(event, "admin")
    charter.log.key()
    require(charter.log.algorithm == "ed25519", "key")  # C2SP checkpoints know no other
    _require_reachable(charter.rules, len({founder.entity for founder in charter.founders}))
    keys, members = state.keys, state.consortium.members
    for founder in charter.founders:
        require(founder.member not in members, "member-known")
        keys = _bind_all(keys, founder)
        status: Status = "active" if founder.member == event.member else "founding"
        members = members.set(founder.member, Member(founder.entity, status))
    consortium = ConsortiumState(
        id=event.digest,
        name=charter.name,
        origin=charter.origin,
        charter=charter.digest(),
        log_key=charter.log.public,
        members=members,
        **charter.rules.model_dump(),
    )
    return replace(state, consortium=consortium, keys=keys), ()


def _require_reachable(rules: Rules, entities: int) -> None:
    """Refuse rules that so many entities could never meet, and so never change either."""
    most = max(rules.job_approvals, rules.member_approvals, rules.lift_approvals)
    require(most <= entities and rules.colluding < entities, "rules")


def _bind_all(keys: KeysState, founder: Founder) -> KeysState:
    for binding in founder.keys:
        require(binding.actor not in keys.actors, "key-in-use")
        keys = keys.bind(binding, founder.member)
    return keys


def amended(state: State, event: Event[Amended], _: int) -> Result:
    """A vote; the amendment is in force when enough entities have cast theirs."""
    require_role(event, "admin")
    consortium = state.consortium
    require(event.body.previous == consortium.charter, "other-charter")
    _require_reachable(event.body.rules, len(consortium.entities(consortium.active())))
    digest = event.body.charter()
    consortium, decided = consortium.vote(f"amend {digest}", event.member, consortium.member_approvals)
    if decided:
        consortium = replace(consortium, charter=digest, **event.body.rules.model_dump())
    return replace(state, consortium=consortium), ()


def invited(state: State, event: Event[Invited], _: int) -> Result:
    """By an active member's administrator; the newcomer's keys can then join, and nothing else."""
    require_role(event, "admin")
    founder, consortium = event.body.founder, state.consortium
    require(consortium.status(founder.member) == "", "member-known")
    entity = consortium.merged.get(founder.entity, founder.entity)
    taken = any(member.entity == entity and member.status != "left" for member in consortium.members.values())
    require(not taken or entity == consortium.entity(event.member), "other-entity")
    consortium = consortium.with_member(founder.member, Member(entity, "invited"))
    return replace(state, consortium=consortium, keys=_bind_all(state.keys, founder)), ()


def joined(state: State, event: Event[Joined], _: int) -> Result:
    """By the newcomer's own administrator. Founders are active at once, others wait for approval."""
    require_role(event, "admin")
    status = state.consortium.status(event.member)
    require(status in ("founding", "invited"), "not-invited")
    require(event.body.charter == state.consortium.charter, "other-charter")
    return _moved(state, event.member, "active" if status == "founding" else "joined"), ()


def approved(state: State, event: Event[Approved], _: int) -> Result:
    """A vote by an administrator of another entity; enough make a joined or suspended member active."""
    member = _other(state, event, event.body.member, ("joined", "suspended"))
    return _voted(state, event, f"approve {member}", "active")[0], ()


def suspended(state: State, event: Event[Suspended], _: int) -> Result:
    """A vote by an administrator of another entity; enough suspend an active member."""
    member = _other(state, event, event.body.member, ("active",))
    state, decided = _voted(state, event, f"suspend {member}", "suspended")
    return state, (Effect("stop-work", "", member),) if decided else ()


def left(state: State, event: Event[Left], _: int) -> Result:
    """By the member's own administrator, once and for good; its permissions end with it."""
    require_role(event, "admin")
    require(state.consortium.status(event.member) != "left", "member-inactive")
    return _moved(state, event.member, "left"), (Effect("delete-prepared", "", event.member),)


def affiliation_declared(state: State, event: Event[AffiliationDeclared], _: int) -> Result:
    """By an administrator of each side; then both, and whoever shared an entity with them, are one."""
    require_role(event, "admin")
    consortium, other = state.consortium, event.body.member
    require(consortium.status(other) not in ("", "left"), "unknown-member")
    ours, theirs = consortium.entity(event.member), consortium.entity(other)
    require(ours != theirs, "already-affiliated")
    matter = " ".join(("affiliate", *sorted((ours, theirs))))
    consortium, decided = consortium.vote(matter, event.member, 2)
    return replace(state, consortium=consortium.merge(ours, theirs) if decided else consortium), ()


def _other(state: State, event: Event[Any], name: str, statuses: tuple[Status, ...]) -> str:
    """The member that a vote is about, of another entity than the voter's."""
    require_role(event, "admin")
    require(state.consortium.status(name) in statuses, "not-open")
    require(state.consortium.entity(name) != state.consortium.entity(event.member), "own-matter")
    return name


def _voted(state: State, event: Event[Any], matter: str, status: Status) -> tuple[State, bool]:
    """The state after a vote that gives a member this status, and whether that decided it."""
    name = event.body.member
    consortium = state.consortium
    matter = f"{matter} {consortium.members[name].changes}"
    consortium, decided = consortium.vote(matter, event.member, consortium.member_approvals)
    changed = replace(state, consortium=consortium)
    return (_moved(changed, name, status) if decided else changed), decided


def _moved(state: State, name: str, status: Status) -> State:
    member = state.consortium.members[name]
    member = replace(member, status=status, changes=member.changes + 1)
    return replace(state, consortium=state.consortium.with_member(name, member))


EVENTS = {
    "consortium.created": EventType(Created, created),
    "charter.amended": EventType(Amended, amended),
    "member.invited": EventType(Invited, invited),
    "member.joined": EventType(Joined, joined, while_inactive=True),
    "member.approved": EventType(Approved, approved),
    "member.suspended": EventType(Suspended, suspended),
    "member.left": EventType(Left, left, while_inactive=True),
    "affiliation.declared": EventType(AffiliationDeclared, affiliation_declared),
}
