"""Jobs: proposed, approved by enough entities and never by the proposer, declined, cancelled, closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.event import Effect
from fedhouse.governance.sandbox import COLUMNS, DATASET, PURPOSE, named

JOB = named("late")
FOUR = ("AA", "B6", "DL", "UA")


def propose(world: Any, by: str = "AA/owner", **changes: Any) -> str:
    """Let somebody propose the job `late` with these fields changed; gives the verdict."""
    body = dict(parse_envelope(world.sandbox.proposal("late")).statement.body)
    return world.say(by, "job.proposed", body | changes)


def approve(world: Any, by: str, **changes: Any) -> str:
    """Let somebody approve the job `late`; gives the verdict."""
    return world.say(by, "job.approved", {"job": JOB, "bundle": named("late bundle")} | changes)


def decline(world: Any, by: str) -> str:
    """Let somebody decline the job `late`; gives the verdict."""
    return world.say(by, "job.declined", {"job": JOB})


def status(world: Any) -> str:
    """What the job `late` is now."""
    return world.state.jobs.jobs[JOB].status


def test_a_proposal_is_what_was_proposed(world: Any) -> None:
    assert propose(world, min_cohort=3, evaluated=True, rounds=7) == "accepted"
    job = world.state.jobs.jobs[JOB]
    assert (job.proposer, job.status, job.silos) == ("AA/owner", "proposed", ("AA", "B6", "DL"))
    assert (job.dataset, job.purpose, job.columns) == (DATASET, PURPOSE, COLUMNS)
    assert (job.rounds, job.min_cohort, job.evaluated) == (7, 3, True)
    assert propose(world) == "job-known"
    assert propose(world, "B6/owner") == "job-known"
    assert propose(world, job=named("other")) == "accepted"


@pytest.mark.parametrize(
    "actor", ["AA/admin", "AA/steward", "AA/officer", "AA/agent", "AA/witness", "AA/operator"]
)
def test_only_an_owner_proposes(world: Any, actor: str) -> None:
    assert propose(world, actor) == "role"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"silos": ["B6", "AA", "DL"]}, "order"),
        ({"silos": ["AA", "AA", "DL"]}, "order"),
        ({"columns": ["late", "carrier"]}, "order"),
        ({"columns": ["late", "late"]}, "order"),
        ({"silos": ["AA", "B6", "XX"]}, "member-inactive"),
        ({"dataset": "other"}, "unknown-dataset"),
        ({"columns": ["carrier", "salary"]}, "unknown-dataset"),
        ({"min_cohort": 4}, "cohort"),
        ({"silos": ["AA"], "min_cohort": 2}, "cohort"),
        ({"silos": ["AA"], "min_cohort": 1}, "accepted"),
        ({"silos": ["B6", "DL"]}, "accepted"),
        ({"replaces": named("unknown")}, "unknown-job"),
        ({"replaces": JOB}, "unknown-job"),
        ({"silos": []}, "schema"),
        ({"silos": [f"M{n:02}" for n in range(65)]}, "schema"),
        ({"columns": []}, "schema"),
        ({"min_cohort": 0}, "schema"),
        ({"min_cohort": 65}, "schema"),
        ({"rounds": 0}, "schema"),
        ({"rounds": 10_001}, "schema"),
        ({"rounds": 10_000}, "accepted"),
        ({"evaluated": 0}, "schema"),
        ({"bounds": {}}, "schema"),
        ({"bounds": {"seconds": -1, "parameters": 1, "scratch_mib": 1}}, "schema"),
        ({"operator": "AA"}, "schema"),
        ({"operator": "AA/operator\n"}, "schema"),
        ({"bounty": "5"}, "schema"),
    ],
)
def test_what_a_proposal_may_say(world: Any, change: dict[str, Any], code: str) -> None:
    assert propose(world, **change) == code


def test_a_cohort_is_counted_by_entity(new_world: Callable[..., Any]) -> None:
    world = new_world(FOUR, entities={"B6": "jet", "DL": "jet"}).start()
    assert propose(world, min_cohort=4) == "cohort"
    assert propose(world, min_cohort=3) == "accepted"


def test_silos_are_active_when_a_job_is_proposed(world: Any) -> None:
    world.vote("member.suspended", "DL", "AA", "B6")
    assert propose(world) == "member-inactive"
    assert propose(world, silos=["AA", "B6"]) == "accepted"


def test_a_new_version_is_of_the_same_members_job(world: Any) -> None:
    # Who reads the difference to an approved version must not be shown another member's.
    assert propose(world) == "accepted"
    assert propose(world, "B6/owner", job=named("copy"), replaces=JOB) == "other-member"
    assert propose(world, job=named("late 2"), replaces=JOB) == "accepted"


def test_a_job_runs_when_enough_entities_approved_and_a_silo_when_it_did(
    new_world: Callable[..., Any],
) -> None:
    world = new_world(FOUR, rules={"job_approvals": 3}, entities={"B6": "jet", "DL": "jet"}).start()
    assert propose(world) == "accepted"
    assert approve(world, "B6/steward") == "accepted"
    assert approve(world, "DL/officer") == "accepted"
    assert approve(world, "AA/steward") == "accepted"
    assert status(world) == "proposed", "three members, two entities"
    assert approve(world, "UA/steward") == "accepted"
    assert status(world) == "approved"
    approvals = dict(world.state.jobs.jobs[JOB].approvals.items())
    assert approvals == {"AA": "AA/steward", "B6": "B6/steward", "DL": "DL/officer", "UA": "UA/steward"}


def test_a_member_that_is_no_silo_votes_as_well(new_world: Callable[..., Any]) -> None:
    world = new_world(FOUR).start()
    assert propose(world, silos=["AA", "B6", "DL"]) == "accepted"
    assert [approve(world, actor) for actor in ("UA/officer", "B6/steward")] == ["accepted"] * 2
    assert status(world) == "approved"


@pytest.mark.parametrize("actor", ["B6/admin", "B6/owner", "B6/agent", "B6/witness", "AA/operator"])
def test_only_stewards_and_officers_decide(world: Any, actor: str) -> None:
    assert propose(world) == "accepted"
    assert approve(world, actor) == "role"
    assert decline(world, actor) == "role"


def test_nobody_approves_its_own_proposal(new_world: Callable[..., Any]) -> None:
    world = new_world().start()
    box = world.sandbox
    binding = box.binding("AA/owner-2") | {"roles": ["owner", "steward", "officer"]}
    world.must("AA/admin", "key.bound", {"binding": binding})
    assert propose(world, "AA/owner-2") == "accepted"
    assert approve(world, "AA/owner-2") == "four-eyes"
    # Nor under a new key, nor with other roles, under the same name.
    following = world.sandbox.signer("a spare key")
    world.must(
        "AA/owner-2",
        "key.rotated",
        {"binding": binding | box.binding("AA/owner-2", following) | {"roles": binding["roles"]}},
    )
    box.replace_signer("AA/owner-2", following)
    assert approve(world, "AA/owner-2") == "four-eyes"
    world.must("AA/admin", "key.revoked", {"key": following.public.key_id, "effective": 0})
    third = world.sandbox.signer("another spare key")
    world.must(
        "AA/admin", "key.bound", {"binding": box.binding("AA/owner-2", third) | {"roles": ["steward"]}}
    )
    box.replace_signer("AA/owner-2", third)
    assert approve(world, "AA/owner-2") == "four-eyes"
    assert approve(world, "AA/steward") == "accepted", "another person of the same member"


def test_a_member_has_one_voice(world: Any) -> None:
    assert propose(world) == "accepted"
    assert approve(world, "B6/steward") == "accepted"
    assert approve(world, "B6/steward") == "already-voted"
    assert approve(world, "B6/officer") == "already-voted"
    assert status(world) == "proposed"
    assert decline(world, "B6/officer") == "accepted"
    assert decline(world, "B6/steward") == "already-voted"
    job = world.state.jobs.jobs[JOB]
    assert dict(job.approvals.items()) == {}
    assert dict(job.declined.items()) == {"B6": "B6/officer"}
    assert approve(world, "AA/steward") == "accepted"
    assert status(world) == "proposed", "a vote taken back"
    assert approve(world, "B6/steward") == "accepted"
    assert status(world) == "approved"
    assert dict(world.state.jobs.jobs[JOB].declined.items()) == {}


def test_what_is_approved_is_the_bundle_that_was_proposed(world: Any) -> None:
    assert propose(world) == "accepted"
    assert approve(world, "B6/steward", bundle=named("another bundle")) == "other-bundle"
    assert approve(world, "B6/steward", job=named("x")) == "unknown-job"
    assert approve(world, "B6/steward", bundle=JOB) == "other-bundle", "a digest of another kind"


def test_votes_of_members_that_stopped_counting(new_world: Callable[..., Any]) -> None:
    world = new_world((*FOUR, "WN")).start()
    assert propose(world, silos=["AA", "B6"]) == "accepted"
    assert approve(world, "WN/steward") == "accepted"
    world.must("WN/admin", "member.left", {})
    assert approve(world, "B6/steward") == "accepted"
    assert status(world) == "proposed", "one of the two has left"
    world.vote("member.suspended", "B6", "DL", "UA")
    assert approve(world, "DL/steward") == "accepted"
    assert status(world) == "proposed", "the other is suspended"
    assert approve(world, "UA/steward") == "accepted"
    assert status(world) == "approved"


def test_votes_after_affiliation_count_once(world: Any) -> None:
    assert propose(world) == "accepted"
    assert approve(world, "B6/steward") == "accepted"
    world.affiliate("B6", "DL")
    assert approve(world, "DL/steward") == "accepted"
    assert status(world) == "proposed"
    assert approve(world, "AA/steward") == "accepted"
    assert status(world) == "approved"


def test_a_decline_stops_work_at_its_member_alone(world: Any) -> None:
    world.run()
    assert decline(world, "B6/officer") == "accepted"
    assert world.effects == (Effect("stop-work", JOB, "B6"), Effect("delete-prepared", JOB, "B6"))
    assert status(world) == "approved"
    assert set(world.state.jobs.jobs[JOB].approvals) == {"AA", "DL"}


def test_the_proposers_member_cancels_and_nobody_else(world: Any) -> None:
    assert propose(world) == "accepted"
    assert world.say("B6/owner", "job.cancelled", {"job": JOB}) == "other-member"
    for actor in ("AA/admin", "AA/steward", "AA/officer", "AA/agent", "AA/operator"):
        assert world.say(actor, "job.cancelled", {"job": JOB}) == "role"
    assert world.say("AA/owner", "job.cancelled", {"job": named("x")}) == "unknown-job"
    assert world.say("AA/owner", "job.cancelled", {"job": JOB}) == "accepted"
    assert world.effects == (Effect("stop-work", JOB), Effect("delete-prepared", JOB))
    for verdict in (
        world.say("AA/owner", "job.cancelled", {"job": JOB}),
        approve(world, "B6/steward"),
        decline(world, "B6/steward"),
        world.say("AA/operator", "job.closed", {"job": JOB, "reason": "quorum", "rounds": 0}),
    ):
        assert verdict == "closed"
    assert propose(world) == "job-known", "a job that ended is not proposed again"


def close(world: Any, by: str = "AA/operator", **changes: Any) -> str:
    """Let somebody close the job `late`; gives the verdict."""
    return world.say(by, "job.closed", {"job": JOB, "reason": "rounds", "rounds": 2} | changes)


@pytest.fixture
def trained(world: Any) -> Any:
    """Both rounds of the job `late` are done, and it has not been closed."""
    world.play(world.sandbox.job_events()[:-1])
    return world


def test_a_job_closes_with_one_of_its_models_when_its_rounds_are_done(trained: Any) -> None:
    last, first = named("late model 2"), named("late model 1")
    assert close(trained, model=named("x")) == "model"
    assert close(trained, model=named("late model 0")) == "model", "where the first round began"
    assert close(trained, model=named("late encoder")) == "model", "a result of another kind"
    assert close(trained, model=named("late bundle")) == "model"
    assert close(trained, model=JOB) == "model"
    assert close(trained) == "model"
    assert close(trained, model=None) == "model"
    assert close(trained, model=last, rounds=1) == "rounds"
    assert close(trained, model=last, rounds=3) == "rounds"
    assert close(trained, rounds=0) == "rounds"
    assert close(trained, model=last, job=named("x")) == "unknown-job"
    assert close(trained, model=first) == "accepted"
    assert trained.effects == (Effect("delete-prepared", JOB),)
    assert (status(trained), trained.state.jobs.jobs[JOB].model) == ("closed", first)
    assert close(trained, model=first) == "closed"
    assert approve(trained, "B6/officer") == "closed"
    assert decline(trained, "B6/officer") == "closed"
    assert trained.say("AA/owner", "job.cancelled", {"job": JOB}) == "closed"


@pytest.mark.parametrize("reason", ["target", "patience"])
def test_only_a_job_that_is_evaluated_ends_for_its_metric(
    world: Any, trained: Any, new_world: Callable[..., Any], reason: str
) -> None:
    model = named("late model 2")
    assert close(trained, reason=reason, model=model) == "reason"
    assert close(trained, reason="better", model=model) == "schema"
    other = new_world().start()
    other.play(other.sandbox.job_events(evaluated=True)[:-1])
    assert close(other, reason=reason, model=model) == "accepted"


def test_a_job_whose_rounds_are_not_done_does_not_end_for_its_rounds(world: Any) -> None:
    world.play(world.sandbox.job_events(rounds=3)[:-6])
    assert world.state.rounds.of(JOB).finished == 2
    assert close(world, rounds=2, model=named("late model 2")) == "reason"
    assert close(world, reason="quorum", rounds=2, model=named("late model 2")) == "accepted"


def test_a_job_without_a_quorum_ends_without_a_model(world: Any) -> None:
    assert propose(world) == "accepted"
    assert close(world, reason="quorum", rounds=0) == "not-approved"
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6")])
    assert close(world, reason="quorum", rounds=0, model=named("x")) == "model"
    assert close(world, reason="quorum", rounds=0) == "accepted"
    assert world.state.jobs.jobs[JOB].model == ""


@pytest.mark.parametrize(
    "actor", ["AA/admin", "AA/owner", "AA/steward", "AA/officer", "AA/agent", "AA/witness"]
)
def test_only_an_operator_closes(trained: Any, actor: str) -> None:
    assert close(trained, actor, model=named("late model 2")) == "role"


def test_another_members_operator_does_not_end_a_job(trained: Any) -> None:
    trained.must("B6/admin", "key.bound", {"binding": trained.sandbox.binding("B6/operator")})
    assert close(trained, "B6/operator", model=named("late model 2")) == "other-operator"
    trained.must("AA/admin", "key.bound", {"binding": trained.sandbox.binding("AA/operator-2")})
    assert close(trained, "AA/operator-2", model=named("late model 2")) == "accepted", (
        "the proposer's second one"
    )


def test_a_proposal_may_name_its_operator(world: Any) -> None:
    world.must("B6/admin", "key.bound", {"binding": world.sandbox.binding("B6/operator")})
    world.must("B6/admin", "key.bound", {"binding": world.sandbox.binding("B6/operator-2")})
    assert propose(world, operator="B6/operator") == "accepted"
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6")])
    assert close(world, "AA/operator", reason="quorum", rounds=0) == "other-operator"
    assert close(world, "B6/operator-2", reason="quorum", rounds=0) == "other-operator"
    assert close(world, "B6/operator", reason="quorum", rounds=0) == "accepted"
