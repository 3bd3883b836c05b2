"""Inclusion promises: the operator's signed word that an event will stand in the log.

A silo that has sent an event gets one at once. If a checkpoint that witnesses have cosigned comes 60 s later
or more and has not that entry at that place, promise and checkpoint together convict the operator, before
anybody who holds the log's key.

    fedhouse-promise/1
    consortium.example/ledger       origin: the log's name
    leaf <64 hexadecimal digits>    the leaf's hash in the tree (RFC 6962), so of the envelope's bytes
    index 73894
    time 1790000000                 the log's time of the entry, whole seconds since 1970
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedhouse.errors import HistoryError, IntegrityError
from fedhouse.governance.checkpoints import MAX_TIME
from fedhouse.governance.merkle import MAX_SIZE, leaf_hash
from fedhouse.governance.notes import parse_note, verify_note_signature
from fedhouse.governance.trust import Trust

HEADER: Final = "fedhouse-promise/1"
WITHIN_SECONDS: Final = 60
MAX_PROMISE_BYTES: Final = 2**12

_FORM = re.compile(
    rf"{HEADER}\n([^\n]+)\nleaf ([0-9a-f]{{64}})\nindex (0|[1-9][0-9]{{0,18}})\ntime (0|[1-9][0-9]{{0,15}})\n"
)


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise that the log has signed: made by `verify_promise` only."""

    origin: str
    leaf: bytes
    index: int
    time: int
    """The log's time of the entry. Whoever gets a promise compares it with its own clock."""

    @property
    def due(self) -> int:
        """From this time on, every checkpoint must cover the entry."""
        return self.time + WITHIN_SECONDS


def promise_text(origin: str, leaf: bytes, index: int, time: int) -> str:
    """The text that the operator signs."""
    return f"{HEADER}\n{origin}\nleaf {leaf.hex()}\nindex {index}\ntime {time}\n"


def verify_promise(data: bytes, trust: Trust, envelope: bytes) -> Promise:
    """The promise in hostile bytes, that `envelope` will stand in the log.

    Raises
    ------
    SignatureError
        If the log has not signed it.
    IntegrityError
        If it is malformed, or about another log or envelope.
    """
    promise = _parse(data, trust)
    if promise.leaf != leaf_hash(envelope):
        raise IntegrityError(
            "A promise is about another envelope.", mend="Send the envelope again, and ask for its promise."
        )
    return promise


def check_promise(promise: bytes, checkpoint: bytes, trust: Trust, leaf_at: Callable[[int], bytes]) -> None:
    """Check that a promise was kept, as far as a final checkpoint can tell; an early one cannot.

    Parameters
    ----------
    leaf_at
        Gives the leaf hash that the checkpoint's log has at an index, from a replica that has verified it.

    Raises
    ------
    HistoryError
        If it was broken; then promise and checkpoint (and the entry at that index) are the evidence.
    SignatureError
        If one of them is not signed by the log.
    IntegrityError
        If one of them is malformed or the checkpoint is not final.
    """
    told = _parse(promise, trust)
    head, finality = trust.check(checkpoint)
    finality.require()
    if head.fedhouse.time < told.due:
        return
    if head.size <= told.index:
        raise _broken(
            told, f"a checkpoint of {head.size} entries at time {head.fedhouse.time} does not reach it"
        )
    found = leaf_at(told.index)
    if found != told.leaf:
        raise _broken(told, f"the log has leaf {found.hex()} there")


def _parse(data: bytes, trust: Trust) -> Promise:
    if len(data) > MAX_PROMISE_BYTES:
        raise _malformed()
    note = parse_note(data)
    verify_note_signature(note, trust.log)
    found = _FORM.fullmatch(note.text)
    if found is None or found[1] != trust.origin:
        raise _malformed()
    promise = Promise(found[1], bytes.fromhex(found[2]), int(found[3]), int(found[4]))
    if promise.index > MAX_SIZE or promise.time > MAX_TIME:
        raise _malformed()
    return promise


def _broken(promise: Promise, how: str) -> HistoryError:
    return HistoryError(
        f"The operator has broken its promise of leaf {promise.leaf.hex()} at index {promise.index} "
        f"by time {promise.due}: {how}.",
        mend="Keep promise and checkpoint: together they convict the operator.",
    )


def _malformed() -> IntegrityError:
    return IntegrityError(
        "A promise is malformed or about another log.", mend="Ask the operator for it again."
    )
