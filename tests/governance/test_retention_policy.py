"""Retention classes: what is due, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from fedhouse.errors import ConfigurationError
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.retention_policy import DuePayload, RetentionPolicy, first_named, holders
from fedhouse.governance.sandbox import START, named

DAY = 86_400
DATASET = {
    "name": "flights",
    "schema_digest": named("schema"),
    "columns": ["late"],
    "suite": named("suite"),
    "rows": "1-2",
}


def register(world: Any, name: str, retention: str, *, member: str = "AA") -> str:
    digest = named(name)
    world.must(
        f"{member}/steward", "dataset.registered", DATASET, payloads=[PayloadRef(name, digest, retention)]
    )
    return digest


def test_what_has_had_its_time_is_due_the_oldest_first(world: Any) -> None:
    first = register(world, "first", "ten-years")
    world.clock.advance(DAY)
    second = register(world, "second", "incident", member="B6")
    policy = RetentionPolicy({"incident": 30, "ten-years": 31})
    times = first_named(world.entries)
    assert times == {first: START, second: START + DAY}
    assert policy.due(world.state, times, START + 31 * DAY - 1) == ()
    assert policy.due(world.state, times, START + 31 * DAY) == (
        DuePayload(first, "AA", "ten-years", START),
        DuePayload(second, "B6", "incident", START + DAY),
    )


def test_what_is_held_erased_or_kept_until_erased_is_not_due(world: Any) -> None:
    held, erased, kept = (
        register(world, name, retention)
        for name, retention in (("held", "incident"), ("erased", "incident"), ("kept", "charter"))
    )
    world.must("DL/officer", "record.hold-placed", {"payload": held})
    world.must("AA/officer", "record.payload-erased", {"payload": erased, "basis": "retention-expired"})
    policy = RetentionPolicy({"incident": 1, "charter": "until-erased"})
    later = START + 100_000 * DAY
    assert policy.due(world.state, first_named(world.entries), later) == ()
    world.must("DL/officer", "record.hold-released", {"payload": held})
    assert [one.digest for one in policy.due(world.state, first_named(world.entries), later)] == [held]
    assert kept in world.state.retention.payloads


def test_a_hold_ends_with_its_membership(world: Any) -> None:
    digest = register(world, "text", "incident")
    world.must("DL/officer", "record.hold-placed", {"payload": digest})
    assert holders(world.state, digest) == ("DL",)
    world.must("DL/admin", "member.left", {})
    assert holders(world.state, digest) == holders(world.state, named("nothing")) == ()
    policy = RetentionPolicy({"incident": 1})
    (due,) = policy.due(world.state, first_named(world.entries), START + DAY)
    assert due.digest == digest


def test_a_class_without_a_rule_is_kept_and_told(world: Any) -> None:
    register(world, "text", "invented")
    policy = RetentionPolicy({"incident": 1})
    assert policy.due(world.state, first_named(world.entries), START + 10_000 * DAY) == ()
    assert policy.unknown(world.state) == ("invented",)


def test_a_second_event_does_not_start_the_time_again(world: Any) -> None:
    digest = register(world, "text", "incident")
    world.clock.advance(DAY)
    register(world, "text", "incident")
    assert first_named(world.entries) == {digest: START}


def test_a_refused_event_names_nothing(world: Any) -> None:
    reference = PayloadRef("text", named("text"), "incident")
    assert world.say("AA/officer", "dataset.registered", DATASET, payloads=[reference]) == "role"
    assert first_named(world.entries) == {}


@pytest.mark.parametrize(
    "days", [{"Incident": 1}, {"a": 0}, {"a": -1}, {"a": 36_526}, {"a": 1.5}, {"a": True}, {"a": "forever"}]
)
def test_impossible_policies_are_refused(days: Any) -> None:
    with pytest.raises(ConfigurationError):
        RetentionPolicy(days)
