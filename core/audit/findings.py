"""Findings: what an auditor looks for, drawn from a ledger's entries. Pure: no clock, no files.

"Now" is the time of the last entry: a permission that ran out later is still in force here, so the same
ledger gives the same findings whenever they are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedhouse.audit.gaps import job_gaps
from fedhouse.audit.jobs import Gap, JobFinding, job_finding
from fedhouse.audit.walk import Told, walk
from fedhouse.errors import IntegrityError
from fedhouse.governance.ledger import Entry
from fedhouse.governance.state import State
from fedhouse.identity.keys import PublicKey

Ending = Literal["in force", "expired", "withdrawn", "member left"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that does not count."""

    index: int
    time: int
    type: str
    actor: str
    code: str


@dataclass(frozen=True, slots=True)
class StopFinding:
    """An emergency stop, from its declaration to the vote that lifted it."""

    digest: str
    scope: str
    subject: str
    """The job's digest or the member; empty for everything."""
    actor: str
    index: int
    since: int
    until: int | None
    """None while it is in force."""
    voters: tuple[str, ...]
    """Who voted for lifting it."""


@dataclass(frozen=True, slots=True)
class PermissionFinding:
    """A data-use permission, from being given to its end."""

    digest: str
    member: str
    actor: str
    dataset: str
    purpose: str
    columns: tuple[str, ...]
    jobs: tuple[str, ...]
    """Digests of the jobs that it is for; empty for all that fit."""
    index: int
    given: int
    expires: int
    ended: int | None
    how: Ending


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A station in the life of a key."""

    index: int
    time: int
    actor: str
    """Whose key it is."""
    what: Literal["bound", "rotated", "revoked", "delivery key named"]
    key: str
    """The key's id; of a rotation, the new key's."""
    by: str
    effective: int | None = None
    """From when a revocation counts."""


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """A change of a member's status."""

    index: int
    time: int
    member: str
    status: str
    by: str


@dataclass(frozen=True, slots=True)
class PayloadFinding:
    """An off-ledger text with holds on it, or one that was erased."""

    digest: str
    name: str
    member: str
    retention: str
    named: int
    holds: tuple[tuple[str, int, int | None], ...]
    """Member, since, until; None while it lasts."""
    erased: int | None
    by: str
    basis: str


@dataclass(frozen=True)
class Findings:
    """Everything that the report shows."""

    state: State
    entries: int
    accepted: int
    first: int
    last: int
    """Times of the first and the last entry."""
    jobs: tuple[JobFinding, ...]
    refusals: tuple[Refusal, ...]
    stops: tuple[StopFinding, ...]
    permissions: tuple[PermissionFinding, ...]
    keys: tuple[KeyEvent, ...]
    members: tuple[MemberEvent, ...]
    payloads: tuple[PayloadFinding, ...]
    """Only those that were held or erased; `kept` counts all."""
    kept: int

    @property
    def refused_by_code(self) -> dict[str, int]:
        """How many events the rules refused, the most frequent code first."""
        counts = Counter(refusal.code for refusal in self.refusals)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps of all jobs."""
        return tuple(gap for job in self.jobs for gap in job.gaps)

    @property
    def stops_in_force(self) -> tuple[StopFinding, ...]:
        """Stops that nobody has lifted."""
        return tuple(stop for stop in self.stops if stop.until is None)


def find(entries: Iterable[Entry], state: State) -> Findings:
    """The findings of a ledger.

    Parameters
    ----------
    entries
        All of them, from the first.
    state
        The state after them.

    Raises
    ------
    VerificationError
        If an entry is malformed or its verdict is not that of the rules, or the state is another.
    """
    told: list[Told] = []
    after = State()
    for one, after in walk(entries):  # noqa: B007 - the last state is needed below
        told.append(one)
    if after.digest() != state.digest():
        raise IntegrityError(
            "The state is not the one that the entries give.",
            mend="Give all entries, and the state after them.",
        )
    accepted = [one for one in told if one.accepted]
    last = told[-1].time if told else 0
    return Findings(
        state=after,
        entries=len(told),
        accepted=len(accepted),
        first=told[0].time if told else 0,
        last=last,
        jobs=_jobs(accepted, after),
        refusals=tuple(
            Refusal(one.index, one.time, one.type, one.actor, one.verdict) for one in told if not one.accepted
        ),
        stops=_stops(accepted),
        permissions=_permissions(accepted, last),
        keys=_keys(accepted),
        members=tuple(
            MemberEvent(one.index, one.time, change.subject, change.value, one.actor)
            for one in accepted
            for change in one.changes
            if change.kind == "status"
        ),
        payloads=_payloads(accepted),
        kept=len(after.retention.payloads),
    )


def _jobs(accepted: Iterable[Told], state: State) -> tuple[JobFinding, ...]:
    histories: dict[str, list[Told]] = {}
    for told in accepted:
        if told.type.startswith(("job.", "round.", "quality.")):
            histories.setdefault(told.body["job"], []).append(told)
    jobs = [job_finding(digest, history, state) for digest, history in histories.items()]
    return tuple(replace(job, gaps=job_gaps(job, state)) for job in jobs)


def _stops(accepted: Sequence[Told]) -> tuple[StopFinding, ...]:
    ended = {
        change.subject: told.time
        for told in accepted
        for change in told.changes
        if change.kind == "stop-ended"
    }
    votes: dict[str, list[str]] = {}
    for told in accepted:
        if told.type == "stop.lifted":
            votes.setdefault(told.body["stop"], []).append(told.actor)
    return tuple(
        StopFinding(
            digest=told.digest,
            scope=told.body["scope"],
            subject=told.body.get("subject", ""),
            actor=told.actor,
            index=told.index,
            since=told.time,
            until=ended.get(told.digest),
            voters=tuple(votes.get(told.digest, ())),
        )
        for told in accepted
        if told.type == "stop.declared"
    )


def _permissions(accepted: Sequence[Told], last: int) -> tuple[PermissionFinding, ...]:
    withdrawn = {
        told.body["permission"]: told.time for told in accepted if told.type == "permission.withdrawn"
    }
    left = {told.member: told.time for told in accepted if told.type == "member.left"}
    return tuple(
        _permission(told, withdrawn.get(told.digest), left.get(told.member), last)
        for told in accepted
        if told.type == "permission.given"
    )


def _permission(told: Told, withdrawn: int | None, left: int | None, last: int) -> PermissionFinding:
    """A permission ends at the first of: withdrawal, its date, its member's leaving."""
    body, expires = told.body, told.body["expires"]
    ways: list[tuple[int, Ending]] = []
    if withdrawn is not None:
        ways.append((withdrawn, "withdrawn"))
    if left is not None:
        ways.append((left, "member left"))
    if expires <= last:
        ways.append((expires, "expired"))
    ended: int | None = None
    how: Ending = "in force"
    if ways:
        ended, how = min(ways)
    return PermissionFinding(
        digest=told.digest,
        member=told.member,
        actor=told.actor,
        dataset=body["dataset"],
        purpose=body["purpose"],
        columns=tuple(sorted(body["columns"])),
        jobs=tuple(body.get("jobs", ())),
        index=told.index,
        given=told.time,
        expires=expires,
        ended=ended,
        how=how,
    )


def _keys(accepted: Iterable[Told]) -> tuple[KeyEvent, ...]:
    found: list[KeyEvent] = []
    owners: dict[str, str] = {}
    for told in accepted:
        for binding in _bindings(told):
            key = _key_id(binding)
            owners[key] = binding["actor"]
            what: Literal["rotated", "bound"] = "rotated" if told.type == "key.rotated" else "bound"
            found.append(KeyEvent(told.index, told.time, binding["actor"], what, key, told.actor))
        if told.type == "key.revoked":
            key, effective = told.body["key"], told.body["effective"]
            found.append(KeyEvent(told.index, told.time, owners[key], "revoked", key, told.actor, effective))
        elif told.type == "key.delivery-bound":
            found.append(KeyEvent(told.index, told.time, told.actor, "delivery key named", "", told.actor))
    return tuple(found)


def _bindings(told: Told) -> list[Mapping[str, Any]]:
    """The bindings of keys that an event makes."""
    body = told.body
    if told.type == "consortium.created":
        return [binding for founder in body["charter"]["founders"] for binding in founder["keys"]]
    if told.type == "member.invited":
        return list(body["founder"]["keys"])
    return [body["binding"]] if told.type in ("key.bound", "key.rotated") else []


def _key_id(binding: Mapping[str, Any]) -> str:
    """The id of the key that a binding carries."""
    return PublicKey.from_json(dict(binding["key"])).key_id


def _payloads(accepted: Iterable[Told]) -> tuple[PayloadFinding, ...]:
    found: dict[str, PayloadFinding] = {}
    for told in accepted:
        for payload in told.payloads:
            new = PayloadFinding(
                payload.digest, payload.name, told.member, payload.retention, told.time, (), None, "", ""
            )
            found.setdefault(payload.digest, new)
        if told.type.startswith("record."):
            digest = told.body["payload"]
            found[digest] = _recorded(found[digest], told)
        elif told.type == "member.left":
            found = {digest: _released(one, told.member, told.time) for digest, one in found.items()}
    return tuple(one for one in found.values() if one.holds or one.erased is not None)


def _recorded(payload: PayloadFinding, told: Told) -> PayloadFinding:
    if told.type == "record.hold-placed":
        return replace(payload, holds=(*payload.holds, (told.member, told.time, None)))
    if told.type == "record.hold-released":
        return _released(payload, told.member, told.time)
    return replace(payload, erased=told.time, by=told.actor, basis=told.body["basis"])


def _released(payload: PayloadFinding, member: str, time: int) -> PayloadFinding:
    """The payload without this member's hold, from `time` on."""
    holds = tuple(
        (holder, since, time if until is None and holder == member else until)
        for holder, since, until in payload.holds
    )
    return replace(payload, holds=holds)
