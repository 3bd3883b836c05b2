"""Oversight by the ledger: gate 1, and the events of agents and coordinators.

Gate 1 is the silo's own: before a row is read it replays nothing and asks nobody, it looks at the state
that its own copy of the ledger gives. It also obeys stops and withdrawals that have reached it in any
other way, at once: a directory into which signed envelopes are put. Only what lifts a stop must have been
ordered by the ledger.

Gate 2 is the reducer's: an agent that skips gate 1 makes no event count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from fedhouse.errors import IntegrityError, PolicyRefusedError, VerificationError
from fedhouse.federation.journal import Journal, refusal
from fedhouse.federation.oversight import Step
from fedhouse.governance.envelope import Envelope, parse_envelope
from fedhouse.governance.event import Refused
from fedhouse.governance.families.permissions import Stop
from fedhouse.governance.ledger import Ledger
from fedhouse.governance.reducer import admit
from fedhouse.governance.state import State
from fedhouse.spark_jobs.contract import Admission

log = logging.getLogger(__name__)

_OBEYED_AT_ONCE = ("stop.declared", "permission.withdrawn")
_MAX_NOTICES = 1000
_METRIC_DIGITS = 12


@dataclass(frozen=True)
class LedgerSilo:
    """`SiloOversight` of one silo and job. `suite` is the digest of the dataset's quality suite.

    `terms` is what the job itself says of code, columns and purpose, by the names of `JobRecord`: whoever
    proposed it may have told the ledger something else. `notices` is a directory of envelopes that came
    by another way than the ledger.
    """

    journal: Journal
    job: str
    terms: Mapping[str, Any]
    member: str
    suite: str
    clock: Callable[[], int]
    notices: Path | None = None

    def require_permitted(self) -> None:
        """See `SiloOversight.require_permitted`."""
        what = f"Job {self.job[:16]} may not run at silo {self.member}"
        state = self.journal.ledger.state
        try:
            record = state.may_take_part(self.job, self.member, self.clock())
        except Refused as refused:
            raise refusal(what, refused.code) from None
        untrue = [name for name, value in self.terms.items() if getattr(record, name) != value]
        if untrue:
            raise PolicyRefusedError(
                f"{what}: its proposal is untrue about {', '.join(untrue)}.",
                mend="What was approved is not what would run. Ask whoever proposed it.",
            )
        for envelope in self._notices():
            if self._forbids(state, envelope):
                raise refusal(f"{what}: a notice, {envelope.digest[:16]}, says so", "stopped")

    def _notices(self) -> list[Envelope]:
        """Well-formed envelopes in the directory; the rest is named in the log and left out."""
        if self.notices is None or not self.notices.is_dir():
            return []
        found = []
        for path in sorted(self.notices.iterdir())[:_MAX_NOTICES]:
            try:
                found.append(parse_envelope(path.read_bytes()))
            except (VerificationError, OSError) as error:
                log.warning("a notice cannot be read: %s", type(error).__name__, extra={"silo": self.member})
        return found

    def _forbids(self, state: State, envelope: Envelope) -> bool:
        """Whether a notice is by somebody who may say it, and is about this job here."""
        statement = envelope.statement
        if statement.event not in _OBEYED_AT_ONCE or statement.consortium != state.consortium.id:
            return False
        try:
            signer = admit(state, envelope)
        except VerificationError:
            return False
        if signer.retired or signer.revoked_from is not None or signer.kind != "person":
            return False
        if (
            envelope.digest in state.permissions.stops
            or f"lift {envelope.digest}" in state.consortium.decided
        ):
            return False  # the ledger has ordered it, and says what it is worth
        if statement.sequence <= state.sequences.get(signer.actor, 0):
            return False  # the ledger has ordered it, or another in its place
        body = statement.body
        if statement.event == "stop.declared":
            stop = Stop(str(body.get("scope")), str(body.get("subject", "")), signer.actor)
            return stop.halts(self.job, self.member)
        permission = state.permissions.permissions.get(str(body.get("permission")))
        if permission is None or permission.member != signer.member or signer.member != self.member:
            return False
        job = state.jobs.jobs.get(self.job)
        return job is not None and permission.covers(self.job, job, self.clock())

    def attest(self, admission: Admission) -> None:
        """See `SiloOversight.attest`."""
        checks = [_check(told) for told in admission.gate.get("checks", [])]
        body = {
            "job": self.job,
            "dataset": self.terms["dataset"],
            "pin": admission.pin_digest,
            "suite": self.suite,
            "passed": not admission.failure,
            "rows": max((check["looked_at"] for check in checks), default=0),
            "checks": checks,
        }
        self.journal.require(f"quality-{self.job[:16]}", "quality.attested", body)

    def commit(self, step: Step, digest: str) -> None:
        """See `SiloOversight.commit`."""
        body = {**_of(self.job, step), "base": step.base, "commitment": digest}
        self.journal.require(_name(self.job, step, "committed"), "round.committed", body)


@dataclass(frozen=True)
class LedgerRounds:
    """`RoundOversight` of one job."""

    journal: Journal
    job: str
    clock: Callable[[], int]

    @property
    def _ledger(self) -> Ledger:
        return self.journal.ledger

    def opened(self, step: Step, cohort: tuple[str, ...]) -> None:
        """See `RoundOversight.opened`."""
        body = {**_of(self.job, step), "base": step.base, "cohort": sorted(cohort)}
        self.journal.require(_name(self.job, step, "opened"), "round.opened", body)

    def check(self, step: Step, silo: str, digest: str) -> None:
        """See `RoundOversight.check`."""
        rounds = self._ledger.state.rounds.of(self.job)
        if (rounds.round, rounds.purpose) != (step.round, step.purpose):
            raise IntegrityError(f"The ledger is not at {step.purpose} of round {step.round}.")
        if rounds.commitments.get(silo) != digest:
            raise IntegrityError(
                f"What silo {silo} handed over for {step.purpose} of round {step.round} is not what it "
                "committed to.",
                mend="It was left out; have the silo look at its agent.",
            )

    def closed(self, step: Step, contributors: tuple[str, ...]) -> Mapping[str, str]:
        """See `RoundOversight.closed`."""
        state, now = self._ledger.state, self.clock()
        rounds = state.rounds.of(self.job)
        here = (rounds.round, rounds.purpose) == (step.round, step.purpose)
        if here and rounds.phase == "open":
            fallen = {silo: code for silo in contributors if (code := self._why_not(state, silo, now))}
            if fallen:
                return fallen
        body = {**_of(self.job, step), "contributors": sorted(contributors)}
        self.journal.require(_name(self.job, step, "closed"), "round.commits-closed", body)
        return {}

    def _why_not(self, state: State, silo: str, now: int) -> str:
        if silo not in state.rounds.of(self.job).commitments:
            return "not-committed"
        try:
            state.may_take_part(self.job, silo, now)
        except Refused as refused:
            return refused.code
        return ""

    def published(self, step: Step, result: str, metrics: Mapping[str, float]) -> None:
        """See `RoundOversight.published`."""
        told = {name: decimal_text(value) for name, value in metrics.items()}
        body = {**_of(self.job, step), "result": result, "metrics": told}
        self.journal.require(_name(self.job, step, "published"), "round.aggregate-published", body)

    def finished(self, reason: str, rounds: int, model: str | None) -> None:
        """See `RoundOversight.finished`."""
        body = {"job": self.job, "reason": reason, "rounds": rounds, "model": model}
        self.journal.require(f"job-{self.job[:16]}-closed", "job.closed", body)


def decimal_text(value: float) -> str:
    """A metric as decimal text, to 12 digits behind the point, without trailing zeros."""
    with localcontext(prec=400):  # as long as the longest double
        text = f"{round(Decimal(repr(value)), _METRIC_DIGITS):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _of(job: str, step: Step) -> dict[str, Any]:
    return {"job": job, "round": step.round, "purpose": step.purpose}


def _name(job: str, step: Step, what: str) -> str:
    return f"round-{job[:16]}-{step.round:05d}-{step.purpose}-{what}"


def _check(told: Mapping[str, Any]) -> dict[str, Any]:
    """One expectation's counts, out of the gate's report."""
    counts = told["counts"]
    looked_at = counts.get("element_count", counts.get("row_count", 0))
    # What is null counts against the check of nulls, and against no other.
    unexpected = counts.get("unexpected_count", counts.get("null_count", 0))
    return {
        "expectation": told["expectation"],
        "column": told["column"],
        "looked_at": looked_at,
        "unexpected": unexpected,
        "passed": told["passed"],
    }
