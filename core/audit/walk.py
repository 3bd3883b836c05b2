"""A ledger's entries told one after another: who said what when, what the rules made of it, what it changed.

Some things stand in no single event: the vote that lifts a stop is one of several, and a member that leaves
takes its permissions with it. So the rules are applied again, and what the state lost or gained is told as
`Change`s beside the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedhouse.errors import IntegrityError
from fedhouse.governance.envelope import PayloadRef, parse_envelope
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.ledger import Entry
from fedhouse.governance.reducer import apply
from fedhouse.governance.state import State


@dataclass(frozen=True, slots=True)
class Change:
    """Something that an event changed and that its own words do not say."""

    kind: Literal["status", "job", "asked", "stop-ended"]
    """A member's status, a job's status, the approvals that a job needs; that a stop has ended."""
    subject: str
    """The member, the job's digest, or the digest of the stop's event."""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """One entry, read."""

    index: int
    time: int
    """The ledger's time: whole seconds since 1970."""
    type: str
    actor: str
    digest: str
    verdict: str
    body: Mapping[str, Any]
    """As its schema says if the event counts; anything at all if it was refused."""
    payloads: tuple[PayloadRef, ...]
    changes: tuple[Change, ...]

    @property
    def accepted(self) -> bool:
        """Whether it counts."""
        return self.verdict == ACCEPTED

    @property
    def member(self) -> str:
        """The organisation that the signer acts for."""
        return self.actor.partition("/")[0]


def walk(entries: Iterable[Entry]) -> Iterator[tuple[Told, State]]:
    """Each entry with the state after it. Signatures are not verified: audits and packs do that.

    Raises
    ------
    VerificationError
        If an entry is malformed, or the rules say something else to it than the ledger does.
    """
    state = State()
    for entry in entries:
        envelope = parse_envelope(entry.envelope)
        applied = apply(state, envelope, entry.outcome.time)
        if applied.verdict.code != entry.outcome.verdict:
            raise IntegrityError(
                f"Entry {entry.index}: the ledger says {entry.outcome.verdict!r}, and its rules say "
                f"{applied.verdict.code!r}.",
                mend="Verify the ledger before you report on it: fedhouse ledger verify.",
            )
        before, state = state, applied.state
        statement = envelope.statement
        told = Told(
            index=entry.index,
            time=entry.outcome.time,
            type=statement.event,
            actor=statement.signer,
            digest=envelope.digest,
            verdict=entry.outcome.verdict,
            body=statement.body,
            payloads=statement.payloads,
            changes=tuple(_changes(before, state)),
        )
        yield told, state


def _changes(before: State, after: State) -> Iterator[Change]:
    """What differs, in slices that are not the very same record."""
    if after.consortium.members is not before.consortium.members:
        for name, member in sorted(after.consortium.members.items()):
            if before.consortium.status(name) != member.status:
                yield Change("status", name, member.status)
    if after.permissions.stops is not before.permissions.stops:
        for digest in sorted(set(before.permissions.stops) - set(after.permissions.stops)):
            yield Change("stop-ended", digest)
    if after.jobs.jobs is not before.jobs.jobs:
        for digest, job in sorted(after.jobs.jobs.items()):
            known = before.jobs.jobs.get(digest)
            if known is None:
                yield Change("asked", digest, str(after.consortium.job_approvals))
            if known is None or known.status != job.status:
                yield Change("job", digest, job.status)
