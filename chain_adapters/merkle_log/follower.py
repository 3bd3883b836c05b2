"""Following a published log without trusting who publishes: the engine of witnesses and replicas.

Invariants
----------
1. A head is taken when the log's key has signed it, it goes on from the head before it, and a replay of
   every entry gives its roots, its outcomes and its state. Otherwise nothing changes.
2. A head is on disk, after the entries under it, before anything is done because of it. After a restart the
   follower goes on from its own copy, so that nobody can feed it another past.
3. It goes neither back (rollback) nor sideways (split view). Both notes are kept in `evidence/`.
4. Entries after a head are not dated before it: once witnesses have seen a time, nothing is recorded in its
   past.
5. The consortium is pinned by the digest of its founding envelope, and the log's key is the charter's.
6. One process at a time uses a folder.

The folder::

    FOLDER/head             the newest checkpoint that was verified, with the log's signature
    FOLDER/entries/         all entries under it, in files as `entry_files` describes them
    FOLDER/evidence/        contradicting notes, a folder a case
    FOLDER/lock

New entries are first written here, beyond the head, and hashed on the way; only when they give the roots that
the log has signed are they replayed, from here. So what is verified is what is kept, whatever the operator
does to its files meanwhile, and not more than one file is in memory.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from fedhouse.chain_adapters.merkle_log.entry_files import EntryFolder, open_lock, read_bounded, write_file
from fedhouse.chain_adapters.merkle_log.exchange import MAX_CHECKPOINT_BYTES, PublicLog
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.chain_adapters.merkle_log.tree import Tree
from fedhouse.encoding import require_digest, sha256
from fedhouse.errors import ConfigurationError, HistoryError, IntegrityError, VerificationError
from fedhouse.governance.checkpoints import LogCheckpoint, open_checkpoint, parse_checkpoint
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.event import Effect
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import leaf_hash
from fedhouse.governance.notes import NoteKey, SignedNote, parse_note
from fedhouse.governance.reducer import admit
from fedhouse.governance.replay import Replay
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust

# A log that contradicts itself again and again must not fill the disk of those who notice.
MAX_CASES: Final = 100
MAX_SKEW: Final = 60


class Follower:
    """A verified copy of a published log. Mutable, for one thread at a time."""

    def __init__(self, folder: Path, public: Path, consortium: str, clock: Callable[[], int]) -> None:
        self.public = PublicLog(public)
        self._folder = folder
        self._consortium = require_digest(consortium, "The consortium")
        self._clock = clock
        self._own = EntryFolder(folder / "entries")
        self._lock = _lock(folder)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the folder; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def size(self) -> int:
        """Number of entries verified."""
        return self._replay.size

    @property
    def state(self) -> State:
        """The state after them."""
        return self._replay.state

    @property
    def head(self) -> LogCheckpoint | None:
        """The newest checkpoint that was verified."""
        return self._head

    @property
    def note(self) -> bytes:
        """That checkpoint with the log's signature; empty if there is none."""
        return self._note

    def _load(self) -> None:
        """Go on from the own copy; what lies beyond its head was never verified."""
        note = read_bounded(self._folder / "head", MAX_CHECKPOINT_BYTES) or b""
        self._replay, self._entries, self._outcomes = Replay(), Tree(), Tree()
        self._head, self._note = None, b""
        head: LogCheckpoint | None = None
        effects: list[Effect] = []
        try:
            if note:
                signed = parse_note(note)
                for chunk in self._own.stream(0, parse_checkpoint(signed.text).size):
                    effects += self._take(chunk, verified=True)
                    self._loaded(chunk)
                head = open_checkpoint(signed, Trust.of(self.state).log)
                self._replay.require(head)
            self._own.discard_from(self.size)
        except VerificationError as error:
            raise IntegrityError(
                f"The own copy of the log in {self._folder} is damaged: {error.what}",
                mend="Restore it from a backup. A witness that has lost its copy needs a new key.",
            ) from error
        if note:
            self._require_consortium()
        self._head, self._note, self._loaded_effects = head, note, effects

    def _require_consortium(self) -> None:
        if self.state.consortium.id != self._consortium:
            raise HistoryError(
                f"This log is of another consortium than {self._consortium[:16]}.",
                mend="Name the consortium's own folders, and an empty one for the copy.",
            )

    def _loaded(self, chunk: list[Entry]) -> None:
        """Called for each part of the own copy as it is loaded."""

    def _take(self, chunk: list[Entry], *, verified: bool) -> list[Effect]:
        effects = self._replay.extend(chunk, verified=verified)
        for entry in chunk:
            self._entries.append(leaf_hash(entry.envelope))
            self._outcomes.append(leaf_hash(entry.outcome.leaf))
        return effects

    def advance(self, note: bytes) -> list[Effect]:
        """Take a newer head, or the same again; gives the effects of its new entries.

        Raises
        ------
        HistoryError
            If it contradicts the head before it, or is dated more than 60 s ahead of the own clock.
        VerificationError
            If it, or an entry under it, is not what it says.
        """
        if len(note) > MAX_CHECKPOINT_BYTES:
            raise IntegrityError(
                f"A checkpoint is longer than {MAX_CHECKPOINT_BYTES} bytes.", mend="Fetch it again."
            )
        signed, key = parse_note(note), self._log_key()
        head = open_checkpoint(signed, key)
        # Other lines of the note have not been verified, and do not come into the own copy.
        note = SignedNote(signed.text, (signed.signature_by(key),)).render()
        if head.size == 0:
            raise IntegrityError(
                "A checkpoint covers not even the founding entry.", mend="Tell the log's operator."
            )
        if head.fedhouse.time > self._clock() + MAX_SKEW:
            raise HistoryError(
                f"A checkpoint is dated {head.fedhouse.time}, and the clock here says {self._clock()}.",
                mend="Set the clocks of this machine and of the log's; nothing is taken until then.",
            )
        self._require_onward(head, note)
        effects = self._extend(head, note) if head.size > self.size else []
        if note != self._note:
            self._keep(head, note)
        return effects

    def _log_key(self) -> NoteKey:
        """The key of the charter: of the own copy, or of the founding entry that is published."""
        if self.size:
            return Trust.of(self.state).log
        founding = self.public.entries(0, 1)
        replay = Replay()
        if sha256(founding[0].envelope) == self._consortium:
            replay.extend(founding)
        if not replay.state.consortium.id:
            raise HistoryError(
                f"{self.public.folder} is of another consortium than {self._consortium[:16]}.",
                mend="Name the right folder, or the right consortium.",
            )
        return Trust.of(replay.state).log

    def _require_onward(self, head: LogCheckpoint, note: bytes) -> None:
        """Refuse a signed head that contradicts the known one."""
        known = self._head
        if known is None:
            return
        if head.size < known.size:
            same = self._entries.root(head.size) == head.root
            self._contradiction(
                note,
                f"The log shows {head.size} entries after it had shown {known.size}: a rollback"
                + ("." if same else " to another history."),
            )
        if head.fedhouse.time < known.fedhouse.time:
            self._contradiction(note, "The log's checkpoints run backwards in time.")
        if head.size == known.size and _claims(head) != _claims(known):
            self._contradiction(
                note, f"The log has signed two different checkpoints of {head.size} entries: a split view."
            )

    def _extend(self, head: LogCheckpoint, note: bytes) -> list[Effect]:
        self._own.discard_from(self.size)
        if not self._staged(head, note):
            self._diagnose(head, note)
        effects: list[Effect] = []
        try:
            for chunk in self._own.stream(self.size, head.size):
                effects += self._take(chunk, verified=False)
            self._require_consortium()
            self._replay.require(head)
        except BaseException as error:
            # The replay may be half-way. The log has signed for these entries, so keep its note.
            if isinstance(error, VerificationError):
                self._keep_evidence(self._note, note)
            self._load()
            raise
        return effects

    def _staged(self, head: LogCheckpoint, note: bytes) -> bool:
        """Copy the new entries here; whether they give the roots of `head`."""
        entries, outcomes = self._entries.frontier(), self._outcomes.frontier()
        earliest = self._head.fedhouse.time if self._head is not None else 0
        for chunk in self.public.files.stream(self.size, head.size):
            for entry in chunk:
                if entry.outcome.time < earliest:
                    self._contradiction(
                        note,
                        f"Entry {entry.index} is dated {entry.outcome.time}, before the checkpoint of time "
                        f"{earliest} that precedes it.",
                    )
                entries.append(leaf_hash(entry.envelope))
                outcomes.append(leaf_hash(entry.outcome.leaf))
            self._own.write(chunk)
        return (entries.root(), outcomes.root()) == (head.root, head.fedhouse.outcomes)

    def _diagnose(self, head: LogCheckpoint, note: bytes) -> NoReturn:
        """Say why entries do not give a head's roots: a damaged file, or another history."""
        tip = Tip(self.state, self._replay.time, self._entries.frontier(), self._outcomes.frontier())
        for chunk in self._own.stream(self.size, head.size):
            for entry in chunk:
                try:
                    admit(tip.state, parse_envelope(entry.envelope))
                    tip.follow(entry)
                except VerificationError as error:
                    raise IntegrityError(
                        f"The published entry {entry.index} is damaged: {error.what}",
                        mend="Ask the operator to publish it anew.",
                    ) from error
        self._contradiction(
            note, f"The published entries do not lead from {self.size} to the checkpoint of {head.size}."
        )

    def _keep(self, head: LogCheckpoint, note: bytes) -> None:
        """Write the head; only then does it count here."""
        try:
            write_file(self._folder / "head", note)
        except BaseException:
            self._load()
            raise
        self._head, self._note = head, note

    def _contradiction(self, note: bytes, what: str) -> NoReturn:
        place = self._keep_evidence(self._note, note)
        raise HistoryError(what, mend=f"Both notes are in {place}; show them to the other members.")

    def _keep_evidence(self, known: bytes, shown: bytes) -> Path:
        """Keep a note beside the one that contradicts it; gives the folder of the case."""
        place = self._folder / "evidence" / sha256(known + shown)[:16]
        cases = place.parent
        if place.exists() or (cases.exists() and sum(1 for _ in cases.iterdir()) >= MAX_CASES):
            return place if place.exists() else cases
        if known:
            write_file(place / "known.note", known)
        write_file(place / "shown.note", shown)
        return place


def _claims(head: LogCheckpoint) -> tuple[bytes, bytes, bytes]:
    """What must be one for one size; the time may be newer."""
    return head.root, head.fedhouse.outcomes, head.fedhouse.state


def _lock(folder: Path) -> int:
    """An exclusive lock on a follower's folder, as a descriptor to close."""
    descriptor = open_lock(folder / "lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"Another process follows the log in {folder}.", mend="Give each its own folder."
        ) from error
    return descriptor
