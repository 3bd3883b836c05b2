"""Family `record`: how long off-ledger texts are kept, holds on them, and that they were erased.

The ledger names a text by a salted digest. Erasing deletes text and salt where they are kept; the digest
that remains says nothing about them. Rules never read such texts, so no verdict depends on one.

The duty to erase outlives membership, and a hold does not: both stay possible for members that are suspended
or gone, and what a member held ends when it leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from fedhouse.governance.event import (
    Body,
    Digest,
    Effect,
    Event,
    EventType,
    Refused,
    Result,
    require,
    require_role,
)
from fedhouse.governance.records import Map, Record, ordered

if TYPE_CHECKING:
    from fedhouse.governance.state import State


@dataclass(frozen=True)
class KeptPayload(Record):
    """A text that an event named: whose it is, and what holds it."""

    member: str
    retention: str
    held_by: tuple[str, ...] = ()
    erased: bool = False


@dataclass(frozen=True)
class RetentionState(Record):
    """Every payload that an accepted event named, by its digest."""

    payloads: Map[KeptPayload] = field(default_factory=Map)

    def known(self, digest: str) -> KeptPayload:
        """The payload; refuses the event if no event named it."""
        found = self.payloads.get(digest)
        if found is None:
            raise Refused("unknown-payload")
        return found

    def with_payload(self, digest: str, payload: KeptPayload) -> RetentionState:
        """The state with this payload changed."""
        return replace(self, payloads=self.payloads.set(digest, payload))


class _OfPayload(Body):
    payload: Digest

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The payload's digest."""
        return (("payload", self.payload),)


class HoldPlaced(_OfPayload):
    """A member's officer forbids erasing a payload: a legal hold."""


class HoldReleased(_OfPayload):
    """The member that placed the hold releases it."""


class Erased(_OfPayload):
    """The payload and its salt are deleted; every keeper has to follow."""

    basis: Literal["data-subject-request", "retention-expired", "mistake", "court-order"]


def hold_placed(state: State, event: Event[HoldPlaced], _: int) -> Result:
    """By an officer of any active member; once a member."""
    require_role(event, "officer")
    kept = state.retention.known(event.body.payload)
    require(not kept.erased, "erased")
    require(event.member not in kept.held_by, "already-held")
    return _with(state, event.body.payload, replace(kept, held_by=ordered((*kept.held_by, event.member)))), ()


def hold_released(state: State, event: Event[HoldReleased], _: int) -> Result:
    """By an officer of the member that placed it."""
    require_role(event, "officer")
    kept = state.retention.known(event.body.payload)
    require(event.member in kept.held_by, "not-held")
    held_by = tuple(member for member in kept.held_by if member != event.member)
    return _with(state, event.body.payload, replace(kept, held_by=held_by)), ()


def erased(state: State, event: Event[Erased], _: int) -> Result:
    """By an officer of the member whose event named the payload, unless a present member holds it."""
    require_role(event, "officer")
    kept = state.retention.known(event.body.payload)
    require(kept.member == event.member, "other-member")
    require(not kept.erased, "erased")
    require(all(state.consortium.status(member) == "left" for member in kept.held_by), "held")
    effects = (Effect("erase-payload", event.body.payload),)
    return _with(state, event.body.payload, replace(kept, held_by=(), erased=True)), effects


def _with(state: State, digest: str, kept: KeptPayload) -> State:
    return replace(state, retention=state.retention.with_payload(digest, kept))


EVENTS = {
    "record.hold-placed": EventType(HoldPlaced, hold_placed),
    "record.hold-released": EventType(HoldReleased, hold_released, while_inactive=True),
    "record.payload-erased": EventType(Erased, erased, while_inactive=True),
}
