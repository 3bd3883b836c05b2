"""The reducer: a pure function from a state and an envelope to the next state and a verdict.

    apply(state, envelope, time) -> Applied(state, verdict, effects)

Invariants
----------
1. No I/O, no clock, no randomness, no floats, no iteration over sets. The same envelopes with the same
   times give the same state on every ledger and in every process.
2. Every well-formed envelope that a known key has signed gets a verdict and is recorded, whether it
   counts or not. `admit` is the door: what is by nobody, or badly signed, is not recorded.
3. A signer's sequence numbers are used up in order, by refused envelopes too; an envelope out of order
   uses up nothing.
4. A refused envelope changes nothing but its signer's sequence number; a refused founding, nothing at all.

Order of the checks, each with its refusal: consortium (`other-consortium`), signer's name (`signer`), key
(`key-retired`, `key-revoked`), sequence (`sequence`), clock (`future-dated`), type (`unknown-type`), schema
(`schema`), subjects (`subject`), membership (`member-inactive`), then the family's rule, and last the
payloads (`payload-known`): one that another member has named, or that is erased, is not named again.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final

from pydantic import ValidationError

from fedhouse.errors import UnknownSignerError
from fedhouse.governance.envelope import NO_CONSORTIUM, Envelope
from fedhouse.governance.event import ACCEPTED, Effect, Event, EventType, Refused, Verdict, require
from fedhouse.governance.families import consortium, data, jobs, keys, permissions, retention, rounds
from fedhouse.governance.families.consortium import Created
from fedhouse.governance.families.keys import BoundKey
from fedhouse.governance.families.retention import KeptPayload
from fedhouse.governance.state import State

# A signer's clock may be ahead of the ledger's by so many seconds.
MAX_AHEAD: Final = 60

FAMILIES: Final[tuple[ModuleType, ...]] = (consortium, keys, data, jobs, permissions, rounds, retention)
EVENTS: Final[Mapping[str, EventType]] = {
    name: event for family in FAMILIES for name, event in family.EVENTS.items()
}
_FOUNDING = "consortium.created"
_GOOD = Verdict(ACCEPTED)


@dataclass(frozen=True, slots=True)
class Applied:
    """What an envelope did."""

    state: State
    verdict: Verdict
    effects: tuple[Effect, ...] = ()


def admit(state: State, envelope: Envelope) -> BoundKey:
    """The key that signed `envelope`, found in `state` and checked: the door of every ledger.

    Raises
    ------
    UnknownSignerError
        If the ledger does not know the key.
    SignatureError
        If the signature is bad.
    """
    signer = find_signer(state, envelope)
    envelope.check_signature(signer.public_key())
    return signer


def find_signer(state: State, envelope: Envelope) -> BoundKey:
    """The key that `envelope` names; that it signed is known only after `admit`.

    Raises
    ------
    UnknownSignerError
        If the ledger does not know the key.
    """
    signer = state.keys.keys.get(envelope.key_id) if state.consortium.id else _founder(envelope)
    if signer is None:
        raise UnknownSignerError(
            f"The ledger knows no key {envelope.key_id[:16]}.",
            mend="Have an administrator of your organisation bind it, or use the key that is bound.",
        )
    return signer


def _founder(envelope: Envelope) -> BoundKey | None:
    """The key that founds a consortium: the only one that counts by being in the envelope itself."""
    if envelope.statement.event != _FOUNDING:
        return None
    try:
        body = Created.model_validate(dict(envelope.statement.body))
        found = {binding.key.key().key_id: binding for item in body.charter.founders for binding in item.keys}
    except (ValidationError, Refused):
        return None
    binding = found.get(envelope.key_id)
    if binding is None:
        return None
    return BoundKey(
        key_id=envelope.key_id,
        actor=binding.actor,
        member=binding.actor.partition("/")[0],
        kind=binding.kind,
        roles=tuple(sorted(set(binding.roles))),
        algorithm=binding.key.algorithm,
        public=binding.key.public,
    )


def apply(state: State, envelope: Envelope, time: int) -> Applied:
    """What `envelope`, admitted before, does to `state` when the ledger orders it at `time`.

    Raises
    ------
    UnknownSignerError
        If it was not admitted: the state knows no such key.
    """
    statement = envelope.statement
    signer = find_signer(state, envelope)
    try:
        _check_signer(state, signer, envelope, time)
    except Refused as refusal:
        return Applied(state, Verdict(refusal.code))
    used = state.changed(sequences=state.sequences.set(signer.actor, statement.sequence))
    try:
        kind, event = _event(state, signer, envelope)
        changed, effects = kind.rule(used, event, time)
        if event.payloads:
            changed = _with_payloads(changed, event)
    except Refused as refusal:
        # Before a founding, anybody can call himself anything: nobody's numbers are used up.
        return Applied(used if state.consortium.id else state, Verdict(refusal.code))
    return Applied(changed, _GOOD, effects)


def _check_signer(state: State, signer: BoundKey, envelope: Envelope, time: int) -> None:
    statement = envelope.statement
    require(statement.consortium == (state.consortium.id or NO_CONSORTIUM), "other-consortium")
    require(statement.signer == signer.actor, "signer")
    require(not signer.retired, "key-retired")
    require(signer.revoked_from is None or time < signer.revoked_from, "key-revoked")
    require(statement.sequence == state.sequences.get(signer.actor, 0) + 1, "sequence")
    require(statement.issued <= time + MAX_AHEAD, "future-dated")


def _event(state: State, signer: BoundKey, envelope: Envelope) -> tuple[EventType, Event[Any]]:
    statement = envelope.statement
    kind = EVENTS.get(statement.event) if statement.version == 1 else None
    if kind is None or (statement.event == _FOUNDING) != (not state.consortium.id):
        raise Refused("unknown-type")
    try:
        body = kind.body.model_validate(statement.body)
    except ValidationError:
        raise Refused("schema") from None
    subjects = body.subjects() or (("consortium", state.consortium.id),)
    require(statement.subjects == subjects, "subject")
    if state.consortium.id and not kind.while_inactive:
        require(state.consortium.status(signer.member) == "active", "member-inactive")
    return kind, Event(envelope.digest, statement.event, signer, body, statement.payloads)


def _with_payloads(state: State, event: Event[Any]) -> State:
    """The state with the event's payloads; whoever named one first owns it, and alone may erase it."""
    kept = state.retention
    for payload in event.payloads:
        new = KeptPayload(event.member, payload.retention)
        known = kept.payloads.get(payload.digest, new)
        require(
            (known.member, known.retention, known.erased) == (new.member, new.retention, False),
            "payload-known",
        )
        kept = kept.with_payload(payload.digest, known)
    return replace(state, retention=kept)


def reducer_digest() -> str:
    """SHA-256 over the source of the rules: what an auditor compares when two replays differ."""
    names = (*(f"fedhouse.governance.{name}" for name in ("envelope", "event", "records", "state")), __name__)
    modules = [sys.modules[name] for name in names]
    sources = [inspect.getsource(module) for module in (*modules, *FAMILIES)]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()
