"""Keys: bound, rotated, revoked from a date; and that a thief gains nothing by being quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.envelope import MAX_INTEGER
from fedhouse.governance.sandbox import named
from fedhouse.identity.sealing import SealingKey
from fedhouse.identity.signer import SoftwareSigner

STOP = {"scope": "consortium", "subject": ""}


def key(number: int, algorithm: Any = "ed25519") -> SoftwareSigner:
    """A key that nobody has yet."""
    return SoftwareSigner.insecure_from_seed(algorithm, bytes([number]) * 32)


def bind(world: Any, by: str, actor: str, signer: SoftwareSigner, **changes: Any) -> str:
    """Let an administrator bind a key; gives the verdict."""
    return world.say(by, "key.bound", {"binding": world.sandbox.binding(actor, signer) | changes})


def rotate(world: Any, actor: str, signer: SoftwareSigner, **changes: Any) -> str:
    """Let an actor hand over to a new key; gives the verdict."""
    return world.say(actor, "key.rotated", {"binding": world.sandbox.binding(actor, signer) | changes})


def revoke(world: Any, by: str, actor: str, effective: int) -> str:
    """Let somebody revoke an actor's present key; gives the verdict."""
    key_id = world.state.keys.current(actor).key_id
    return world.say(by, "key.revoked", {"key": key_id, "effective": effective})


def test_a_new_actor(world: Any) -> None:
    assert bind(world, "B6/admin", "B6/steward-2", key(1)) == "accepted"
    world.sandbox.replace_signer("B6/steward-2", key(1))
    bound = world.state.keys.current("B6/steward-2")
    assert (bound.member, bound.kind, bound.roles) == ("B6", "person", ("steward",))
    assert world.say("B6/steward-2", "stop.declared", STOP) == "accepted"


@pytest.mark.parametrize("actor", ["B6/officer", "B6/steward", "B6/owner", "B6/agent", "B6/witness"])
def test_only_an_administrator_binds(world: Any, actor: str) -> None:
    assert bind(world, actor, "B6/steward-2", key(1)) == "role"


def test_what_is_not_proved_or_is_taken_is_not_bound(world: Any) -> None:
    box = world.sandbox
    assert bind(world, "B6/admin", "DL/steward-2", key(1)) == "other-member"
    assert bind(world, "B6/admin", "B6/steward", key(1)) == "key-in-use"
    assert bind(world, "B6/admin", "B6/owner-2", box.signer("B6/steward")) == "key-known"
    assert bind(world, "B6/admin", "B6/owner-2", box.signer("DL/steward")) == "key-known", (
        "another member's key"
    )
    assert bind(world, "B6/admin", "B6/owner-2", key(1), key=key(2).public.to_json()) == "key-proof"
    other = box.binding("B6/owner-3", key(1))["proof"]
    assert bind(world, "B6/admin", "B6/owner-2", key(1), proof=other) == "key-proof", "made for another actor"
    assert bind(world, "B6/admin", "B6/owner-2", key(1), proof="") == "key-proof"
    assert bind(world, "B6/admin", "B6/owner-2", key(1), key={"algorithm": "ed25519", "public": "%"}) == "key"
    small = {"algorithm": "ed25519", "public": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
    assert bind(world, "B6/admin", "B6/owner-2", key(1), key=small) == "key"
    assert bind(world, "B6/admin", "B6/owner-2", key(1), kind="person", roles=[]) == "role"
    assert bind(world, "B6/admin", "B6/owner-2", key(1), kind="agent", roles=["owner"]) == "role"
    assert bind(world, "B6/admin", "B6/owner-2", key(1), kind="person", roles=["owner"]) == "accepted"


def test_an_ml_dsa_key_signs_as_any_other(world: Any) -> None:
    signer = key(9, "ml-dsa-65")
    assert bind(world, "B6/admin", "B6/officer-2", signer) == "accepted"
    world.sandbox.replace_signer("B6/officer-2", signer)
    assert world.say("B6/officer-2", "stop.declared", STOP) == "accepted"


def test_rotation_hands_over(world: Any) -> None:
    world.must("B6/officer", "stop.declared", STOP)
    assert rotate(world, "B6/officer", key(1)) == "accepted"
    assert world.say("B6/officer", "stop.declared", STOP) == "key-retired"
    world.sandbox.replace_signer("B6/officer", key(1))
    assert world.say("B6/officer", "stop.declared", STOP, sequence=1) == "sequence", "the numbers go on"
    assert world.say("B6/officer", "stop.declared", STOP, sequence=3) == "accepted"
    assert world.state.keys.current("B6/officer").key_id == key(1).public.key_id


def test_rotation_gives_nobody_more(world: Any) -> None:
    box = world.sandbox
    assert rotate(world, "B6/officer", key(1), roles=["admin"]) == "role"
    assert rotate(world, "B6/officer", key(1), roles=["admin", "officer"]) == "role"
    assert rotate(world, "B6/officer", key(1), kind="agent", roles=[]) == "role"
    assert rotate(world, "B6/agent", key(1), kind="operator") == "role"
    for actor in ("B6/admin", "DL/officer", "DL/admin"):
        binding = box.binding(actor, key(1)) | {"roles": ["officer"]}
        assert world.say("B6/officer", "key.rotated", {"binding": binding}) == "other-actor"
    assert rotate(world, "B6/officer", box.signer("B6/officer")) == "key-known"
    assert rotate(world, "B6/officer", box.signer("DL/officer")) == "key-known"
    assert rotate(world, "B6/officer", key(1), key=key(2).public.to_json()) == "key-proof"
    assert rotate(world, "B6/officer", key(1), key={"algorithm": "ml-dsa-65", "public": "AAAA"}) == "key"
    assert world.state.keys.current("B6/officer").key_id == box.signer("B6/officer").public.key_id


def test_a_retired_key_never_comes_back(world: Any) -> None:
    old = world.sandbox.signer("B6/officer")
    assert rotate(world, "B6/officer", key(1)) == "accepted"
    world.sandbox.replace_signer("B6/officer", key(1))
    assert rotate(world, "B6/officer", old) == "key-known"
    assert revoke(world, "B6/admin", "B6/officer", 0) == "accepted"
    assert bind(world, "B6/admin", "B6/officer", old) == "key-known"
    assert bind(world, "B6/admin", "B6/officer", key(1)) == "key-known"


def test_a_revoked_key_counts_until_its_date_and_not_from_it_on(world: Any) -> None:
    date = world.time + 1000
    assert revoke(world, "B6/admin", "B6/officer", date) == "accepted"
    world.clock.advance(999)
    assert world.say("B6/officer", "stop.declared", STOP) == "accepted", "a second before"
    signed_before = world.sandbox.sign("B6/officer", "stop.declared", STOP)
    world.clock.advance(1)
    assert world.put(signed_before) == "key-revoked", "the ledger's time counts, not the signer's"
    assert world.say("B6/officer", "stop.declared", STOP) == "key-revoked"
    world.clock.advance(10**6)
    assert world.say("B6/officer", "stop.declared", STOP, issued=date - 10) == "key-revoked"


def test_a_date_only_ever_moves_earlier(world: Any) -> None:
    date = world.time + 1000
    assert revoke(world, "B6/admin", "B6/officer", date) == "accepted"
    assert revoke(world, "B6/admin", "B6/officer", date) == "already-revoked"
    assert revoke(world, "B6/admin", "B6/officer", date + 1) == "already-revoked"
    assert revoke(world, "B6/admin", "B6/officer", MAX_INTEGER) == "already-revoked"
    assert revoke(world, "B6/admin", "B6/officer", date - 1) == "accepted"
    assert revoke(world, "B6/officer", "B6/officer", 0) == "accepted", "by the key itself"
    assert revoke(world, "B6/officer", "B6/officer", 0) == "key-revoked"
    assert revoke(world, "B6/admin", "B6/officer", 0) == "already-revoked"


def test_what_was_accepted_stays_when_a_key_is_revoked_into_the_past(world: Any) -> None:
    stop = world.must("B6/officer", "stop.declared", STOP)
    world.clock.advance(100)
    assert revoke(world, "B6/admin", "B6/officer", 0) == "accepted"
    assert stop in world.state.permissions.stops


def test_only_its_member_revokes_a_key(world: Any) -> None:
    theirs = world.state.keys.current("DL/officer").key_id
    assert world.say("B6/admin", "key.revoked", {"key": theirs, "effective": 0}) == "other-member"
    assert world.say("B6/admin", "key.revoked", {"key": named("x"), "effective": 0}) == "unknown-key"
    assert revoke(world, "B6/steward", "B6/officer", 0) == "role"
    assert revoke(world, "B6/agent", "B6/officer", 0) == "role"
    assert revoke(world, "B6/agent", "B6/agent", 0) == "accepted", "its own"


def test_an_actor_gets_a_new_key_once_the_old_one_has_ended(world: Any) -> None:
    date = world.time + 1000
    assert revoke(world, "B6/admin", "B6/officer", date) == "accepted"
    assert bind(world, "B6/admin", "B6/officer", key(1)) == "key-in-use", "it would have two"
    world.clock.advance(1000)
    used = world.state.sequences.get("B6/officer", 0)
    assert bind(world, "B6/admin", "B6/officer", key(1)) == "accepted"
    assert world.say("B6/officer", "stop.declared", STOP) == "key-revoked"
    world.sandbox.replace_signer("B6/officer", key(1))
    assert world.say("B6/officer", "stop.declared", STOP, sequence=used + 1) == "accepted"


def test_a_thief_does_not_outrun_a_revocation(world: Any) -> None:
    date = world.time + 1000
    assert revoke(world, "B6/admin", "B6/agent", date) == "accepted"
    assert rotate(world, "B6/agent", key(1)) == "key-ending", "to a key that would have no end"
    delivery = SealingKey.insecure_from_seed(b"\x01" * 96).public.to_json()
    assert world.say("B6/agent", "key.delivery-bound", {"public": delivery}) == "key-ending"


def test_a_delivery_key_ends_with_the_key_that_named_it(world: Any) -> None:
    mine, thiefs, new = (SealingKey.insecure_from_seed(bytes([n]) * 96).public.to_json() for n in (1, 2, 3))
    world.must("B6/agent", "key.delivery-bound", {"public": mine})
    world.must("B6/agent", "key.delivery-bound", {"public": thiefs})
    assert world.state.keys.delivery_key("B6/agent").to_json() == thiefs
    assert revoke(world, "B6/admin", "B6/agent", world.time) == "accepted"
    assert world.state.keys.delivery_key("B6/agent") is None
    assert bind(world, "B6/admin", "B6/agent", key(1)) == "accepted"
    assert world.state.keys.delivery_key("B6/agent") is None
    world.sandbox.replace_signer("B6/agent", key(1))
    world.must("B6/agent", "key.delivery-bound", {"public": new})
    assert world.state.keys.delivery_key("B6/agent").to_json() == new
    # An old key that was handed over takes nothing with it when it is revoked as well.
    world.must(
        "B6/admin", "key.revoked", {"key": world.sandbox.signer("B6/owner").public.key_id, "effective": 0}
    )
    assert world.state.keys.delivery_key("B6/agent").to_json() == new


def test_a_rotated_actor_keeps_its_delivery_key(world: Any) -> None:
    public = SealingKey.insecure_from_seed(b"\x01" * 96).public.to_json()
    world.must("B6/agent", "key.delivery-bound", {"public": public})
    old = world.state.keys.current("B6/agent").key_id
    assert rotate(world, "B6/agent", key(1)) == "accepted"
    world.must("B6/admin", "key.revoked", {"key": old, "effective": 0})
    assert world.state.keys.delivery_key("B6/agent").to_json() == public
    assert world.say("B6/agent", "stop.declared", STOP) == "key-retired"


@pytest.mark.parametrize("public", ["", "AAAA", "A" * 4096, "%", "é", " "])
def test_what_is_no_delivery_key_is_refused(world: Any, public: str) -> None:
    assert world.say("B6/agent", "key.delivery-bound", {"public": public}) == "key"


def test_a_delivery_key_too_long_or_in_another_spelling_is_refused(world: Any) -> None:
    public = SealingKey.insecure_from_seed(b"\x01" * 96).public.to_json()
    assert world.say("B6/agent", "key.delivery-bound", {"public": "A" * 4097}) == "schema"
    assert world.say("B6/agent", "key.delivery-bound", {"public": public + "\n"}) == "key"
    assert world.say("B6/agent", "key.delivery-bound", {"public": public.rstrip("=") + "===="}) == "key"


def test_a_member_that_is_suspended_can_still_end_its_keys_and_nothing_else(
    new_world: Callable[..., Any],
) -> None:
    world = new_world().found()
    assert world.vote("member.suspended", "DL", "AA", "B6") == ["accepted"] * 2
    assert bind(world, "DL/admin", "DL/officer-2", key(1)) == "member-inactive"
    assert rotate(world, "DL/officer", key(1)) == "member-inactive"
    delivery = SealingKey.insecure_from_seed(b"\x01" * 96).public.to_json()
    assert world.say("DL/agent", "key.delivery-bound", {"public": delivery}) == "member-inactive"
    assert revoke(world, "DL/admin", "DL/officer", 0) == "accepted", "a stolen key must not wait for a vote"
    assert world.vote("member.approved", "DL", "AA", "B6") == ["accepted"] * 2
    assert world.say("DL/officer", "stop.declared", STOP) == "key-revoked"


def test_every_key_is_found_by_kind_and_only_the_present_ones(world: Any) -> None:
    assert rotate(world, "B6/witness", key(1)) == "accepted"
    assert bind(world, "B6/admin", "B6/witness-2", key(2)) == "accepted"
    found = world.state.keys.of_member("B6", "witness")
    assert [(bound.actor, bound.key_id) for bound in found] == [
        ("B6/witness", key(1).public.key_id),
        ("B6/witness-2", key(2).public.key_id),
    ]
    assert world.state.keys.of_member("B", "witness") == ()
    assert world.state.keys.current("B6/nobody") is None
    assert world.state.keys.delivery_key("B6/nobody") is None
