"""Public keys: ids, verification, and keys that must never be bound."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import EnvironmentUnfitError, IntegrityError, SignatureError, VerificationError
from fedhouse.identity.keys import ALGORITHMS, SIGNATURE_BYTES, PublicKey, key_id_of
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.identity.text import b64

# RFC 8032, section 7.1: tests 1 and 2 (secret, public, message, signature).
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]

# The points of small order in each encoding that a lenient decoder takes: eight and six more
# (the published lists of ed25519-speccheck and C2SP/CCTV).
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def _add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def _times(scalar: int, point: Point) -> Point:
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        scalar, point = scalar >> 1, _add(point, point)
    return result


def _decode(raw: bytes) -> Point | None:
    """RFC 8032, section 5.1.3, step by step."""
    number = int.from_bytes(raw, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def _encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    signer = SoftwareSigner.insecure_from_seed("ed25519", bytes.fromhex(secret))
    assert signer.public.raw.hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    signer.public.verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_key_ids_are_fixed() -> None:
    key = PublicKey("ed25519", bytes.fromhex(RFC_8032[0][1]))
    assert key.key_id == "65d62a64dddeb4ff7b69949a348e90904bee5b93464468ce8eae45cb9cee80be"
    assert key.key_id == hashlib.sha256(b"fedhouse-key/1\0ed25519\0" + key.raw).hexdigest()
    # The seed, and the beginning of the key, of the example in RFC 9881.
    quantum = SoftwareSigner.insecure_from_seed("ml-dsa-65", bytes(range(32))).public
    assert quantum.raw.hex().startswith("48683d91978e31eb3dddb8b0473482d2b88a5f625949fd8f58a561e696bd4c27")
    assert quantum.key_id == "296782bd0afcf7cac23ae2880a2aac3f6fdceef480a2c8c6e457247dbf1ec7b6"
    assert key_id_of("ml-dsa-65", key.raw) != key.key_id


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_survives_json_and_pickle(algorithm: str) -> None:
    signer = SoftwareSigner.generate(algorithm)
    for key in (
        PublicKey.from_json(json.loads(json.dumps(signer.public.to_json()))),
        pickle.loads(pickle.dumps(signer.public)),  # noqa: S301 - our own bytes
    ):
        assert key == signer.public
        assert key.key_id == signer.public.key_id
        key.verify(signer.sign(b"message"), b"message")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_is_for_one_message_by_one_key(algorithm: str) -> None:
    signer, other = (SoftwareSigner.insecure_from_seed(algorithm, bytes([n]) * 32) for n in (1, 2))
    good = signer.sign(b"message")
    assert len(good) == SIGNATURE_BYTES[algorithm]
    for signature, message in [
        (good, b"messagf"),
        (good, b""),
        (other.sign(b"message"), b"message"),
        (b"", b"message"),
        (good[:-1], b"message"),
        (good + b"\0", b"message"),
        (bytes(len(good)), b"message"),
        *((bytes([*good[:place], good[place] ^ 1, *good[place + 1 :]]), b"message") for place in (0, 40, 63)),
    ]:
        with pytest.raises(SignatureError, match=signer.public.key_id[:16]) as caught:
            signer.public.verify(signature, message)
        assert caught.value.mend


def test_a_signature_has_one_form() -> None:
    signer = SoftwareSigner.insecure_from_seed("ed25519", bytes(32))
    good = signer.sign(b"message")
    larger = int.from_bytes(good[32:], "little") + L
    with pytest.raises(SignatureError):
        signer.public.verify(good[:32] + larger.to_bytes(32, "little"), b"message")


def test_one_signature_by_a_small_order_key_serves_for_every_message() -> None:
    """Why such keys are refused: nobody signed either message."""
    identity = bytes.fromhex(SMALL_ORDER[0])
    forged = identity + bytes(32)
    for message in (b"pay AA", b"pay UA"):
        Ed25519PublicKey.from_public_bytes(identity).verify(forged, message)


def test_the_published_list_is_all_points_of_small_order_in_every_encoding() -> None:
    start = next(
        point
        for y in range(2, 100)
        if (point := _decode(y.to_bytes(32, "little"))) and _times(4 * L, point) != (0, 1)
    )
    generator = _times(L, start)
    points = {_times(n, generator) for n in range(8)}
    assert len(points) == 8
    encodings = set()
    for x, y in points:
        signs = {x & 1} if x else {0, 1}
        encodings |= {value | sign << 255 for value in (y, y + P) if value < 2**255 for sign in signs}
    assert {value.to_bytes(32, "little").hex() for value in encodings} == set(SMALL_ORDER)


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_points_of_small_order_are_no_keys(raw: str) -> None:
    with pytest.raises(IntegrityError, match=r"small order|one encoding"):
        PublicKey("ed25519", bytes.fromhex(raw))


@pytest.mark.parametrize("y", range(P, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_each_point_has_one_encoding(y: int, sign: int) -> None:
    with pytest.raises(IntegrityError, match="one encoding"):
        PublicKey("ed25519", (y | sign << 255).to_bytes(32, "little"))


@given(st.binary(min_size=32, max_size=32))
def test_exactly_the_points_of_the_curve_are_keys(raw: bytes) -> None:
    point = _decode(raw)
    if point is not None and raw.hex() not in SMALL_ORDER:
        assert _encode(point) == raw
        assert PublicKey("ed25519", raw).raw == raw
    else:
        with pytest.raises(IntegrityError):
            PublicKey("ed25519", raw)


RAW = bytes.fromhex(RFC_8032[0][1])


@pytest.mark.parametrize(
    ("algorithm", "raw"),
    [
        ("ed25519", RAW[:-1]),
        ("ed25519", RAW + b"\0"),
        ("ed25519", b""),
        ("ed25519", bytearray(RAW)),
        ("ed25519", RAW.hex()),
        ("ml-dsa-65", RAW),
        ("ml-dsa-65", bytes(1953)),
        ("ed448", RAW),
        ("Ed25519", RAW),
        ("", RAW),
        (None, RAW),
        (["ed25519"], RAW),
    ],
)
def test_what_is_no_key_is_refused(algorithm: object, raw: object) -> None:
    with pytest.raises(IntegrityError) as caught:
        PublicKey(algorithm, raw)
    assert caught.value.mend


GOOD = {"algorithm": "ed25519", "public": b64(RAW)}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "ed25519",
        {},
        {"algorithm": "ed25519"},
        GOOD | {"comment": ""},
        GOOD | {"public": RAW.hex()},
        GOOD | {"public": b64(RAW).rstrip("=")},
        GOOD | {"public": b64(RAW)[:-2] + "p="},
        GOOD | {"public": b64(RAW) + "\n"},
        GOOD | {"public": None},
        GOOD | {"public": "A" * 100_000},
        GOOD | {"algorithm": {}},
    ],
    ids=range(13),
)
def test_json_of_a_key_is_strict(value: object) -> None:
    assert PublicKey.from_json(GOOD).raw == RAW
    with pytest.raises(IntegrityError):
        PublicKey.from_json(value)


def test_a_machine_that_cannot_check_does_not_call_a_key_false(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SoftwareSigner.insecure_from_seed("ml-dsa-65", bytes([77]) * 32).public.raw
    monkeypatch.setattr(backend, "mldsa_supported", lambda: False)
    unseen = bytes([key[0] ^ 1]) + key[1:]
    for call in (
        lambda: PublicKey("ml-dsa-65", unseen),
        lambda: SoftwareSigner.generate("ml-dsa-65"),
        lambda: SoftwareSigner.insecure_from_seed("ml-dsa-65", bytes(32)),
    ):
        with pytest.raises(EnvironmentUnfitError, match=r"lacks ml-dsa-65.*wheel") as caught:
            call()
        assert not isinstance(caught.value, VerificationError)
