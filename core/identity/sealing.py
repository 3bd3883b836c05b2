"""Delivery keys: what is sealed to one can be opened by its holder alone.

HPKE (RFC 9180) in base mode, one message a context. The key encapsulation is the hybrid of ML-KEM-768
and X25519 (X-Wing, 0x647a): what is recorded today stays closed when one of the two falls. HKDF-SHA256
and AES-256-GCM do the rest.

Sealing does not say who sealed; the envelope around it does. `info` binds a message to its place (round,
sender, receiver): opened with another `info`, it fails.

Lengths in bytes: public key 1,216 (ML-KEM 1,184, X25519 32), secret 96 (seed 64, scalar 32), sealed
message 1,136 more than its plaintext.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from fedhouse.errors import ConfigurationError, IntegrityError
from fedhouse.identity.keys import PRIME, key_id_of, require_backend
from fedhouse.identity.text import b64, unb64

SEALING_ALGORITHM: Final = "mlkem768-x25519"
SEALING_PUBLIC_BYTES: Final = 1184 + 32
SEALING_SECRET_BYTES: Final = 64 + 32
SEALED_OVERHEAD: Final = 1088 + 32 + 16
# A key share or a round's shares; a hostile message must not fill the memory.
MAX_SEALED_BYTES: Final = 64 * 2**20

_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64
_CONTEXT = b"fedhouse-sealed/1\0"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_CHANGED = "Get the key again from whoever holds it; this one was damaged, or made to deceive."


@dataclass(frozen=True, slots=True, repr=False)
class SealingPublicKey:
    """A key to seal with: 1,216 raw bytes.

    Raises
    ------
    IntegrityError
        For bytes that are no such key: of another length, not reduced, or with an X25519 part of small
        order, which would leave the secret to ML-KEM alone.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes:
            raise IntegrityError("A delivery key is no bytes.", mend=_CHANGED)
        _known(self.raw)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self.key_id})"

    @property
    def key_id(self) -> str:
        """The key's name: 64 hexadecimal digits."""
        return key_id_of(SEALING_ALGORITHM, self.raw)

    def to_json(self) -> str:
        """The key as a JSON value: a text in base64."""
        return b64(self.raw)

    @classmethod
    def from_json(cls, value: Any) -> SealingPublicKey:
        """The key from what `to_json` gave.

        Raises
        ------
        IntegrityError
            If `value` is anything else.
        """
        return cls(unb64(value, "A delivery key", longest=4096))


class SealingKey:
    """The private part of a delivery key, in this process's memory. Neither pickled nor copied."""

    __slots__ = ("_private", "_public")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self._public = SealingPublicKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> SealingKey:
        """A new key."""
        try:
            return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())
        except UnsupportedAlgorithm as error:
            raise require_backend("ML-KEM-768", error) from error

    @classmethod
    def insecure_from_seed(cls, seed: bytes) -> SealingKey:
        """The key of a chosen seed, 96 bytes: for tests and vectors, where the seed is public."""
        return cls(*private_parts(seed))

    @property
    def public(self) -> SealingPublicKey:
        """The key to seal with."""
        return self._public

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """The plaintext of what `seal` gave for this key and the same `info`.

        Raises
        ------
        IntegrityError
            If it was sealed to another key or with another `info`, or was changed.
        """
        if not SEALED_OVERHEAD <= len(sealed) <= MAX_SEALED_BYTES:
            raise _unopened(self._public)
        try:
            return _SUITE.decrypt(sealed, self._private, info=_CONTEXT + info)
        except (InvalidTag, ValueError) as error:
            raise _unopened(self._public) from error

    def __repr__(self) -> str:
        return f"SealingKey({self._public.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A delivery key is neither pickled nor copied; pass its key file's path instead.")


def seal(plaintext: bytes, to: SealingPublicKey, *, info: bytes) -> bytes:
    """`plaintext` for the holder of `to` alone, 1,136 bytes longer; `info` says what it is part of.

    Raises
    ------
    IntegrityError
        If it is too long to be opened again.
    """
    if len(plaintext) + SEALED_OVERHEAD > MAX_SEALED_BYTES:
        raise IntegrityError(
            f"A message of {len(plaintext)} bytes is too long to be sealed.", mend="Send it in parts."
        )
    return _SUITE.encrypt(plaintext, _known(to.raw), info=_CONTEXT + info)


def private_parts(secret: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """The two private keys of 96 secret bytes, which a key file holds.

    Raises
    ------
    ConfigurationError
        For another length.
    """
    if len(secret) != SEALING_SECRET_BYTES:
        raise ConfigurationError(
            f"A private delivery key has {SEALING_SECRET_BYTES} bytes.", mend="Generate a new one."
        )
    try:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED])
    except UnsupportedAlgorithm as error:
        raise require_backend("ML-KEM-768", error) from error
    return mlkem, X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:])


@lru_cache(maxsize=1024)
def _known(raw: bytes) -> MLKEM768X25519PublicKey:
    """The key ready to seal with, checked."""
    if len(raw) != SEALING_PUBLIC_BYTES:
        raise IntegrityError(
            f"A delivery key has {SEALING_PUBLIC_BYTES} bytes, not {len(raw)}.", mend=_CHANGED
        )
    if int.from_bytes(raw[_MLKEM_PUBLIC:], "little") >= PRIME:
        raise IntegrityError("A delivery key is not in its one encoding (X25519).", mend=_CHANGED)
    x25519 = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:])
    try:
        # Any secret gives zero with a point of small order, which `exchange` refuses.
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(x25519)
        mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC])
    except UnsupportedAlgorithm as error:
        raise require_backend("ML-KEM-768", error) from error
    except ValueError as error:
        raise IntegrityError("A delivery key is unsound: it is no key of its kind.", mend=_CHANGED) from error
    return MLKEM768X25519PublicKey(mlkem, x25519)


def _unopened(key: SealingPublicKey) -> IntegrityError:
    return IntegrityError(
        f"A sealed message does not open with delivery key {key.key_id[:16]}.",
        mend="It was changed, or is for another receiver or place; ask for it again.",
    )
