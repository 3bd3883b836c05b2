"""The signed head of a log (C2SP tlog-checkpoint), witnesses' cosignatures, and when a head is final.

A checkpoint is a note whose text says how large a log is and what its root is. A ledger of fedhouse adds
three lines, in this order:

    consortium.example/AA            origin: the log's name, and the name of the key that signs for it
    20852163                         number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root over the entries
    time 1790000000                  the log's time, whole seconds since 1970
    outcomes <base64>                root over what the rules said to each entry (`proof_files`)
    state <base64>                   SHA-256 of the state after the last entry

A witness cosigns a checkpoint after it has seen that the log only grew. Its cosignature covers all lines, and
fedhouse's witnesses replay the rules before they cosign, so it vouches for outcomes and state too. A witness
of another make vouches for the first three lines only.

Invariants
----------
1. A checkpoint is final when more than max(2n/3, (n+c)/2) of n entities have cosigned it: then two final
   heads of one size share an honest entity, even if c entities collude.
2. An entity counts once, however many keys it has and uses.
3. A key counts for one entity only, and a log's key for none. The message of a cosignature does not carry
   the witness's name, so a key that stood under two names would let one witness count twice.
4. A signature line by a key that is known must be good, or the whole note is refused.

Example::

    head = LogCheckpoint(origin, size, root, Extensions(now, outcomes, state).lines)
    note = SignedNote(head.text, (sign_note(head.text, origin, log), cosign(head.text, name, witness, now)))
    finality = check_finality(note, log_key, {"AA": [aa_key], "B6": [b6_key]}, c=0)
    finality.require()

Sources: C2SP tlog-checkpoint v1.0.0, tlog-cosignature v1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedhouse.errors import ConfigurationError, IntegrityError
from fedhouse.governance.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from fedhouse.governance.notes import (
    COSIGNATURE_PREFIX,
    MAX_NOTE_BYTES,
    NoteKey,
    NoteKind,
    NoteSignature,
    SignedNote,
    require_kind,
    verify_note_signature,
)
from fedhouse.identity.signer import Signer
from fedhouse.identity.text import b64, unb64

# Times also travel in canonical JSON, which is exact up to here.
MAX_TIME: Final = 2**53 - 1
# A cosignature's time is 64 bits wide, and the specification leaves the highest unused.
_MAX_COSIGNATURE_TIME = 2**63 - 1
_TIME_BYTES = 8
_ED25519_BYTES = 64

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EXTENSIONS = ("time ", "outcomes ", "state ")


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a ledger of fedhouse says beside size and root.

    Raises
    ------
    IntegrityError
        If a hash is not of 32 bytes or the time is out of range.
    """

    time: int
    """Whole seconds since 1970."""
    outcomes: bytes
    """Root of the tree of outcomes, of the same size as the log."""
    state: bytes
    """SHA-256 of the state."""

    def __post_init__(self) -> None:
        if not 0 <= self.time <= MAX_TIME:
            raise _malformed("has a time that is out of range")
        if len(self.outcomes) != HASH_BYTES or len(self.state) != HASH_BYTES:
            raise _malformed(f"has an outcomes or state line that is not of {HASH_BYTES} bytes")

    @property
    def lines(self) -> tuple[str, ...]:
        """The three extension lines."""
        values = (str(self.time), b64(self.outcomes), b64(self.state))
        return tuple(f"{label}{value}" for label, value in zip(_EXTENSIONS, values, strict=True))


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """The head of a log: never signed weights, which are a `ModelSnapshot`.

    Raises
    ------
    IntegrityError
        If no text can carry it, or if it contradicts itself: an empty log has one root.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(lines) or any(_CONTROL.search(line) for line in lines):
            raise _malformed("has an empty line or a control character")
        try:
            length = sum(len(line.encode()) for line in lines)
        except UnicodeEncodeError:
            raise _malformed("has a line that is not Unicode") from None
        if length > MAX_NOTE_BYTES:
            raise _malformed(f"is longer than {MAX_NOTE_BYTES >> 20} MiB")
        if not 0 <= self.size <= MAX_SIZE:
            raise _malformed("has a size that is out of range")
        if len(self.root) != HASH_BYTES:
            raise _malformed(f"has a root that is not of {HASH_BYTES} bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise _malformed("of an empty log has a root that is not that of an empty tree")

    @property
    def text(self) -> str:
        """The text of the note, as it is signed."""
        lines = (self.origin, str(self.size), b64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @property
    def fedhouse(self) -> Extensions:
        """The extension lines of a ledger of fedhouse.

        Raises
        ------
        IntegrityError
            If they are not exactly its three, in their order and spelling.
        """
        lines = self.extensions
        if len(lines) != len(_EXTENSIONS) or not all(map(str.startswith, lines, _EXTENSIONS)):
            raise _malformed("has not exactly the lines time, outcomes and state")
        time, outcomes, state = (line[len(label) :] for line, label in zip(lines, _EXTENSIONS, strict=True))
        return Extensions(_decimal(time), _hash(outcomes, "outcomes"), _hash(state, "state"))


def parse_checkpoint(text: str) -> LogCheckpoint:
    """The checkpoint in a note's hostile text, with whatever extension lines it has.

    Raises
    ------
    IntegrityError
        If it is malformed or not in its one spelling.
    """
    if len(text) > MAX_NOTE_BYTES or not text.endswith("\n"):
        raise _malformed("is too long or does not end with a newline")
    lines = text[:-1].split("\n")
    if len(lines) < 3:
        raise _malformed("has not the lines of origin, size and root")
    return LogCheckpoint(lines[0], _decimal(lines[1]), _hash(lines[2], "root"), tuple(lines[3:]))


def open_checkpoint(note: SignedNote, log_key: NoteKey) -> LogCheckpoint:
    """The checkpoint in `note`, once the log's own signature has been verified.

    Raises
    ------
    SignatureError
        If the log has not signed it.
    IntegrityError
        If the text is no checkpoint, or one of a log that does not bear the key's name.
    """
    verify_note_signature(note, log_key)
    head = parse_checkpoint(note.text)
    if head.origin != log_key.name:
        raise IntegrityError(
            "A checkpoint is of another log than its key is for.",
            mend=f"The key is for {log_key.name}; fetch the checkpoint of that log.",
        )
    return head


def cosign(checkpoint_text: str, name: str, signer: Signer, time: int) -> NoteSignature:
    """A witness's cosignature at `time`, whole seconds since 1970.

    It says that this is the longest consistent head of the log that the witness has seen. That the caller
    has checked this is not checked here.

    Raises
    ------
    IntegrityError
        If the text is no checkpoint, the time out of range, or the signer's key not an Ed25519 key.
    """
    parse_checkpoint(checkpoint_text)
    if not 0 <= time <= _MAX_COSIGNATURE_TIME:
        raise IntegrityError("A cosignature's time is out of range.", mend="Set the witness's clock.")
    key = NoteKey(name, NoteKind.COSIGNATURE, signer.public)
    signature = signer.sign(_cosigned(checkpoint_text, time))
    return NoteSignature(name, key.key_hash, time.to_bytes(_TIME_BYTES, "big") + signature)


def verify_cosignature(note: SignedNote, key: NoteKey) -> int:
    """The time at which the witness with `key` cosigned `note`, whole seconds since 1970.

    Raises
    ------
    SignatureError
        If it has not, or if its cosignature is not good.
    IntegrityError
        If the text is no checkpoint, the cosignature malformed, or `key` not a witness's.
    """
    require_kind(key, NoteKind.COSIGNATURE)
    parse_checkpoint(note.text)
    found = note.signature_by(key).signature
    if len(found) != _TIME_BYTES + _ED25519_BYTES:
        raise _malformed(f"has a cosignature by {key.name} of {len(found)} bytes")
    time = int.from_bytes(found[:_TIME_BYTES], "big")
    if time > _MAX_COSIGNATURE_TIME:
        raise _malformed(f"has a cosignature by {key.name} whose time is out of range")
    key.public.verify(found[_TIME_BYTES:], _cosigned(note.text, time))
    return time


@dataclass(frozen=True, slots=True)
class Finality:
    """Who has cosigned a checkpoint, and whether they are enough."""

    cosigners: tuple[str, ...]
    """The entities, in the order in which they were given; each once."""
    times: tuple[int, ...]
    """For each of them, when it first cosigned, by its own clock: whole seconds since 1970."""
    required: int
    """How many entities make the checkpoint final."""

    @property
    def final(self) -> bool:
        """Whether they are enough."""
        return len(self.cosigners) >= self.required

    def require(self) -> None:
        """Refuse a checkpoint that is not final.

        Raises
        ------
        IntegrityError
            If too few entities have cosigned it; says how many are missing.
        """
        if not self.final:
            raise IntegrityError(
                f"{len(self.cosigners)} entities have cosigned a checkpoint; {self.required} make it final.",
                mend="Wait for more witnesses, then fetch it again.",
            )


def required_cosignatures(n: int, c: int) -> int:
    """The least number of cosigning entities that is more than max(2n/3, (n+c)/2).

    Parameters
    ----------
    n
        Number of entities with witnesses.
    c
        How many of them may collude with each other and with the log.

    Raises
    ------
    ConfigurationError
        If there are no entities or if c is not between 0 and n-1: then no number would do.
    """
    if not 0 <= c < n:
        raise ConfigurationError(
            f"Of {n} entities with witnesses {c} are tolerated as colluding.",
            mend="Tolerate fewer, or let more entities run a witness.",
        )
    return max(2 * n // 3, (n + c) // 2) + 1


def check_finality(
    note: SignedNote,
    log_key: NoteKey,
    witnesses: Mapping[str, Sequence[NoteKey]],
    c: int,
    *,
    strict: bool = False,
) -> Finality:
    """Verify all signatures of `note` whose keys are known, and count the entities that cosigned it.

    Parameters
    ----------
    witnesses
        The keys of each entity's witnesses. An entity without keys counts among the n all the same.
    c
        How many entities may collude.
    strict
        Whether a signature line by an unknown key is refused; otherwise it is ignored.

    Raises
    ------
    SignatureError
        If the log's signature or a cosignature is missing or not good.
    IntegrityError
        If the checkpoint is malformed or of another log, if a key stands twice, or by `strict`.
    ConfigurationError
        If no number of cosignatures could make it final.
    """
    required = required_cosignatures(len(witnesses), c)
    _require_distinct(log_key, witnesses)
    open_checkpoint(note, log_key)
    lines = {(one.name, one.key_hash) for one in note.signatures} - {(log_key.name, log_key.key_hash)}
    counted: dict[str, int] = {}
    for entity, keys in witnesses.items():
        for key in keys:
            if (key.name, key.key_hash) in lines:
                lines.remove((key.name, key.key_hash))
                time = verify_cosignature(note, key)
                counted[entity] = min(time, counted.get(entity, time))
    if strict and lines:
        raise IntegrityError(
            f"A checkpoint carries {len(lines)} signatures by keys that are not known here.",
            mend="Take them out, or add the keys of their makers to those that are trusted.",
        )
    return Finality(tuple(counted), tuple(counted.values()), required)


def _require_distinct(log_key: NoteKey, witnesses: Mapping[str, Sequence[NoteKey]]) -> None:
    """No key twice, under whatever name, and no two keys that one signature line could mean."""
    keys = [key for owned in witnesses.values() for key in owned]
    for key in keys:
        require_kind(key, NoteKind.COSIGNATURE)
    everyone = [log_key, *keys]
    raw = {key.public.raw for key in everyone}
    named = {(key.name, key.key_hash) for key in everyone}
    if not len(raw) == len(named) == len(everyone):
        raise IntegrityError(
            "One key stands for two witnesses, or for a witness and the log.",
            mend="Give every witness a key of its own.",
        )


def _cosigned(checkpoint_text: str, time: int) -> bytes:
    """What a cosignature signs."""
    return f"{COSIGNATURE_PREFIX}time {time}\n{checkpoint_text}".encode()


def _decimal(text: str) -> int:
    if _DECIMAL.fullmatch(text) is None:
        raise _malformed("has a number that is not a decimal in its one spelling")
    return int(text)


def _hash(text: str, what: str) -> bytes:
    if len(text) != 44:
        raise _malformed(f"has a {what} that is not of {HASH_BYTES} bytes")
    return unb64(text, f"A checkpoint's {what}")


def _malformed(how: str) -> IntegrityError:
    return IntegrityError(f"A checkpoint {how}.", mend="Fetch it again; it must arrive unchanged.")
