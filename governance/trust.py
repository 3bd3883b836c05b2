"""What a reader trusts: a consortium, its log's key, its witnesses, and how many may collude.

A trust file is handed over once, by a way that the reader trusts already, and compared by its fingerprint:

    fedhouse-trust/1
    consortium <64 hexadecimal digits>
    log <verifier key of the log>
    colluding <c>
    witness <entity> <verifier key>        one line a key, sorted; as many as there are

From then on everything that the ledger says is checked against it, without a network.

The ledger's own state names witnesses too, and `Trust.of` makes the trust that follows from it: the keys of
kind `witness` of active members, neither retired nor revoked, one group an entity. A key with a
revocation date does not count from the moment its revocation is recorded, however far off the date is. A
key that cannot cosign (another algorithm than Ed25519, or the log's own key) is left out, so that no member
can spoil finality for all by binding one; so is one whose name would be too long for a note.

Not promised: that witnesses of a trust file are still the consortium's. It says whom its reader trusts; when
the members change, hand out a new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from fedhouse.encoding import sha256
from fedhouse.errors import ConfigurationError, IntegrityError
from fedhouse.governance.checkpoints import (
    Finality,
    LogCheckpoint,
    check_finality,
    parse_checkpoint,
    required_cosignatures,
)
from fedhouse.governance.families.keys import BoundKey
from fedhouse.governance.notes import NoteKey, NoteKind, parse_note
from fedhouse.governance.proof_files import Outcome, parse_proof
from fedhouse.governance.proof_files import verify_receipt as verify_proof
from fedhouse.governance.state import State
from fedhouse.identity.keys import PublicKey
from fedhouse.identity.text import unb64

HEADER: Final = "fedhouse-trust/1"
MAX_TRUST_BYTES: Final = 2**20

_CONSORTIUM = re.compile(r"consortium ([0-9a-f]{64})")
_LOG = re.compile(r"log ([^ ]+)")
_COLLUDING = re.compile(r"colluding (0|[1-9][0-9]?)")
_WITNESS = re.compile(r"witness ([A-Za-z0-9][A-Za-z0-9_.-]{0,63}) ([^ ]+)")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a reader believes, and about which consortium.

    Raises
    ------
    IntegrityError
        If the log's key cannot sign for a log, a witness's cannot cosign, or one key stands twice.
    """

    consortium: str
    """The digest of the founding envelope: 64 hexadecimal digits."""
    origin: str
    """The log's name, which is also the name of its key."""
    log: NoteKey
    witnesses: Mapping[str, tuple[NoteKey, ...]] = field(hash=False)
    """The keys of each entity's witnesses."""
    colluding: int
    """c: so many entities may act together against the others."""

    def __post_init__(self) -> None:
        keys = [key for owned in self.witnesses.values() for key in owned]
        if self.log.name != self.origin or self.log.kind is not NoteKind.ED25519:
            raise _malformed("has a log key that does not sign for its log")
        if any(key.kind is not NoteKind.COSIGNATURE for key in keys):
            raise _malformed("has a witness whose key makes no cosignatures")
        if len({key.public.raw for key in (self.log, *keys)}) != len(keys) + 1:
            raise _malformed("has one key twice")
        ordered = {
            entity: tuple(sorted(self.witnesses[entity], key=lambda key: key.text))
            for entity in sorted(self.witnesses)
        }
        object.__setattr__(self, "witnesses", MappingProxyType(ordered))

    @classmethod
    def of(cls, state: State) -> Trust:
        """The trust that a ledger's state names.

        Raises
        ------
        IntegrityError
            If the state is of no consortium, or its charter's log key is not an Ed25519 key.
        """
        consortium = state.consortium
        if not consortium.id:
            raise IntegrityError(
                "A ledger without a founding event names nobody to trust.", mend="Fetch the ledger again."
            )
        raw = unb64(consortium.log_key, "The log's key")
        log = NoteKey(consortium.origin, NoteKind.ED25519, PublicKey("ed25519", raw))
        found: dict[str, list[NoteKey]] = {}
        for member in consortium.active():
            for bound in state.keys.of_member(member, "witness"):
                key = _witness_key(consortium.origin, bound)
                if key is not None and key.public != log.public:
                    found.setdefault(consortium.entity(member), []).append(key)
        witnesses = {entity: tuple(keys) for entity, keys in found.items()}
        return cls(consortium.id, consortium.origin, log, witnesses, consortium.colluding)

    @classmethod
    def parse(cls, data: bytes) -> Trust:
        """The trust in a file that may be hostile.

        Raises
        ------
        IntegrityError
            If it is malformed or not in its one spelling.
        """
        if len(data) > MAX_TRUST_BYTES or not data.isascii():
            raise _malformed(f"is longer than {MAX_TRUST_BYTES >> 20} MiB, or not ASCII")
        lines = data.decode("ascii").split("\n")
        if len(lines) < 5 or lines[0] != HEADER:
            raise _malformed(f"does not begin with {HEADER} and the lines that follow it")
        consortium, log, colluding = (
            pattern.fullmatch(line)
            for pattern, line in zip((_CONSORTIUM, _LOG, _COLLUDING), lines[1:4], strict=True)
        )
        if consortium is None or log is None or colluding is None:
            raise _malformed("has a malformed line consortium, log or colluding")
        key = NoteKey.parse(log[1])
        witnesses: dict[str, tuple[NoteKey, ...]] = {}
        for line in lines[4:-1]:
            found = _WITNESS.fullmatch(line)
            if found is None:
                raise _malformed("has a malformed witness line")
            witnesses[found[1]] = (*witnesses.get(found[1], ()), NoteKey.parse(found[2]))
        trust = cls(consortium[1], key.name, key, witnesses, int(colluding[1]))
        if trust.render() != data:
            raise _malformed("is not in its one spelling")
        return trust

    def render(self) -> bytes:
        """The trust file; `parse` gives the trust back."""
        witnesses = sorted(f"{entity} {key.text}" for entity, keys in self.witnesses.items() for key in keys)
        lines = (
            HEADER,
            f"consortium {self.consortium}",
            f"log {self.log.text}",
            f"colluding {self.colluding}",
            *(f"witness {witness}" for witness in witnesses),
        )
        return "".join(f"{line}\n" for line in lines).encode("ascii")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file: what two people compare over the telephone."""
        return sha256(self.render())

    def check(self, note: bytes, *, strict: bool = False) -> tuple[LogCheckpoint, Finality]:
        """The checkpoint in hostile bytes, and how many witnesses stand behind it.

        That it is final is for the caller to require; `strict` refuses signatures by unknown keys.

        Raises
        ------
        SignatureError
            If the log's signature is missing, or one by a key that is known is not good.
        IntegrityError
            If it is no checkpoint of this log, or by `strict`.
        ConfigurationError
            If no number of cosignatures could make a checkpoint final: c is not below the number of entities.
        """
        signed = parse_note(note)
        finality = check_finality(signed, self.log, self.witnesses, self.colluding, strict=strict)
        head = parse_checkpoint(signed.text)
        _ = head.fedhouse  # a head without these lines says nothing about outcomes: refused
        return head, finality

    def progress(self, note: bytes) -> Finality:
        """How far a checkpoint is from being final; never final where no number could make it so.

        Raises
        ------
        SignatureError, IntegrityError
            As `check` does.
        """
        try:
            return self.check(note)[1]
        except ConfigurationError:
            return self.nobody()

    def nobody(self) -> Finality:
        """That nobody has cosigned yet; where no number would do, more are asked for than there are."""
        entities = len(self.witnesses)
        if self.colluding >= entities:
            return Finality((), (), entities + 1)
        return Finality((), (), required_cosignatures(entities, self.colluding))


def verify_receipt(envelope: bytes, proof: bytes, trust: Trust) -> Outcome:
    """What the rules said to `envelope`, proved by a receipt file against a final checkpoint.

    Needs neither the ledger nor a network.

    Raises
    ------
    SignatureError
        If a signature is missing or not good.
    IntegrityError
        If the receipt is malformed, of another log, envelope or outcome, or its checkpoint not final.
    ConfigurationError
        If the trust makes no checkpoint final.
    """
    found = verify_proof(envelope, parse_proof(proof), trust.log, trust.witnesses, trust.colluding)
    return found.outcome


def _witness_key(origin: str, bound: BoundKey) -> NoteKey | None:
    """The verifier key of a bound key, if that may cosign now."""
    if bound.retired or bound.revoked_from is not None or bound.algorithm != "ed25519":
        return None
    try:
        return NoteKey(f"{origin}/{bound.actor}", NoteKind.COSIGNATURE, bound.public_key())
    except IntegrityError:
        return None


def _malformed(how: str) -> IntegrityError:
    return IntegrityError(
        f"A trust file {how}.", mend="Get it again from whoever vouches for it, and compare its fingerprint."
    )
