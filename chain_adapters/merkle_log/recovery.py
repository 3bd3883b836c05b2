"""Bringing a log back: from its own file at every opening, and from what it published when that is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fedhouse.chain_adapters.merkle_log import store as tables
from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.heads import Heads
from fedhouse.chain_adapters.merkle_log.store import Store
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.chain_adapters.merkle_log.tree import Tree
from fedhouse.encoding import sha256
from fedhouse.errors import HistoryError, IntegrityError
from fedhouse.governance.checkpoints import parse_checkpoint
from fedhouse.governance.envelope import Envelope, parse_envelope
from fedhouse.governance.ledger import Appended, Entry
from fedhouse.governance.merkle import leaf_hash
from fedhouse.governance.notes import SignedNote, parse_note, verify_note_signature
from fedhouse.governance.replay import Replay
from fedhouse.governance.trust import Trust

# The name of a log's file in its folder.
FILE: Final = "log.sqlite"

_CHUNK: Final = 10_000


def recorded(
    tip: Tip, envelope: Envelope, time: int
) -> tuple[Appended, tuple[Any, ...], list[tuple[int, int, int, bytes]]]:
    """The answer to an admitted envelope, its row, and the nodes that it completes."""
    index = tip.size
    outcome, entries, outcomes = tip.record(envelope, time)
    row = (index, bytes.fromhex(envelope.digest), envelope.raw, outcome.time, outcome.verdict)
    nodes = [(tables.ENTRIES, *node) for node in entries]
    nodes += [(tables.OUTCOMES, *node) for node in outcomes]
    return Appended(index, envelope.digest, outcome), row, nodes


def replayed(store: Store) -> Tip:
    """The tip of a stored log, every node of which has been checked.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    tip, entries, outcomes = Tip.empty(), Tree(), Tree()
    with store.reading():
        while chunk := store.entries(tip.size, tip.size + _CHUNK):
            for entry in chunk:
                tip.follow(entry)
                entries.append(leaf_hash(entry.envelope))
                outcomes.append(leaf_hash(entry.outcome.leaf))
        store.check_nodes(tables.ENTRIES, entries.nodes())
        store.check_nodes(tables.OUTCOMES, outcomes.nodes())
        newest = store.newest_checkpoint()
    if tip.state.consortium.id != store.meta("consortium"):
        raise _unlike("its file says")
    if newest is not None:
        head = parse_checkpoint(parse_note(newest.note).text)
        if head.size > tip.size or entries.root(head.size) != head.root:
            raise _unlike("its last checkpoint says")
    return tip


def _unlike(what: str) -> IntegrityError:
    return IntegrityError(
        f"The ledger's entries are not those that {what}.",
        mend="Restore the file from a backup, or rebuild the ledger from its published files.",
    )


def rebuild(folder: Path, public: Path, consortium: str) -> None:
    """Make a log's file anew from what it published. Everything is verified; then open it as usual.

    What was recorded after the last published checkpoint is lost: its senders hold promises, and send it
    again.

    Raises
    ------
    ConfigurationError
        If the folder has a log already.
    HistoryError
        If what is published is another consortium's.
    VerificationError
        If it is damaged.
    """
    published = PublicLog(public)
    note = published.checkpoint()
    signed = parse_note(note)
    head = parse_checkpoint(signed.text)
    entries = published.entries(0, head.size)
    if not entries or sha256(entries[0].envelope) != consortium:
        raise HistoryError(
            f"{public} is of another consortium than {consortium[:16]}.", mend="Name the right folder."
        )
    replay = Replay()
    replay.extend(entries)
    replay.require(head)
    trust = Trust.of(replay.state)
    verify_note_signature(signed, trust.log)
    folder.mkdir(parents=True, exist_ok=True)
    store = Store.create(folder / FILE)
    try:
        with store.writing():
            store.make(consortium)
            _fill(store, entries)
            own = SignedNote(signed.text, (signed.signature_by(trust.log),))
            store.add_checkpoint(head.size, head.fedhouse.time, own, trust.render())
        Heads(store).take(note)
    finally:
        store.close()


def _fill(store: Store, entries: list[Entry]) -> None:
    tip = Tip.empty()
    for start in range(0, len(entries), _CHUNK):
        made = [
            recorded(tip, parse_envelope(entry.envelope), entry.outcome.time)
            for entry in entries[start : start + _CHUNK]
        ]
        store.add([row for _, row, _ in made], [node for _, _, nodes in made for node in nodes])
