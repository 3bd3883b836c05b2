"""What the tests of the rules share: a ledger without a ledger, in which every step is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.event import ACCEPTED, Effect
from fedhouse.governance.ledger import Entry
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reducer import admit, apply
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
from fedhouse.governance.state import State

# What a refusal means for its signer's sequence number: these leave it unused.
UNUSED = frozenset({"other-consortium", "signer", "key-retired", "key-revoked", "sequence", "future-dated"})


class World:
    """A consortium, and the state that its events give, in memory.

    Every event that is put here is admitted and judged, and what the reducer promises of refusals is
    checked each time. When a test ends, everything is replayed from its bytes.
    """

    def __init__(self, members: Sequence[str] = ("AA", "B6", "DL"), **options: Any) -> None:
        self.clock = SandboxClock()
        self._sandbox = SandboxConsortium(members, clock=self.clock, **options)
        self.state = State()
        self.entries: list[Entry] = []
        self.effects: tuple[Effect, ...] = ()

    @property
    def sandbox(self) -> SandboxConsortium:
        """The signers, who go on from the sequence numbers that the state has seen."""
        self._sandbox.sequences = dict(self.state.sequences.items())
        return self._sandbox

    @property
    def time(self) -> int:
        """The ledger's time, which is the signers' too."""
        return self.clock.now

    def put(self, data: bytes) -> str:
        """Order an envelope now; gives its verdict."""
        envelope, before = parse_envelope(data), self.state
        admit(before, envelope)
        applied = apply(before, envelope, self.time)
        code, actor = applied.verdict.code, envelope.statement.signer
        if code in UNUSED or (not before.consortium.id and code != ACCEPTED):
            assert applied.state.digest() == before.digest()
        else:
            assert applied.state.sequences[actor] == before.sequences.get(actor, 0) + 1
        if code != ACCEPTED:
            assert applied.effects == ()
            assert replace(applied.state, sequences=before.sequences).digest() == before.digest()
        self.entries.append(Entry(len(self.entries), data, Outcome(self.time, code)))
        self.state, self.effects = applied.state, applied.effects
        return code

    def say(self, actor: str, event: str, body: Mapping[str, Any], **options: Any) -> str:
        """Let an actor sign an event and order it now; gives its verdict."""
        return self.put(self.sandbox.sign(actor, event, body, **options))

    def must(self, actor: str, event: str, body: Mapping[str, Any], **options: Any) -> str:
        """As `say`, for what has to be accepted; gives the digest of the event."""
        assert self.say(actor, event, body, **options) == ACCEPTED
        return parse_envelope(self.entries[-1].envelope).digest

    def play(self, envelopes: Sequence[bytes]) -> None:
        """Order envelopes, all of which have to be accepted."""
        for data in envelopes:
            assert self.put(data) == ACCEPTED, parse_envelope(data).statement.event

    def found(self) -> World:
        """Found the consortium, and let all members join."""
        self.play([self.sandbox.founding()])
        joined = {"charter": self.state.consortium.charter}
        for member in self._sandbox.members[1:]:
            self.must(f"{member}/admin", "member.joined", joined)
        return self

    def start(self) -> World:
        """As `found`; then every member registers the dataset and permits its use for ten years."""
        self.play([self.sandbox.founding()])
        self.play(self.sandbox.bootstrap())
        return self

    def run(self, job: str = "late", **changes: Any) -> str:
        """Propose a job, approve it everywhere and attest all gates; gives its digest."""
        self.propose(job, **changes)
        self.play([self.sandbox.approval(job, member) for member in self._sandbox.members])
        self.play([self.sandbox.attestation(job, member) for member in self._sandbox.members])
        return named(job)

    def propose(self, job: str = "late", **changes: Any) -> str:
        """Let the first member's owner propose a job with these fields changed; gives its digest."""
        told = dict(parse_envelope(self.sandbox.proposal(job)).statement.body)
        self.must(f"{self._sandbox.members[0]}/owner", "job.proposed", told | changes)
        return named(job)

    def invite(self, member: str, *, by: str, entity: str = "") -> str:
        """Let a member's administrator invite another organisation; gives the verdict."""
        founder = self.sandbox.founder(member) | {"entity": entity or member}
        return self.say(f"{by}/admin", "member.invited", {"founder": founder})

    def vote(self, event: str, about: str, *voters: str) -> list[str]:
        """Let administrators vote about a member; gives the verdicts."""
        return [self.say(f"{voter}/admin", event, {"member": about}) for voter in voters]

    def affiliate(self, one: str, other: str) -> None:
        """Let two members declare each other."""
        self.must(f"{one}/admin", "affiliation.declared", {"member": other})
        self.must(f"{other}/admin", "affiliation.declared", {"member": one})

    def replayed(self) -> Replay:
        """Everything, replayed from its bytes."""
        replay = Replay()
        replay.extend(self.entries)
        return replay


@pytest.fixture
def new_world() -> Iterator[Callable[..., World]]:
    """Makes worlds, each of which is replayed when the test has ended."""
    made: list[World] = []

    def make(members: Sequence[str] = ("AA", "B6", "DL"), **options: Any) -> World:
        made.append(World(members, **options))
        return made[-1]

    yield make
    for world in made:
        assert world.replayed().state.digest() == world.state.digest()


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """AA, B6 and DL, who have registered and permitted their datasets. Two entities decide."""
    return new_world().start()
