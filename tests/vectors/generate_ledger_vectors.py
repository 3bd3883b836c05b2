"""Write the ledger's test vectors: a small log, its signed head, a receipt for each entry, and its growth.

    python tests/vectors/generate_ledger_vectors.py [FOLDER]

The keys come from public seeds and Ed25519 draws no randomness, so the same bytes come out each time. What
the files must satisfy is checked without this script and without fedhouse: see `tests/independent`.

    log.vkey                    the log's verifier key
    witnesses.vkey              the verifier keys of its three witnesses, one a line
    entries/INDEX.json          the bytes of each entry
    proofs/INDEX.tlog-proof     the receipt of each entry: inclusion, outcome, checkpoint, cosignatures
    growth/OLD-NEW.txt          old size and root, new size and root, and the consistency proof, a line each
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedhouse.encoding import canonical_json
from fedhouse.governance.checkpoints import Extensions, LogCheckpoint, cosign
from fedhouse.governance.merkle import (
    Frontier,
    NodeReader,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
)
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, sign_note
from fedhouse.governance.proof_files import Outcome, ProofFile, ProvenOutcome
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.identity.text import b64

ORIGIN = "vectors.example/ledger"
ENTITIES = ("AA", "B6", "DL")
START = 1_790_000_000
SIZE = 13


def signer(number: int) -> SoftwareSigner:
    """The key of a public seed."""
    return SoftwareSigner.insecure_from_seed("ed25519", bytes([number]) * 32)


def tree(leaves: list[bytes]) -> NodeReader:
    """The stored nodes over these leaves."""
    frontier, nodes = Frontier(), {}
    for leaf in leaves:
        for level, index, node in frontier.append(leaf_hash(leaf)):
            nodes[level, index] = node
    return lambda level, index: nodes[level, index]


def files() -> dict[str, bytes]:
    """Every file of the vectors by its name."""
    entries = [canonical_json({"entry": index, "says": "x" * index}) for index in range(SIZE)]
    outcomes = [Outcome(START + 10 * index, "accepted" if index % 3 else "sequence") for index in range(SIZE)]
    read, read_outcome = tree(entries), tree([outcome.leaf for outcome in outcomes])

    extensions = Extensions(START + 1000, root_of(SIZE, read_outcome), leaf_hash(b"the state"))
    head = LogCheckpoint(ORIGIN, SIZE, root_of(SIZE, read), extensions.lines)
    log, witnesses = signer(1), {f"vectors.example/{name}": signer(2 + i) for i, name in enumerate(ENTITIES)}
    lines = [sign_note(head.text, ORIGIN, log)]
    lines += [cosign(head.text, name, key, START + 1001) for name, key in witnesses.items()]
    note = SignedNote(head.text, tuple(lines))

    keys = [NoteKey(name, NoteKind.COSIGNATURE, key.public).text for name, key in witnesses.items()]
    found = {
        "log.vkey": f"{NoteKey(ORIGIN, NoteKind.ED25519, log.public).text}\n".encode(),
        "witnesses.vkey": "".join(f"{key}\n" for key in keys).encode(),
    }
    for index, entry in enumerate(entries):
        extra = ProvenOutcome(outcomes[index], tuple(prove_inclusion(index, SIZE, read_outcome))).render()
        proof = ProofFile(extra, index, tuple(prove_inclusion(index, SIZE, read)), note)
        found[f"entries/{index}.json"] = entry
        found[f"proofs/{index}.tlog-proof"] = proof.render()
    for old, new in ((1, SIZE), (4, 7), (6, SIZE), (8, SIZE), (12, SIZE), (SIZE, SIZE)):
        told = [str(old), b64(root_of(old, read)), str(new), b64(root_of(new, read))]
        told += [b64(node) for node in prove_consistency(old, new, read)]
        found[f"growth/{old}-{new}.txt"] = "".join(f"{line}\n" for line in told).encode()
    return found


def main() -> None:
    """Write them into the folder that is named, or beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("ledger")
    for name, data in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
