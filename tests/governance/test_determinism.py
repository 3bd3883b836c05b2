"""The same events give the same state: in every process, in every order that keeps each signer's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.governance.envelope import PayloadRef, parse_envelope
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.reducer import apply
from fedhouse.governance.sandbox import START, SandboxConsortium, named
from fedhouse.governance.state import State
from fedhouse.identity.signer import SoftwareSigner

FOUR = ("AA", "B6", "DL", "UA")

# What each process does: it makes its own corpus, reads the one that it is given, and tells what it has.
CHILD = """
import hashlib, sys
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.reducer import admit, apply, reducer_digest
from fedhouse.governance.sandbox import SandboxConsortium
from fedhouse.governance.state import State

box = SandboxConsortium(("AA", "B6", "DL", "UA"))
own = [box.founding(), *box.bootstrap(), *box.job_events(evaluated=True)]
print(hashlib.sha256(b"".join(own)).hexdigest(), reducer_digest())
state, told = State(), []
for line in open(sys.argv[1]):
    time, data = line.split()
    envelope = parse_envelope(bytes.fromhex(data))
    admit(state, envelope)
    applied = apply(state, envelope, int(time))
    state = applied.state
    told.append((applied.verdict.code, applied.effects))
print(state.digest(), hashlib.sha256(repr(told).encode()).hexdigest())
"""


def history(world: Any) -> None:
    """Something of everything, accepted and refused."""
    job = world.run(evaluated=True)
    world.run("early", operator="AA/operator")
    box = world.sandbox
    world.play(box.step("late", 0, "statistics", named("late bundle"), named("encoder")))
    world.play(box.step("late", 1, "update", named("model 0"), named("model 1")))
    world.vote("member.suspended", "UA", "AA", "B6", "DL")
    world.vote("member.approved", "UA", "DL", "AA", "B6")
    world.affiliate("DL", "UA")
    assert world.invite("WN", by="UA", entity="UA") == ACCEPTED
    spare = box.signer("spare")
    world.must("DL/officer", "key.rotated", {"binding": box.binding("DL/officer", spare)})
    box.replace_signer("DL/officer", spare)
    world.clock.advance(100)
    for actor in ("AA/officer", "B6/officer", "DL/officer", "UA/agent"):
        payloads = [PayloadRef("reason", named(f"text of {actor}"), "ten-years")]
        stop = {"scope": "job", "subject": job}
        world.say(actor, "stop.declared", stop, payloads=payloads)
    for member in ("UA", "DL", "B6", "AA"):
        world.say(f"{member}/officer", "record.hold-placed", {"payload": named("text of AA/officer")})
    world.say("AA/operator", "round.opened", {"job": job})
    world.must("B6/admin", "key.revoked", {"key": box.signer("B6/agent").public.key_id, "effective": 5})


def test_four_hash_seeds_give_one_state(new_world: Callable[..., Any], tmp_path: Path) -> None:
    world = new_world(FOUR).start()
    history(world)
    lines = [f"{entry.outcome.time} {entry.envelope.hex()}\n" for entry in world.entries]
    (tmp_path / "corpus").write_text("".join(lines))
    told = set()
    for seed in ("0", "1", "42", "random"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path / "corpus")],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1
    assert told.pop().split()[2] == world.state.digest()


def judged(envelopes: Sequence[bytes], time: int | Callable[[], int]) -> State:
    """The state that envelopes give, all of which are accepted."""
    state = State()
    for data in envelopes:
        applied = apply(state, parse_envelope(data), time if isinstance(time, int) else time())
        assert applied.verdict.accepted, (parse_envelope(data).statement.event, applied.verdict.code)
        state = applied.state
    return state


def phases(box: SandboxConsortium) -> list[list[bytes]]:
    """A history in groups; inside a group, events of different signers commute."""
    silos = sorted(box.members)
    joins_and_more = box.bootstrap()
    few = len(box.members) - 1
    found = [[box.founding()], joins_and_more[:few], joins_and_more[few:]]
    found.append([box.proposal("late"), box.sign("B6/owner", "job.proposed", _other_job(box))])
    found.append([box.approval(job, silo) for silo in silos for job in ("late", "early")])
    spares = {silo: SoftwareSigner.insecure_from_seed("ed25519", silo.encode() * 16) for silo in silos}
    found.append(
        [
            *(box.attestation("late", silo) for silo in silos),
            *(
                box.sign(
                    f"{silo}/officer",
                    "key.rotated",
                    {"binding": box.binding(f"{silo}/officer", spares[silo])},
                )
                for silo in silos
            ),
            *(
                box.sign(f"{silo}/steward", "permission.given", _permission())
                for silo in silos
                for _ in range(2)
            ),
        ]
    )
    for silo in silos:
        box.replace_signer(f"{silo}/officer", spares[silo])
    stops = [
        box.sign(
            f"{silo}/officer",
            "stop.declared",
            {"scope": "member", "subject": silo},
            payloads=[PayloadRef("reason", named(silo), "ten-years")],
        )
        for silo in silos
    ]
    found.append(stops)
    found.append(
        [
            box.sign(f"{silo}/officer", "record.hold-placed", {"payload": named(other)})
            for silo in silos
            for other in silos
        ]
    )
    # Each stop is lifted by two entities that did not declare it.
    lifts = []
    for place, stop in enumerate(stops):
        name = {"stop": parse_envelope(stop).digest}
        lifts += [box.sign(f"{silos[place - away]}/officer", "stop.lifted", name) for away in (1, 2)]
    found.append(lifts)
    found.append([box.sign(f"{silo}/admin", "member.suspended", {"member": "UA"}) for silo in ("AA", "DL")])
    found.append([box.sign(f"{silo}/admin", "member.approved", {"member": "UA"}) for silo in ("AA", "DL")])
    found.append([box.sign(f"{one}/admin", "affiliation.declared", {"member": two}) for one, two in _PAIRS])
    for step in (
        box.step("late", 0, "statistics", named("late bundle"), named("encoder")),
        box.step("late", 1, "update", named("model 0"), named("model 1")),
    ):
        found += [[step[0]], step[1:-2], [step[-2]], [step[-1]]]
    return found


_PAIRS = [("AA", "B6"), ("B6", "AA"), ("DL", "UA"), ("UA", "DL")]


def _permission() -> dict[str, Any]:
    return {"dataset": "flights", "purpose": "research", "columns": ["late"], "expires": START + 10**8}


def _other_job(box: SandboxConsortium) -> dict[str, Any]:
    told = dict(parse_envelope(SandboxConsortium(box.members).proposal("early")).statement.body)
    return told | {"purpose": "research", "columns": ["late"]}


@cache
def corpus() -> list[list[bytes]]:
    """`phases`, made once."""
    return phases(SandboxConsortium(FOUR))


def interleaved(group: Sequence[bytes], random: Random) -> list[bytes]:
    """The events in another order, which keeps each signer's own."""
    queues: dict[str, list[bytes]] = {}
    for data in group:
        queues.setdefault(parse_envelope(data).statement.signer, []).append(data)
    found = []
    while queues:
        signer = random.choice(sorted(queues))
        found.append(queues[signer].pop(0))
        if not queues[signer]:
            del queues[signer]
    return found


@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=25, deadline=None)
def test_events_that_commute_give_the_same_state_in_any_order(seed: int) -> None:
    groups = corpus()
    straight = judged([data for group in groups for data in group], START)
    random = Random(seed)
    shuffled = [data for group in groups for data in interleaved(group, random)]
    assert judged(shuffled, START).digest() == straight.digest()


def test_a_signers_own_order_is_not_free() -> None:
    box = SandboxConsortium(FOUR)
    start = judged([box.founding()], START)
    first, second = (box.sign("AA/steward", "dataset.registered", body) for body in _two_datasets())
    state = apply(start, parse_envelope(second), START)
    assert state.verdict.code == "sequence"
    assert state.state.digest() == start.digest()
    after = judged([box.founding(), first, second], START)
    assert (
        apply(apply(state.state, parse_envelope(first), START).state, parse_envelope(second), START).state
        == after
    )


def _two_datasets() -> list[dict[str, Any]]:
    body = {"schema_digest": named("s"), "columns": ["late"], "suite": named("t"), "rows": "1-2"}
    return [body | {"name": name} for name in ("one", "two")]


@given(delays=st.lists(st.integers(0, 3600), min_size=5, max_size=5))
@settings(max_examples=20, deadline=None)
def test_times_up_to_an_hour_apart_change_nothing_where_no_deadline_lies_between(delays: list[int]) -> None:
    # Three ledgers order the same events, and none of them at quite the same time.
    groups = corpus()
    envelopes = [data for group in groups for data in group]
    straight = judged(envelopes, START)
    ticks = iter(sorted(delay for delay in delays for _ in range(-(-len(envelopes) // len(delays)))))
    assert judged(envelopes, lambda: START + next(ticks)).digest() == straight.digest()


@pytest.mark.parametrize("ahead", [3599, 3600, 3601])
def test_a_deadline_is_judged_by_the_ledgers_time_to_the_second(
    new_world: Callable[..., Any], ahead: int
) -> None:
    world = new_world().start()
    world.propose()
    world.play([world.sandbox.approval("late", member) for member in ("AA", "B6", "DL")])
    for permission in world.state.permissions.of_member["B6"]:
        world.must("B6/steward", "permission.withdrawn", {"permission": permission})
    told = {
        "dataset": "flights",
        "purpose": "delay-forecast",
        "columns": ["carrier", "delay", "distance", "late"],
    }
    world.must("B6/steward", "permission.given", told | {"expires": START + 3600})
    world.must(
        "B6/admin",
        "key.revoked",
        {"key": world.sandbox.signer("B6/owner").public.key_id, "effective": START + 3600},
    )
    attested = parse_envelope(world.sandbox.attestation("late", "B6"))
    stopped = parse_envelope(
        world.sandbox.sign("B6/owner", "stop.declared", {"scope": "member", "subject": "B6"})
    )
    early = [apply(world.state, envelope, START + ahead).verdict.code for envelope in (attested, stopped)]
    assert early == ([ACCEPTED, ACCEPTED] if ahead < 3600 else ["not-permitted", "key-revoked"])
