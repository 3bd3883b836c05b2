"""A binding is proved by the key itself, for one actor and one key."""

from __future__ import annotations

import pytest

from fedhouse.errors import ConfigurationError, SignatureError
from fedhouse.identity.binding import binding_message, check_binding, prove_binding
from fedhouse.identity.keys import ALGORITHMS
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.identity.text import b64, unb64

ACTOR = "AA/steward-1"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_proof_holds_for_its_actor_and_key_alone(algorithm: str) -> None:
    signer, other = (SoftwareSigner.insecure_from_seed(algorithm, bytes([n]) * 32) for n in (1, 2))
    proof = prove_binding(signer, ACTOR)
    check_binding(proof, ACTOR, signer.public)
    for actor, key in (
        ("AA/steward-2", signer.public),
        ("UA/steward-1", signer.public),
        (ACTOR, other.public),
    ):
        with pytest.raises(SignatureError, match="did not sign that it acts"):
            check_binding(proof, actor, key)


def test_somebody_elses_key_cannot_be_bound() -> None:
    """UA takes AA's public key and signs the binding with its own: the signature is not by that key."""
    victim, thief = (SoftwareSigner.insecure_from_seed("ed25519", bytes([n]) * 32) for n in (1, 2))
    stolen = b64(thief.sign(binding_message("UA/steward-1", victim.public)))
    with pytest.raises(SignatureError):
        check_binding(stolen, "UA/steward-1", victim.public)


def test_what_is_signed_is_fixed() -> None:
    key = SoftwareSigner.insecure_from_seed("ed25519", bytes(32)).public
    assert binding_message(ACTOR, key) == (
        b'fedhouse-key-binding/1\0{"actor":"AA/steward-1","key":{"algorithm":"ed25519",'
        b'"public":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="}}'
    )


def test_a_malformed_proof_is_a_signature_error() -> None:
    signer = SoftwareSigner.insecure_from_seed("ed25519", bytes(32))
    good = prove_binding(signer, ACTOR)
    for proof in (
        "",
        good[:-1],
        good + "\n",
        good.rstrip("="),
        b64(unb64(good, "it")[:-1]),
        None,
        "A" * 9000,
    ):
        with pytest.raises(SignatureError) as caught:
            check_binding(proof, ACTOR, signer.public)
        assert "Prove the binding anew" in caught.value.mend


@pytest.mark.parametrize("actor", ["AA", "AA/x/y", "AA/\n", ""])
def test_only_actors_are_bound(actor: str) -> None:
    signer = SoftwareSigner.insecure_from_seed("ed25519", bytes(32))
    with pytest.raises(ConfigurationError):
        prove_binding(signer, actor)
    with pytest.raises(SignatureError):
        check_binding(prove_binding(signer, ACTOR), actor, signer.public)
