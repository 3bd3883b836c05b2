"""Data-use permissions: what they cover, to the second; and what taking one back does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.envelope import MAX_INTEGER
from fedhouse.governance.event import Effect, Refused
from fedhouse.governance.sandbox import COLUMNS, DATASET, PURPOSE, named

JOB = named("late")


def give(world: Any, by: str = "B6/steward", **changes: Any) -> str:
    """Let a steward give a permission; gives the verdict."""
    body = {"dataset": DATASET, "purpose": PURPOSE, "columns": list(COLUMNS), "expires": world.time + 1000}
    return world.say(by, "permission.given", body | changes)


def withdraw_all(world: Any, member: str) -> None:
    """Let a member's steward take back every permission that it has given."""
    for permission in world.state.permissions.of_member.get(member, ()):
        world.must(f"{member}/steward", "permission.withdrawn", {"permission": permission})


def may(world: Any, member: str = "B6") -> str:
    """Whether the job `late` may run at a member now: the code of what forbids it, or nothing."""
    try:
        world.state.may_take_part(JOB, member, world.time)
    except Refused as refused:
        return refused.code
    return ""


@pytest.fixture
def asked(world: Any) -> Any:
    """The job `late` is approved everywhere, and B6 permits nothing."""
    world.run()
    withdraw_all(world, "B6")
    assert may(world) == "not-permitted"
    return world


def test_a_permission_covers_what_it_says(asked: Any) -> None:
    assert give(asked) == "accepted"
    assert may(asked) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "marketing"},
        {"purpose": PURPOSE.upper()},
        {"columns": COLUMNS[1:]},
        {"columns": ["late"]},
        {"jobs": [named("another job")]},
        {"jobs": [named("late bundle")]},
    ],
)
def test_a_permission_covers_no_more_than_it_says(asked: Any, change: dict[str, Any]) -> None:
    assert give(asked, **change) == "accepted"
    assert may(asked) == "not-permitted"


def test_permissions_are_not_added_up(asked: Any) -> None:
    assert give(asked, columns=COLUMNS[:2]) == "accepted"
    assert give(asked, columns=COLUMNS[2:]) == "accepted"
    assert may(asked) == "not-permitted", "what may be read alone may not be read together"
    assert give(asked, jobs=[named("x"), JOB]) == "accepted"
    assert may(asked) == ""


def test_a_permission_is_of_one_dataset_and_one_member(asked: Any) -> None:
    other = {"name": "other", "schema_digest": named("s"), "columns": list(COLUMNS), "suite": named("t")}
    asked.must("B6/steward", "dataset.registered", other | {"rows": "1-2"})
    assert give(asked, dataset="other") == "accepted"
    assert may(asked) == "not-permitted"
    assert give(asked, "DL/steward") == "accepted"
    assert may(asked) == "not-permitted"


def test_a_permission_ends_at_its_second(asked: Any) -> None:
    assert give(asked, expires=asked.time) == "expired"
    assert give(asked, expires=asked.time - 1) == "expired"
    assert give(asked, expires=0) == "expired"
    assert give(asked, expires=asked.time + 1) == "accepted"
    assert may(asked) == ""
    asked.clock.advance(1)
    assert may(asked) == "not-permitted"
    assert give(asked, expires=MAX_INTEGER) == "accepted"


def test_it_ends_in_the_middle_of_a_step(asked: Any) -> None:
    assert give(asked, expires=asked.time + 100) == "accepted"
    opened, first, second, third, closed, _ = asked.sandbox.step(
        "late", 0, "statistics", named("late bundle"), JOB
    )
    asked.play([opened, first])
    asked.clock.advance(99)
    asked.play([second])
    asked.clock.advance(1)
    asked.play([third])
    assert asked.put(closed) == "not-permitted", "B6 has committed, and may not be summed any more"


@pytest.mark.parametrize(
    "actor", ["B6/admin", "B6/officer", "B6/owner", "B6/agent", "B6/witness", "AA/operator"]
)
def test_only_a_steward_permits(world: Any, actor: str) -> None:
    assert give(world, actor) == "role"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"dataset": "unknown"}, "unknown-dataset"),
        ({"columns": [*COLUMNS, "salary"]}, "unknown-column"),
        ({"columns": ["late", "late"]}, "accepted"),
        ({"jobs": [named("not proposed yet")]}, "accepted"),
        ({"jobs": [named(str(n)) for n in range(64)]}, "accepted"),
        ({"jobs": [named(str(n)) for n in range(65)]}, "schema"),
        ({"jobs": ["late"]}, "schema"),
        ({"jobs": None}, "schema"),
        ({"expires": MAX_INTEGER}, "accepted"),
        ({"expires": "tomorrow"}, "schema"),
        ({"expires": True}, "schema"),
        ({"purpose": ""}, "schema"),
        ({"purpose": "any purpose"}, "schema"),
    ],
)
def test_what_a_permission_may_say(world: Any, change: dict[str, Any], code: str) -> None:
    assert give(world, **change) == code


def test_a_permission_is_named_by_the_event_that_gave_it(world: Any) -> None:
    body = {"dataset": DATASET, "purpose": PURPOSE, "columns": ["late"], "expires": world.time + 9}
    first = world.must("B6/steward", "permission.given", body)
    second = world.must("B6/steward", "permission.given", body)
    assert first != second
    assert {first, second} < set(world.state.permissions.of_member["B6"])
    assert list(world.state.permissions.of_member["B6"]) == sorted(world.state.permissions.of_member["B6"])
    assert world.state.permissions.permissions[first] == world.state.permissions.permissions[second]


@pytest.mark.parametrize("by", ["B6/steward", "B6/officer"])
def test_taking_back_ends_it_from_now_on(world: Any, by: str) -> None:
    world.run()
    (permission,) = world.state.permissions.of_member["B6"]
    assert may(world) == ""
    world.must(by, "permission.withdrawn", {"permission": permission})
    assert world.effects == (Effect("stop-work", DATASET, "B6"), Effect("delete-prepared", DATASET, "B6"))
    assert may(world) == "not-permitted"
    assert may(world, "AA") == ""
    assert world.say(by, "permission.withdrawn", {"permission": permission}) == "unknown-permission"


def test_nobody_else_takes_it_back(world: Any) -> None:
    (theirs,) = world.state.permissions.of_member["DL"]
    for actor in ("DL/admin", "DL/owner", "DL/agent", "DL/witness"):
        assert world.say(actor, "permission.withdrawn", {"permission": theirs}) == "role"
    assert world.say("B6/steward", "permission.withdrawn", {"permission": theirs}) == "other-member"
    for name in (named("x"), world.state.consortium.id, named("schema")):
        assert world.say("DL/steward", "permission.withdrawn", {"permission": name}) == "unknown-permission"


def test_taken_back_in_the_middle_of_a_step(world: Any) -> None:
    world.run()
    opened, first, second, third, closed, published = world.sandbox.step(
        "late", 0, "statistics", named("late bundle"), named("encoder")
    )
    world.play([opened, first, second])
    withdraw_all(world, "B6")
    world.play([third])
    assert world.put(closed) == "not-permitted", "B6 has committed, and must be left out"
    without = {"job": JOB, "round": 0, "purpose": "statistics", "contributors": ["AA", "DL"]}
    world.must("AA/operator", "round.commits-closed", without)
    withdraw_all(world, "DL")
    assert world.put(published) == "sequence"
    told = {"job": JOB, "round": 0, "purpose": "statistics", "result": named("encoder")}
    world.must("AA/operator", "round.aggregate-published", told)  # what was closed before stands


def test_who_is_suspended_or_gone_can_still_take_back(new_world: Callable[..., Any]) -> None:
    world = new_world().start()
    world.vote("member.suspended", "DL", "AA", "B6")
    assert give(world, "DL/steward") == "member-inactive"
    withdraw_all(world, "DL")
    world.vote("member.approved", "DL", "AA", "B6")
    world.propose()
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6", "DL")])
    assert may(world, "AA") == ""
    assert may(world, "DL") == "not-permitted", "it did not come back with the member"
    (permission,) = world.state.permissions.of_member["B6"]
    world.must("B6/admin", "member.left", {})
    assert may(world) == "member-inactive"
    world.must("B6/officer", "permission.withdrawn", {"permission": permission})


def test_every_reason_comes_in_its_order(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA", "B6", "DL", "UA")).start()
    assert may(world) == "unknown-job"
    world.propose(silos=["AA", "B6", "DL"])
    withdraw_all(world, "B6")
    assert may(world, "UA") == "other-member"
    assert may(world) == "not-approved"
    world.play([world.sandbox.approval("late", member) for member in ("AA", "DL", "UA")])
    assert may(world) == "not-approved", "not by B6 itself"
    world.must("B6/officer", "job.declined", {"job": JOB})
    assert may(world) == "declined"
    world.must("B6/steward", "job.approved", {"job": JOB, "bundle": named("late bundle")})
    assert may(world) == "not-permitted"
    world.must("B6/officer", "stop.declared", {"scope": "consortium", "subject": ""})
    assert may(world) == "stopped"
    world.vote("member.suspended", "B6", "AA", "DL")
    assert may(world) == "member-inactive"
    world.must("AA/owner", "job.cancelled", {"job": JOB})
    assert may(world) == "closed"
