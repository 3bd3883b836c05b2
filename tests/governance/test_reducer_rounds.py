"""Rounds: one step after the other, committed to before it is summed, by those who may take part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.sandbox import named

JOB, BUNDLE, ENCODER = named("late"), named("late bundle"), named("encoder")
MODEL = [named(f"model {number}") for number in range(4)]
ALL = ["AA", "B6", "DL"]
STATISTICS = (0, "statistics")


def place(number: int, purpose: str) -> dict[str, Any]:
    """Which step of the job `late` an event is about."""
    return {"job": JOB, "round": number, "purpose": purpose}


def opens(
    world: Any, number: int, purpose: str, base: str, cohort: Any = ALL, by: str = "AA/operator"
) -> str:
    """Let an operator open a step; gives the verdict."""
    return world.say(by, "round.opened", place(number, purpose) | {"base": base, "cohort": list(cohort)})


def commits(world: Any, silo: str, number: int, purpose: str, base: str, by: str = "", **changes: Any) -> str:
    """Let a silo's agent commit; gives the verdict."""
    body = place(number, purpose) | {"base": base, "commitment": named(f"{silo} {number} {purpose}")}
    return world.say(by or f"{silo}/agent", "round.committed", body | changes)


def closes(world: Any, number: int, purpose: str, silos: Any = ALL, by: str = "AA/operator") -> str:
    """Let an operator close a step's set; gives the verdict."""
    return world.say(by, "round.commits-closed", place(number, purpose) | {"contributors": list(silos)})


def publishes(
    world: Any, number: int, purpose: str, result: str, by: str = "AA/operator", **more: Any
) -> str:
    """Let an operator publish what a step gave; gives the verdict."""
    return world.say(by, "round.aggregate-published", place(number, purpose) | {"result": result} | more)


def does(world: Any, number: int, purpose: str, base: str, result: str, silos: Any = ALL) -> None:
    """One step as it should be."""
    assert opens(world, number, purpose, base, silos) == "accepted"
    assert [commits(world, silo, number, purpose, base) for silo in silos] == ["accepted"] * len(silos)
    assert closes(world, number, purpose, silos) == "accepted"
    assert publishes(world, number, purpose, result) == "accepted"


@pytest.fixture
def running(world: Any) -> Any:
    """The job `late`, of two rounds, is approved and attested everywhere; no step is open."""
    world.run()
    return world


def test_the_steps_of_a_job_in_their_order(world: Any) -> None:
    world.run(evaluated=True)
    does(world, 0, "statistics", BUNDLE, ENCODER)
    does(world, 1, "update", MODEL[0], MODEL[1])
    does(world, 1, "evaluation", MODEL[1], named("metrics 1"))
    does(world, 2, "update", MODEL[1], MODEL[2])
    assert opens(world, 3, "update", MODEL[2]) == "order"
    does(world, 2, "evaluation", MODEL[2], named("metrics 2"))
    rounds = world.state.rounds.of(JOB)
    assert (rounds.finished, rounds.model) == (2, MODEL[2])
    assert dict(rounds.models.items()) == {MODEL[1]: 1, MODEL[2]: 2}
    for number, purpose in [
        (0, "statistics"),
        (1, "update"),
        (2, "update"),
        (2, "evaluation"),
        (3, "update"),
    ]:
        assert opens(world, number, purpose, MODEL[2]) == "order", "after the last"


STEPS = [(number, purpose) for number in range(4) for purpose in ("statistics", "update", "evaluation")]


@pytest.mark.parametrize("evaluated", [False, True])
def test_no_other_step_than_the_next_is_ever_opened(new_world: Callable[..., Any], evaluated: bool) -> None:
    world = new_world().start()
    world.run(evaluated=evaluated)
    due = [(0, "statistics", BUNDLE, ENCODER)]
    for number in (1, 2):
        due.append((number, "update", MODEL[number - 1], MODEL[number]))
        due += [(number, "evaluation", MODEL[number], named("metrics"))] if evaluated else []
    for number, purpose, base, result in due:
        for other in STEPS:
            if other != (number, purpose):
                assert opens(world, *other, base) == "order"
        assert commits(world, "AA", number, purpose, base) != "accepted", "it is not open"
        assert opens(world, number, purpose, base) == "accepted"
        for other in STEPS:
            assert opens(world, *other, base) == "order", "one is under way"
            if other != (number, purpose):
                assert commits(world, "AA", *other, base) == "other-step"
                assert closes(world, *other) == "other-step"
                assert publishes(world, *other, result) == "other-step"
        assert publishes(world, number, purpose, result) == "not-open", "not closed yet"
        assert [commits(world, silo, number, purpose, base) for silo in ALL] == ["accepted"] * 3
        assert closes(world, number, purpose) == "accepted"
        assert opens(world, number, purpose, base) == "order"
        assert commits(world, "AA", number, purpose, base) == "closed"
        assert closes(world, number, purpose) == "closed"
        assert publishes(world, number, purpose, result) == "accepted"
        assert publishes(world, number, purpose, result) == "closed"
        assert closes(world, number, purpose) == "closed"
        assert commits(world, "AA", number, purpose, base) == "closed"


def test_a_step_begins_where_the_one_before_ended(world: Any) -> None:
    world.run(evaluated=True)
    for base in (named("another bundle"), JOB, ENCODER):
        assert opens(world, *STATISTICS, base) == "base"
    does(world, *STATISTICS, BUNDLE, ENCODER)
    does(world, 1, "update", MODEL[0], MODEL[1])
    for base in (MODEL[0], MODEL[2], ENCODER, BUNDLE):
        assert opens(world, 1, "evaluation", base) == "base"
    does(world, 1, "evaluation", MODEL[1], named("metrics"))
    for base in (MODEL[0], named("metrics")):
        assert opens(world, 2, "update", base) == "base"
    assert opens(world, 2, "update", MODEL[1]) == "accepted"
    for base in (MODEL[0], MODEL[2], named("metrics")):
        assert commits(world, "AA", 2, "update", base) == "base"


@pytest.mark.parametrize(
    ("cohort", "code"),
    [
        (["B6", "AA", "DL"], "cohort"),
        (["AA", "AA", "B6"], "cohort"),
        (["AA", "B6", "UA"], "cohort"),
        (["AA", "B6", "XX"], "cohort"),
        (["AA"], "cohort"),
        (["AA", "DL"], "accepted"),
        ([], "schema"),
        ([f"M{n:02}" for n in range(65)], "schema"),
    ],
)
def test_a_cohort_is_of_the_jobs_silos_and_large_enough(
    new_world: Callable[..., Any], cohort: list[str], code: str
) -> None:
    world = new_world(("AA", "B6", "DL", "UA")).start()
    world.propose(silos=ALL)
    world.play([world.sandbox.approval("late", member) for member in ALL])
    assert opens(world, *STATISTICS, BUNDLE, cohort) == code


def test_affiliates_in_a_cohort_count_once(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA", "B6", "DL", "UA"), entities={"B6": "jet", "DL": "jet"}).start()
    world.run(min_cohort=3)
    assert opens(world, *STATISTICS, BUNDLE, ALL) == "cohort"
    assert opens(world, *STATISTICS, BUNDLE, ["AA", "B6", "DL", "UA"]) == "accepted"
    for silo in ("AA", "B6", "DL"):
        assert commits(world, silo, *STATISTICS, BUNDLE) == "accepted"
    assert closes(world, *STATISTICS, ALL) == "cohort"
    assert commits(world, "UA", *STATISTICS, BUNDLE) == "accepted"
    assert closes(world, *STATISTICS, ["AA", "B6", "UA"]) == "accepted"


def test_affiliates_that_declare_it_in_the_middle_of_a_step_count_once_at_its_end(world: Any) -> None:
    world.run(min_cohort=3)
    assert opens(world, *STATISTICS, BUNDLE) == "accepted"
    for silo in ALL:
        assert commits(world, silo, *STATISTICS, BUNDLE) == "accepted"
    world.affiliate("AA", "B6")
    assert closes(world, *STATISTICS) == "cohort"


def test_a_silo_commits_once_and_only_for_itself(running: Any) -> None:
    assert commits(running, "AA", *STATISTICS, BUNDLE) == "not-open"
    assert opens(running, *STATISTICS, BUNDLE, ["AA", "B6"]) == "accepted"
    assert commits(running, "DL", *STATISTICS, BUNDLE) == "cohort", "not asked"
    assert commits(running, "AA", *STATISTICS, MODEL[0]) == "base"
    assert commits(running, "AA", *STATISTICS, BUNDLE) == "accepted"
    assert commits(running, "AA", *STATISTICS, BUNDLE) == "already-committed"
    assert commits(running, "AA", *STATISTICS, BUNDLE, commitment=named("another")) == "already-committed"
    assert commits(running, "B6", *STATISTICS, BUNDLE, job=named("x")) == "unknown-job"
    rounds = running.state.rounds.of(JOB)
    assert dict(rounds.commitments.items()) == {"AA": named("AA 0 statistics")}


@pytest.mark.parametrize("name", ["admin", "steward", "officer", "owner", "witness", "operator"])
def test_only_an_agent_commits(running: Any, name: str) -> None:
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    assert commits(running, "AA", *STATISTICS, BUNDLE, by=f"AA/{name}") == "role"


@pytest.mark.parametrize("name", ["admin", "steward", "officer", "owner", "witness", "agent"])
def test_only_an_operator_opens_closes_and_publishes(running: Any, name: str) -> None:
    by = f"AA/{name}"
    assert opens(running, *STATISTICS, BUNDLE, by=by) == "role"
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    assert closes(running, *STATISTICS, by=by) == "role"
    assert publishes(running, *STATISTICS, ENCODER, by=by) == "role"


def test_another_members_operator_does_nothing_to_a_job(running: Any) -> None:
    running.must("B6/admin", "key.bound", {"binding": running.sandbox.binding("B6/operator")})
    by = "B6/operator"
    assert opens(running, *STATISTICS, BUNDLE, by=by) == "other-operator"
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    for silo in ALL:
        assert commits(running, silo, *STATISTICS, BUNDLE) == "accepted"
    assert closes(running, *STATISTICS, by=by) == "other-operator"
    assert closes(running, *STATISTICS) == "accepted"
    assert publishes(running, *STATISTICS, named("poison"), by=by) == "other-operator"
    assert publishes(running, *STATISTICS, ENCODER) == "accepted"


def test_the_operator_that_a_proposal_names_runs_the_job_alone(new_world: Callable[..., Any]) -> None:
    world = new_world().start()
    world.must("B6/admin", "key.bound", {"binding": world.sandbox.binding("B6/operator")})
    world.run(operator="B6/operator")
    assert opens(world, *STATISTICS, BUNDLE) == "other-operator"
    assert opens(world, *STATISTICS, BUNDLE, by="B6/operator") == "accepted"


def test_gate_2_holds_for_an_agent_that_skips_gate_1(new_world: Callable[..., Any]) -> None:
    world = new_world().start()
    world.propose()
    assert opens(world, *STATISTICS, BUNDLE) == "not-approved"
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6")])
    assert opens(world, *STATISTICS, BUNDLE) == "accepted"
    assert commits(world, "DL", *STATISTICS, BUNDLE) == "not-approved", "not at DL"
    assert commits(world, "AA", *STATISTICS, BUNDLE) == "quality-gate", "nothing attested"
    world.play(
        [world.sandbox.attestation("late", "AA", passed=False), world.sandbox.attestation("late", "B6")]
    )
    assert commits(world, "AA", *STATISTICS, BUNDLE) == "quality-gate", "a failed gate"
    assert commits(world, "B6", *STATISTICS, BUNDLE) == "accepted"
    world.must("B6/steward", "job.declined", {"job": JOB})
    assert closes(world, *STATISTICS, ["AA", "B6"]) == "not-committed"
    assert closes(world, *STATISTICS, ["B6"]) == "declined"


def test_contributors_have_committed_and_are_enough(running: Any) -> None:
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    assert commits(running, "AA", *STATISTICS, BUNDLE) == "accepted"
    assert closes(running, *STATISTICS, ["AA"]) == "cohort"
    assert closes(running, *STATISTICS, ["AA", "B6"]) == "not-committed"
    assert commits(running, "B6", *STATISTICS, BUNDLE) == "accepted"
    assert closes(running, *STATISTICS, []) == "schema"
    assert closes(running, *STATISTICS, ["B6", "AA"]) == "order"
    assert closes(running, *STATISTICS, ["AA", "AA", "B6"]) == "order"
    assert closes(running, *STATISTICS, ["AA", "B6", "XX"]) == "not-committed"
    assert closes(running, *STATISTICS, ["AA", "B6"]) == "accepted"
    assert running.state.rounds.of(JOB).contributors == ("AA", "B6")
    assert commits(running, "DL", *STATISTICS, BUNDLE) == "closed"


def test_a_member_suspended_in_the_middle_of_a_step_is_left_out(running: Any) -> None:
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    for silo in ("AA", "B6", "DL"):
        assert commits(running, silo, *STATISTICS, BUNDLE) == "accepted"
    running.vote("member.suspended", "DL", "AA", "B6")
    assert closes(running, *STATISTICS) == "member-inactive"
    assert closes(running, *STATISTICS, ["AA", "B6"]) == "accepted"


def test_a_member_that_left_in_the_middle_of_a_step_is_left_out(running: Any) -> None:
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    for silo in ("AA", "B6"):
        assert commits(running, silo, *STATISTICS, BUNDLE) == "accepted"
    running.must("B6/admin", "member.left", {})
    assert commits(running, "DL", *STATISTICS, BUNDLE) == "accepted"
    assert closes(running, *STATISTICS) == "member-inactive"
    assert closes(running, *STATISTICS, ["AA", "DL"]) == "accepted"


@pytest.mark.parametrize("phase", range(5))
@pytest.mark.parametrize("end", ["job.closed", "job.cancelled"])
def test_nothing_happens_to_a_job_that_has_ended(new_world: Callable[..., Any], phase: int, end: str) -> None:
    world = new_world().start()
    world.run()
    step = world.sandbox.step("late", *STATISTICS, BUNDLE, ENCODER)
    world.play(step[: (0, 1, 3, 5, 6)[phase]])
    if end == "job.closed":
        world.must("AA/operator", end, {"job": JOB, "reason": "quorum", "rounds": 0})
    else:
        world.must("AA/owner", end, {"job": JOB})
    assert opens(world, *STATISTICS, BUNDLE) == "closed"
    assert opens(world, 1, "update", MODEL[0]) == "closed"
    expected = ("not-open", "closed", "closed", "closed", "closed")[phase]
    assert commits(world, "DL", *STATISTICS, BUNDLE) == expected
    assert closes(world, *STATISTICS) == "closed"
    assert publishes(world, *STATISTICS, ENCODER) == "closed"


def test_one_jobs_events_do_nothing_to_another(running: Any) -> None:
    running.run("early")
    assert opens(running, *STATISTICS, BUNDLE) == "accepted"
    other = {"job": named("early"), "round": 0, "purpose": "statistics"}
    assert running.say("AA/agent", "round.committed", other | {"base": BUNDLE, "commitment": named("x")}) == (
        "not-open"
    )
    assert commits(running, "AA", *STATISTICS, BUNDLE) == "accepted"
    assert running.state.rounds.of(named("early")).phase == "before"


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({"auc": "0.75", "loss": "-1.5", "n": "10"}, "accepted"),
        ({"auc": "0." + "1" * 18}, "accepted"),
        ({"auc": "0." + "1" * 19}, "schema"),
        ({"auc": "1" * 39}, "schema"),
        ({"auc": "1e3"}, "schema"),
        ({"auc": "NaN"}, "schema"),
        ({"auc": "+1"}, "schema"),
        ({"auc": ".5"}, "schema"),
        ({"auc": "1."}, "schema"),
        ({"auc": "01"}, "schema"),
        ({"auc": "1\n"}, "schema"),
        ({"auc": 1}, "schema"),
        ({"auc": None}, "schema"),
        ({"a b": "1"}, "schema"),
        ({f"m{n}": "1" for n in range(64)}, "accepted"),
        ({f"m{n}": "1" for n in range(65)}, "schema"),
        ([], "schema"),
    ],
)
def test_metrics_are_decimal_texts(running: Any, metrics: Any, code: str) -> None:
    running.play(running.sandbox.step("late", *STATISTICS, BUNDLE, ENCODER)[:-1])
    assert publishes(running, *STATISTICS, ENCODER, metrics=metrics) == code
