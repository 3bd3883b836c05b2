"""What the reducer checks of every envelope, in its order, before a rule of a family is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.errors import EnvelopeError, SignatureError, UnknownSignerError
from fedhouse.governance.envelope import MAX_INTEGER, NO_CONSORTIUM, parse_envelope
from fedhouse.governance.reducer import EVENTS, MAX_AHEAD, admit, apply, reducer_digest
from fedhouse.governance.sandbox import START, SandboxConsortium, named
from fedhouse.governance.state import State
from fedhouse.identity.signer import SoftwareSigner

STOP = {"scope": "consortium", "subject": ""}


def forged(data: bytes, world: Any) -> bytes:
    """The envelope with the signature of another event by the same key."""
    other = world.sandbox.sign("AA/officer", "stop.declared", STOP, issued=START - 1)
    cut = b'"sig":"'
    return data[: data.index(cut)] + other[other.index(cut) :]


def test_who_is_unknown_or_did_not_sign_does_not_get_through_the_door(world: Any) -> None:
    before, good = world.state, world.sandbox.sign("AA/officer", "stop.declared", STOP)
    stranger = SoftwareSigner.insecure_from_seed("ed25519", b"\x01" * 32)
    unknown = world.sandbox.sign("AA/officer", "stop.declared", STOP, signer=stranger)
    with pytest.raises(UnknownSignerError):
        admit(before, parse_envelope(unknown))
    with pytest.raises(UnknownSignerError):
        apply(before, parse_envelope(unknown), world.time)
    with pytest.raises(SignatureError):
        admit(before, parse_envelope(forged(good, world)))
    with pytest.raises(EnvelopeError):
        parse_envelope(good.replace(b'"sig":"', b'"not":"'))
    assert world.put(good) == "accepted"


def test_a_float_never_gets_as_far_as_a_rule(world: Any) -> None:
    body = {
        "job": named("late"),
        "round": 0,
        "purpose": "update",
        "result": named("x"),
        "metrics": {"auc": 0.7},
    }
    with pytest.raises(EnvelopeError):
        world.say("AA/operator", "round.aggregate-published", body)
    assert world.say("AA/operator", "round.aggregate-published", body | {"metrics": {"auc": "0.7"}}) == (
        "unknown-job"
    )


def test_another_consortium(world: Any, new_world: Callable[..., Any]) -> None:
    other = new_world(seed="sandbox", origin="other.example/ledger").start()
    assert other.state.consortium.id != world.state.consortium.id
    # The same people with the same keys: what they said there says nothing here.
    assert world.put(other.sandbox.sign("AA/officer", "stop.declared", STOP)) == "other-consortium"
    for name in (NO_CONSORTIUM, other.state.consortium.id, named("x")):
        assert world.say("AA/officer", "stop.declared", STOP, consortium=name) == "other-consortium"


def test_another_signers_name(world: Any) -> None:
    key = world.sandbox.signer("B6/officer")
    assert world.say("AA/officer", "stop.declared", STOP, signer=key) == "signer"
    assert world.say("B6/admin", "stop.declared", STOP, signer=key) == "signer"
    assert world.say("B6/officer-1", "stop.declared", STOP, signer=key) == "signer"


@pytest.mark.parametrize("ahead", [-1, 1, 100, MAX_INTEGER - 10])
def test_out_of_sequence(world: Any, ahead: int) -> None:
    world.must("AA/officer", "stop.declared", STOP)
    world.must("AA/officer", "stop.declared", STOP)
    assert world.say("AA/officer", "stop.declared", STOP, sequence=3 + ahead) == "sequence"
    assert world.say("AA/officer", "stop.declared", STOP, sequence=3) == "accepted"


def test_replayed(world: Any) -> None:
    data = world.sandbox.sign("AA/officer", "stop.declared", STOP)
    assert world.put(data) == "accepted"
    assert world.put(data) == "sequence"
    refused = world.sandbox.sign("AA/agent", "stop.declared", STOP)
    assert world.put(refused) == "role"
    assert world.put(refused) == "sequence", "a refused event used its number up"


def test_an_actors_numbers_are_its_own(world: Any) -> None:
    # Two keys of one member, and one actor with two keys, one after the other.
    assert world.state.sequences["AA/steward"] == 2
    world.must("AA/officer", "stop.declared", STOP, sequence=1)
    assert world.say("AA/admin", "stop.declared", STOP, sequence=1) == "sequence"


def test_future_dated(world: Any) -> None:
    late = world.sandbox.sign("AA/officer", "stop.declared", STOP, issued=world.time + MAX_AHEAD + 1)
    assert world.put(late) == "future-dated"
    assert world.put(late) == "future-dated"
    world.clock.advance(1)
    assert world.put(late) == "accepted", "nothing was lost: its number had not been used up"
    assert world.say("AA/officer", "stop.declared", STOP, issued=world.time + MAX_AHEAD) == "accepted"
    assert world.say("AA/officer", "stop.declared", STOP, issued=world.time + 3600) == "future-dated"
    assert world.say("AA/officer", "stop.declared", STOP, issued=MAX_INTEGER) == "future-dated"
    assert world.say("AA/officer", "stop.declared", STOP, issued=0) == "accepted", "an old one may come late"


def test_unknown_type_or_version(world: Any) -> None:
    assert world.say("AA/officer", "coffee.made", {}) == "unknown-type"
    assert world.say("AA/officer", "stop.declared", STOP, version=2) == "unknown-type"
    assert world.say("AA/officer", "stop.declared", STOP, version=999) == "unknown-type"
    assert world.say("AA/officer", "stop.declare", STOP) == "unknown-type"


def test_a_second_founding(world: Any) -> None:
    founding = parse_envelope(world.sandbox.founding())
    assert world.put(founding.raw) == "other-consortium"
    assert world.say("AA/admin", "consortium.created", founding.statement.body) == "unknown-type"
    other = SandboxConsortium(("AA", "B6", "DL"), clock=world.clock, origin="usurper.example/ledger")
    assert world.put(other.founding()) == "other-consortium"


BAD_BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("AA/officer", "stop.declared", {}),
    ("AA/officer", "stop.declared", STOP | {"why": "x"}),
    ("AA/officer", "stop.declared", {"scope": "world", "subject": ""}),
    ("AA/officer", "stop.declared", {"scope": "job", "subject": None}),
    ("AA/officer", "stop.declared", {"scope": "job", "subject": "x" * 65}),
    ("AA/officer", "stop.declared", {"scope": ["job"], "subject": ""}),
    ("AA/admin", "member.suspended", {"member": "DL\n"}),
    ("AA/admin", "member.suspended", {"member": ""}),
    ("AA/admin", "member.suspended", {"member": "../DL"}),
    ("AA/admin", "member.suspended", {"member": "D" * 65}),
    ("AA/admin", "member.suspended", {"member": 7}),
    ("AA/admin", "member.suspended", {"member": ["DL"]}),
    ("AA/admin", "key.revoked", {"key": "AB" * 32, "effective": 1}),
    ("AA/admin", "key.revoked", {"key": "ab" * 32 + "\n", "effective": 1}),
    ("AA/admin", "key.revoked", {"key": "ab" * 32, "effective": -1}),
    ("AA/admin", "key.revoked", {"key": "ab" * 32, "effective": "1"}),
    ("AA/admin", "key.revoked", {"key": "ab" * 32, "effective": True}),
    ("AA/admin", "key.revoked", {"key": "ab" * 32, "effective": None}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"job_approvals": 0}}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"job_approvals": 65}}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"colluding": 33}}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"colluding": -1}}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"colluding": True}}),
    ("AA/admin", "charter.amended", {"previous": "ab" * 32, "rules": {"quorum": 1}}),
    ("AA/steward", "permission.given", {"dataset": "d", "purpose": "p", "columns": [], "expires": 1}),
    ("AA/steward", "permission.given", {"dataset": "d", "purpose": "p", "columns": "abc", "expires": 1}),
    ("AA/steward", "permission.given", {"dataset": "d", "purpose": "p", "columns": {"a": 1}, "expires": 1}),
    ("AA/steward", "permission.given", {"dataset": "d", "purpose": "p", "columns": [1], "expires": 1}),
    ("AA/steward", "permission.given", {"dataset": "d", "purpose": "p", "columns": None, "expires": 1}),
    (
        "AA/steward",
        "permission.given",
        {"dataset": "d", "purpose": "p", "columns": ["a"] * 2001, "expires": 1},
    ),
    ("AA/agent", "round.committed", {"job": "ab" * 32, "round": 10_001, "purpose": "update"}),
]


@pytest.mark.parametrize(("actor", "event", "body"), BAD_BODIES)
def test_a_body_that_is_not_of_its_schema(world: Any, actor: str, event: str, body: dict[str, Any]) -> None:
    assert world.say(actor, event, body) == "schema"


@pytest.mark.parametrize("event", sorted(set(EVENTS) - {"member.left", "consortium.created"}))
def test_no_event_goes_without_its_fields_or_with_more(world: Any, event: str) -> None:
    assert world.say("AA/admin", event, {}) == "schema"
    assert world.say("AA/admin", event, {"anything": 1}) == "schema"


def test_other_subjects(world: Any) -> None:
    job = named("late")
    body = {"job": job, "bundle": named("bundle")}
    here = ("consortium", world.state.consortium.id)
    for subjects in (
        [here],
        [("job", named("other"))],
        [("bundle", job)],
        [("job", job), ("bundle", named("bundle"))],
        [("job", job), ("job", job)],
    ):
        assert world.say("AA/steward", "job.approved", body, subjects=subjects) == "subject"
    assert world.say("AA/steward", "job.approved", body) == "unknown-job"
    assert world.say("AA/officer", "stop.declared", STOP, subjects=[("consortium", named("x"))]) == "subject"
    assert world.say("AA/officer", "stop.declared", STOP, subjects=[("stop", here[1])]) == "subject"


def test_members_that_are_not_active(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.play([world.sandbox.founding()])
    assert world.say("B6/officer", "stop.declared", STOP) == "member-inactive"
    world = new_world().start()
    assert world.invite("UA", by="AA") == "accepted"
    assert world.say("UA/officer", "stop.declared", STOP) == "member-inactive"
    world.must("UA/admin", "member.joined", {"charter": world.state.consortium.charter})
    assert world.say("UA/officer", "stop.declared", STOP) == "member-inactive"
    assert world.vote("member.suspended", "DL", "AA", "B6") == ["accepted"] * 2
    assert world.say("DL/officer", "stop.declared", STOP) == "member-inactive"
    world.must("B6/admin", "member.left", {})
    assert world.say("B6/officer", "stop.declared", STOP) == "member-inactive"


# Each envelope below is wrong in this way and in every later one: the first is told.
ORDER = [
    "other-consortium",
    "signer",
    "key-retired",
    "key-revoked",
    "sequence",
    "future-dated",
    "unknown-type",
    "schema",
    "subject",
    "member-inactive",
]


@pytest.mark.parametrize("code", ORDER)
def test_the_checks_come_in_their_order(new_world: Callable[..., Any], code: str) -> None:
    world = new_world().found()
    box, step = world.sandbox, ORDER.index(code)
    key = box.signer("DL/officer")
    if step <= ORDER.index("key-retired"):
        following = SoftwareSigner.insecure_from_seed("ed25519", b"\x02" * 32)
        world.must(
            "DL/officer",
            "key.rotated",
            {"binding": box.binding("DL/officer", following) | {"roles": ["officer"]}},
        )
    if step <= ORDER.index("key-revoked"):
        world.must("DL/admin", "key.revoked", {"key": key.public.key_id, "effective": 0})
    assert world.vote("member.suspended", "DL", "AA", "B6") == ["accepted"] * 2
    used = world.state.sequences.get("DL/officer", 0)
    verdict = world.say(
        "DL/officer" if step > 1 else "AA/officer",
        "stop.declared" if step > 6 else "coffee.made",
        STOP if step > 7 else {},
        subjects=None if step > 8 else [("stop", named("x"))],
        signer=key,
        consortium=None if step > 0 else named("x"),
        sequence=used + 1 if step > 4 else used + 2,
        issued=world.time if step > 5 else world.time + 1000,
    )
    assert verdict == code


def test_the_reducer_has_a_digest_that_names_its_source() -> None:
    assert reducer_digest() == reducer_digest()
    assert len(reducer_digest()) == 64
    assert reducer_digest() != State().digest()
