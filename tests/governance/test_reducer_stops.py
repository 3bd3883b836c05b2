"""The emergency brake: anybody pulls it, several let it go, and never the one who pulled it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.event import Effect, Refused
from fedhouse.governance.sandbox import named

JOB = named("late")
ALL = {"scope": "consortium", "subject": ""}


def stop(world: Any, by: str = "B6/officer", scope: str = "consortium", subject: str = "") -> str:
    """Let somebody declare a stop; gives its digest."""
    return world.must(by, "stop.declared", {"scope": scope, "subject": subject})


def lift(world: Any, name: str, *actors: str) -> list[str]:
    """Let people vote for lifting; gives the verdicts."""
    return [world.say(actor, "stop.lifted", {"stop": name}) for actor in actors]


def may(world: Any, job: str = JOB, member: str = "B6") -> str:
    """What forbids a job at a member now; nothing, if it may run there."""
    try:
        world.state.may_take_part(job, member, world.time)
    except Refused as refused:
        return refused.code
    return ""


def runs(world: Any, job: str = JOB) -> str:
    """What forbids that a job's rounds go on."""
    try:
        world.state.runnable(job)
    except Refused as refused:
        return refused.code
    return ""


@pytest.fixture
def running(world: Any) -> Any:
    """Two jobs, `late` and `early`, are approved everywhere."""
    world.run()
    world.run("early")
    return world


def test_a_stop_of_everything(running: Any) -> None:
    name = stop(running)
    assert running.effects == (Effect("stop-work", ""),)
    assert may(running) == "stopped"
    assert may(running, named("early"), "AA") == "stopped"
    assert runs(running) == "stopped"
    assert lift(running, name, "AA/officer", "DL/admin") == ["accepted"] * 2
    assert may(running) == ""


def test_a_stop_of_one_job(running: Any) -> None:
    stop(running, scope="job", subject=JOB)
    assert running.effects == (Effect("stop-work", JOB),)
    assert may(running) == "stopped"
    assert may(running, member="AA") == "stopped"
    assert runs(running) == "stopped"
    assert may(running, named("early")) == ""
    assert runs(running, named("early")) == ""


def test_a_stop_of_one_member(running: Any) -> None:
    stop(running, scope="member", subject="B6")
    assert running.effects == (Effect("stop-work", "", "B6"),)
    assert may(running) == "stopped"
    assert may(running, named("early")) == "stopped"
    assert may(running, member="AA") == ""
    assert runs(running) == "", "with those who are left"


def test_a_member_whose_name_is_a_jobs_digest_stops_no_job(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA", "B6", "DL", JOB)).start()
    world.run()
    stop(world, scope="member", subject=JOB)
    assert runs(world) == ""
    assert may(world) == ""
    assert may(world, member=JOB) == "stopped"
    stop(world, scope="job", subject=JOB)
    assert runs(world) == "stopped"


@pytest.mark.parametrize("actor", ["DL/owner", "DL/steward", "DL/officer", "DL/admin"])
def test_any_person_stops(world: Any, actor: str) -> None:
    assert world.say(actor, "stop.declared", ALL) == "accepted"


@pytest.mark.parametrize("actor", ["DL/agent", "DL/witness", "AA/operator"])
def test_no_program_stops(world: Any, actor: str) -> None:
    assert world.say(actor, "stop.declared", ALL) == "role"


@pytest.mark.parametrize(
    ("scope", "subject", "code"),
    [
        ("consortium", "AA", "subject"),
        ("consortium", JOB, "subject"),
        ("job", "", "unknown-job"),
        ("job", named("x"), "unknown-job"),
        ("job", "AA", "unknown-job"),
        ("member", "", "unknown-member"),
        ("member", "XX", "unknown-member"),
        ("member", JOB, "unknown-member"),
    ],
)
def test_what_is_stopped_exists(running: Any, scope: str, subject: str, code: str) -> None:
    assert running.say("B6/officer", "stop.declared", {"scope": scope, "subject": subject}) == code


def test_who_is_suspended_stops_nobody(world: Any) -> None:
    world.vote("member.suspended", "DL", "AA", "B6")
    assert world.say("DL/officer", "stop.declared", ALL) == "member-inactive"


def test_lifting_takes_several_entities_and_four_eyes(running: Any) -> None:
    name = stop(running)
    assert lift(running, name, "B6/officer") == ["four-eyes"]
    assert lift(running, name, "B6/admin", "B6/admin") == ["accepted", "already-voted"]
    assert may(running) == "stopped"
    assert lift(running, name, "AA/officer") == ["accepted"]
    assert may(running) == ""
    assert lift(running, name, "DL/officer", "B6/officer") == ["closed"] * 2


@pytest.mark.parametrize("actor", ["DL/owner", "DL/steward", "DL/agent", "DL/witness", "AA/operator"])
def test_only_officers_and_administrators_lift(world: Any, actor: str) -> None:
    name = stop(world)
    assert lift(world, name, actor) == ["role"]


def test_the_one_who_stopped_does_not_lift_under_another_key_or_name_for_it(world: Any) -> None:
    name = stop(world)
    box = world.sandbox
    spare = box.signer("a spare key")
    binding = box.binding("B6/officer", spare)
    world.must("B6/officer", "key.rotated", {"binding": binding})
    box.replace_signer("B6/officer", spare)
    assert lift(world, name, "B6/officer") == ["four-eyes"]


def test_what_is_lifted_is_a_stop(running: Any) -> None:
    stop(running)
    (permission,) = running.state.permissions.of_member["AA"]
    assert lift(running, named("x"), "AA/officer") == ["unknown-stop"]
    assert lift(running, permission, "AA/officer") == ["unknown-stop"]
    assert lift(running, JOB, "AA/officer") == ["unknown-stop"]


def test_each_stop_is_lifted_for_itself(running: Any) -> None:
    first, second = stop(running), stop(running, "DL/owner")
    assert lift(running, first, "AA/officer", "DL/officer") == ["accepted"] * 2
    assert may(running) == "stopped"
    assert lift(running, second, "AA/officer", "B6/officer") == ["accepted"] * 2
    assert may(running) == ""


def test_votes_for_lifting_count_by_entity_and_of_active_members(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA", "B6", "DL", "UA"), rules={"lift_approvals": 3}).start()
    world.run()
    name = stop(world)
    assert lift(world, name, "AA/officer", "DL/officer") == ["accepted"] * 2
    world.vote("member.suspended", "DL", "AA", "B6")
    assert lift(world, name, "UA/officer") == ["accepted"]
    assert may(world) == "stopped", "one of three is suspended"
    world.vote("member.approved", "DL", "AA", "B6")
    assert may(world) == "stopped", "its vote counts again, when the next one is cast"
    world.affiliate("AA", "B6")
    assert lift(world, name, "B6/admin") == ["accepted"]
    assert may(world) == "", "AA and B6, DL, UA"


def test_a_stop_outlives_the_member_that_declared_it(running: Any) -> None:
    name = stop(running, "DL/officer")
    running.must("DL/admin", "member.left", {})
    assert may(running) == "stopped"
    assert lift(running, name, "DL/admin") == ["member-inactive"]
    assert lift(running, name, "AA/officer", "B6/officer") == ["accepted"] * 2
    assert may(running) == ""


def test_a_stop_holds_every_step_until_it_is_lifted(running: Any) -> None:
    opened, first, second, third, *_ = running.sandbox.step(
        "late", 0, "statistics", named("late bundle"), named("encoder")
    )
    name = stop(running)
    assert running.put(opened) == "stopped"
    assert lift(running, name, "AA/officer", "DL/officer") == ["accepted"] * 2
    step = {"job": JOB, "round": 0, "purpose": "statistics"}
    base = {"base": named("late bundle")}
    running.must("AA/operator", "round.opened", step | base | {"cohort": ["AA", "B6", "DL"]})
    running.play([first, second])
    name = stop(running)
    assert running.put(third) == "stopped"
    close = step | {"contributors": ["AA", "B6"]}
    assert running.say("AA/operator", "round.commits-closed", close) == "stopped"
    assert lift(running, name, "AA/officer", "DL/officer") == ["accepted"] * 2
    running.must("AA/operator", "round.commits-closed", close)
    name = stop(running, scope="job", subject=JOB)
    publish = step | {"result": named("encoder")}
    assert running.say("AA/operator", "round.aggregate-published", publish) == "stopped"
    assert lift(running, name, "AA/officer", "DL/officer") == ["accepted"] * 2
    running.must("AA/operator", "round.aggregate-published", publish)
