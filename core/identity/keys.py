"""Public keys: what a signature is checked by, and the name of a key.

A key's id is a SHA-256 over its algorithm and its raw bytes, so it names both. Two algorithms serve:
Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204, pure, empty context).

An Ed25519 key that has no secret is refused: for a point of small order a signature can be made that
verifies for many messages, so nobody could be held to what such a key signed. So are other encodings of
a point, and bytes that are no point. Keys with a component of small order pass: they need their secret
as any key does, and the check here is the one without cofactor, the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, get_args

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from fedhouse.errors import EnvironmentUnfitError, IntegrityError, SignatureError
from fedhouse.identity.text import b64, unb64

Algorithm = Literal["ed25519", "ml-dsa-65"]

ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
PUBLIC_BYTES: Final[Mapping[str, int]] = {"ed25519": 32, "ml-dsa-65": 1952}
SIGNATURE_BYTES: Final[Mapping[str, int]] = {"ed25519": 64, "ml-dsa-65": 3309}

# The prime of Curve25519, and d of its Edwards form (RFC 8032, section 5.1).
PRIME: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, PRIME) % PRIME
# One y of order 8; the other is its negative. Each of the five y below is that of all the points of small
# order, whatever the sign of x: eight points, and the two more encodings that a set sign at x = 0 gives.
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y: Final = frozenset({0, 1, PRIME - 1, _ORDER_8, PRIME - _ORDER_8})

_CHANGED = "Get the key again from whoever holds it; this one was damaged, or made to deceive."


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A key that signatures are checked by: its algorithm and its raw bytes.

    Raises
    ------
    IntegrityError
        For bytes that are no key of the algorithm, or one that must not be trusted (see the module).
    """

    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS or type(self.raw) is not bytes:
            raise IntegrityError("A public key is of no known algorithm.", mend=_CHANGED)
        _known(self.algorithm, self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.algorithm} {self.key_id})"

    @property
    def key_id(self) -> str:
        """The key's name: 64 hexadecimal digits."""
        return _known(self.algorithm, self.raw).key_id

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check that `signature` is by this key over `message`.

        Raises
        ------
        SignatureError
            Otherwise.
        """
        try:
            _known(self.algorithm, self.raw).key.verify(signature, message)
        except InvalidSignature as error:
            raise SignatureError(
                f"A signature is not by key {self.key_id[:16]} over what it came with.",
                mend="Fetch it again; if it fails again, it was changed or is another's: do not use it.",
            ) from error

    def to_json(self) -> dict[str, str]:
        """The key as a JSON value."""
        return {"algorithm": self.algorithm, "public": b64(self.raw)}

    @classmethod
    def from_json(cls, value: Any) -> PublicKey:
        """The key from what `to_json` gave.

        Raises
        ------
        IntegrityError
            If `value` is anything else.
        """
        if not isinstance(value, dict) or value.keys() != {"algorithm", "public"}:
            raise IntegrityError("A public key needs exactly 'algorithm' and 'public'.", mend=_CHANGED)
        return cls(value["algorithm"], unb64(value["public"], "A public key", longest=4096))


def key_id_of(algorithm: str, raw: bytes) -> str:
    """The id of a key: SHA-256 over algorithm and raw bytes, 64 hexadecimal digits."""
    return hashlib.sha256(b"fedhouse-key/1\0" + algorithm.encode("ascii") + b"\0" + raw).hexdigest()


def require_backend(algorithm: str, error: UnsupportedAlgorithm) -> EnvironmentUnfitError:
    """The error for a build of `cryptography` that lacks an algorithm.

    It is never a `VerificationError`: what this machine cannot check is not thereby false.
    """
    return EnvironmentUnfitError(
        f"The installed package 'cryptography' lacks {algorithm} ({type(error).__name__}).",
        mend="Install its wheel for this platform, which brings OpenSSL 3.5 or later.",
    )


class _Known(NamedTuple):
    key_id: str
    key: Ed25519PublicKey | MLDSA65PublicKey


# A ledger is checked by a few hundred keys, a hundred thousand times.
@lru_cache(maxsize=4096)
def _known(algorithm: Algorithm, raw: bytes) -> _Known:
    """The key ready to verify with. Every use comes through here, so none escapes the checks."""
    if len(raw) != PUBLIC_BYTES[algorithm]:
        raise IntegrityError(
            f"A public key of {algorithm} has {PUBLIC_BYTES[algorithm]} bytes, not {len(raw)}.", mend=_CHANGED
        )
    key: Ed25519PublicKey | MLDSA65PublicKey
    if algorithm == "ed25519":
        _require_sound_point(raw)
        key = Ed25519PublicKey.from_public_bytes(raw)
    else:
        try:
            key = MLDSA65PublicKey.from_public_bytes(raw)
        except UnsupportedAlgorithm as error:
            raise require_backend(algorithm, error) from error
    return _Known(key_id_of(algorithm, raw), key)


def _require_sound_point(raw: bytes) -> None:
    """Refuse an Ed25519 key that is of small order, not in its one encoding, or no point of the curve."""
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    if y >= PRIME:
        raise IntegrityError("An Ed25519 key is not in its one encoding (y is not reduced).", mend=_CHANGED)
    if y in _SMALL_ORDER_Y:
        raise IntegrityError("An Ed25519 key is a point of small order: it has no secret.", mend=_CHANGED)
    # x² = (y² - 1) / (d·y² + 1) must be a square; Euler's criterion, with a product for the quotient.
    square = (y * y - 1) * (_D * y * y + 1) % PRIME
    if pow(square, (PRIME - 1) // 2, PRIME) != 1:
        raise IntegrityError("An Ed25519 key is no point of the curve.", mend=_CHANGED)
