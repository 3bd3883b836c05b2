"""Receipts: that an envelope is in the log, and what the rules said to it (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <base64>          the outcome, and its path in the tree of outcomes
    index 73894             the entry's place in the log, counted from 0
    gSKyXoYZ…               the path from the entry to the root, one hash a line
    <an empty line>
    <the checkpoint, with its signatures>

A receipt is checked without the log, its operator or a network: the checkpoint by the keys that the reader
trusts, the entry by the path, the outcome by its own path to the root that the checkpoint's `outcomes` line
names. The tree of outcomes has a leaf for each entry, at the same place: time and verdict, as text.

`extra` is not covered by any signature itself; nothing in it is believed before the path is verified.

Example::

    extra = ProvenOutcome(Outcome(1790000000, "accepted"), prove_inclusion(7, size, read_outcome)).render()
    proof = ProofFile(extra, 7, prove_inclusion(7, size, read_entry), note)
    store("7.tlog-proof", proof.render())

    receipt = verify_receipt(envelope, parse_proof(data), log_key, witnesses, c=1)
    receipt.outcome.verdict

Source: C2SP tlog-proof.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fedhouse.encoding import canonical_json, parse_json
from fedhouse.errors import HistoryError, IntegrityError
from fedhouse.governance.checkpoints import (
    MAX_TIME,
    Finality,
    LogCheckpoint,
    check_finality,
    open_checkpoint,
    parse_checkpoint,
)
from fedhouse.governance.merkle import HASH_BYTES, MAX_SIZE, leaf_hash, verify_inclusion
from fedhouse.governance.notes import MAX_NOTE_BYTES, NoteKey, SignedNote, parse_note
from fedhouse.identity.text import b64, unb64

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_EXTRA_BYTES: Final = 2**16
# The longest path in a tree of 2^63 - 1 leaves.
MAX_PATH: Final = 63
MAX_PROOF_BYTES: Final = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES

_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_VERDICT = re.compile(r"[a-z][a-z0-9_.-]{0,127}")
_EXTRA = "extra "
_KEYS_OF_EXTRA = {"path", "time", "verdict"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rules said to an entry, and when.

    Raises
    ------
    IntegrityError
        If time or verdict are malformed.
    """

    time: int
    """The log's time of the entry, whole seconds since 1970."""
    verdict: str
    """`accepted`, or the code of the refusal: lower-case letters, digits and `_.-`, at most 128."""

    def __post_init__(self) -> None:
        if type(self.time) is not int or not 0 <= self.time <= MAX_TIME:
            raise _malformed("has an outcome whose time is out of range")
        if type(self.verdict) is not str or _VERDICT.fullmatch(self.verdict) is None:
            raise _malformed("has an outcome whose verdict is not one of the rules")

    @property
    def leaf(self) -> bytes:
        """The leaf of the tree of outcomes."""
        return f"{self.time} {self.verdict}\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class ProvenOutcome:
    """An outcome and its path in the tree of outcomes: the `extra` of a receipt.

    Raises
    ------
    IntegrityError
        If the path is longer than any, or a hash of it is not of 32 bytes.
    """

    outcome: Outcome
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _require_path(self.path)

    def render(self) -> bytes:
        """As canonical JSON."""
        value = {
            "path": [b64(node) for node in self.path],
            "time": self.outcome.time,
            "verdict": self.outcome.verdict,
        }
        return canonical_json(value)


def parse_outcome(extra: bytes) -> ProvenOutcome:
    """The outcome in hostile bytes.

    Raises
    ------
    IntegrityError
        If they are malformed or not in their one spelling.
    """
    if len(extra) > MAX_EXTRA_BYTES:
        raise _malformed(f"has an extra of more than {MAX_EXTRA_BYTES} bytes")
    value = parse_json(extra, "A receipt's outcome")
    if type(value) is not dict or value.keys() != _KEYS_OF_EXTRA or type(value["path"]) is not list:
        raise _malformed("has an outcome with unknown or missing keys")
    path = tuple(_parse_hash(item) for item in value["path"])
    found = ProvenOutcome(Outcome(value["time"], value["verdict"]), path)
    if found.render() != extra:
        raise _malformed("has an outcome that is not canonical JSON (RFC 8785)")
    return found


@dataclass(frozen=True, slots=True)
class ProofFile:
    """A proof file whose form is right. Nothing of it is known to be true until it is verified.

    Raises
    ------
    IntegrityError
        If no file can carry it: an empty or too long `extra`, an index that the log does not have, a
        malformed path, or a note that is no checkpoint.
    """

    extra: bytes | None = field(repr=False)
    index: int
    path: tuple[bytes, ...] = field(repr=False)
    checkpoint: SignedNote = field(repr=False)

    def __post_init__(self) -> None:
        if self.extra is not None and not 1 <= len(self.extra) <= MAX_EXTRA_BYTES:
            raise _malformed(f"has an extra that is not of 1 to {MAX_EXTRA_BYTES} bytes")
        _require_path(self.path)
        if not 0 <= self.index < self.head.size <= MAX_SIZE:
            raise _malformed("is for an entry that its log does not have")

    @property
    def head(self) -> LogCheckpoint:
        """What the checkpoint says, unverified."""
        return parse_checkpoint(self.checkpoint.text)

    def render(self) -> bytes:
        """The file; `parse_proof` gives the proof back."""
        extra = () if self.extra is None else (f"{_EXTRA}{b64(self.extra)}",)
        lines = (HEADER, *extra, f"index {self.index}", *map(b64, self.path), "")
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint.render()

    def verify(self, leaf: bytes, log_key: NoteKey) -> LogCheckpoint:
        """The checkpoint, once the log's signature and the inclusion of the leaf have been verified.

        It checks neither cosignatures nor `extra`: see `verify_receipt`.

        Parameters
        ----------
        leaf
            The leaf's hash, which the caller has computed from the data.

        Raises
        ------
        SignatureError
            If the log has not signed the checkpoint.
        IntegrityError
            If the checkpoint is of another log, or the leaf is not where the proof says.
        """
        head = open_checkpoint(self.checkpoint, log_key)
        verify_inclusion(leaf, self.index, head.size, self.path, head.root)
        return head


def parse_proof(data: bytes) -> ProofFile:
    """The proof in a hostile file.

    Raises
    ------
    IntegrityError
        If it is malformed or not in its one spelling.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise _malformed(f"is longer than {MAX_PROOF_BYTES} bytes")
    top, gap, note = data.partition(b"\n\n")
    if not gap or not top.isascii():
        raise _malformed("has no lines before its checkpoint, or some that are not ASCII")
    lines = top.decode("ascii").split("\n")
    if lines.pop(0) != HEADER:
        raise _malformed(f"does not begin with {HEADER}")
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = unb64(lines.pop(0).removeprefix(_EXTRA), "A receipt's extra line")
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None:
        raise _malformed("has no index line, or not in its one spelling")
    if len(lines) > MAX_PATH:
        raise _malformed(f"has a path of more than {MAX_PATH} hashes")
    path = tuple(_parse_hash(line) for line in lines)
    return ProofFile(extra, int(index[1]), path, parse_note(note))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt showed: made by `verify_receipt` only."""

    index: int
    """The entry's place in the log, counted from 0."""
    outcome: Outcome
    head: LogCheckpoint
    finality: Finality


def verify_receipt(
    envelope: bytes,
    proof: ProofFile,
    log_key: NoteKey,
    witnesses: Mapping[str, Sequence[NoteKey]],
    c: int,
    *,
    strict: bool = False,
    require_final: bool = True,
) -> Receipt:
    """Verify that `envelope` is in the log, and what the rules said to it.

    Parameters
    ----------
    witnesses, c, strict
        As for `check_finality`.
    require_final
        Whether a checkpoint that too few entities have cosigned is refused. Without, the receipt rests on
        the log's word alone, and `finality` says so.

    Raises
    ------
    SignatureError
        If a signature is missing or not good.
    IntegrityError
        If the envelope is not in the log, its outcome is missing or another, or the checkpoint not final.
    HistoryError
        If the entry is later than the checkpoint.
    ConfigurationError
        If no number of cosignatures could make a checkpoint final.
    """
    head = proof.verify(leaf_hash(envelope), log_key)
    finality = check_finality(proof.checkpoint, log_key, witnesses, c, strict=strict)
    if require_final:
        finality.require()
    if proof.extra is None:
        raise _malformed("carries no outcome")
    proven = parse_outcome(proof.extra)
    _verify_outcome(proven, proof.index, head)
    return Receipt(proof.index, proven.outcome, head, finality)


def _verify_outcome(proven: ProvenOutcome, index: int, head: LogCheckpoint) -> None:
    told = head.fedhouse
    try:
        verify_inclusion(leaf_hash(proven.outcome.leaf), index, head.size, proven.path, told.outcomes)
    except IntegrityError as error:
        raise IntegrityError(
            f"A receipt's outcome is not the one that the log has for entry {index}.", mend=error.mend
        ) from error
    if proven.outcome.time > told.time:
        raise HistoryError(
            f"Entry {index} is later than the checkpoint that covers it.",
            mend="Keep the receipt: it shows that the log's time ran backwards.",
        )


def _parse_hash(text: Any) -> bytes:
    if type(text) is not str or len(text) != 44:
        raise _malformed(f"has a path with a hash that is not of {HASH_BYTES} bytes")
    return unb64(text, "A receipt's path")


def _require_path(path: Sequence[bytes]) -> None:
    if len(path) > MAX_PATH or any(len(node) != HASH_BYTES for node in path):
        raise _malformed(f"has a path of more than {MAX_PATH} hashes, or a hash not of {HASH_BYTES} bytes")


def _malformed(how: str) -> IntegrityError:
    return IntegrityError(f"A receipt {how}.", mend="Fetch it again; it must arrive unchanged.")
