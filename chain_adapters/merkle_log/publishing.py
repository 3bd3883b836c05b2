"""What the operator does at its published folder, every few seconds: collect, sign, publish.

A checkpoint that is not final is left standing for 30 s, so that all witnesses answer the same one; otherwise
a busy log would outrun them. After that a newer one is signed, since witnesses do not cosign what is
more than 60 s old. Called at least every 25 s, it keeps the promise of inclusion within 60 s.

What stands in the folder is compared with the log first: an operator whose file was restored from an old
backup would otherwise publish a second history under the first one's key.
"""

from __future__ import annotations

import logging
from typing import Final

from fedhouse.chain_adapters.merkle_log.entry_files import MAX_ENTRIES
from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.heads import Heads
from fedhouse.chain_adapters.merkle_log.store import Store, StoredCheckpoint
from fedhouse.errors import HistoryError, IntegrityError, SignatureError, VerificationError
from fedhouse.governance.checkpoints import LogCheckpoint, open_checkpoint
from fedhouse.governance.notes import parse_note
from fedhouse.governance.trust import Trust

logger = logging.getLogger(__name__)

# So long all witnesses have for the same checkpoint.
PATIENCE_SECONDS: Final = 30


def published_head(public: PublicLog, trust: Trust) -> LogCheckpoint | None:
    """The checkpoint that this log published last; None if there is none that can be read.

    Raises
    ------
    HistoryError
        If the folder is another log's.
    """
    try:
        data = public.newest()
        note = None if data is None else parse_note(data)
    except IntegrityError as error:
        _warn_damaged(error)
        return None
    if note is None:
        return None
    try:
        note.signature_by(trust.log)
    except SignatureError as error:
        raise HistoryError(
            f"{public.folder} holds the checkpoint of another log.", mend="Publish to a folder of its own."
        ) from error
    try:
        return open_checkpoint(note, trust.log)
    except VerificationError as error:
        _warn_damaged(error)
        return None


def _warn_damaged(error: VerificationError) -> None:
    logger.warning("The published checkpoint is damaged and will be replaced: %s", error)


def require_extends(head: LogCheckpoint | None, size: int, root_at: bytes | None) -> None:
    """Check that a log of `size` entries still has what it published.

    Parameters
    ----------
    root_at
        The log's root at the size of `head`; None if it is not so large.

    Raises
    ------
    HistoryError
        If entries are gone, or others stand in their place.
    """
    if head is None or (head.size <= size and head.root == root_at):
        return
    how = f"only {size}" if head.size > size else "others"
    raise HistoryError(
        f"This ledger has published {head.size} entries, and its file has {how}.",
        mend="Restore the newest backup, or rebuild it from the published files; publish nothing until then.",
    )


def due(newest: StoredCheckpoint, size: int, now: int) -> bool:
    """Whether it is time to sign another checkpoint, of a log with `size` entries."""
    grown = size > newest.size
    if newest.final:
        return grown
    witnessed = bool(Trust.parse(newest.trust).witnesses)
    return (grown and not witnessed) or (witnessed and now - newest.time >= PATIENCE_SECONDS)


def collect(public: PublicLog, heads: Heads, newest: StoredCheckpoint) -> None:
    """Take in what witnesses have answered to the newest checkpoint; what is not good is named in the log."""
    for keys in Trust.parse(newest.trust).witnesses.values():
        for key in keys:
            try:
                answer = public.cosignature(newest.size, key)
                if answer is not None and parse_note(answer).text == parse_note(newest.note).text:
                    heads.take(answer)
            except VerificationError as error:
                path = public.cosignature_path(newest.size, key)
                logger.warning("The cosignature in %s is ignored: %s", path, error)


def write(public: PublicLog, store: Store, heads: Heads, newest: StoredCheckpoint) -> None:
    """Publish the entries that are not there yet, then the checkpoint, then the newest final one."""
    for start, stop in public.files.gaps(newest.size):
        for first in range(start, stop, MAX_ENTRIES):
            public.files.write(store.entries(first, min(first + MAX_ENTRIES, stop)))
    public.write_checkpoint(heads.note(newest))
    final = heads.newest_final()
    if final is not None:
        public.write_checkpoint(heads.note(final), final=True)
