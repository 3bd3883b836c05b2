"""Payloads beside the ledger: whose they are, who holds them, and that they can be erased."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.event import Effect
from fedhouse.governance.sandbox import named

TEXT = named("salt and text")
STOP = {"scope": "consortium", "subject": ""}


def names(world: Any, actor: str, *digests: str, retention: str = "ten-years") -> str:
    """Let a person name payloads in an event; gives the verdict."""
    payloads = [PayloadRef("reason", digest, retention) for digest in digests]
    return world.say(actor, "stop.declared", STOP, payloads=payloads)


def hold(world: Any, *actors: str, payload: str = TEXT) -> list[str]:
    """Let people place a hold; gives the verdicts."""
    return [world.say(actor, "record.hold-placed", {"payload": payload}) for actor in actors]


def release(world: Any, *actors: str, payload: str = TEXT) -> list[str]:
    """Let people release a hold; gives the verdicts."""
    return [world.say(actor, "record.hold-released", {"payload": payload}) for actor in actors]


def erase(world: Any, actor: str, payload: str = TEXT, basis: str = "data-subject-request") -> str:
    """Let a person record an erasure; gives the verdict."""
    return world.say(actor, "record.payload-erased", {"payload": payload, "basis": basis})


@pytest.fixture
def kept(world: Any) -> Any:
    """B6 has named a payload."""
    assert names(world, "B6/officer", TEXT) == "accepted"
    return world


def test_what_an_accepted_event_names_is_its_members(kept: Any) -> None:
    found = kept.state.retention.payloads[TEXT]
    assert (found.member, found.retention, found.held_by, found.erased) == ("B6", "ten-years", (), False)


def test_what_a_refused_event_names_is_nobodys(world: Any) -> None:
    assert names(world, "B6/agent", TEXT) == "role"
    assert hold(world, "B6/officer") == ["unknown-payload"]
    assert names(world, "B6/officer", TEXT) == "accepted"


def test_a_member_names_its_payload_again_but_not_in_another_way(kept: Any) -> None:
    assert names(kept, "B6/steward", TEXT, TEXT, named("more")) == "accepted"
    assert names(kept, "B6/officer", TEXT, retention="one-year") == "payload-known"
    assert names(kept, "B6/officer", named("x"), TEXT, retention="one-year") == "payload-known"
    assert named("x") not in kept.state.retention.payloads
    assert kept.state.retention.payloads[TEXT].retention == "ten-years"


def test_nobody_takes_anothers_payload_over(kept: Any) -> None:
    # Whoever owns it may erase it; so nobody becomes an owner by naming a digest that he has seen.
    assert names(kept, "DL/officer", TEXT) == "payload-known"
    assert names(kept, "DL/officer", named("mine"), TEXT) == "payload-known"
    assert erase(kept, "DL/officer") == "other-member"
    assert erase(kept, "B6/officer") == "accepted"


def test_an_erased_payload_is_not_named_again(kept: Any) -> None:
    assert erase(kept, "B6/officer") == "accepted"
    assert names(kept, "B6/officer", TEXT) == "payload-known"


@pytest.mark.parametrize("basis", ["data-subject-request", "retention-expired", "mistake", "court-order"])
def test_an_erasure_is_recorded_once(kept: Any, basis: str) -> None:
    assert erase(kept, "B6/officer", basis=basis) == "accepted"
    assert kept.effects == (Effect("erase-payload", TEXT),)
    assert kept.state.retention.payloads[TEXT].erased
    assert erase(kept, "B6/officer", basis=basis) == "erased"
    assert hold(kept, "DL/officer") == ["erased"]


def test_who_may_erase_and_what(kept: Any) -> None:
    for name in ("admin", "steward", "owner", "agent", "witness"):
        assert erase(kept, f"B6/{name}") == "role"
        assert hold(kept, f"B6/{name}") == ["role"]
        assert release(kept, f"B6/{name}") == ["role"]
    assert erase(kept, "B6/officer", named("x")) == "unknown-payload"
    assert hold(kept, "B6/officer", payload=named("x")) == ["unknown-payload"]
    assert release(kept, "B6/officer", payload=named("x")) == ["unknown-payload"]
    assert erase(kept, "B6/officer", basis="because") == "schema"
    assert erase(kept, "B6/officer", TEXT.upper()) == "schema"


def test_nothing_that_is_held_is_erased(kept: Any) -> None:
    assert hold(kept, "DL/officer", "B6/officer", "DL/officer") == ["accepted", "accepted", "already-held"]
    assert erase(kept, "B6/officer") == "held"
    assert release(kept, "AA/officer") == ["not-held"]
    assert release(kept, "B6/officer", "B6/officer") == ["accepted", "not-held"]
    assert erase(kept, "B6/officer") == "held", "by DL, still"
    assert release(kept, "DL/officer") == ["accepted"]
    assert erase(kept, "B6/officer") == "accepted"


def test_the_order_of_holds_leaves_no_trace(new_world: Callable[..., Any]) -> None:
    def after(*actors: str) -> str:
        world = new_world().found()
        assert names(world, "B6/officer", TEXT) == "accepted"
        hold(world, *actors)
        return world.state.digest()

    assert after("AA/officer", "DL/officer", "B6/officer") == after("DL/officer", "B6/officer", "AA/officer")


def test_a_hold_ends_with_its_members_membership_and_not_with_a_suspension(kept: Any) -> None:
    # Else what a member held before it left could never be erased by anybody.
    assert hold(kept, "DL/officer") == ["accepted"]
    kept.vote("member.suspended", "DL", "AA", "B6")
    assert erase(kept, "B6/officer") == "held"
    assert hold(kept, "DL/officer") == ["member-inactive"]
    kept.must("DL/admin", "member.left", {})
    assert erase(kept, "B6/officer") == "accepted"


def test_a_suspended_member_releases_its_hold(kept: Any) -> None:
    assert hold(kept, "DL/officer") == ["accepted"]
    kept.vote("member.suspended", "DL", "AA", "B6")
    assert release(kept, "DL/officer") == ["accepted"]
    assert erase(kept, "B6/officer") == "accepted"


def test_who_left_still_erases_what_it_named(kept: Any) -> None:
    # The duty to erase does not end with membership; evidence is kept by a hold.
    kept.must("B6/admin", "member.left", {})
    assert hold(kept, "AA/officer") == ["accepted"]
    assert erase(kept, "B6/officer") == "held"
    assert release(kept, "AA/officer") == ["accepted"]
    assert erase(kept, "B6/officer") == "accepted"


def test_no_rule_reads_a_payload(kept: Any) -> None:
    before = kept.state
    assert erase(kept, "B6/officer") == "accepted"
    assert kept.state.permissions.digest() == before.permissions.digest()
    assert kept.state.consortium.digest() == before.consortium.digest()
