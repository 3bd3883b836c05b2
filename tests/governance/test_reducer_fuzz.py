"""Random histories, legal and not: no other error, no other verdict, and what must always hold does."""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedhouse.errors import EnvelopeError, SignatureError, UnknownSignerError
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.reducer import EVENTS, FAMILIES
from fedhouse.governance.sandbox import COLUMNS, DATASET, PURPOSE, named
from fedhouse.governance.state import State

# Every verdict but `accepted` that there is. A new one belongs here, and in the documentation.
_CODES = (
    "already-affiliated already-attested already-committed already-held already-revoked already-voted base"
    " checks closed cohort columns declined erased expired four-eyes future-dated held job-known key"
    " key-ending key-in-use key-known key-proof key-retired key-revoked member-inactive member-known model"
    " not-approved not-committed not-held not-invited not-open not-permitted order other-actor"
    " other-bundle other-charter other-consortium other-dataset other-entity other-member other-operator"
    " other-step other-suite own-matter payload-known quality-gate reason role rounds rows rules schema"
    " sequence signer stopped subject unknown-column unknown-dataset unknown-job unknown-key"
    " unknown-member unknown-payload unknown-permission unknown-stop unknown-type"
)
CODES = frozenset(_CODES.split())
MEMBERS = ("AA", "B6", "DL", "UA")
NEWCOMERS = ("WN", "YX")
NAMES = ("admin", "steward", "officer", "owner", "agent", "witness", "operator")
# Who may say what; everybody else tries now and then.
RIGHT = {
    "dataset": "steward",
    "job": "steward",
    "permission": "steward",
    "quality": "agent",
    "record": "officer",
    "round": "operator",
    "stop": "officer",
}
JOBS = ("late", "early")
PURPOSES = ("statistics", "update", "evaluation")


def told(module: Any) -> set[str]:
    """Every code that a module refuses with, read out of its source."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            argument = {"require": node.args[1:2], "Refused": node.args[:1]}.get(node.func.id, [])
        elif isinstance(node, ast.FunctionDef) and node.name in ("why_not", "require_role", "require_kind"):
            argument = [item.value for item in ast.walk(node) if isinstance(item, ast.Return) and item.value]
        else:
            continue
        texts = (item for part in argument for item in _results(part))
        found |= {item.value for item in texts if isinstance(item, ast.Constant) and item.value}
    return found


def _results(part: ast.expr) -> list[ast.expr]:
    return [*_results(part.body), *_results(part.orelse)] if isinstance(part, ast.IfExp) else [part]


def test_the_list_of_codes_is_closed() -> None:
    modules = [sys.modules[f"fedhouse.governance.{name}"] for name in ("state", "event", "reducer")]
    assert set().union(*(told(module) for module in (*modules, *FAMILIES))) == CODES


@dataclass(frozen=True)
class Dice:
    """The numbers that an event is made of, each taken modulo what there is to choose from."""

    numbers: tuple[int, ...]

    def pick(self, place: int, choices: Any) -> Any:
        """One of `choices`."""
        choices = list(choices)
        return choices[self.numbers[place] % len(choices)]

    def some(self, place: int, choices: Any) -> list[Any]:
        """A part of `choices`, in order; never nothing."""
        choices = list(choices)
        chosen = [item for bit, item in enumerate(choices) if self.numbers[place] >> bit & 1]
        return chosen or choices


def next_legal(world: Any, dice: Dice) -> bytes:
    """The next event of a job that is in good order: deep states need some of these."""
    name = dice.pick(1, JOBS)
    job, box, state = named(name), world.sandbox, world.state
    if state.permissions.stops and dice.pick(3, (True, False)):
        voter = f"{dice.pick(4, state.consortium.active() or MEMBERS)}/{dice.pick(5, ('officer', 'admin'))}"
        return box.sign(voter, "stop.lifted", {"stop": dice.pick(6, sorted(state.permissions.stops))})
    found = state.jobs.jobs.get(job)
    if found is None:
        return box.proposal(name, rounds=2, evaluated=dice.pick(2, (True, False)))
    member, rounds = dice.pick(2, found.silos), state.rounds.of(job)
    if member not in found.approvals:
        return box.approval(name, member)
    if f"{job}/{member}" not in state.data.quality:
        return box.attestation(name, member)
    place = {"job": job, "round": rounds.round, "purpose": rounds.purpose}
    if (step := rounds.next_step(found)) is not None:
        base = found.bundle if step[1] == "statistics" else rounds.model or named("initial")
        body = {"job": job, "round": step[0], "purpose": step[1], "base": base, "cohort": list(found.silos)}
        return box.sign(box.operator, "round.opened", body)
    if rounds.phase == "open" and member not in rounds.commitments:
        body = place | {"base": rounds.base, "commitment": named(f"{dice.numbers}")}
        return box.sign(f"{member}/agent", "round.committed", body)
    if rounds.phase == "open":
        return box.sign(
            box.operator, "round.commits-closed", place | {"contributors": sorted(rounds.commitments)}
        )
    if rounds.phase == "closed":
        return box.sign(
            box.operator, "round.aggregate-published", place | {"result": named(f"{dice.numbers}")}
        )
    body = {"job": job, "reason": "rounds", "rounds": rounds.finished, "model": rounds.model}
    return box.sign(box.operator, "job.closed", body)


def any_body(world: Any, event: str, dice: Dice) -> dict[str, Any]:
    """A body of this type, of things that exist and things that do not."""
    state, member = world.state, dice.pick(3, (*MEMBERS, *NEWCOMERS))
    job = named(dice.pick(4, (*JOBS, "unknown")))
    rounds = state.rounds.of(job)
    place = {"job": job, "round": dice.pick(5, (rounds.round, 0, 1, 2)), "purpose": dice.pick(6, PURPOSES)}
    digest = dice.pick(5, (rounds.base or named("x"), rounds.model or named("x"), named("late bundle")))
    actor = f"{member}/{dice.pick(5, NAMES)}"
    spare = world.sandbox.signer(dice.pick(6, ("spare 1", "spare 2", actor)))
    payload = {"payload": named(dice.pick(4, ("text 1", "text 2", "text 3")))}
    bodies: dict[str, Callable[[], dict[str, Any]]] = {
        "charter.amended": lambda: {
            "previous": dice.pick(3, (state.consortium.charter, named("x"))),
            "rules": {"member_approvals": dice.pick(4, (1, 2, 3)), "colluding": 0},
        },
        "member.invited": lambda: {"founder": world.sandbox.founder(member)},
        "member.joined": lambda: {"charter": dice.pick(4, (state.consortium.charter, named("x")))},
        "member.approved": lambda: {"member": member},
        "member.suspended": lambda: {"member": member},
        "member.left": dict,
        "affiliation.declared": lambda: {"member": member},
        "key.bound": lambda: {"binding": world.sandbox.binding(actor, spare)},
        "key.rotated": lambda: {"binding": world.sandbox.binding(actor, spare)},
        "key.delivery-bound": lambda: {"public": "AAAA"},
        "key.revoked": lambda: {
            "key": world.sandbox.signer(actor).public.key_id,
            "effective": world.time + dice.pick(4, (-10, 0, 10, 1000)),
        },
        "dataset.registered": lambda: {
            "name": dice.pick(3, (DATASET, "other")),
            "schema_digest": named("schema"),
            "columns": dice.some(4, COLUMNS),
            "suite": named(dice.pick(5, ("suite", "suite 2"))),
            "rows": dice.pick(6, ("1-2", "2-1")),
        },
        "quality.attested": lambda: {
            "job": job,
            "dataset": dice.pick(3, (DATASET, "other")),
            "pin": named("pin"),
            "suite": named(dice.pick(5, ("suite", "suite 2"))),
            "passed": True,
            "rows": 5,
            "checks": [],
        },
        "job.proposed": lambda: {
            "job": job,
            "name": "late",
            "bundle": named("late bundle"),
            "dataset": DATASET,
            "purpose": PURPOSE,
            "columns": dice.some(5, COLUMNS),
            "silos": sorted(dice.some(6, MEMBERS)),
            "rounds": 2,
            "min_cohort": dice.pick(3, (1, 2, 3)),
            "evaluated": False,
            "metric": "auc",
            "bounds": {"seconds": 1, "parameters": 1, "scratch_mib": 1},
        },
        "job.approved": lambda: {"job": job, "bundle": named(dice.pick(5, ("late bundle", "early bundle")))},
        "job.declined": lambda: {"job": job},
        "job.cancelled": lambda: {"job": job},
        "job.closed": lambda: {
            "job": job,
            "reason": dice.pick(5, ("quorum", "rounds", "target")),
            "rounds": dice.pick(6, (rounds.finished, 1)),
            "model": dice.pick(3, (rounds.model or None, named("x"))),
        },
        "permission.given": lambda: {
            "dataset": dice.pick(3, (DATASET, "other")),
            "purpose": PURPOSE,
            "columns": dice.some(4, COLUMNS),
            "expires": world.time + dice.pick(5, (0, 50, 10**6)),
        },
        "permission.withdrawn": lambda: {
            "permission": dice.pick(3, (*sorted(state.permissions.permissions), named("x")))
        },
        "stop.declared": lambda: {
            "scope": (scope := dice.pick(3, ("consortium", "job", "member"))),
            "subject": {"consortium": "", "job": job, "member": member}[scope],
        },
        "stop.lifted": lambda: {"stop": dice.pick(3, (*sorted(state.permissions.stops), named("x")))},
        "round.opened": lambda: place | {"base": digest, "cohort": sorted(dice.some(3, MEMBERS))},
        "round.committed": lambda: place | {"base": digest, "commitment": named("c")},
        "round.commits-closed": lambda: place | {"contributors": sorted(dice.some(3, MEMBERS))},
        "round.aggregate-published": lambda: place | {"result": digest},
        "record.hold-placed": lambda: payload,
        "record.hold-released": lambda: payload,
        "record.payload-erased": lambda: payload | {"basis": "mistake"},
        "consortium.created": lambda: {"charter": {}},
    }
    assert bodies.keys() == EVENTS.keys()
    return bodies[event]()


def any_event(world: Any, dice: Dice) -> bytes:
    """An event of any type by any actor, now and then with something amiss in its envelope."""
    event = dice.pick(1, EVENTS)
    if event == "member.left" and dice.pick(3, range(8)):
        event = "member.approved"  # after leaving, little more happens
    right = RIGHT.get(event.partition(".")[0], "admin")
    actor = f"{dice.pick(2, (*MEMBERS, *NEWCOMERS))}/{dice.pick(7, (*NAMES, *[right] * 20))}"
    options: dict[str, Any] = dice.pick(
        8,
        (
            *({},) * 12,
            {"sequence": 1},
            {"issued": world.time + 61},
            {"consortium": named("x")},
            {"version": 2},
            {"subjects": [("job", named("x"))]},
            {"signer": world.sandbox.signer("AA/admin")},
            {"payloads": [PayloadRef("reason", named("text 1"), "ten-years")]},
            {"payloads": [PayloadRef("reason", named("text 2"), dice.pick(3, ("a", "b")))]},
        ),
    )
    body = {} if dice.pick(8, range(20)) == 19 else any_body(world, event, dice)
    return world.sandbox.sign(actor, event, body, **options)


def check(world: Any) -> None:
    """What holds in every state."""
    state: State = world.state
    for key_id, key in state.keys.keys.items():
        assert (key.key_id, key.member) == (key_id, key.actor.partition("/")[0])
        usable = not key.retired and (key.revoked_from is None or world.time < key.revoked_from)
        assert not usable or state.keys.actors[key.actor] == key_id, "an actor has one usable key at most"
        assert bool(key.roles) == (key.kind == "person")
    for name, job in state.jobs.jobs.items():
        rounds = state.rounds.of(name)
        assert job.proposer not in job.approvals.values()
        assert not set(job.approvals) & set(job.declined)
        assert set(rounds.contributors) <= set(rounds.commitments) <= set(rounds.cohort) <= set(job.silos)
        assert rounds.finished <= rounds.round <= job.rounds
        assert sorted(rounds.models.values()) == list(range(1, rounds.finished + 1))
        assert (job.model in rounds.models) == bool(job.model)
        assert job.status != "closed" or bool(job.model) == bool(rounds.finished)
    given_by = [name for names in state.permissions.of_member.values() for name in names]
    assert sorted(given_by) == sorted(state.permissions.permissions)
    for payload in state.retention.payloads.values():
        assert not (payload.erased and payload.held_by)
    for gone, kept in state.consortium.merged.items():
        assert kept not in state.consortium.merged
        assert all(member.entity != gone for member in state.consortium.members.values())


SEEN: Counter[str] = Counter()


@given(seed=st.integers(0, 2**64 - 1), length=st.integers(1, 150))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_histories(new_world: Callable[..., Any], seed: int, length: int) -> None:
    world, random = new_world(MEMBERS, rules={"colluding": 0}).start(), Random(seed)
    for _ in range(length):
        throw = Dice(tuple(random.randrange(2**16) for _ in range(9)))
        world.clock.advance(throw.pick(0, (0, 0, 1, 30)))
        data = next_legal(world, throw) if throw.pick(0, (0, 1, 1)) else any_event(world, throw)
        try:
            code = world.put(data)
        except (EnvelopeError, SignatureError, UnknownSignerError) as error:
            SEEN[type(error).__name__] += 1
            continue
        SEEN[code] += 1
        assert code == ACCEPTED or code in CODES
        check(world)


def test_the_random_histories_were_not_all_refused() -> None:
    """Runs after the histories; what they saw is many codes, and a good part was accepted."""
    if SEEN:
        assert SEEN[ACCEPTED] > SEEN.total() / 5
        assert len(SEEN.keys() & CODES) > 20
