"""Proof that whoever binds a key to an actor has that key.

Without it a member could bind somebody else's key to an actor of its own and pass off that signer's
events as the actor's. The key signs its own binding; the text that it signs is nothing else that
fedhouse signs. The proof names no consortium: it says that key and actor belong together, and the event
that carries it, signed by an administrator, says where.
"""

from __future__ import annotations

from fedhouse.encoding import canonical_json
from fedhouse.errors import ConfigurationError, IntegrityError, SignatureError
from fedhouse.identity.actors import parse_actor
from fedhouse.identity.keys import SIGNATURE_BYTES, PublicKey
from fedhouse.identity.signer import Signer
from fedhouse.identity.text import b64, unb64

_CONTEXT = b"fedhouse-key-binding/1\0"


def binding_message(actor: str, key: PublicKey) -> bytes:
    """What the key signs so that it may act for `actor`.

    Raises
    ------
    ConfigurationError
        If `actor` is not `MEMBER/NAME`.
    """
    parse_actor(actor)
    return _CONTEXT + canonical_json({"actor": actor, "key": key.to_json()})


def prove_binding(signer: Signer, actor: str) -> str:
    """The proof that the holder of `signer` takes the part of `actor`, as base64.

    Raises
    ------
    ConfigurationError
        If `actor` is not `MEMBER/NAME`.
    """
    return b64(signer.sign(binding_message(actor, signer.public)))


def check_binding(proof: str, actor: str, key: PublicKey) -> None:
    """Check that the holder of `key` takes the part of `actor`.

    Raises
    ------
    SignatureError
        If `proof` is by another key, for another actor or key, or malformed.
    """
    mend = "Prove the binding anew with the key itself."
    longest = 4 * -(-SIGNATURE_BYTES[key.algorithm] // 3)
    try:
        signature = unb64(proof, "A proof of a key's binding", longest=longest)
        message = binding_message(actor, key)
    except (IntegrityError, ConfigurationError) as error:
        raise SignatureError(error.what, mend=mend) from error
    try:
        key.verify(signature, message)
    except SignatureError as error:
        raise SignatureError(
            f"Key {key.key_id[:16]} did not sign that it acts for {actor}.", mend=mend
        ) from error
