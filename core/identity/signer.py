"""Who signs: one contract for a key in a file and a key in a token.

A signer never gives its private key away: it has no method for it, and it cannot be pickled or copied.
What is signed is separated by its caller: DSSE, checkpoints and binding proofs begin differently.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from fedhouse.errors import ConfigurationError
from fedhouse.identity.keys import ALGORITHMS, Algorithm, PublicKey, require_backend

# Of either algorithm: what RFC 8032 calls the private key, and FIPS 204 the seed ξ.
SECRET_BYTES = 32

PrivateKey = Ed25519PrivateKey | MLDSA65PrivateKey


class Signer(Protocol):
    """A key pair that signs."""

    @property
    def public(self) -> PublicKey:
        """The key that its signatures are checked by."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: 64 bytes by Ed25519, 3,309 by ML-DSA-65."""
        ...


class SoftwareSigner:
    """A private key in this process's memory."""

    __slots__ = ("_private", "_public")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        algorithm: Algorithm = "ed25519" if isinstance(private, Ed25519PrivateKey) else "ml-dsa-65"
        self._public = PublicKey(algorithm, private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, algorithm: Algorithm = "ed25519") -> SoftwareSigner:
        """A new key.

        Raises
        ------
        ConfigurationError
            For an unknown algorithm.
        """
        require_algorithm(algorithm)
        try:
            return cls(
                Ed25519PrivateKey.generate() if algorithm == "ed25519" else MLDSA65PrivateKey.generate()
            )
        except UnsupportedAlgorithm as error:
            raise require_backend(algorithm, error) from error

    @classmethod
    def insecure_from_seed(cls, algorithm: Algorithm, seed: bytes) -> SoftwareSigner:
        """The key of a chosen seed, 32 bytes: for tests and vectors, where the seed is public."""
        return cls(private_key(algorithm, seed))

    @property
    def public(self) -> PublicKey:
        """The key that its signatures are checked by."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SoftwareSigner({self._public.algorithm} {self._public.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer is neither pickled nor copied; pass its key file's path instead.")


def require_algorithm(algorithm: str) -> None:
    """Refuse an unknown algorithm.

    Raises
    ------
    ConfigurationError
        For any but `ed25519` and `ml-dsa-65`.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"{str(algorithm)[:40]!r} is no algorithm for signatures.", mend=f"Use {' or '.join(ALGORITHMS)}."
        )


def private_key(algorithm: Algorithm, secret: bytes) -> PrivateKey:
    """The private key of 32 secret bytes, which a key file holds.

    Raises
    ------
    ConfigurationError
        For an unknown algorithm or another length.
    """
    require_algorithm(algorithm)
    if len(secret) != SECRET_BYTES:
        raise ConfigurationError(f"A private key has {SECRET_BYTES} bytes.", mend="Generate a new one.")
    if algorithm == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(secret)
    try:
        return MLDSA65PrivateKey.from_seed_bytes(secret)
    except UnsupportedAlgorithm as error:
        raise require_backend(algorithm, error) from error
