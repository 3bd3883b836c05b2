"""The Merkle log: the default ledger, ordered by the coordinator's SQLite file.

Invariants
----------
1. What `append` answered is durable, in order, and never changes; a call records all of its envelopes or
   none. An envelope that was sent before gets the answer that it got then.
2. Nothing is written before every envelope of the call was admitted.
3. Time never runs backwards: an entry is no earlier than the entry and the checkpoint before it. A clock
   that has fallen back by more than 60 s stops the log rather than date events wrongly.
4. Several processes may append to one file. Each replays what the others wrote before it goes on.
5. A checkpoint is judged by the witnesses that the state at that very checkpoint names. Revoking one later
   neither takes finality away nor gives any.

Example::

    log = MerkleLog.create(folder, consortium_founding, operator=log_key)
    (answer,) = log.append([envelope])
    note = log.checkpoint()                  # signed by the operator's key
    log.publish(public)                      # witnesses and replicas read there, and witnesses answer

Not promised: protection from the operator, who holds file and key. Witnesses and replicas give that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from fedhouse.chain_adapters.merkle_log import publishing
from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.promises import promise_text
from fedhouse.chain_adapters.merkle_log.reader import LogReader
from fedhouse.chain_adapters.merkle_log.recovery import FILE, recorded, replayed
from fedhouse.chain_adapters.merkle_log.store import Store, StoredCheckpoint
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.errors import ConfigurationError, HistoryError, IntegrityError, PolicyRefusedError
from fedhouse.governance.checkpoints import Finality, LogCheckpoint, parse_checkpoint
from fedhouse.governance.envelope import Envelope, parse_envelope
from fedhouse.governance.ledger import Appended
from fedhouse.governance.merkle import leaf_hash
from fedhouse.governance.notes import SignedNote, parse_note, sign_note
from fedhouse.governance.reducer import admit
from fedhouse.governance.trust import Trust
from fedhouse.identity.signer import Signer

# The clock may fall back by so many seconds, and time stands still meanwhile.
MAX_SKEW: Final = 60


def _now() -> int:
    return int(time.time())


class MerkleLog(LogReader):
    """A ledger in one SQLite file; implements `fedhouse.governance.ledger.Ledger`. Safe between threads."""

    def __init__(self, store: Store, tip: Tip, clock: Callable[[], int], operator: Signer | None) -> None:
        super().__init__(store, tip)
        self._clock = clock
        self._operator = operator

    @classmethod
    def create(
        cls,
        folder: Path,
        founding: bytes,
        *,
        clock: Callable[[], int] = _now,
        operator: Signer | None = None,
    ) -> MerkleLog:
        """Begin a log with the envelope that founds the consortium.

        Raises
        ------
        ConfigurationError
            If the folder has a log already, or `operator` is not the charter's log key.
        PolicyRefusedError
            If the rules refuse the founding envelope.
        EnvelopeError, UnknownSignerError, SignatureError
            If it is malformed, or not signed by a key of its own charter.
        """
        envelope = parse_envelope(founding)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be made ({error.strerror}).", mend="Name another folder."
            ) from error
        store = Store.create(folder / FILE)
        try:
            log = cls(store, Tip.empty(), clock, None)
            log._found(envelope)
            log._set_operator(operator)
        except BaseException:
            store.close()
            raise
        return log

    def _found(self, envelope: Envelope) -> None:
        with self._store.writing():
            tip = self._tip.copy()
            admit(tip.state, envelope)
            appended, rows, nodes = recorded(tip, envelope, self._clock())
            if not appended.accepted:
                raise PolicyRefusedError(
                    f"The rules refuse the founding envelope ({appended.outcome.verdict}).",
                    mend="Make a charter whose founders prove their keys, signed by an administrator of one.",
                )
            Trust.of(tip.state)  # a log key that can sign no checkpoint must not found anything
            self._store.make(tip.state.consortium.id)
            self._store.add([rows], nodes)
        self._tip = tip

    @classmethod
    def open(
        cls, folder: Path, *, clock: Callable[[], int] = _now, operator: Signer | None = None
    ) -> MerkleLog:
        """Open a log: check its file, and replay its entries without their signatures.

        Raises
        ------
        ConfigurationError
            If there is none, or `operator` is not the charter's log key.
        IntegrityError
            If the file is damaged or cut off.
        """
        store = Store.open(folder / FILE)
        try:
            log = cls(store, replayed(store), clock, None)
            log._set_operator(operator)
        except BaseException:
            store.close()
            raise
        return log

    def _set_operator(self, operator: Signer | None) -> None:
        if operator is not None and operator.public != self.trust.log.public:
            raise ConfigurationError(
                f"Key {operator.public.key_id[:16]} is not the log key of this consortium's charter.",
                mend="Open the ledger with the key that the charter names, or without one to append only.",
            )
        self._operator = operator

    def append(self, envelopes: Sequence[bytes]) -> tuple[Appended, ...]:
        """Record envelopes, in order, each once however often it is sent; durable when this returns.

        One call is one transaction and one fsync: send many at once, about a hundred.

        Raises
        ------
        EnvelopeError, UnknownSignerError, SignatureError
            If one of them may not be recorded at all; then none of them is.
        HistoryError
            If the clock has fallen back by more than 60 s.
        TimeLimitError
            If another process keeps the file for too long.
        FedhouseError
            If the disk is full; nothing was recorded.
        """
        parsed = [parse_envelope(data) for data in envelopes]
        with self._lock:
            with self._store.writing():
                self._catch_up()
                tip, now = self._tip.copy(), self._time()
                answers: list[Appended] = []
                rows: list[tuple[Any, ...]] = []
                nodes: list[tuple[int, int, int, bytes]] = []
                known = self._store.find([envelope.digest for envelope in parsed])
                for envelope in parsed:
                    answer = known.get(envelope.digest)
                    if answer is None:
                        admit(tip.state, envelope)
                        answer, row, completed = recorded(tip, envelope, now)
                        rows.append(row)
                        nodes += completed
                        again = Appended(answer.index, answer.digest, answer.outcome, known=True)
                        known[envelope.digest] = again
                    answers.append(answer)
                if rows:
                    self._store.add(rows, nodes)
            # Only what is on the disk counts.
            self._tip = tip
        return tuple(answers)

    def _time(self) -> int:
        """The time of what is recorded now: never before what was."""
        newest = self._heads.newest()
        last = max(self._tip.time, 0 if newest is None else newest.time)
        now = self._clock()
        if now < last - MAX_SKEW:
            raise HistoryError(
                f"The clock runs backwards: it says {now}, and the ledger's last time is {last}.",
                mend="Set this machine's clock right. If it was ahead, wait until it has caught up.",
            )
        return max(now, last)

    def checkpoint(self) -> bytes:
        """The newest checkpoint of all entries with its cosignatures; signed now if there is none.

        Raises
        ------
        ConfigurationError
            If one must be signed and the log was opened without the operator's key.
        HistoryError
            If the clock has fallen back by more than 60 s.
        """
        with self._lock:
            newest = self._heads.newest()
            if newest is None or newest.size < self.size:
                newest = self._sign()
            return self._heads.note(newest)

    def _sign(self) -> StoredCheckpoint:
        """A checkpoint of all entries at the present time, signed and stored."""
        operator = self._require_operator()
        with self._store.writing():
            self._catch_up()
            return self._heads.sign(self._tip, self._time(), operator)

    def _require_operator(self) -> Signer:
        if self._operator is None:
            raise ConfigurationError(
                "This ledger was opened without the operator's key, and something has to be signed.",
                mend="Open it with the key that the charter names as the log's.",
            )
        return self._operator

    def cosigned(self, note: bytes) -> Finality:
        """Take in cosignatures: a checkpoint of this log with lines by witnesses, from hostile hands.

        Lines by nobody that the checkpoint's own state names are ignored, and so is a second line of an
        entity.

        Raises
        ------
        SignatureError
            If a line by a known witness is not good; none of the note is taken then.
        IntegrityError
            If it is malformed, or no checkpoint of this log.
        """
        with self._lock:
            return self._heads.take(note)

    def publish(self, public: Path) -> LogCheckpoint:
        """Do the operator's turn at the published folder; see `publishing`. Call it every few seconds.

        Gives the checkpoint that is published now: it covers fewer entries than the log has while witnesses
        have time to answer the one before.

        Raises
        ------
        ConfigurationError
            If a checkpoint is due and the log was opened without the operator's key, or the folder is
            not writable.
        HistoryError
            If the folder holds more or other entries than this log, or the clock has fallen back.
        """
        folder = PublicLog(public)
        with self._lock, self._store.publishing():
            head = publishing.published_head(folder, self.trust)
            root = self.root(head.size) if head is not None and head.size <= self.size else None
            publishing.require_extends(head, self.size, root)
            newest = self._heads.newest()
            if newest is not None:
                publishing.collect(folder, self._heads, newest)
                newest = self._heads.newest()
            if newest is None or publishing.due(newest, self.size, self._clock()):
                newest = self._sign()
            publishing.write(folder, self._store, self._heads, newest)
            return parse_checkpoint(parse_note(newest.note).text)

    def promise(self, digest: str) -> bytes:
        """The operator's word that a recorded envelope will be covered by a checkpoint within 60 s.

        Raises
        ------
        IntegrityError
            If no envelope with this digest is recorded.
        ConfigurationError
            If the log was opened without the operator's key.
        """
        operator = self._require_operator()
        with self._lock:
            found = self.find(digest)
            if found is None:
                raise IntegrityError(
                    f"No envelope {digest[:16]} is recorded.", mend="Append it; then ask for the promise."
                )
            (entry,) = self.read(found.index, found.index + 1)
            origin = self.trust.origin
        text = promise_text(origin, leaf_hash(entry.envelope), found.index, found.outcome.time)
        return SignedNote(text, (sign_note(text, origin, operator),)).render()
