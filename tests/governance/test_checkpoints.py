"""Checkpoints, cosignatures and finality: one spelling, and what log and witnesses could try together."""

from __future__ import annotations

import base64
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import ConfigurationError, IntegrityError, SignatureError
from fedhouse.governance.checkpoints import (
    MAX_TIME,
    Extensions,
    LogCheckpoint,
    check_finality,
    cosign,
    open_checkpoint,
    parse_checkpoint,
    required_cosignatures,
    verify_cosignature,
)
from fedhouse.governance.merkle import EMPTY_ROOT
from fedhouse.governance.notes import (
    MAX_NOTE_BYTES,
    NoteKey,
    NoteKind,
    NoteSignature,
    SignedNote,
    parse_note,
    sign_note,
)
from fedhouse.identity.signer import SoftwareSigner

ORIGIN = "consortium.example/AA"
NOW = 1_790_000_000
ROOT, OUTCOMES, STATE = b"r" * 32, b"o" * 32, b"s" * 32


def signer_of(number: int) -> SoftwareSigner:
    return SoftwareSigner.insecure_from_seed("ed25519", bytes([number]) * 32)


LOG = signer_of(1)
LOG_KEY = NoteKey(ORIGIN, NoteKind.ED25519, LOG.public)
WITNESSES = {entity: signer_of(10 + place) for place, entity in enumerate(("AA", "B6", "DL", "UA", "WN"))}
HEAD = LogCheckpoint(ORIGIN, 20852163, ROOT, Extensions(NOW, OUTCOMES, STATE).lines)


def witness_key(entity: str, signer: SoftwareSigner | None = None) -> NoteKey:
    signer = signer or WITNESSES[entity]
    return NoteKey(f"consortium.example/{entity}/witness", NoteKind.COSIGNATURE, signer.public)


KEYS = {entity: [witness_key(entity)] for entity in WITNESSES}


def cosigned(*entities: str, head: LogCheckpoint = HEAD, time: int = NOW) -> SignedNote:
    lines = [sign_note(head.text, head.origin, LOG)]
    for place, entity in enumerate(entities):
        lines.append(cosign(head.text, KEYS[entity][0].name, WITNESSES[entity], time + place))
    return SignedNote(head.text, tuple(lines))


def with_line(note: SignedNote, *lines: NoteSignature) -> SignedNote:
    return SignedNote(note.text, (*note.signatures, *lines))


# --- checkpoints ---------------------------------------------------------------------------------------

SPEC_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_the_checkpoint_of_the_specification() -> None:
    head = parse_checkpoint(SPEC_TEXT)
    assert (head.origin, head.size, head.extensions) == ("example.com/behind-the-sofa", 20852163, ())
    assert head.text == SPEC_TEXT
    with pytest.raises(IntegrityError, match="time, outcomes and state"):
        _ = head.fedhouse


def test_a_checkpoint_comes_back_from_its_text() -> None:
    assert parse_checkpoint(HEAD.text) == HEAD
    assert HEAD.fedhouse == Extensions(NOW, OUTCOMES, STATE)
    empty = LogCheckpoint(ORIGIN, 0, EMPTY_ROOT, Extensions(0, EMPTY_ROOT, STATE).lines)
    assert parse_checkpoint(empty.text) == empty
    largest = LogCheckpoint(ORIGIN, 2**63 - 1, ROOT, Extensions(MAX_TIME, OUTCOMES, STATE).lines)
    assert parse_checkpoint(largest.text).fedhouse.time == MAX_TIME


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("20852163", "020852163"),
        ("20852163", "+20852163"),
        ("20852163", "-1"),
        ("20852163", " 20852163"),
        ("20852163", "20_852163"),
        ("20852163", "٢"),
        ("20852163", "9223372036854775808"),
        ("20852163", "9" * 5000),
        ("20852163", "0"),
        ("20852163", ""),
        ("q2I=\n", "q2J=\n"),
        ("q2I=\n", "q2I\n"),
        ("q2I=\n", "q2IA\n"),
        ("q2I=\n", "\n"),
        ("q2I=\n", "q2I=\n\n"),
        ("q2I=\n", "q2I="),
        ("q2I=\n", "q2I=\nx\ry\n"),
        ("example.com/behind-the-sofa", ""),
        ("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n", ""),
        ("example", "\ud800"),
        ("example", "x" * MAX_NOTE_BYTES),
    ],
)
def test_a_malformed_checkpoint_is_refused(old: str, new: str) -> None:
    assert old in SPEC_TEXT
    with pytest.raises(IntegrityError):
        parse_checkpoint(SPEC_TEXT.replace(old, new))


def b64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


T, O, S = Extensions(NOW, OUTCOMES, STATE).lines  # noqa: E741 - time, outcomes, state


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (T, O),
        (O, T, S),
        (T, O, S, S),
        (T, O, S, "more 1"),
        (T, O, O),
        (T.upper(), O, S),
        ("time 01", O, S),
        ("time -1", O, S),
        ("time 1.0", O, S),
        (f"time {2**53}", O, S),
        ("time  1", O, S),
        (T + " ", O, S),
        (T, f"outcomes {b64_of(b'o' * 31)}", S),
        (T, f"outcomes {b64_of(b'o' * 33)}", S),
        (T, O.rstrip("="), S),
        (T, O, S[:-2] + "N="),
        (T, O, f"state {STATE.hex()}"),
    ],
)
def test_other_extension_lines_are_refused(lines: tuple[str, ...]) -> None:
    head = LogCheckpoint(ORIGIN, 5, ROOT, lines)
    assert parse_checkpoint(head.text) == head
    with pytest.raises(IntegrityError):
        _ = head.fedhouse


def test_a_checkpoint_is_opened_by_the_key_of_its_own_log() -> None:
    assert open_checkpoint(cosigned(), LOG_KEY) == HEAD
    other = LogCheckpoint("other.example", 5, ROOT)
    forged = SignedNote(other.text, (sign_note(other.text, ORIGIN, LOG),))
    with pytest.raises(IntegrityError, match="another log"):
        open_checkpoint(forged, LOG_KEY)
    with pytest.raises(SignatureError):
        open_checkpoint(SignedNote(HEAD.text, cosigned("AA").signatures[1:]), LOG_KEY)
    with pytest.raises(IntegrityError):
        open_checkpoint(SignedNote("a\n", (sign_note("a\n", ORIGIN, LOG),)), LOG_KEY)


# --- cosignatures --------------------------------------------------------------------------------------


def test_a_cosignature_has_its_time() -> None:
    note = parse_note(cosigned("AA", "B6").render())
    assert verify_cosignature(note, witness_key("AA")) == NOW
    assert verify_cosignature(note, witness_key("B6")) == NOW + 1
    with pytest.raises(SignatureError):
        verify_cosignature(note, witness_key("DL"))
    with pytest.raises(IntegrityError, match="kind"):
        verify_cosignature(note, LOG_KEY)


def test_a_cosignature_is_of_the_specified_message() -> None:
    line = cosign(HEAD.text, "w.example", WITNESSES["AA"], NOW)
    message = b"cosignature/v1\ntime 1790000000\n" + HEAD.text.encode()
    assert line.signature == NOW.to_bytes(8, "big") + WITNESSES["AA"].sign(message)


def test_a_changed_cosignature_is_refused() -> None:
    note = cosigned("AA")
    line = note.signatures[1]
    for signature in (
        (NOW + 1).to_bytes(8, "big") + line.signature[8:],
        line.signature[:8] + line.signature[9:] + b"\0",
        WITNESSES["AA"].sign(HEAD.text.encode()),
        line.signature[8:],
        line.signature + b"\0",
        line.signature[:4],
        (2**63).to_bytes(8, "big")
        + WITNESSES["AA"].sign(f"cosignature/v1\ntime {2**63}\n{HEAD.text}".encode()),
    ):
        forged = NoteSignature(line.name, line.key_hash, signature)
        with pytest.raises((IntegrityError, SignatureError)):
            verify_cosignature(SignedNote(note.text, (forged,)), witness_key("AA"))
    with pytest.raises(SignatureError):
        verify_cosignature(SignedNote(SPEC_TEXT, note.signatures), witness_key("AA"))


def test_a_key_of_another_algorithm_does_not_cosign() -> None:
    with pytest.raises(IntegrityError, match="Ed25519"):
        cosign(HEAD.text, "w.example", SoftwareSigner.insecure_from_seed("ml-dsa-65", b"w" * 32), NOW)


def test_only_checkpoints_are_cosigned_at_possible_times() -> None:
    for text, time in (("a\n", NOW), ("", NOW), (HEAD.text, -1), (HEAD.text, 2**63)):
        with pytest.raises(IntegrityError):
            cosign(text, "w.example", WITNESSES["AA"], time)


def test_no_note_can_be_signed_that_would_pass_for_a_cosignature() -> None:
    """A log whose origin is the first line of a cosignature's message."""
    head = LogCheckpoint("cosignature/v1", 5, ROOT)
    with pytest.raises(IntegrityError):
        sign_note(head.text, "cosignature/v1", LOG)


# --- finality ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "c", "required"),
    [
        (1, 0, 1),
        (2, 0, 2),
        (3, 0, 3),
        (4, 0, 3),
        (4, 1, 3),
        (4, 2, 4),
        (5, 0, 4),
        (7, 2, 5),
        (7, 4, 6),
        (12, 3, 9),
    ],
)
def test_known_numbers_of_cosignatures(n: int, c: int, required: int) -> None:
    assert required_cosignatures(n, c) == required


@given(n=st.integers(1, 10**6), data=st.data())
def test_required_is_the_least_integer_above_both_bounds(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n - 1))
    required = required_cosignatures(n, c)
    bound = max(Fraction(2 * n, 3), Fraction(n + c, 2))
    assert required - 1 <= bound < required <= n
    # Two sets of this many have more than c entities in common.
    assert 2 * required - n > c


@pytest.mark.parametrize(("n", "c"), [(0, 0), (3, 3), (3, 4), (3, -1), (1, 1)])
def test_numbers_that_no_cosignatures_satisfy_are_refused(n: int, c: int) -> None:
    with pytest.raises(ConfigurationError):
        required_cosignatures(n, c)


def test_final_when_enough_entities_have_cosigned() -> None:
    for count in range(6):
        entities = tuple(WITNESSES)[:count]
        finality = check_finality(cosigned(*entities), LOG_KEY, KEYS, 1, strict=True)
        assert finality.cosigners == entities
        assert finality.times == tuple(range(NOW, NOW + count))
        assert finality.required == 4
        assert finality.final is (count >= 4)
        if count >= 4:
            finality.require()
        else:
            with pytest.raises(IntegrityError, match=f"{count} entities .* 4 make it final"):
                finality.require()


def test_an_entity_counts_once_whatever_number_of_keys_it_uses() -> None:
    second = signer_of(30)
    keys = {
        **KEYS,
        "AA": [*KEYS["AA"], NoteKey("consortium.example/AA/second", NoteKind.COSIGNATURE, second.public)],
    }
    note = cosigned("AA", "B6", "DL")
    note = with_line(note, cosign(HEAD.text, "consortium.example/AA/second", second, NOW - 9))
    finality = check_finality(note, LOG_KEY, keys, 1, strict=True)
    assert finality.cosigners == ("AA", "B6", "DL")
    assert finality.times == (NOW - 9, NOW + 1, NOW + 2)
    assert not finality.final


def test_one_key_never_counts_for_two() -> None:
    """B6 binds AA's public key under its own name, and shows AA's cosignature a second time."""
    stolen = witness_key("B6", WITNESSES["AA"])
    keys = {**KEYS, "B6": [stolen]}
    note = cosigned("AA", "DL", "UA")
    copied = NoteSignature(stolen.name, stolen.key_hash, note.signatures[1].signature)
    assert verify_cosignature(with_line(note, copied), stolen) == NOW
    with pytest.raises(IntegrityError, match="One key stands for two"):
        check_finality(with_line(note, copied), LOG_KEY, keys, 1)
    with pytest.raises(IntegrityError, match="One key stands for two"):
        check_finality(note, LOG_KEY, {**KEYS, "B6": [witness_key("B6", LOG)]}, 1)
    with pytest.raises(IntegrityError, match="One key stands for two"):
        check_finality(note, LOG_KEY, {**KEYS, "B6": KEYS["AA"]}, 1)
    with pytest.raises(IntegrityError, match="kind"):
        check_finality(
            note, LOG_KEY, {**KEYS, "B6": [NoteKey("b.example", NoteKind.ED25519, signer_of(3).public)]}, 1
        )


def test_an_entity_without_a_key_counts_among_the_n() -> None:
    finality = check_finality(cosigned("AA", "B6", "DL"), LOG_KEY, {**KEYS, "WN": [], "UA": [], "NK": []}, 0)
    assert finality.required == 5
    assert not finality.final


def test_a_bad_line_by_a_known_key_refuses_the_note() -> None:
    note = cosigned("AA", "B6", "DL", "UA")
    key = KEYS["WN"][0]
    for signature in (b"\0" * 72, note.signatures[1].signature, b"\0"):
        bad = with_line(note, NoteSignature(key.name, key.key_hash, signature))
        with pytest.raises((SignatureError, IntegrityError)):
            check_finality(bad, LOG_KEY, KEYS, 1)
    unsigned = SignedNote(note.text, note.signatures[1:])
    with pytest.raises(SignatureError):
        check_finality(unsigned, LOG_KEY, KEYS, 1)


def test_a_line_by_an_unknown_key_is_ignored_or_refused() -> None:
    note = cosigned("AA", "B6", "DL", "UA")
    stranger = cosign(HEAD.text, "w.example", signer_of(40), NOW)
    same_name = NoteSignature(KEYS["WN"][0].name, b"\0\0\0\0", b"\0" * 72)
    same_hash = NoteSignature("w.example", KEYS["WN"][0].key_hash, b"\0" * 72)
    for line in (stranger, same_name, same_hash):
        more = with_line(note, line)
        assert check_finality(more, LOG_KEY, KEYS, 1) == check_finality(note, LOG_KEY, KEYS, 1)
        with pytest.raises(IntegrityError, match="1 signatures by keys that are not known"):
            check_finality(more, LOG_KEY, KEYS, 1, strict=True)
