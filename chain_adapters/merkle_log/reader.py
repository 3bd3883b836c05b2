"""The reading half of a Merkle log: entries, proofs, receipts and finality, out of its file.

What another process records in the file is seen at the next call: SQLite tells cheaply that somebody wrote.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from fedhouse.chain_adapters.merkle_log import store as tables
from fedhouse.chain_adapters.merkle_log.heads import Heads
from fedhouse.chain_adapters.merkle_log.store import Store
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.errors import IntegrityError
from fedhouse.governance.checkpoints import Finality
from fedhouse.governance.ledger import Appended, Entry
from fedhouse.governance.merkle import prove_consistency, prove_inclusion, root_of
from fedhouse.governance.notes import parse_note
from fedhouse.governance.proof_files import ProofFile, ProvenOutcome
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust

_ASK: Final = "Ask for entries that the ledger has."


class LogReader:
    """A log's file, read. Safe between threads; one lock is held while SQLite works."""

    kind = "merkle"

    def __init__(self, store: Store, tip: Tip) -> None:
        self._store = store
        self._heads = Heads(store)
        self._tip = tip
        self._version = -1  # whatever was written since the tip was read is seen at the first call
        self._lock = threading.RLock()

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._synced().size

    @property
    def state(self) -> State:
        """The state after all entries."""
        return self._synced().state

    @property
    def trust(self) -> Trust:
        """The trust that the present state names."""
        return Trust.of(self.state)

    def _synced(self) -> Tip:
        """The tip, with what other processes have recorded meanwhile."""
        with self._lock:
            version = self._store.version()
            if version != self._version:
                self._catch_up()
                self._version = version
            return self._tip

    def _catch_up(self) -> None:
        entries = self._store.entries(self._tip.size, 2**62)
        if entries:
            tip = self._tip.copy()
            for entry in entries:
                tip.follow(entry)
            self._tip = tip

    def find(self, digest: str) -> Appended | None:
        """The answer that the envelope with this digest got; None if it is not recorded."""
        with self._lock:
            return self._store.find([digest]).get(digest)

    def read(self, start: int, stop: int) -> tuple[Entry, ...]:
        """The entries from `start` up to, and not including, `stop`.

        Raises
        ------
        IntegrityError
            If there are not so many, or the file is damaged.
        """
        with self._lock:
            self._require_size(stop)
            if not 0 <= start <= stop:
                raise IntegrityError(f"Entries {start} to {stop} are no range.", mend=_ASK)
            return tuple(self._store.entries(start, stop))

    def finality(self, size: int) -> Finality:
        """How far the first `size` entries are from being final, and by whom.

        Judged by the newest final checkpoint that covers them, or else by the newest; if none does, nobody
        has cosigned them.

        Raises
        ------
        IntegrityError
            If the log has not so many.
        """
        with self._lock:
            self._require_size(size)
            stored = self._heads.covering(size)
            return self.trust.nobody() if stored is None else self._heads.progress(stored)

    def prove_inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from entry `index` to the root of the first `size` entries.

        Raises
        ------
        IntegrityError
            If the log has no such entry or size.
        """
        with self._lock:
            self._require_size(size)
            return tuple(prove_inclusion(index, size, self._store.reader(tables.ENTRIES)))

    def prove_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the first `old` entries begin the first `new` ones.

        Raises
        ------
        IntegrityError
            If the log has no such sizes.
        """
        with self._lock:
            self._require_size(new)
            return tuple(prove_consistency(old, new, self._store.reader(tables.ENTRIES)))

    def root(self, size: int) -> bytes:
        """The root of the first `size` entries.

        Raises
        ------
        IntegrityError
            If the log has not so many.
        """
        with self._lock:
            self._require_size(size)
            return root_of(size, self._store.reader(tables.ENTRIES))

    def receipt(self, index: int) -> bytes:
        """Entry and outcome, proved against the newest final checkpoint, or else the newest: a proof file.

        Raises
        ------
        IntegrityError
            If no checkpoint covers the entry yet.
        """
        with self._lock:
            (entry,) = self.read(index, index + 1)
            stored = self._heads.covering(index + 1)
            if stored is None:
                raise IntegrityError(
                    f"No checkpoint covers entry {index} yet.",
                    mend="Let the operator make one, then ask again.",
                )
            path = self.prove_inclusion(index, stored.size)
            outcomes = prove_inclusion(index, stored.size, self._store.reader(tables.OUTCOMES))
            extra = ProvenOutcome(entry.outcome, tuple(outcomes)).render()
            return ProofFile(extra, index, path, parse_note(self._heads.note(stored))).render()

    def _require_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise IntegrityError(f"The ledger has {self.size} entries, not {size}.", mend=_ASK)
