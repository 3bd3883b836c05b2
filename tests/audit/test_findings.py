"""What an auditor finds in histories with one thing amiss each."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from typing import Any

import pytest

from fedhouse.audit.findings import KeyEvent, find
from fedhouse.audit.words import REFUSALS
from fedhouse.errors import EnvelopeError, IntegrityError
from fedhouse.governance import event, reducer, state
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.sandbox import START, named
from fedhouse.governance.state import State
from fedhouse.identity.signer import SoftwareSigner

SILOS = ("AA", "B6", "DL")
JOB = named("late")


def told(ledger: Any, job: str = "late") -> list[tuple[str, str]]:
    return [(gap.kind, gap.text) for gap in ledger.job(job).gaps]


def kinds(ledger: Any, job: str = "late") -> list[str]:
    return [gap.kind for gap in ledger.job(job).gaps]


# A job


def test_where_nothing_is_amiss_nothing_is_found(whole: Any) -> None:
    findings = whole.find()
    assert findings.gaps == findings.refusals == findings.stops == findings.payloads == ()
    assert (findings.entries, findings.accepted) == (len(whole.entries),) * 2
    assert (findings.first, findings.last) == (START + 10, whole.clock.now)
    (job,) = findings.jobs
    assert (job.digest, job.asked, job.reason, job.record.status) == (JOB, 2, "rounds", "closed")
    assert [step.name for step in job.steps] == [
        "statistics",
        "round 1, update",
        "round 1, evaluation",
        "round 2, update",
        "round 2, evaluation",
    ]
    assert all(step.contributors == SILOS and step.published is not None for step in job.steps)
    assert job.ended == whole.clock.now
    assert job.record.model == named("late 2 update result")


def test_a_jobs_times_are_the_ledgers(whole: Any) -> None:
    job = whole.job()
    first, second, third = job.decisions
    assert (job.proposed, first.time, job.approved) == (first.time - 10, second.time - 10, second.time)
    assert (first.member, first.actor, first.verdict, first.late) == ("AA", "AA/steward", "approved", False)
    assert whole.entries[third.index].outcome.time == third.time
    step = job.steps[0]
    assert (job.began, step.closed, step.published) == (step.opened, step.opened + 40, step.opened + 50)
    assert [time - step.opened for _, time in step.committed] == [10, 20, 30]
    assert step.ended == step.published


def test_a_late_approval(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    ledger.step(0, "statistics", ["AA", "B6"])
    ledger.put(ledger.sandbox.approval("late", "DL"))
    ledger.put(ledger.sandbox.attestation("late", "DL"))
    ledger.step(1, "update", SILOS)
    assert kinds(ledger) == ["approval-late", "not-ended"]
    gap = ledger.job().gaps[0]
    assert gap.text.startswith("DL approved on 21 Sep 2026, ")
    assert gap.index == ledger.job().decision_of("DL").index
    assert ledger.job().decision_of("DL").late


def test_a_missing_approval_is_a_gap_once_the_job_has_begun(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    assert kinds(ledger) == ["not-ended"]
    ledger.step(0, "statistics", ["AA", "B6"])
    assert told(ledger)[0] == (
        "approval-missing",
        "DL neither approved nor declined, and the job ran on the other silos.",
    )


def test_a_job_that_waits_is_no_gap(ledger: Any) -> None:
    ledger.propose("late", "AA")
    job = ledger.job()
    assert job.gaps == ()
    assert (job.approved, job.began, job.ended, job.steps) == (None, None, None, ())


def test_a_silo_that_declined_has_decided(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    ledger.must("DL/officer", "job.declined", {"job": JOB})
    ledger.step(0, "statistics", ["AA", "B6"])
    assert kinds(ledger) == ["not-ended"]
    assert ledger.job().decision_of("DL").verdict == "declined"


def test_approvals_that_were_taken_back(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    ledger.step(0, "statistics", ["AA", "B6"])
    ledger.must("B6/officer", "job.declined", {"job": JOB})
    assert (
        "approvals-fewer",
        "1 of the 2 approvals that it took are left; the others were taken back.",
    ) in told(ledger)
    decisions = [(one.member, one.verdict) for one in ledger.job().decisions]
    assert decisions == [("AA", "approved"), ("B6", "approved"), ("B6", "declined")]
    assert ledger.job().decision_of("B6").verdict == "declined"
    assert "approval-late" not in kinds(ledger)  # declining late is a right


def test_a_gate_that_did_not_pass_and_one_that_was_not_attested(ledger: Any) -> None:
    ledger.propose("late")
    ledger.put(*(ledger.sandbox.approval("late", member) for member in SILOS))
    ledger.put(
        ledger.sandbox.attestation("late", "AA"), ledger.sandbox.attestation("late", "B6", passed=False)
    )
    ledger.step(0, "statistics", SILOS, committing=["AA"], until="open")
    assert told(ledger)[:2] == [
        ("gate-failed", "B6's quality gate did not pass: not-null late."),
        ("attestation-missing", "Asked to take part, and without a word of a quality gate: DL."),
    ]
    good, bad = ledger.job().attestations
    assert (good.passed, good.unexpected, good.failed) == (True, 0, ())
    assert (bad.passed, bad.unexpected, bad.failed, bad.rows) == (False, 7, ("not-null late",), 20_000)


def test_silos_that_were_left_out_or_silent(ledger: Any) -> None:
    ledger.propose("late", *SILOS)
    ledger.step(0, "statistics", SILOS, contributing=["AA", "B6"])
    ledger.step(1, "update", SILOS, committing=["AA", "DL"])
    ledger.step(2, "update", SILOS, committing=["AA", "DL"])
    ledger.close(2)
    assert told(ledger) == [
        ("no-commitment", "B6 was asked and did not commit in 2 steps (round 1, update; round 2, update)."),
        ("left-out", "DL committed and was left out of the sum in 1 step (statistics)."),
    ]
    steps = ledger.job().steps
    assert (steps[0].left_out, steps[0].silent) == (("DL",), ())
    assert (steps[1].left_out, steps[1].silent) == ((), ("B6",))


def test_many_steps_are_counted_and_a_few_named(ledger: Any) -> None:
    ledger.propose("late", *SILOS, rounds=6)
    ledger.step(0, "statistics", SILOS)
    for number in range(1, 7):
        ledger.step(number, "update", SILOS, committing=["AA", "DL"])
    ledger.close(6)
    ((_, text),) = told(ledger)
    assert text.endswith(
        "in 6 steps (round 1, update; round 2, update; round 3, update; round 4, update; …)."
    )


@pytest.mark.parametrize(
    ("until", "kind", "text"),
    [
        ("open", "round-not-closed", "Round 1, update was opened on 21 Sep 2026, "),
        ("closed", "round-not-published", "Round 1, update was closed on 21 Sep 2026, "),
    ],
)
def test_a_round_without_an_end(ledger: Any, until: str, kind: str, text: str) -> None:
    ledger.propose("late", *SILOS)
    ledger.step(0, "statistics", SILOS)
    ledger.step(1, "update", SILOS, until=until)
    first, second = told(ledger)
    assert first[0] == kind
    assert first[1].startswith(text)
    assert second[0] == "not-ended"
    # An open round's silence is no gap: the silos may still commit.
    assert ledger.job().steps[-1].silent == ledger.job().steps[-1].left_out == ()


def test_a_cancelled_job_has_ended(ledger: Any) -> None:
    ledger.propose("late", *SILOS)
    ledger.must("AA/owner", "job.cancelled", {"job": JOB})
    job = ledger.job()
    assert (job.gaps, job.reason, job.ended) == ((), "cancelled", ledger.clock.now)


def test_jobs_are_told_apart(ledger: Any) -> None:
    ledger.propose("late", *SILOS)
    ledger.propose("fares", "B6")
    ledger.step(0, "statistics", SILOS)
    assert [job.name for job in ledger.find().jobs] == ["late", "fares"]
    assert len(ledger.job("late").steps) == 1
    assert [one.member for one in ledger.job("fares").decisions] == ["B6"]


def test_an_amended_charter_asks_more_of_later_jobs_only(ledger: Any) -> None:
    ledger.propose("late", "AA")
    rules = {"job_approvals": 3, "member_approvals": 2, "lift_approvals": 2, "colluding": 1}
    body = {"previous": ledger.state.consortium.charter, "rules": rules}
    for member in ("AA", "B6"):
        ledger.must(f"{member}/admin", "charter.amended", body)
    ledger.propose("fares")
    assert (ledger.job("late").asked, ledger.job("fares").asked) == (2, 3)


# Refusals


def test_refused_events_are_counted_by_their_code(whole: Any) -> None:
    for _ in range(3):
        assert whole.say("B6/owner", "job.cancelled", {"job": JOB}) == "closed"
    assert whole.say("B6/owner", "job.proposed", {"job": ["<script>"], "checks": 7}) == "schema"
    assert whole.say("B6/agent", "no.such-event", {}) == "unknown-type"
    findings = whole.find()
    assert findings.refused_by_code == {"closed": 3, "schema": 1, "unknown-type": 1}
    assert findings.accepted == findings.entries - 5
    last = findings.refusals[-1]
    assert (last.index, last.type, last.actor) == (findings.entries - 1, "no.such-event", "B6/agent")
    assert findings.gaps == ()


def test_a_refused_approval_is_no_decision(ledger: Any) -> None:
    ledger.propose("late", "B6")
    assert ledger.say("AA/owner", "job.approved", {"job": JOB, "bundle": named("late bundle")}) == "role"
    assert [one.member for one in ledger.job().decisions] == ["B6"]


def _codes(module: Any) -> set[str]:
    """Every text that a module of the rules refuses with."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        parts: list[ast.AST] = []
        if isinstance(node, ast.Call) and name in ("require", "Refused"):
            parts = [node.args[-1]]
        elif isinstance(node, ast.FunctionDef) and node.name == "why_not":
            parts = [one for one in ast.walk(node) if isinstance(one, ast.Return)]
        for part in parts:
            branches = [one for one in ast.walk(part) if isinstance(one, (ast.Constant, ast.IfExp))]
            tests = {
                id(deep) for one in branches if isinstance(one, ast.IfExp) for deep in ast.walk(one.test)
            }
            found |= {
                one.value
                for one in branches
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in tests
            }
    return found - {""}


def test_every_code_of_the_rules_has_a_sentence() -> None:
    codes = set().union(*(_codes(module) for module in (event, reducer, state, *reducer.FAMILIES)))
    assert {"role", "four-eyes", "schema", "not-permitted", "not-open", "payload-known"} <= codes
    assert codes == set(REFUSALS)
    assert list(REFUSALS) == sorted(REFUSALS)


# Stops


def test_a_stop_lasts_until_enough_have_voted(ledger: Any) -> None:
    ledger.propose("late", *SILOS)
    stop = ledger.must("DL/officer", "stop.declared", {"scope": "job", "subject": JOB})
    (found,) = ledger.find().stops_in_force
    assert (found.scope, found.subject, found.actor, found.voters) == ("job", JOB, "DL/officer", ())
    since = ledger.clock.now
    assert ledger.say("DL/officer", "stop.lifted", {"stop": stop}) == "four-eyes"
    ledger.must("AA/admin", "stop.lifted", {"stop": stop})
    assert ledger.find().stops_in_force[0].voters == ("AA/admin",)
    ledger.must("B6/admin", "stop.lifted", {"stop": stop})
    (found,) = ledger.find().stops
    assert (found.since, found.until, found.voters) == (since, since + 30, ("AA/admin", "B6/admin"))
    assert ledger.find().stops_in_force == ()


def test_a_stop_in_the_middle_of_a_round(ledger: Any) -> None:
    ledger.propose("late", *SILOS)
    ledger.step(0, "statistics", SILOS, until="open")
    ledger.must("B6/steward", "stop.declared", {"scope": "consortium", "subject": ""})
    closing = {"job": JOB, "round": 0, "purpose": "statistics", "contributors": list(SILOS)}
    assert ledger.say("AA/operator", "round.commits-closed", closing) == "stopped"
    findings = ledger.find()
    assert findings.refused_by_code == {"stopped": 1}
    assert [gap.kind for gap in findings.gaps] == ["round-not-closed", "not-ended"]
    assert len(findings.stops_in_force) == 1


# Permissions


def test_permissions_end_in_three_ways_or_not(ledger: Any) -> None:
    given = {one.member: one.digest for one in ledger.find().permissions}
    body = {"dataset": "flights", "purpose": "delay-forecast", "columns": ["late", "delay"]}
    short = ledger.must("AA/steward", "permission.given", body | {"expires": ledger.clock.now + 100})
    ledger.must("B6/officer", "permission.withdrawn", {"permission": given["B6"]})
    withdrawn = ledger.clock.now
    ledger.clock.advance(1000)
    ledger.must("DL/admin", "member.left", {})
    found = {one.digest: one for one in ledger.find().permissions}
    assert {digest: one.how for digest, one in found.items()} == {
        given["AA"]: "in force",
        given["B6"]: "withdrawn",
        given["DL"]: "member left",
        short: "expired",
    }
    assert found[given["AA"]].ended is None
    assert found[given["B6"]].ended == withdrawn
    assert found[given["DL"]].ended == ledger.clock.now
    assert found[short].ended == found[short].expires
    assert (found[short].columns, found[short].jobs) == (("delay", "late"), ())


def test_the_first_end_of_a_permission_counts(ledger: Any) -> None:
    body = {"dataset": "flights", "purpose": "x", "columns": ["late"], "expires": ledger.clock.now + 50}
    short = ledger.must("B6/steward", "permission.given", body)
    ledger.clock.advance(100)
    ledger.must("B6/officer", "permission.withdrawn", {"permission": short})
    (found,) = (one for one in ledger.find().permissions if one.digest == short)
    assert (found.how, found.ended) == ("expired", body["expires"])


# Members, keys, texts


def test_keys_from_binding_to_revocation(ledger: Any) -> None:
    founding = [one for one in ledger.find().keys if one.index == 0]
    assert len(founding) == 19
    assert {one.what for one in founding} == {"bound"}
    old = ledger.sandbox.signer("B6/officer").public.key_id
    new = SoftwareSigner.insecure_from_seed("ed25519", bytes(range(32)))
    ledger.must("B6/officer", "key.rotated", {"binding": ledger.sandbox.binding("B6/officer", new)})
    ledger.must("B6/admin", "key.revoked", {"key": old, "effective": START})
    index, now = len(ledger.entries) - 1, ledger.clock.now
    rotated, revoked = [one for one in ledger.find().keys if one.index > 0]
    assert rotated == KeyEvent(index - 1, now - 10, "B6/officer", "rotated", new.public.key_id, "B6/officer")
    assert revoked == KeyEvent(index, now, "B6/officer", "revoked", old, "B6/admin", START)


def test_a_newcomers_way_in_and_another_members_way_out(ledger: Any) -> None:
    ledger.must("AA/admin", "member.invited", {"founder": ledger.sandbox.founder("UA")})
    ledger.must("UA/admin", "member.joined", {"charter": ledger.state.consortium.charter})
    for member in ("AA", "B6"):
        ledger.must(f"{member}/admin", "member.approved", {"member": "UA"})
    ledger.must("DL/admin", "member.left", {})
    found = ledger.find()
    assert [(one.status, one.by) for one in found.members if one.member == "UA"] == [
        ("invited", "AA/admin"),
        ("joined", "UA/admin"),
        ("active", "B6/admin"),
    ]
    assert [one.status for one in found.members if one.member == "DL"] == ["founding", "active", "left"]
    assert sum(one.actor.startswith("UA/") for one in found.keys) == 6


def test_holds_and_erasures_of_texts(ledger: Any) -> None:
    references = [PayloadRef("reason", named(f"text {number}"), "incident") for number in range(4)]
    stop = {"scope": "member", "subject": "AA"}
    ledger.must("AA/officer", "stop.declared", stop, payloads=references)
    named_at = ledger.clock.now
    erased, held, of_leaver, _ = (one.digest for one in references)
    ledger.must("B6/officer", "record.hold-placed", {"payload": erased})
    assert (
        ledger.say("AA/officer", "record.payload-erased", {"payload": erased, "basis": "mistake"}) == "held"
    )
    ledger.must("B6/officer", "record.hold-released", {"payload": erased})
    ledger.must("AA/officer", "record.payload-erased", {"payload": erased, "basis": "court-order"})
    erased_at = ledger.clock.now
    ledger.must("B6/officer", "record.hold-placed", {"payload": held})
    ledger.must("DL/officer", "record.hold-placed", {"payload": of_leaver})
    ledger.must("DL/admin", "member.left", {})
    findings = ledger.find()
    assert findings.kept == 4
    found = {one.digest: one for one in findings.payloads}
    assert set(found) == {erased, held, of_leaver}
    assert found[erased].holds == (("B6", named_at + 10, named_at + 30),)
    assert (found[erased].erased, found[erased].by) == (erased_at, "AA/officer")
    assert (found[erased].basis, found[erased].member) == ("court-order", "AA")
    assert found[held].holds == (("B6", erased_at + 10, None),)
    assert found[of_leaver].holds == (("DL", erased_at + 20, erased_at + 30),)
    assert found[of_leaver].erased is None


# What is looked at


def test_another_verdict_than_the_rules_give_is_refused(whole: Any) -> None:
    entries = list(whole.entries)
    entries[5] = replace(entries[5], outcome=replace(entries[5].outcome, verdict="role"))
    with pytest.raises(IntegrityError, match="Entry 5: the ledger says 'role'"):
        find(entries, whole.state)


def test_entries_and_state_must_be_of_one_ledger(whole: Any) -> None:
    with pytest.raises(IntegrityError, match="not the one that the entries give"):
        find(whole.entries[:-1], whole.state)
    with pytest.raises(EnvelopeError):
        find([replace(whole.entries[0], envelope=b"x")], whole.state)


def test_an_empty_ledger_has_nothing() -> None:
    findings = find([], State())
    assert (findings.entries, findings.jobs, findings.gaps) == (0, (), ())
