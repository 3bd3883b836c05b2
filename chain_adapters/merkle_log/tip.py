"""Where a log stands, in memory: state, time and the edges of both trees.

Invariants
----------
1. A tip goes on from a copy: one that fails half-way is dropped, and the log keeps the one it had.
2. What another process has recorded is followed through the same rules, and must have the same verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedhouse.errors import IntegrityError, VerificationError
from fedhouse.governance.envelope import Envelope, parse_envelope
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, leaf_hash
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reducer import apply
from fedhouse.governance.state import State

Nodes = list[tuple[int, int, bytes]]
"""Completed nodes of a tree as (level, index, hash)."""


@dataclass(slots=True)
class Tip:
    """The end of a log: mutable, for one thread at a time."""

    state: State
    time: int
    entries: Frontier
    outcomes: Frontier

    @classmethod
    def empty(cls) -> Tip:
        """The end of a log without entries."""
        return cls(State(), 0, Frontier(), Frontier())

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.entries.size

    def copy(self) -> Tip:
        """A tip that goes on from here by itself."""
        entries, outcomes = (Frontier.of(self.size, tree.nodes) for tree in (self.entries, self.outcomes))
        return Tip(self.state, self.time, entries, outcomes)

    def record(self, envelope: Envelope, time: int) -> tuple[Outcome, Nodes, Nodes]:
        """Take in an envelope that was admitted: its outcome, and the nodes that it completes."""
        applied = apply(self.state, envelope, time)
        outcome = Outcome(time, applied.verdict.code)
        self.state, self.time = applied.state, time
        return (
            outcome,
            self.entries.append(leaf_hash(envelope.raw)),
            self.outcomes.append(leaf_hash(outcome.leaf)),
        )

    def follow(self, entry: Entry) -> None:
        """Take in an entry that was recorded; its signature was checked then.

        Raises
        ------
        IntegrityError
            If it is not what this log would have recorded.
        """
        if entry.index != self.size or entry.outcome.time < self.time:
            raise _damaged(entry.index)
        try:
            outcome, _, _ = self.record(parse_envelope(entry.envelope), entry.outcome.time)
        except VerificationError as error:
            raise _damaged(entry.index) from error
        if outcome != entry.outcome:
            raise _damaged(entry.index)


def _damaged(index: int) -> IntegrityError:
    return IntegrityError(
        f"Entry {index} of the ledger's file is not what the rules would have recorded.",
        mend="Restore the file from a backup, or rebuild the ledger from its published files.",
    )
