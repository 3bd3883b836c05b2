"""Datasets and quality: what is registered, and that a gate passed the suite that it was to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.sandbox import COLUMNS, DATASET, named

DATASET_BODY = {
    "name": DATASET,
    "schema_digest": named("schema"),
    "columns": list(COLUMNS),
    "suite": named("suite"),
    "rows": "10000-99999",
}
CHECK = {"expectation": "not-null", "column": "late", "looked_at": 20_000, "unexpected": 0, "passed": True}


def attest(world: Any, member: str = "AA", actor: str = "", **changes: Any) -> str:
    """Let a member's agent say what its gate found for the job `late`; gives the verdict."""
    body = {
        "job": named("late"),
        "dataset": DATASET,
        "pin": named("pin"),
        "suite": named("suite"),
        "passed": True,
        "rows": 20_000,
        "checks": [CHECK],
    }
    return world.say(actor or f"{member}/agent", "quality.attested", body | changes)


@pytest.fixture
def approved(world: Any) -> Any:
    """The job `late` is approved everywhere, and no gate has been passed yet."""
    world.propose()
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6", "DL")])
    return world


def test_a_later_registration_replaces_the_earlier(world: Any) -> None:
    world.must(
        "B6/steward", "dataset.registered", DATASET_BODY | {"columns": ["late"], "lineage": [named("x")]}
    )
    found = world.state.data.datasets[f"B6/{DATASET}"]
    assert (found.columns, found.lineage) == (("late",), (named("x"),))
    assert world.state.data.datasets[f"AA/{DATASET}"].columns == COLUMNS
    world.must("B6/steward", "dataset.registered", DATASET_BODY | {"name": "other"})


@pytest.mark.parametrize(
    "actor", ["B6/admin", "B6/officer", "B6/owner", "B6/agent", "B6/witness", "AA/operator"]
)
def test_only_a_steward_registers(world: Any, actor: str) -> None:
    assert world.say(actor, "dataset.registered", DATASET_BODY) == "role"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"columns": ["late", "late"]}, "columns"),
        ({"rows": "5-5"}, "rows"),
        ({"rows": "6-5"}, "rows"),
        ({"rows": "0-1"}, "accepted"),
        ({"rows": "9999999999999998-9999999999999999"}, "accepted"),
        ({"rows": "0-10000000000000000"}, "schema"),
        ({"rows": "00-5"}, "schema"),
        ({"rows": "-5-5"}, "schema"),
        ({"rows": "0-0"}, "schema"),
        ({"rows": "5"}, "schema"),
        ({"rows": "1-5\n"}, "schema"),
        ({"rows": "１-５"}, "schema"),  # noqa: RUF001
        ({"rows": 5}, "schema"),
        ({"columns": []}, "schema"),
        ({"columns": ["a b"]}, "schema"),
        ({"columns": ["é"]}, "schema"),
        ({"columns": [f"c{n}" for n in range(2000)]}, "accepted"),
        ({"columns": [f"c{n}" for n in range(2001)]}, "schema"),
        ({"lineage": [named(str(n)) for n in range(65)]}, "schema"),
        ({"suite": "x"}, "schema"),
    ],
)
def test_what_a_registration_may_say(world: Any, change: dict[str, Any], code: str) -> None:
    assert world.say("B6/steward", "dataset.registered", DATASET_BODY | change) == code


def test_a_gate_is_attested_once_a_job_and_silo(approved: Any) -> None:
    assert attest(approved) == "accepted"
    assert attest(approved) == "already-attested"
    assert attest(approved, pin=named("another pin")) == "already-attested"
    assert attest(approved, "B6") == "accepted"
    found = approved.state.data.quality[f"{named('late')}/AA"]
    assert (found.pin, found.passed, found.rows, found.failed_checks) == (named("pin"), True, 20_000, ())


@pytest.mark.parametrize(
    "actor", ["AA/admin", "AA/steward", "AA/officer", "AA/owner", "AA/witness", "AA/operator"]
)
def test_only_an_agent_attests(approved: Any, actor: str) -> None:
    assert attest(approved, actor=actor) == "role"


def test_a_gate_says_what_it_counted(approved: Any) -> None:
    failed = CHECK | {"unexpected": 7, "passed": False}
    assert attest(approved, checks=[CHECK, failed]) == "checks", "it did not pass"
    assert attest(approved, passed=False) == "checks", "it passed"
    assert attest(approved, checks=[]) == "checks", "nothing was looked at"
    assert attest(approved, checks=[], passed=False) == "checks"
    table = failed | {"expectation": "row-count", "column": None}
    assert attest(approved, checks=[CHECK, failed, table], passed=False) == "accepted"
    assert approved.state.data.quality[f"{named('late')}/AA"].failed_checks == ("not-null late", "row-count")
    assert attest(approved) == "already-attested", "a failed gate is not tried again for the same job"


def test_a_gate_holds_the_registered_suite_and_no_easier_one(approved: Any) -> None:
    assert attest(approved, suite=named("an empty suite")) == "other-suite"
    approved.must("AA/steward", "dataset.registered", DATASET_BODY | {"suite": named("suite 2")})
    assert attest(approved) == "other-suite"
    assert attest(approved, suite=named("suite 2")) == "accepted"


def test_a_gate_is_of_the_jobs_dataset(approved: Any) -> None:
    approved.must("AA/steward", "dataset.registered", DATASET_BODY | {"name": "other"})
    assert attest(approved, dataset="other") == "other-dataset"
    assert attest(approved, job=named("x")) == "unknown-job"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": -1},
        {"checks": [CHECK | {"looked_at": "1"}]},
        {"checks": [CHECK | {"unexpected": -1}]},
        {"rows": "20000"},
        {"checks": [CHECK] * 513},
        {"checks": [CHECK | {"value": "a row"}]},
        {"checks": [{"expectation": "x"}]},
        {"passed": 1},
        {"passed": "true"},
    ],
)
def test_a_gate_tells_counts_and_nothing_else(approved: Any, change: dict[str, Any]) -> None:
    assert attest(approved, **change) == "schema"


def test_who_may_not_take_part_attests_nothing(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA", "B6", "DL", "UA")).start()
    world.propose(silos=["AA", "B6", "DL"])
    assert attest(world) == "not-approved", "no entity has approved"
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6")])
    assert attest(world, "UA") == "other-member"
    assert attest(world, "DL") == "not-approved", "the job runs, but not at DL"
    world.must("DL/steward", "job.declined", {"job": named("late")})
    assert attest(world, "DL") == "declined"
    stop = world.must("B6/officer", "stop.declared", {"scope": "member", "subject": "AA"})
    assert attest(world) == "stopped"
    for actor in ("AA/officer", "DL/officer"):
        world.must(actor, "stop.lifted", {"stop": stop})
    (permission,) = world.state.permissions.of_member["AA"]
    world.must("AA/steward", "permission.withdrawn", {"permission": permission})
    assert attest(world) == "not-permitted"
    assert attest(world, "B6") == "accepted"
    world.must("AA/owner", "job.cancelled", {"job": named("late")})
    assert attest(world) == "closed"
