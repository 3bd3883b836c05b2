"""The gaps of a job: what somebody should be able to explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedhouse.audit.axis import short_time
from fedhouse.audit.jobs import Gap, JobFinding, Step
from fedhouse.governance.state import State


def job_gaps(job: JobFinding, state: State) -> tuple[Gap, ...]:
    """All gaps of a job, in the order in which they are read: approvals, gates, rounds, end."""
    return (*_approvals(job, state), *_gates(job), *_rounds(job), *_end(job))


def _approvals(job: JobFinding, state: State) -> Iterator[Gap]:
    for decision in job.decisions:
        if decision.late and decision.verdict == "approved":
            when = short_time(decision.time)
            text = f"{decision.member} approved on {when}, after the first round was opened."
            yield Gap(job.digest, "approval-late", text, decision.index)
    if job.began is None:
        return
    begin = job.steps[0].index
    missing = [silo for silo in job.record.silos if job.decision_of(silo) is None]
    if missing:
        text = f"{_listed(missing)} neither approved nor declined, and the job ran on the other silos."
        yield Gap(job.digest, "approval-missing", text, begin)
    kept = state.consortium.entities(tuple(sorted(job.record.approvals)))
    if len(kept) < job.asked:
        text = f"{len(kept)} of the {job.asked} approvals that it took are left; the others were taken back."
        yield Gap(job.digest, "approvals-fewer", text, job.index)


def _gates(job: JobFinding) -> Iterator[Gap]:
    attested = {one.member for one in job.attestations}
    for one in job.attestations:
        if not one.passed:
            text = f"{one.member}'s quality gate did not pass: {_listed(one.failed)}."
            yield Gap(job.digest, "gate-failed", text, one.index)
    asked = sorted({silo for step in job.steps for silo in step.cohort} - attested)
    if asked:
        text = f"Asked to take part, and without a word of a quality gate: {_listed(asked)}."
        yield Gap(job.digest, "attestation-missing", text, job.steps[0].index)


def _rounds(job: JobFinding) -> Iterator[Gap]:
    for silo in job.record.silos:
        left_out = [step for step in job.steps if silo in step.left_out]
        if left_out:
            text = f"{silo} committed and was left out of the sum in {_steps(left_out)}."
            yield Gap(job.digest, "left-out", text, left_out[0].index)
        silent = [step for step in job.steps if silo in step.silent]
        if silent:
            text = f"{silo} was asked and did not commit in {_steps(silent)}."
            yield Gap(job.digest, "no-commitment", text, silent[0].index)
    for step in job.steps:
        if step.closed is None:
            text = f"{step.name.capitalize()} was opened on {short_time(step.opened)} and never closed."
            yield Gap(job.digest, "round-not-closed", text, step.index)
        elif step.published is None:
            when = short_time(step.closed)
            text = f"{step.name.capitalize()} was closed on {when}, and its sum not published."
            yield Gap(job.digest, "round-not-published", text, step.index)


def _end(job: JobFinding) -> Iterator[Gap]:
    if job.ended is None and job.record.status == "approved":
        begun = (
            f"its last event is of {short_time(job.steps[-1].ended)}" if job.steps else "no round was opened"
        )
        yield Gap(job.digest, "not-ended", f"Approved, and neither closed nor cancelled; {begun}.", job.index)


def _steps(steps: Sequence[Step]) -> str:
    """`2 steps (round 1, update; round 3, update)`, at most four of them by name."""
    names = "; ".join(step.name for step in steps[:4]) + ("; …" if len(steps) > 4 else "")
    return f"{len(steps)} step{'s' if len(steps) > 1 else ''} ({names})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:16]) + (", …" if len(names) > 16 else "")
