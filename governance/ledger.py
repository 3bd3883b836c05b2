"""The `Ledger` protocol: what orders a consortium's envelopes and proves that it did.

Every ledger carries the same leaves: envelopes as bytes, in its order, whether the rules accept them or
not. It gives each a time in whole seconds and the verdict of `fedhouse.governance.reducer`; times never
run backwards. Leaves and outcomes stand in two RFC 6962 trees of the same shape, whose roots a checkpoint
signs, so that a receipt proves both.

`fedhouse.governance.contract` is the suite that every ledger passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedhouse.governance.checkpoints import Finality
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.state import State


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded envelope: where it stands, its bytes, and what came of it."""

    index: int
    envelope: bytes = field(repr=False)
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Appended:
    """The ledger's answer to one envelope. `known` says that it had been recorded before."""

    index: int
    digest: str
    outcome: Outcome
    known: bool = False

    @property
    def accepted(self) -> bool:
        """Whether it counts."""
        return self.outcome.verdict == "accepted"


class Ledger(Protocol):
    """An ordered, verifiable, append-only log of one consortium's envelopes."""

    kind: str

    @property
    def size(self) -> int:
        """Number of entries."""

    @property
    def state(self) -> State:
        """The state after all entries."""

    def append(self, envelopes: Sequence[bytes]) -> tuple[Appended, ...]:
        """Record envelopes, in order, each once however often it is sent; durable when this returns.

        Raises
        ------
        EnvelopeError, UnknownSignerError, SignatureError
            If one of them may not be recorded at all; then none of them is.
        HistoryError
            If the ledger's own clock runs backwards.
        """

    def read(self, start: int, stop: int) -> tuple[Entry, ...]:
        """The entries from `start` up to, and not including, `stop`.

        Raises
        ------
        IntegrityError
            If there are not so many, or the store is damaged.
        """

    def checkpoint(self) -> bytes:
        """The newest checkpoint as a signed note, with the cosignatures that have come; made if need be."""

    def finality(self, size: int) -> Finality:
        """How far the checkpoint that covers the first `size` entries is from being final, and by whom."""

    def prove_inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from entry `index` to the root of the first `size` entries."""

    def prove_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the first `old` entries begin the first `new` ones."""

    def receipt(self, index: int) -> bytes:
        """Entry and outcome, proved against the newest checkpoint that covers them: a proof file.

        Raises
        ------
        IntegrityError
            If no checkpoint covers the entry yet.
        """

    def close(self) -> None:
        """Release files and connections."""
