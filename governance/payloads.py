"""Off-ledger texts, which the ledger names by salted digests: kept sealed, readable by name, erasable.

    digest = SHA-256("fedhouse-payload/1" || 0 || salt || bytes)          salt: 32 random bytes

Without the salt, a digest says nothing about a text that somebody could guess. The salt goes with the text:
when both are erased, the digest that stays on the ledger for ever is a number.

A text is encrypted once, by AES-256-GCM under a key of its own; that key is sealed to each reader by HPKE.
A file is

    "fedhouse-sealed-payload/1\\n"
    number of readers                    2 bytes, big-endian, as all numbers
    for each, sorted:  1 byte length, MEMBER/NAME, the 1,168 bytes of the sealed key
    the encrypted salt and text          to the end; authenticates everything before it, and the digest

Invariants
----------
1. A payload is given out only if it has the digest that it was asked for by.
2. A salt is drawn for each `put`, and nobody can choose it: the same text twice has two digests.
3. What was erased stays erased. A tombstone is written first and never removed; while it is there, the file
   is neither given out, nor stored again from a backup or another member, and a half-done erasure is finished
   when the store is opened.
4. What a hold protects is not erased by `follow`.

    FOLDER/<digest>.sealed
    FOLDER/<digest>.erased               a tombstone: empty

Example::

    store = PayloadStore(folder)
    reference = store.put(text, name="reason", retention="incident", readers={"AA/officer": key.public})
    store.get(reference.digest, "AA/officer", key)

Not promised: that overwriting reaches what a file system or a disk keeps of old blocks, or a backup. Whoever
must be sure keeps the folder on an encrypted volume and renews backups. Nor that a reader forgets.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedhouse.encoding import require_digest, write_atomic
from fedhouse.errors import ConfigurationError, FedhouseError, IntegrityError, PolicyRefusedError
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.event import Effect
from fedhouse.governance.retention_policy import holders
from fedhouse.governance.state import State
from fedhouse.identity.actors import parse_actor
from fedhouse.identity.sealing import SEALED_OVERHEAD, SealingKey, SealingPublicKey, seal

MAX_FILE_BYTES: Final = 16 * 2**20
MAX_READERS: Final = 256
SALT_BYTES: Final = 32

_MAGIC = b"fedhouse-sealed-payload/1\n"
_DIGEST = b"fedhouse-payload/1\0"
_KEY = b"fedhouse-payload-key/1\0"
_KEY_BYTES = 32
_SEALED_KEY = _KEY_BYTES + SEALED_OVERHEAD
_TAG_BYTES = 16
# The key encrypts one message in its life, so no nonce can come twice.
_NONCE = bytes(12)
_LABEL = re.compile(r"[a-z]+(?:-[a-z]+)*")
_GET_AGAIN = "Get it again from another reader's store, or from a backup."


@dataclass(frozen=True, slots=True)
class SealedPayload:
    """A payload's file, parsed: who can open it, and what they open. Nothing of it is known to be true."""

    keys: Mapping[str, bytes]
    """For each reader, the sealed key."""
    head: bytes
    """The bytes before the ciphertext, which it authenticates."""
    ciphertext: bytes

    @property
    def readers(self) -> tuple[str, ...]:
        """Who is said to be able to open it, sorted."""
        return tuple(self.keys)


class PayloadStore:
    """A folder of sealed payloads. Several processes may use it at once.

    Raises
    ------
    ConfigurationError
        If the folder cannot be made or listed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            erased = [path.stem for path in folder.glob("*.erased")]
        except OSError as error:
            raise ConfigurationError(
                f"The payload store {folder} cannot be opened ({error.strerror}).",
                mend="Name another folder.",
            ) from error
        for digest in erased:
            self._destroy(digest)

    def put(
        self, data: bytes, *, name: str, retention: str, readers: Mapping[str, SealingPublicKey]
    ) -> PayloadRef:
        """Store `data` for `readers`; gives what an event names it by.

        Parameters
        ----------
        name, retention
            What it is, and its retention class: lower-case words joined by hyphens.
        readers
            The delivery key of each actor that may read it. Nobody can be added later.

        Raises
        ------
        ConfigurationError
            If a label or an actor is malformed, there is no reader or too many, or `data` is too long.
        """
        for label in (name, retention):
            if len(label) > 64 or _LABEL.fullmatch(label) is None:
                raise ConfigurationError(
                    f"{label[:80]!r} is no label for a payload.", mend="Use lower-case words and hyphens."
                )
        for actor in readers:
            parse_actor(actor)
        if not 1 <= len(readers) <= MAX_READERS:
            raise ConfigurationError(
                f"A payload cannot have {len(readers)} readers.", mend=f"Name 1 to {MAX_READERS}."
            )
        salted = secrets.token_bytes(SALT_BYTES) + data
        digest = hashlib.sha256(_DIGEST + salted).hexdigest()
        sealed = _sealed(digest, salted, readers)
        if len(sealed) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"A payload of {len(data):,} bytes is too long.",
                mend=f"With its keys it may take {MAX_FILE_BYTES >> 20} MiB; store it in parts.",
            )
        self._write(digest, sealed)
        return PayloadRef(name, digest, retention)

    def get(self, digest: str, actor: str, key: SealingKey) -> bytes:
        """The payload, opened for `actor` by its delivery key.

        Raises
        ------
        PolicyRefusedError
            If it was erased, or `actor` is none of its readers.
        IntegrityError
            If it is not there, does not open, or has another digest.
        """
        payload = parse_sealed(self.sealed(digest))
        if actor not in payload.keys:
            raise PolicyRefusedError(
                f"Payload {digest[:16]} is not sealed to {actor}.", mend="Ask one of its readers for it."
            )
        data_key = key.open(payload.keys[actor], info=_info(digest, actor))
        try:
            salted = AESGCM(data_key).decrypt(_NONCE, payload.ciphertext, payload.head + digest.encode())
        except (InvalidTag, ValueError):
            raise IntegrityError(f"Payload {digest[:16]} was changed.", mend=_GET_AGAIN) from None
        if len(salted) < SALT_BYTES or hashlib.sha256(_DIGEST + salted).hexdigest() != digest:
            raise IntegrityError(
                f"What is stored as payload {digest[:16]} is another one.",
                mend="Do not rely on it. Whoever stored it could open it: ask them.",
            )
        return salted[SALT_BYTES:]

    def sealed(self, digest: str) -> bytes:
        """The payload's file as it is, for another reader's store: it stays closed to everybody else.

        Raises
        ------
        PolicyRefusedError
            If it was erased.
        IntegrityError
            If it is not there, or too long.
        """
        self._require_kept(digest)
        try:
            with self._path(digest).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise IntegrityError(
                f"Payload {digest[:16]} is not in this store ({error.strerror}).", mend=_GET_AGAIN
            ) from error
        if len(data) > MAX_FILE_BYTES:
            raise _malformed(f"is longer than {MAX_FILE_BYTES >> 20} MiB")
        return data

    def receive(self, digest: str, data: bytes) -> None:
        """Store a file that `sealed` gave elsewhere: from hostile hands, or out of a backup.

        Only its form is checked here; a reader finds out whether it is what the digest names.

        Raises
        ------
        PolicyRefusedError
            If the payload was erased here.
        IntegrityError
            If it is malformed, or another file is stored under this digest.
        """
        require_digest(digest, "A payload's name")
        parse_sealed(data)
        self._require_kept(digest)
        if self._path(digest).exists() and self.sealed(digest) != data:
            raise IntegrityError(
                f"Payload {digest[:16]} is stored already, in another form.",
                mend="Keep the one that opens; readers can tell.",
            )
        self._write(digest, data)

    def digests(self) -> tuple[str, ...]:
        """The payloads that are kept, sorted."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.sealed")))

    def erased(self, digest: str) -> bool:
        """Whether the payload was erased here."""
        return self._tombstone(digest).exists()

    def erase(self, digest: str) -> None:
        """Destroy the payload and its keys for good; erasing again, or what was never here, is no error.

        This asks no rule: `follow` does.
        """
        require_digest(digest, "A payload's name")
        if not self.erased(digest):
            self._write_file(self._tombstone(digest), b"")
        self._destroy(digest)

    def follow(self, effects: Iterable[Effect], state: State) -> tuple[str, ...]:
        """Erase what the ledger says was erased, all of it or nothing; gives the digests.

        Parameters
        ----------
        state
            The state after the events that had these effects.

        Raises
        ------
        PolicyRefusedError
            If a member holds one of them, or no event that counts has erased it.
        """
        digests = tuple(effect.subject for effect in effects if effect.kind == "erase-payload")
        for digest in digests:
            if held_by := holders(state, digest):
                raise PolicyRefusedError(
                    f"Payload {digest[:16]} is under a hold by {', '.join(held_by)}.",
                    mend="It can be erased when the hold is released.",
                )
            kept = state.retention.payloads.get(digest)
            if kept is None or not kept.erased:
                raise PolicyRefusedError(
                    f"No event of this ledger has erased payload {digest[:16]}.",
                    mend="Give the state after the event; an officer records record.payload-erased.",
                )
        for digest in digests:
            self.erase(digest)
        return digests

    def _destroy(self, digest: str) -> None:
        """Overwrite and remove the file, and what a killed writer may have left of it."""
        for path in (self._path(digest), *self._folder.glob(f".{digest}.sealed.*")):
            try:
                with path.open("r+b") as file:
                    file.write(bytes(path.stat().st_size))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise FedhouseError(
                    f"Payload {digest[:16]} could not be erased ({error.strerror}).",
                    mend=f"Make {self._folder} writable and open the store again: it finishes the erasure.",
                ) from error

    def _write(self, digest: str, data: bytes) -> None:
        self._write_file(self._path(digest), data)
        if self.erased(digest):  # erased by another process while this one wrote
            self._destroy(digest)
            self._require_kept(digest)

    def _write_file(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data, mode=0o600)
        except OSError as error:
            raise FedhouseError(
                f"{path} could not be written ({error.strerror}).", mend="Make room, or the folder writable."
            ) from error

    def _require_kept(self, digest: str) -> None:
        if self.erased(digest):
            raise PolicyRefusedError(
                f"Payload {digest[:16]} was erased.", mend="It is gone for good, and is not taken in again."
            )

    def _path(self, digest: str) -> Path:
        return self._folder / f"{require_digest(digest, 'A payload name')}.sealed"

    def _tombstone(self, digest: str) -> Path:
        return self._folder / f"{require_digest(digest, 'A payload name')}.erased"


def parse_sealed(data: bytes) -> SealedPayload:
    """The parts of a payload's file, from hostile bytes.

    Raises
    ------
    IntegrityError
        If it is malformed or not in its one form.
    """
    if len(data) > MAX_FILE_BYTES or not data.startswith(_MAGIC):
        raise _malformed(f"is longer than {MAX_FILE_BYTES >> 20} MiB, or of another format")
    count = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "big")
    if not 1 <= count <= MAX_READERS:
        raise _malformed(f"has not 1 to {MAX_READERS} readers")
    place, keys = len(_MAGIC) + 2, dict[str, bytes]()
    for _ in range(count):
        end = place + 1 + (data[place] if place < len(data) else 0)
        name, sealed = data[place + 1 : end], data[end : end + _SEALED_KEY]
        try:
            actor = "/".join(parse_actor(name.decode("ascii")))
        except (UnicodeDecodeError, ConfigurationError):
            raise _malformed("names a reader that is no actor") from None
        if len(sealed) != _SEALED_KEY or (keys and actor <= max(keys)):
            raise _malformed("is cut off, or has readers out of order or twice")
        keys[actor] = sealed
        place = end + _SEALED_KEY
    if len(data) - place < SALT_BYTES + _TAG_BYTES:
        raise _malformed("is cut off")
    return SealedPayload(keys, data[:place], data[place:])


def _sealed(digest: str, salted: bytes, readers: Mapping[str, SealingPublicKey]) -> bytes:
    """The file of a payload, encrypted under a new key."""
    data_key = secrets.token_bytes(_KEY_BYTES)
    head = _MAGIC + len(readers).to_bytes(2, "big")
    for actor in sorted(readers):
        sealed = seal(data_key, readers[actor], info=_info(digest, actor))
        head += bytes([len(actor)]) + actor.encode("ascii") + sealed
    return head + AESGCM(data_key).encrypt(_NONCE, salted, head + digest.encode())


def _info(digest: str, actor: str) -> bytes:
    """What a sealed key is for: this payload and this reader."""
    return _KEY + digest.encode() + b"\0" + actor.encode()


def _malformed(how: str) -> IntegrityError:
    return IntegrityError(f"A payload's file {how}.", mend=_GET_AGAIN)
