"""Signed notes and verifier keys: one spelling each, and what attackers would try."""

from __future__ import annotations

import base64

import pytest

from fedhouse.errors import IntegrityError, SignatureError
from fedhouse.governance.notes import (
    MAX_NOTE_BYTES,
    NoteKey,
    NoteKind,
    NoteSignature,
    SignedNote,
    parse_note,
    sign_note,
    verify_note_signature,
)
from fedhouse.identity.signer import SoftwareSigner

ORIGIN = "consortium.example/AA"


def signer_of(number: int) -> SoftwareSigner:
    return SoftwareSigner.insecure_from_seed("ed25519", bytes([number]) * 32)


LOG = signer_of(1)
LOG_KEY = NoteKey(ORIGIN, NoteKind.ED25519, LOG.public)
WITNESS_KEY = NoteKey("consortium.example/B6/witness", NoteKind.COSIGNATURE, signer_of(10).public)


# --- notes ---------------------------------------------------------------------------------------------

# The example of C2SP signed-note's predecessor, the documentation of golang.org/x/mod/sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_published_note_verifies() -> None:
    key = NoteKey.parse(GO_VKEY)
    note = parse_note(GO_NOTE.encode())
    verify_note_signature(note, key)
    assert note.render() == GO_NOTE.encode()
    assert key.text == GO_VKEY
    with pytest.raises(SignatureError):
        verify_note_signature(parse_note(GO_NOTE.replace("your", "our", 1).encode()), key)


def test_a_note_comes_back_from_its_bytes() -> None:
    for text in (
        "a line\n",
        "\n",
        "two\n\nparts\n",
        "ends empty\n\n",
        "grün \N{EN DASH} 雪\n",
        "— x AAAAAAA=\n",
    ):
        note = SignedNote(text, (sign_note(text, ORIGIN, LOG), sign_note(text, "b.example", signer_of(2))))
        again = parse_note(note.render())
        assert again == note
        verify_note_signature(again, LOG_KEY)


def test_a_note_by_somebody_else_or_of_another_text_is_refused() -> None:
    note = SignedNote("a\n", (sign_note("a\n", ORIGIN, LOG),))
    for name, signer in (("other.example", LOG), (ORIGIN, signer_of(2))):
        with pytest.raises(SignatureError, match="carries no signature by"):
            verify_note_signature(note, NoteKey(name, NoteKind.ED25519, signer.public))
    with pytest.raises(SignatureError):
        verify_note_signature(SignedNote("b\n", note.signatures), LOG_KEY)
    with pytest.raises(IntegrityError, match="kind"):
        verify_note_signature(note, WITNESS_KEY)
    for signature in (b"\0", b"\0" * 64, note.signatures[0].signature + b"\0"):
        forged = NoteSignature(ORIGIN, LOG_KEY.key_hash, signature)
        with pytest.raises(SignatureError):
            verify_note_signature(SignedNote("a\n", (forged,)), LOG_KEY)


GOOD = SignedNote(
    "a\nb\n", (sign_note("a\nb\n", ORIGIN, LOG), sign_note("a\nb\n", "b.example", signer_of(2)))
)
LINE = GOOD.signatures[0].line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n",
        "a\n\n",
        "a\n\n\n",
        f"a\n{LINE}\n",
        f"a\n\n{LINE}",
        f"\n{LINE}\n",
        f"a\n\n{LINE}\n{LINE}\n",
        f"a\r\n\r\n{LINE}\r\n",
        f"a\x00\n\n{LINE}\n",
        f"a\tb\n\n{LINE}\n",
        f"a\x7f\n\n{LINE}\n",
        f"a\x9b2J\n\n{LINE}\n",
        f"a\n\n {LINE}\n",
        f"a\n\n{LINE} \n",
        f"a\n\n{LINE.replace(' ', '  ', 1)}\n",
        f"a\n\n{LINE.replace(' ', chr(0xA0), 1)}\n",
        f"a\n\n{LINE.replace('—', chr(0x2013))}\n",
        f"a\n\n{LINE.replace('—', '-')}\n",
        f"a\n\n{LINE.replace('example', 'example+x')}\n",
        f"a\n\n{LINE.replace('consortium', 'consort' + chr(0x131) + 'um')}\n",
        f"a\n\n{LINE.replace(ORIGIN, 'x' * 256)}\n",
        f"a\n\n{LINE[:-1]}\n",
        f"a\n\n{LINE}=\n",
        f"a\n\n{LINE} AAAA\n",
        "a\n\n— b.example AAAAAA==\n",
        "a\n\n— b.example AAAAAAB=\n",
        "a\n\n— b.example AAA_AAA=\n",
        "a\n\n— b.example \n",
        "a\n\n—  AAAAAAA=\n",
        f"cosignature/v1\ntime 5\na\n\n{LINE}\n",
        "a\n\n" + "".join(f"— n{number} AAAAAAA=\n" for number in range(101)),
        "a" * MAX_NOTE_BYTES + f"\n\n{LINE}\n",
    ],
)
def test_a_malformed_note_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        parse_note(text.encode())


def test_a_note_of_100_signatures_is_read() -> None:
    lines = "".join(f"— n{number} AAAAAAA=\n" for number in range(100))
    assert len(parse_note(f"a\n\n{lines}".encode()).signatures) == 100


def test_what_could_not_be_read_is_neither_built_nor_signed() -> None:
    for text in ("", "a", "a\x1b\n", "cosignature/v1\nx\n", "\ud800\n"):
        with pytest.raises(IntegrityError):
            sign_note(text, ORIGIN, LOG)
        with pytest.raises(IntegrityError):
            SignedNote(text, GOOD.signatures)
    for lines in ((), GOOD.signatures[:1] * 2, GOOD.signatures * 60):
        with pytest.raises(IntegrityError):
            SignedNote("a\n", lines)
    for name, digest, signature in (
        ("", b"aaaa", b"s"),
        ("a b", b"aaaa", b"s"),
        ("a", b"aaa", b"s"),
        ("a", b"aaaa", b""),
    ):
        with pytest.raises(IntegrityError):
            NoteSignature(name, digest, signature)
    with pytest.raises(IntegrityError, match="1 MiB"):
        SignedNote("a\n", (NoteSignature("a", b"aaaa", b"s" * MAX_NOTE_BYTES),))


# --- verifier keys -------------------------------------------------------------------------------------


def test_a_key_comes_back_from_its_text() -> None:
    for key in (LOG_KEY, WITNESS_KEY):
        assert NoteKey.parse(key.text) == key
    assert LOG_KEY.key_hash != NoteKey(ORIGIN, NoteKind.COSIGNATURE, LOG.public).key_hash
    assert LOG_KEY.key_hash != NoteKey("other.example", NoteKind.ED25519, LOG.public).key_hash


def vkey(
    name: str = ORIGIN, digits: str = LOG_KEY.key_hash.hex(), raw: bytes = b"\x01" + LOG.public.raw
) -> str:
    return f"{name}+{digits}+{base64.b64encode(raw).decode()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "++",
        vkey() + "\n",
        vkey() + "=",
        vkey(name=""),
        vkey(name="a b"),
        vkey(name="other.example"),
        vkey(name="x" * 256),
        vkey(name="consort\u0131um.example/AA"),
        vkey(digits="00000000"),
        vkey(digits=LOG_KEY.key_hash.hex().upper()),
        vkey(digits=LOG_KEY.key_hash.hex()[:7]),
        vkey(raw=b"\x04" + LOG.public.raw),
        vkey(raw=b"\x02" + LOG.public.raw),
        vkey(raw=b"\x01" + LOG.public.raw[:31]),
        vkey(raw=b"\x01" + LOG.public.raw + b"\0"),
        vkey(raw=b""),
        vkey(raw=b"\x01" + b"\x01" + b"\0" * 31),
        vkey()[:-1],
        vkey().replace("+", " ", 1),
    ],
)
def test_a_malformed_key_is_refused(text: str) -> None:
    assert vkey() == LOG_KEY.text
    with pytest.raises(IntegrityError):
        NoteKey.parse(text)


def test_a_key_of_another_algorithm_signs_no_notes() -> None:
    signer = SoftwareSigner.insecure_from_seed("ml-dsa-65", b"\x07" * 32)
    with pytest.raises(IntegrityError, match="Ed25519"):
        NoteKey(ORIGIN, NoteKind.ED25519, signer.public)
    with pytest.raises(IntegrityError, match="Ed25519"):
        sign_note("a\n", ORIGIN, signer)
