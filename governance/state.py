"""The state that the ledger's envelopes add up to: one frozen record with a slice a family."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedhouse.governance.event import Refused, require
from fedhouse.governance.families.consortium import ConsortiumState
from fedhouse.governance.families.data import DataState
from fedhouse.governance.families.jobs import JobRecord, JobsState
from fedhouse.governance.families.keys import KeysState
from fedhouse.governance.families.permissions import PermissionsState
from fedhouse.governance.families.retention import RetentionState
from fedhouse.governance.families.rounds import RoundsState
from fedhouse.governance.records import Map, Record


@dataclass(frozen=True)
class State(Record):
    """What is so after some envelopes. It knows no positions, heights, chains or clocks.

    Two ledgers that carry the same envelopes, each signer's in order, give the same `digest`.
    """

    consortium: ConsortiumState = field(default_factory=ConsortiumState)
    keys: KeysState = field(default_factory=KeysState)
    data: DataState = field(default_factory=DataState)
    jobs: JobsState = field(default_factory=JobsState)
    permissions: PermissionsState = field(default_factory=PermissionsState)
    rounds: RoundsState = field(default_factory=RoundsState)
    retention: RetentionState = field(default_factory=RetentionState)
    sequences: Map[int] = field(default_factory=Map)
    """The last sequence number that each actor used."""

    def runnable(self, digest: str) -> JobRecord:
        """The job, if it is approved and no stop is in force for it.

        Raises
        ------
        Refused
            Otherwise.
        """
        job = self.jobs.still_open(digest)
        require(job.status == "approved", "not-approved")
        halted = any(stop.halts(digest, "") for stop in self.permissions.stops.values())
        require(not halted, "stopped")
        return job

    def may_take_part(self, digest: str, member: str, time: int) -> JobRecord:
        """The job, if `member` may work on it at `time`: gate 1 in a silo, gate 2 in the rules.

        Raises
        ------
        Refused
            With the code of the first thing that forbids it.
        """
        job = self.jobs.still_open(digest)
        require(member in job.silos, "other-member")
        require(self.consortium.status(member) == "active", "member-inactive")
        require(member not in job.declined, "declined")
        require(job.status == "approved" and member in job.approvals, "not-approved")
        code = self.permissions.why_not(digest, job, member, time)
        if code:
            raise Refused(code)
        return job
