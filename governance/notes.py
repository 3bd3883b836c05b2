"""Signed notes (C2SP signed-note): a text, and lines that say who signed it.

    <text, which ends with a newline>
    <an empty line>
    — <key name> <base64 of 4 bytes of key hash and the signature>

Two kinds of signature are known. Kind 1 is Ed25519 over the text. Kind 4 is a witness's cosignature, which
carries a time (`fedhouse.governance.checkpoints`). The kind is part of what is hashed to the four bytes, so
one name may have keys of both kinds. Four bytes identify a key to those who know it and prove nothing.

Stricter than the specification, which leaves room for it:

- Names are visible ASCII: two names that look alike must not be two names. Texts have no control
  characters of Latin-1 either, which some terminals obey.
- A note has one spelling. Base64 that decodes to the same in another way is refused.
- A key signs a note once. With two lines of one key, it would be open which of them counts.
- A text may not begin like what a cosignature signs, so that neither passes for the other.

Example::

    key = NoteKey("log.example/AA", NoteKind.ED25519, signer.public)
    note = SignedNote(text, (sign_note(text, key.name, signer),))
    verify_note_signature(parse_note(note.render()), NoteKey.parse(key.text))

Source: C2SP signed-note v1.0.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final

from fedhouse.errors import FedhouseError, IntegrityError, SignatureError
from fedhouse.identity.keys import PublicKey
from fedhouse.identity.signer import Signer
from fedhouse.identity.text import b64, unb64

MAX_NOTE_BYTES: Final = 2**20
MAX_SIGNATURES: Final = 100
MAX_NAME: Final = 255
# What precedes the text in a cosignature's message; no note may begin so.
COSIGNATURE_PREFIX: Final = "cosignature/v1\n"

_NAME = re.compile(r"[!-*,-~]{1,255}")
# ASCII's and Latin-1's: a note is shown on terminals.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_LINE = re.compile(r"— ([^ ]+) ([A-Za-z0-9+/=]+)")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
_HASH_BYTES = 4
_MAX_VKEY = MAX_NAME + 64


class NoteKind(IntEnum):
    """What a key's signatures sign, by the byte that stands for it in a verifier key."""

    ED25519 = 0x01
    """The note's text."""
    COSIGNATURE = 0x04
    """A time and the text of a checkpoint: `cosignature/v1`."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key under the name by which notes call it.

    Raises
    ------
    IntegrityError
        If the name is not one of visible ASCII without `+`, or the key is not an Ed25519 key.
    """

    name: str
    kind: NoteKind
    public: PublicKey

    def __post_init__(self) -> None:
        _require_name(self.name)
        if self.public.algorithm != "ed25519":
            raise IntegrityError(
                f"Key {self.name} is of kind {self.public.algorithm}, and notes are signed by Ed25519 keys.",
                mend="Use a key that was made for a log or a witness.",
            )

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """The key in a verifier key: name, 8 hexadecimal digits, and base64 of kind and key, joined by `+`.

        Raises
        ------
        IntegrityError
            If the text is not the one spelling of a key, or its digits are not those of the key.
        """
        found = _VKEY.fullmatch(text) if len(text) <= _MAX_VKEY else None
        if found is None:
            raise _malformed_key("is not of the form name+hash+key")
        raw = unb64(found[3], "A verifier key")
        try:
            kind = NoteKind(raw[0])
        except ValueError:
            raise _malformed_key(f"is of the unknown kind {raw[0]}") from None
        try:
            key = cls(found[1], kind, PublicKey("ed25519", raw[1:]))
        except FedhouseError as error:
            raise _malformed_key("has a name or a public key that is refused") from error
        if key.text != text:
            raise _malformed_key("has other digits than its name and key give")
        return key

    @property
    def text(self) -> str:
        """The verifier key, as it is handed to those who verify."""
        return f"{self.name}+{self.key_hash.hex()}+{b64(bytes([self.kind]) + self.public.raw)}"

    @property
    def key_hash(self) -> bytes:
        """The four bytes that stand for this key in a signature line."""
        return key_hash(self.name, self.kind, self.public)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A signature line: who is said to have signed, and what they put there.

    Raises
    ------
    IntegrityError
        If no line can carry it.
    """

    name: str
    key_hash: bytes
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _require_name(self.name)
        if len(self.key_hash) != _HASH_BYTES or not self.signature:
            raise _malformed("has a signature line without a key hash or a signature")

    @property
    def line(self) -> str:
        """The line, without its newline."""
        return f"— {self.name} {b64(self.key_hash + self.signature)}"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note whose form is right. Nothing of it is known to be true until a signature is verified.

    Raises
    ------
    IntegrityError
        If text and signatures cannot be written as a note.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        _require_text(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise _malformed(f"has {len(self.signatures)} signatures, not 1 to {MAX_SIGNATURES}")
        if len({(one.name, one.key_hash) for one in self.signatures}) != len(self.signatures):
            raise _malformed("has two signatures by one key")
        if len(self.render()) > MAX_NOTE_BYTES:
            raise _malformed(f"is longer than {MAX_NOTE_BYTES >> 20} MiB")

    def render(self) -> bytes:
        """The note as bytes; `parse_note` gives it back."""
        return "".join((self.text, "\n", *(f"{one.line}\n" for one in self.signatures))).encode()

    def signature_by(self, key: NoteKey) -> NoteSignature:
        """The line that names `key`.

        Raises
        ------
        SignatureError
            If there is none.
        """
        wanted = (key.name, key.key_hash)
        for one in self.signatures:
            if (one.name, one.key_hash) == wanted:
                return one
        raise SignatureError(
            f"A note carries no signature by {key.name} with key hash {key.key_hash.hex()}.",
            mend="Ask for the signed one, or check that you hold the right verifier key.",
        )


def key_hash(name: str, kind: NoteKind, public: PublicKey) -> bytes:
    """The four bytes by which a signature line names a key."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public.raw).digest()[:_HASH_BYTES]


def parse_note(data: bytes) -> SignedNote:
    """The note in hostile bytes.

    Raises
    ------
    IntegrityError
        If they are no note, or not in the one spelling of it.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise _malformed(f"is longer than {MAX_NOTE_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8") from None
    body, gap, tail = text.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise _malformed("has no text, empty line and signatures, each ending with a newline")
    if tail.count("\n") > MAX_SIGNATURES:
        raise _malformed(f"has more than {MAX_SIGNATURES} signatures")
    return SignedNote(f"{body}\n", tuple(_parse_line(line) for line in tail[:-1].split("\n")))


def sign_note(text: str, name: str, signer: Signer) -> NoteSignature:
    """A signature of kind 1 over `text`, in the name `name`.

    Raises
    ------
    IntegrityError
        If the text cannot be a note's, the name no key's, or the signer's key is not an Ed25519 key.
    """
    _require_text(text)
    key = NoteKey(name, NoteKind.ED25519, signer.public)
    return NoteSignature(name, key.key_hash, signer.sign(text.encode()))


def verify_note_signature(note: SignedNote, key: NoteKey) -> None:
    """Check that `note` carries a good signature of kind 1 by `key`.

    Raises
    ------
    SignatureError
        If it carries none by this key, or one that is not good.
    IntegrityError
        If `key` is a witness's: its signatures are cosignatures.
    """
    require_kind(key, NoteKind.ED25519)
    key.public.verify(note.signature_by(key).signature, note.text.encode())


def require_kind(key: NoteKey, kind: NoteKind) -> None:
    """Refuse a key whose signatures are of another kind.

    Raises
    ------
    IntegrityError
        If `key` is not of this kind.
    """
    if key.kind is not kind:
        raise IntegrityError(
            f"Key {key.name} makes signatures of kind {key.kind}, and {kind} is needed here.",
            mend="A log signs with kind 1, a witness with kind 4; exchange the verifier keys.",
        )


def _parse_line(line: str) -> NoteSignature:
    found = _LINE.fullmatch(line)
    if found is None:
        raise _malformed("has a malformed signature line")
    raw = unb64(found[2], "A note's signature")
    return NoteSignature(found[1], raw[:_HASH_BYTES], raw[_HASH_BYTES:])


def _require_text(text: str) -> None:
    if not text.endswith("\n"):
        raise _malformed("has a text that does not end with a newline")
    if _CONTROL.search(text) or text.startswith(COSIGNATURE_PREFIX):
        raise _malformed("has a text with control characters or with the beginning of a cosignature")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _malformed("has a text that is not Unicode") from None


def _require_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise IntegrityError(
            f"A key's name must be 1 to {MAX_NAME} visible ASCII characters without a plus sign.",
            mend="Use something like consortium.example/AA/witness.",
        )


def _malformed(how: str) -> IntegrityError:
    return IntegrityError(f"A signed note {how}.", mend="Fetch it again; it must arrive unchanged.")


def _malformed_key(how: str) -> IntegrityError:
    return IntegrityError(f"A verifier key {how}.", mend="Copy it again from where its owner published it.")
