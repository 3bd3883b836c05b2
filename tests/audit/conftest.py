"""A ledger in memory, played step by step: what auditors look back on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fedhouse.audit.findings import Findings, find
from fedhouse.audit.jobs import JobFinding
from fedhouse.encoding import sha256
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.ledger import Entry
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reducer import admit, apply
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
from fedhouse.governance.state import State


class Ledger:
    """Every event is ordered ten seconds after the one before it, whatever its verdict."""

    def __init__(self, members: Sequence[str] = ("AA", "B6", "DL")) -> None:
        self.clock = SandboxClock()
        self.sandbox = SandboxConsortium(members, clock=self.clock)
        self.state = State()
        self.entries: list[Entry] = []
        self.put(self.sandbox.founding(), *self.sandbox.bootstrap())

    def put(self, *envelopes: bytes) -> str:
        """Order envelopes; gives the last one's verdict."""
        for data in envelopes:
            self.clock.advance(10)
            envelope = parse_envelope(data)
            admit(self.state, envelope)
            applied = apply(self.state, envelope, self.clock.now)
            self.state = applied.state
            outcome = Outcome(self.clock.now, applied.verdict.code)
            self.entries.append(Entry(len(self.entries), data, outcome))
            self.sandbox.sequences = dict(self.state.sequences.items())
        return self.entries[-1].outcome.verdict

    def say(self, actor: str, event: str, body: Mapping[str, Any], **options: Any) -> str:
        """Sign and order; gives the verdict."""
        return self.put(self.sandbox.sign(actor, event, body, **options))

    def must(self, actor: str, event: str, body: Mapping[str, Any], **options: Any) -> str:
        """As `say`, for what has to be accepted; gives the event's digest."""
        assert self.say(actor, event, body, **options) == "accepted"
        return sha256(self.entries[-1].envelope)

    def propose(self, job: str = "late", *approving: str, rounds: int = 2, evaluated: bool = False) -> None:
        """Propose a job; some members approve it and attest their gates."""
        assert self.put(self.sandbox.proposal(job, rounds=rounds, evaluated=evaluated)) == "accepted"
        for member in approving:
            assert self.put(self.sandbox.approval(job, member)) == "accepted"
        if len(approving) > 1:
            for member in approving:
                assert self.put(self.sandbox.attestation(job, member)) == "accepted"

    def step(
        self,
        number: int,
        purpose: str,
        cohort: Sequence[str],
        *,
        job: str = "late",
        committing: Sequence[str] | None = None,
        contributing: Sequence[str] | None = None,
        until: str = "published",
    ) -> None:
        """A step of a job, up to being `open`, `closed` or `published`."""
        place = {"job": named(job), "round": number, "purpose": purpose}
        base = self.state.rounds.of(named(job)).model or named(f"{job} bundle")
        operator = self.sandbox.operator
        self.must(operator, "round.opened", place | {"base": base, "cohort": list(cohort)})
        for silo in cohort if committing is None else committing:
            commitment = named(f"{job} {number} {purpose} {silo}")
            self.must(f"{silo}/agent", "round.committed", place | {"base": base, "commitment": commitment})
        if until == "open":
            return
        chosen = list((committing or cohort) if contributing is None else contributing)
        self.must(operator, "round.commits-closed", place | {"contributors": chosen})
        if until == "published":
            result = named(f"{job} {number} {purpose} result")
            self.must(operator, "round.aggregate-published", place | {"result": result})

    def close(self, rounds: int, job: str = "late", reason: str = "rounds") -> None:
        """The operator closes the job with its latest model."""
        body = {"job": named(job), "reason": reason, "rounds": rounds}
        body |= {"model": self.state.rounds.of(named(job)).model} if rounds else {}
        self.must(self.sandbox.operator, "job.closed", body)

    def find(self) -> Findings:
        """What an auditor finds."""
        return find(self.entries, self.state)

    def job(self, name: str = "late") -> JobFinding:
        """What an auditor finds of one job."""
        (found,) = (job for job in self.find().jobs if job.name == name)
        return found


@pytest.fixture
def ledger() -> Ledger:
    """AA, B6 and DL, who have registered and permitted their data; two entities decide."""
    return Ledger()


@pytest.fixture
def whole(ledger: Ledger) -> Ledger:
    """A job in which nothing is amiss."""
    silos = ("AA", "B6", "DL")
    ledger.propose("late", *silos, evaluated=True)
    ledger.step(0, "statistics", silos)
    for number in (1, 2):
        ledger.step(number, "update", silos)
        ledger.step(number, "evaluation", silos)
    ledger.close(2)
    return ledger
