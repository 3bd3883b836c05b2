"""Sealing: what opens and what does not, and the wire format against RFC 9180 step by step."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.errors import ConfigurationError, EnvironmentUnfitError, IntegrityError
from fedhouse.identity import sealing
from fedhouse.identity.sealing import (
    SEALED_OVERHEAD,
    SEALING_PUBLIC_BYTES,
    SealingKey,
    SealingPublicKey,
    seal,
)

SEED = b"canary-seed!" * 8
KEY = SealingKey.insecure_from_seed(SEED)
OTHER = SealingKey.insecure_from_seed(bytes(96))
INFO = b"round 3, AA to UA"

# u-coordinates of small order on Curve25519 (RFC 7748, section 6.1; all of them below the prime).
SMALL_ORDER_U = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def _open_by_the_book(sealed: bytes, seed: bytes, info: bytes) -> bytes:
    """HPKE base mode (RFC 9180, sections 4 and 5) with X-Wing, from its parts."""
    suite = b"HPKE" + bytes.fromhex("647a00010002")
    mlkem, x25519 = (
        MLKEM768PrivateKey.from_seed_bytes(seed[:64]),
        X25519PrivateKey.from_private_bytes(seed[64:]),
    )
    ct_m, ct_x, box = sealed[:1088], sealed[1088:1120], sealed[1120:]
    parts = [
        mlkem.decapsulate(ct_m),
        x25519.exchange(X25519PublicKey.from_public_bytes(ct_x)),
        ct_x,
        x25519.public_key().public_bytes_raw(),
        rb"\.//^\ "[:-1],
    ]
    shared = hashlib.sha3_256(b"".join(parts)).digest()

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    def expand(key: bytes, label: bytes, context: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(key, labelled + b"\1", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, box, b"")


@settings(max_examples=20)
@given(plaintext=st.binary(max_size=300), info=st.binary(max_size=60))
def test_what_is_sealed_opens_by_us_and_by_the_book(plaintext: bytes, info: bytes) -> None:
    sealed = seal(plaintext, KEY.public, info=info)
    assert len(sealed) == len(plaintext) + SEALED_OVERHEAD
    assert KEY.open(sealed, info=info) == plaintext
    assert _open_by_the_book(sealed, SEED, b"fedhouse-sealed/1\0" + info) == plaintext


def test_what_is_sealed_twice_differs() -> None:
    assert seal(b"share", KEY.public, info=INFO) != seal(b"share", KEY.public, info=INFO)


def test_it_opens_by_one_key_in_one_place() -> None:
    sealed = seal(b"canary-share", KEY.public, info=INFO)
    for key, info in ((OTHER, INFO), (KEY, b"round 4, AA to UA"), (KEY, b""), (KEY, INFO + b"\0")):
        with pytest.raises(IntegrityError, match=key.public.key_id[:16]) as caught:
            key.open(sealed, info=info)
        assert "canary" not in str(caught.value)


def test_a_changed_message_does_not_open() -> None:
    sealed = seal(b"share", KEY.public, info=INFO)
    places = [*range(0, len(sealed), 37), 1087, 1088, 1119, 1120, len(sealed) - 1]
    changed = [sealed[:place] + bytes([sealed[place] ^ 0x80]) + sealed[place + 1 :] for place in places]
    swapped = sealed[:1088] + bytes(32) + sealed[1120:]
    for other in (*changed, swapped, sealed[:-1], sealed + b"\0", sealed[: SEALED_OVERHEAD - 1], b""):
        with pytest.raises(IntegrityError, match="does not open"):
            KEY.open(other, info=INFO)


def test_what_is_too_long_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_SEALED_BYTES", SEALED_OVERHEAD + 5)
    longest = seal(b"share", KEY.public, info=INFO)
    assert KEY.open(longest, info=INFO) == b"share"
    with pytest.raises(IntegrityError, match="too long to be sealed"):
        seal(b"shares", KEY.public, info=INFO)
    with pytest.raises(IntegrityError, match="does not open"):
        KEY.open(longest + b"\0", info=INFO)


def test_a_public_key_survives_json_and_has_a_fixed_id() -> None:
    assert SealingPublicKey.from_json(KEY.public.to_json()) == KEY.public
    assert OTHER.public.key_id == "8ff5e30042a5521f74b706cd667dfe520187ce7a6b9e8431843588efdd805b2c"
    assert (
        OTHER.public.key_id
        == hashlib.sha256(b"fedhouse-key/1\0mlkem768-x25519\0" + OTHER.public.raw).hexdigest()
    )
    assert len(OTHER.public.raw) == SEALING_PUBLIC_BYTES
    assert SealingKey.generate().public != SealingKey.generate().public


def test_unsound_public_keys_are_refused() -> None:
    good = KEY.public.raw
    unreduced = (2**255 - 19 + 9).to_bytes(32, "little")
    signed = good[1184:-1] + bytes([good[-1] | 0x80])
    bad = [
        *(good[:1184] + u for u in (*SMALL_ORDER_U, unreduced, signed, b"\xff" * 32)),
        b"\xff" * 1184 + good[1184:],
        good[:-1],
        good + b"\0",
        b"",
        bytearray(good),
        good.hex(),
    ]
    for raw in bad:
        with pytest.raises(IntegrityError, match="delivery key") as caught:
            SealingPublicKey(raw)
        assert caught.value.mend


def test_json_of_a_public_key_is_strict() -> None:
    good = KEY.public.to_json()
    for value in (
        None,
        {"public": good},
        good + "\n",
        good[:-4],
        good.replace("+", "-"),
        "A" * 5000,
        KEY.public.raw,
    ):
        if value != good:
            with pytest.raises(IntegrityError):
                SealingPublicKey.from_json(value)


def test_a_private_key_is_neither_shown_nor_pickled_nor_copied() -> None:
    shown = f"{KEY} {KEY!r} {KEY.public!r}"
    assert KEY.public.key_id in shown
    assert "canary" not in shown
    assert SEED.hex()[:16] not in shown
    assert not hasattr(KEY, "__dict__")
    for take in (copy.copy, copy.deepcopy, pickle.dumps, lambda key: pickle.dumps([key], 0)):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(KEY)


@pytest.mark.parametrize("length", [0, 64, 95, 97])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError, match="has 96 bytes"):
        SealingKey.insecure_from_seed(bytes(length))


def test_a_machine_without_ml_kem_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = SealingKey.generate().public.raw
    sealing._known.cache_clear()
    monkeypatch.setattr(backend, "mlkem_supported", lambda: False)
    for call in (
        lambda: SealingPublicKey(raw),
        SealingKey.generate,
        lambda: SealingKey.insecure_from_seed(bytes(96)),
    ):
        with pytest.raises(EnvironmentUnfitError, match=r"lacks ML-KEM-768.*wheel"):
            call()
