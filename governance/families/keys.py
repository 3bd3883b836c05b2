"""Family `key`: which key acts for whom, since when, until when.

A key is bound to an actor (`MEMBER/NAME`) with a proof that its holder has it. An actor has one key at a
time; rotating hands over to a new one, revoking ends one at a date. What was accepted before stays.

Whoever stole a key must gain nothing by being quick: a key that has a date of revocation, however far off,
neither rotates nor names a delivery key, and the delivery key that it named is gone.

The names of persons stay off the ledger: an actor is a role's holder, `AA/steward-1`; each member keeps
its own register of names.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedhouse.errors import VerificationError
from fedhouse.governance.event import (
    ActorName,
    Body,
    Digest,
    Event,
    EventType,
    Refused,
    Result,
    Seconds,
    require,
    require_role,
)
from fedhouse.governance.records import Map, Record, ordered
from fedhouse.identity.binding import check_binding
from fedhouse.identity.keys import PublicKey
from fedhouse.identity.sealing import SealingPublicKey

if TYPE_CHECKING:
    from fedhouse.governance.state import State

Kind = Literal["person", "agent", "witness", "operator"]
Role = Literal["owner", "steward", "officer", "admin"]


class KeyText(Body):
    """A public key as text."""

    algorithm: Literal["ed25519", "ml-dsa-65"]
    public: Annotated[str, Field(max_length=4096)]

    def key(self) -> PublicKey:
        """The key; refuses the event if there is none in the text."""
        try:
            return PublicKey.from_json(self.model_dump())
        except VerificationError as error:
            raise Refused("key") from error


class Binding(Body):
    """A key, whom it acts for, and the proof by the key itself."""

    actor: ActorName
    kind: Kind
    roles: Annotated[tuple[Role, ...], Field(max_length=4, strict=False)] = ()
    key: KeyText
    proof: Annotated[str, Field(max_length=8192)]


@dataclass(frozen=True)
class BoundKey(Record):
    """A key that the ledger knows. `revoked_from` is a time, or None; a retired key was handed over."""

    key_id: str
    actor: str
    member: str
    kind: str
    roles: tuple[str, ...]
    algorithm: str
    public: str
    revoked_from: int | None = None
    retired: bool = False

    def public_key(self) -> PublicKey:
        """The key, to verify with."""
        return PublicKey.from_json({"algorithm": self.algorithm, "public": self.public})


@dataclass(frozen=True)
class KeysState(Record):
    """Every key ever bound, by its id; each actor's present one; and its delivery key, as text."""

    keys: Map[BoundKey] = field(default_factory=Map)
    actors: Map[str] = field(default_factory=Map)
    delivery: Map[str] = field(default_factory=Map)

    def current(self, actor: str) -> BoundKey | None:
        """The key that acts for `actor` now; None if there is none."""
        key_id = self.actors.get(actor)
        return None if key_id is None else self.keys[key_id]

    def delivery_key(self, actor: str) -> SealingPublicKey | None:
        """The key to seal with for `actor`, if it has one."""
        text = self.delivery.get(actor)
        return None if text is None else SealingPublicKey.from_json(text)

    def of_member(self, member: str, kind: str) -> tuple[BoundKey, ...]:
        """The present keys of one kind that act for a member, by actor."""
        found = (self.keys[key_id] for _, key_id in sorted(self.actors.items()))
        return tuple(key for key in found if key.member == member and key.kind == kind)

    def bind(self, binding: Binding, member: str) -> KeysState:
        """The state with this key as its actor's; refuses what is not proved or already known."""
        key = binding.key.key()
        try:
            check_binding(binding.proof, binding.actor, key)
        except VerificationError as error:
            raise Refused("key-proof") from error
        require(binding.actor.partition("/")[0] == member, "other-member")
        require((binding.kind == "person") == bool(binding.roles), "role")
        require(key.key_id not in self.keys, "key-known")
        bound = BoundKey(
            key_id=key.key_id,
            actor=binding.actor,
            member=member,
            kind=binding.kind,
            roles=ordered(binding.roles),
            algorithm=binding.key.algorithm,
            public=binding.key.public,
        )
        keys, actors = self.keys.set(key.key_id, bound), self.actors.set(binding.actor, key.key_id)
        return replace(self, keys=keys, actors=actors)


class Bound(Body):
    """A member's administrator gives an actor its first key, or a new one after a revocation."""

    binding: Binding


class DeliveryBound(Body):
    """An actor says which HPKE key to seal with what is for it: key shares, payloads."""

    public: Annotated[str, Field(max_length=4096)]


class Rotated(Body):
    """An actor hands over from its present key, which signs this, to a new one."""

    binding: Binding


class Revoked(Body):
    """A key ends at `effective`: what the ledger orders later does not count."""

    key: Digest
    effective: Seconds


def bound(state: State, event: Event[Bound], time: int) -> Result:
    """By an administrator of the actor's member; the actor must be without a usable key."""
    require_role(event, "admin")
    current = state.keys.current(event.body.binding.actor)
    ended = current is None or (current.revoked_from is not None and current.revoked_from <= time)
    require(ended, "key-in-use")
    keys = state.keys.bind(event.body.binding, event.member)
    return replace(state, keys=keys), ()


def delivery_bound(state: State, event: Event[DeliveryBound], _: int) -> Result:
    """By the actor itself; replaces the one before."""
    require(event.signer.revoked_from is None, "key-ending")
    try:
        SealingPublicKey.from_json(event.body.public)
    except VerificationError as error:
        raise Refused("key") from error
    delivery = state.keys.delivery.set(event.actor, event.body.public)
    return replace(state, keys=replace(state.keys, delivery=delivery)), ()


def rotated(state: State, event: Event[Rotated], _: int) -> Result:
    """By the actor itself; kind and roles stay as they are."""
    binding = event.body.binding
    require(event.signer.revoked_from is None, "key-ending")
    require(binding.actor == event.actor, "other-actor")
    require(binding.kind == event.signer.kind, "role")
    require(ordered(binding.roles) == event.signer.roles, "role")
    keys = state.keys.bind(binding, event.member)
    old = replace(event.signer, retired=True)
    return replace(state, keys=replace(keys, keys=keys.keys.set(old.key_id, old))), ()


def revoked(state: State, event: Event[Revoked], _: int) -> Result:
    """By an administrator of the key's member, or by the actor itself; a date is only ever moved earlier."""
    key = state.keys.keys.get(event.body.key)
    require(key is not None, "unknown-key")
    assert key is not None
    require(key.member == event.member, "other-member")
    if key.actor != event.actor:
        require_role(event, "admin")
    effective = event.body.effective
    require(key.revoked_from is None or effective < key.revoked_from, "already-revoked")
    keys, delivery = (
        state.keys.keys.set(key.key_id, replace(key, revoked_from=effective)),
        state.keys.delivery,
    )
    if state.keys.actors[key.actor] == key.key_id and key.actor in delivery:
        delivery = delivery.delete(key.actor)
    return replace(state, keys=replace(state.keys, keys=keys, delivery=delivery)), ()


EVENTS = {
    "key.bound": EventType(Bound, bound),
    "key.delivery-bound": EventType(DeliveryBound, delivery_bound),
    "key.rotated": EventType(Rotated, rotated),
    "key.revoked": EventType(Revoked, revoked, while_inactive=True),
}
