"""The log's checkpoints: signing them, taking cosignatures in, and judging whether they are final.

A checkpoint keeps the trust that its own state named. So a witness that is revoked later takes no finality
away, and one that is bound later gives none. One cosignature an entity is kept, and as many as a note holds:
a consortium of more than 148 entities could not make a checkpoint final.
"""

from __future__ import annotations

from fedhouse.chain_adapters.merkle_log.store import Store, StoredCheckpoint
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.errors import IntegrityError
from fedhouse.governance.checkpoints import Extensions, Finality, LogCheckpoint, verify_cosignature
from fedhouse.governance.notes import MAX_SIGNATURES, SignedNote, parse_note, sign_note
from fedhouse.governance.trust import Trust
from fedhouse.identity.signer import Signer


class Heads:
    """Checkpoints in a store. For callers that hold the log's lock."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self) -> StoredCheckpoint | None:
        """The checkpoint that was signed last."""
        return self._store.newest_checkpoint()

    def newest_final(self) -> StoredCheckpoint | None:
        """The last one that is final."""
        return self._store.newest_checkpoint(final=True)

    def covering(self, size: int) -> StoredCheckpoint | None:
        """The newest final checkpoint of at least `size` entries, or else the newest such; None without."""
        return self._store.newest_checkpoint(size, final=True) or self._store.newest_checkpoint(size)

    def sign(self, tip: Tip, time: int, operator: Signer) -> StoredCheckpoint:
        """A checkpoint of the log at `tip`, signed; within a transaction."""
        trust = Trust.of(tip.state)
        told = Extensions(time, tip.outcomes.root(), bytes.fromhex(tip.state.digest()))
        head = LogCheckpoint(trust.origin, tip.size, tip.entries.root(), told.lines)
        if self._store.checkpoint_of(head.text) is None:
            note = SignedNote(head.text, (sign_note(head.text, trust.origin, operator),))
            self._store.add_checkpoint(tip.size, time, note, trust.render())
        stored = self._store.checkpoint_of(head.text)
        assert stored is not None
        return stored

    def note(self, stored: StoredCheckpoint) -> bytes:
        """The checkpoint with the cosignatures that have come."""
        note = parse_note(stored.note)
        return SignedNote(note.text, (*note.signatures, *self._store.cosignatures(stored.number))).render()

    def progress(self, stored: StoredCheckpoint) -> Finality:
        """How far it is from being final."""
        return Trust.parse(stored.trust).progress(self.note(stored))

    def take(self, note: bytes) -> Finality:
        """Take in cosignatures from hostile hands; see `MerkleLog.cosigned`."""
        signed = parse_note(note)
        stored = self._store.checkpoint_of(signed.text)
        if stored is None:
            raise IntegrityError(
                "A note with cosignatures is of no checkpoint of this ledger.",
                mend="Cosign the checkpoint that it publishes.",
            )
        lines = {(line.name, line.key_hash): line for line in signed.signatures}
        found = []
        for entity, keys in Trust.parse(stored.trust).witnesses.items():
            for key in keys:
                line = lines.get((key.name, key.key_hash))
                if line is not None:
                    verify_cosignature(signed, key)
                    found.append((entity, line))
        with self._store.writing():
            for entity, line in found:
                if len(self._store.cosignatures(stored.number)) + 1 < MAX_SIGNATURES:
                    self._store.add_cosignature(stored.number, entity, line)
            progress = self.progress(stored)
            if progress.final and not stored.final:
                self._store.mark_final(stored.number)
        return progress
