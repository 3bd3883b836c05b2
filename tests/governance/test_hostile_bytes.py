"""Every parser of notes, keys, checkpoints and receipts, against random bytes and changed good ones.

What is read comes back as the same bytes; what is not raises a verification error and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError, SignatureError
from fedhouse.governance.checkpoints import (
    Extensions,
    LogCheckpoint,
    check_finality,
    cosign,
    parse_checkpoint,
)
from fedhouse.governance.merkle import leaf_hash, node_hash
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, parse_note, sign_note
from fedhouse.governance.proof_files import Outcome, ProofFile, ProvenOutcome, parse_outcome, parse_proof
from fedhouse.identity.signer import SoftwareSigner

ORIGIN = "consortium.example/AA"
NOW = 1_790_000_000
LOG, WITNESS = (SoftwareSigner.insecure_from_seed("ed25519", bytes([number]) * 32) for number in (1, 2))
LOG_KEY = NoteKey(ORIGIN, NoteKind.ED25519, LOG.public)
WITNESS_KEY = NoteKey("b.example", NoteKind.COSIGNATURE, WITNESS.public)

# A log of two entries.
LEAVES = [leaf_hash(b"first"), leaf_hash(b"second")]
OUTCOMES = [Outcome(NOW, "accepted"), Outcome(NOW, "four-eyes")]
OUTCOME_LEAVES = [leaf_hash(outcome.leaf) for outcome in OUTCOMES]
HEAD = LogCheckpoint(
    ORIGIN, 2, node_hash(*LEAVES), Extensions(NOW, node_hash(*OUTCOME_LEAVES), b"s" * 32).lines
)
NOTE = SignedNote(
    HEAD.text, (sign_note(HEAD.text, ORIGIN, LOG), cosign(HEAD.text, "b.example", WITNESS, NOW))
)
EXTRA = ProvenOutcome(OUTCOMES[0], (OUTCOME_LEAVES[1],)).render()
PROOF = ProofFile(EXTRA, 0, (LEAVES[1],), NOTE)

PIECES = [b"\n", b"\n\n", b" ", b"=", b"0", b"+", b'"', b"\\", b"index 1\n", "— ".encode()]


def changed(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes replaced, put in or taken out."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = data
        for start, length, new in edits:
            found = found[:start] + new + found[start + length :]
        return found

    piece = st.binary(max_size=3) | st.sampled_from(PIECES)
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 3), piece)
    return st.binary(max_size=300) | st.lists(edit, min_size=1, max_size=4).map(apply)


def changed_text(text: str) -> st.SearchStrategy[str]:
    return st.text(max_size=200) | changed(text.encode()).map(lambda data: data.decode(errors="replace"))


def reads_or_refuses(parse: Callable[[], str | bytes], data: str | bytes) -> None:
    try:
        again = parse()
    except (IntegrityError, SignatureError):
        return
    assert again == data


@given(data=changed(NOTE.render()))
@example(data=NOTE.render())
def test_notes(data: bytes) -> None:
    reads_or_refuses(lambda: parse_note(data).render(), data)


@given(text=changed_text(LOG_KEY.text))
@example(text=LOG_KEY.text)
def test_keys(text: str) -> None:
    reads_or_refuses(lambda: NoteKey.parse(text).text, text)


@given(text=changed_text(HEAD.text))
@example(text=HEAD.text)
def test_checkpoints(text: str) -> None:
    reads_or_refuses(lambda: parse_checkpoint(text).text, text)


@given(place=st.integers(0, 2), data=st.data())
def test_extension_lines(place: int, data: st.DataObject) -> None:
    line = data.draw(changed_text(HEAD.extensions[place]))
    lines = (*HEAD.extensions[:place], line, *HEAD.extensions[place + 1 :])
    reads_or_refuses(
        lambda: "\n".join(LogCheckpoint(ORIGIN, 2, HEAD.root, lines).fedhouse.lines), "\n".join(lines)
    )


@given(data=changed(PROOF.render()))
@example(data=PROOF.render())
def test_proof_files(data: bytes) -> None:
    reads_or_refuses(lambda: parse_proof(data).render(), data)


@given(data=changed(EXTRA))
@example(data=EXTRA)
def test_outcomes(data: bytes) -> None:
    reads_or_refuses(lambda: parse_outcome(data).render(), data)


@given(data=changed(NOTE.render()))
def test_no_changed_note_is_final(data: bytes) -> None:
    """A key has one valid signature for a message, so a final note has the same lines."""
    try:
        finality = check_finality(parse_note(data), LOG_KEY, {"B6": [WITNESS_KEY]}, 0, strict=True)
    except (IntegrityError, SignatureError):
        return
    assert not finality.final or data == NOTE.render()
