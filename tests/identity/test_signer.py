"""Signers hold their secret: no representation, copy or pickle gives it away."""

from __future__ import annotations

import copy
import pickle

import pytest

from fedhouse.errors import ConfigurationError
from fedhouse.identity.keys import ALGORITHMS
from fedhouse.identity.signer import SoftwareSigner

SEED = b"canary-seed-of-thirty-two-bytes!"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signer_shows_its_key_id_and_nothing_else(algorithm: str) -> None:
    signer = SoftwareSigner.insecure_from_seed(algorithm, SEED)
    shown = f"{signer} {signer!r} {[signer]} {signer.public}"
    assert signer.public.key_id in shown
    for secret in (SEED.hex(), repr(SEED), "canary"):
        assert secret not in shown
    assert not hasattr(signer, "__dict__")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, *(lambda it, p=protocol: pickle.dumps(it, p) for protocol in range(6))],
    ids=["copy", "deepcopy", *(f"pickle-{protocol}" for protocol in range(6))],
)
def test_a_signer_is_neither_pickled_nor_copied(algorithm: str, take: object) -> None:
    signer = SoftwareSigner.insecure_from_seed(algorithm, SEED)
    with pytest.raises(TypeError, match="neither pickled nor copied") as caught:
        take(signer)
    assert "canary" not in str(caught.value)


def test_new_keys_differ() -> None:
    for algorithm in ALGORITHMS:
        assert SoftwareSigner.generate(algorithm).public != SoftwareSigner.generate(algorithm).public
    assert SoftwareSigner.generate().public.algorithm == "ed25519"


@pytest.mark.parametrize("algorithm", ["rsa", "ED25519", "", None, "ed25519\n"])
def test_an_unknown_algorithm_is_refused(algorithm: object) -> None:
    with pytest.raises(ConfigurationError, match="is no algorithm for signatures"):
        SoftwareSigner.generate(algorithm)
    with pytest.raises(ConfigurationError, match="is no algorithm for signatures"):
        SoftwareSigner.insecure_from_seed(algorithm, bytes(32))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused_without_being_shown(algorithm: str, length: int) -> None:
    seed = (b"canary" * 11)[:length]
    with pytest.raises(ConfigurationError, match="A private key has 32 bytes") as caught:
        SoftwareSigner.insecure_from_seed(algorithm, seed)
    assert "canary" not in str(caught.value)
