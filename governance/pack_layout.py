"""What stands in an evidence pack: a pure function of a ledger's entries, a checkpoint, a scope and a bundle.

    manifest.json                  what the pack covers, what it does not, and every file's digest
    checkpoint                     the signed head, with the witnesses' cosignatures
    entries/<index>.json           every entry up to the checkpoint: exact leaf bytes
    outcomes                       for each entry a line, its leaf in the tree of outcomes: time and verdict
    proofs/<index>.tlog-proof      a receipt for each entry that the scope is about
    keys/log                       the log's verifier key, as the entries name it
    keys/witnesses/<entity>/<n>    the witnesses' verifier keys, likewise, counted from 1
    bundle/                        the job's code and first weights, where they were given

The rules can be replayed from the whole ledger only, so the entries are all of it, whatever the scope. A pack
of a job holds the receipts of the job's entries, so that each can be shown alone.

Whoever verifies takes entries, outcomes, checkpoint, scope and bundle out of a pack, lays them out again and
compares every file. So no byte of a pack is free, and there is one pack of what it is made of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from fedhouse.encoding import canonical_json, parse_json, require_digest, sha256
from fedhouse.errors import IntegrityError, VerificationError
from fedhouse.governance.archive import MAX_FILES
from fedhouse.governance.checkpoints import parse_checkpoint
from fedhouse.governance.envelope import Envelope, parse_envelope
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, NodeReader, leaf_hash, prove_inclusion
from fedhouse.governance.notes import parse_note
from fedhouse.governance.proof_files import Outcome, ProofFile, ProvenOutcome
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust

FORMAT: Final = "fedhouse-evidence/1"
MANIFEST: Final = "manifest.json"
CHECKPOINT: Final = "checkpoint"
OUTCOMES: Final = "outcomes"
BUNDLE: Final = "bundle/"

_OUTCOME = re.compile(rb"(0|[1-9][0-9]{0,15}) ([a-z][a-z0-9_.-]{0,127})\n")
_ABSENT = {
    "policies": "no policy events exist in this version",
    "settlement.json": "no settlement events exist in this version",
}
_NO_BUNDLE = "the pack is not of one job, or was made without the job's files"
_NOT_COVERED = [
    "entries after the checkpoint",
    "texts that entries name by salted digests: they are kept off the ledger and may have been erased",
    "rows, updates, keys, models and metrics: the ledger has their digests",
]
_MEND = "Get the pack again, as it was written. If it stays so, whoever made it has changed it."


@dataclass(frozen=True, slots=True)
class Material:
    """What a pack is made of."""

    entries: tuple[Entry, ...]
    checkpoint: bytes
    """A signed note of exactly these entries."""
    job: str | None
    """The digest of the job that the pack is of; None for the whole ledger."""
    bundle: Mapping[str, bytes]
    """The files of the job's bundle, by their path in it; empty where it is not part of the pack."""


def lay_out(material: Material, state: State) -> dict[str, bytes]:
    """All files of a pack, by name.

    Parameters
    ----------
    state
        The state after the entries.

    Raises
    ------
    VerificationError
        If an entry or the checkpoint is malformed, or the state names no log.
    """
    envelopes = [parse_envelope(entry.envelope) for entry in material.entries]
    files = {entry_name(entry.index): entry.envelope for entry in material.entries}
    files[OUTCOMES] = b"".join(entry.outcome.leaf for entry in material.entries)
    files[CHECKPOINT] = material.checkpoint
    files |= _keys(Trust.of(state))
    files |= {f"{BUNDLE}{path}": data for path, data in material.bundle.items()}
    proven = range(len(envelopes)) if material.job is None else about_job(envelopes, material.job)
    files |= _proofs(material, proven)
    files[MANIFEST] = _manifest(material, state, len(proven), files)
    return files


def take_apart(files: Mapping[str, bytes]) -> Material:
    """What a hostile pack is said to be made of; nothing of it is known to be true.

    Raises
    ------
    IntegrityError
        If a file is missing or malformed; names it.
    """
    with naming(CHECKPOINT):
        size = parse_checkpoint(parse_note(_file(files, CHECKPOINT)).text).size
    if size > min(MAX_FILES, len(files)):
        raise IntegrityError(f"The checkpoint covers {size} entries, and fewer are in the pack.", mend=_MEND)
    outcomes = _outcomes(_file(files, OUTCOMES), size)
    return Material(
        entries=tuple(
            Entry(index, _file(files, entry_name(index)), outcome) for index, outcome in enumerate(outcomes)
        ),
        checkpoint=files[CHECKPOINT],
        job=_scope(_file(files, MANIFEST)),
        bundle={name.removeprefix(BUNDLE): data for name, data in files.items() if name.startswith(BUNDLE)},
    )


def require_same(files: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Check that a pack's files are those that its contents give.

    Raises
    ------
    IntegrityError
        Naming the first file that is missing, other, or more than there should be.
    """
    for name in files:
        if name not in expected:
            raise IntegrityError(f"{name} does not belong in this pack.", mend=_MEND)
    for name, data in expected.items():
        if _file(files, name) != data:
            raise IntegrityError(f"{name} is not what the pack's entries give.", mend=_MEND)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let verification errors say in which file of the pack they are."""
    try:
        yield
    except VerificationError as error:
        raise type(error)(f"{name}: {error.what}", mend=error.mend) from error


def entry_name(index: int) -> str:
    """The file of an entry."""
    return f"entries/{index}.json"


def about_job(envelopes: Iterable[Envelope], job: str) -> tuple[int, ...]:
    """The places of the events about a job, refused ones too.

    An event is about the job if it names it, or names an event or an off-ledger text that is about it: so
    the lifting of a stop follows the stop.
    """
    related, found = {job}, []
    for index, envelope in enumerate(envelopes):
        statement = envelope.statement
        named = {digest for _, digest in statement.subjects}
        for value in statement.body.values():
            values = value if isinstance(value, list) else [value]
            named.update(item for item in values if isinstance(item, str))
        if not related.isdisjoint(named):
            found.append(index)
            related.add(envelope.digest)
            related.update(payload.digest for payload in statement.payloads)
    return tuple(found)


def _manifest(material: Material, state: State, proofs: int, files: Mapping[str, bytes]) -> bytes:
    head = parse_checkpoint(parse_note(material.checkpoint).text)
    verdicts = Counter(entry.outcome.verdict for entry in material.entries)
    absent = _ABSENT if material.bundle else _ABSENT | {"bundle": _NO_BUNDLE}
    told: dict[str, Any] = {
        "absent": absent,
        "accepted": verdicts.pop(ACCEPTED, 0),
        "consortium": state.consortium.id,
        "files": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in sorted(files.items())},
        "format": FORMAT,
        "head": head.root.hex(),
        "job": material.job,
        "not_covered": _NOT_COVERED,
        "origin": head.origin,
        "proofs": proofs,
        "refused": dict(verdicts),
        "scope": "ledger" if material.job is None else "job",
        "size": head.size,
        "time": head.fedhouse.time,
    }
    return canonical_json(told) + b"\n"


def _scope(manifest: bytes) -> str | None:
    """The job that the manifest names. All else in it is written again and compared."""
    told = parse_json(manifest, MANIFEST)
    if not isinstance(told, dict) or told.get("format") != FORMAT or "job" not in told:
        raise IntegrityError(
            f"{MANIFEST} is not of the format {FORMAT}.", mend="Verify it with the version that wrote it."
        )
    return None if told["job"] is None else require_digest(told["job"], f"The job in {MANIFEST}")


def _keys(trust: Trust) -> dict[str, bytes]:
    found = {"keys/log": f"{trust.log.text}\n".encode("ascii")}
    for entity, keys in trust.witnesses.items():
        for number, key in enumerate(keys, start=1):
            found[f"keys/witnesses/{entity}/{number}"] = f"{key.text}\n".encode("ascii")
    return found


def _proofs(material: Material, indices: Iterable[int]) -> dict[str, bytes]:
    size, note = len(material.entries), parse_note(material.checkpoint)
    leaves = _tree(leaf_hash(entry.envelope) for entry in material.entries)
    outcomes = _tree(leaf_hash(entry.outcome.leaf) for entry in material.entries)
    found = {}
    for index in indices:
        proven = ProvenOutcome(material.entries[index].outcome, tuple(prove_inclusion(index, size, outcomes)))
        path = tuple(prove_inclusion(index, size, leaves))
        found[f"proofs/{index}.tlog-proof"] = ProofFile(proven.render(), index, path, note).render()
    return found


def _tree(leaves: Iterable[bytes]) -> NodeReader:
    frontier, nodes = Frontier(), dict[tuple[int, int], bytes]()
    for leaf in leaves:
        for level, index, node in frontier.append(leaf):
            nodes[level, index] = node
    return lambda level, index: nodes[level, index]


def _outcomes(data: bytes, size: int) -> list[Outcome]:
    found, place = [], 0
    for index in range(size):
        line = _OUTCOME.match(data, place)
        if line is None:
            raise IntegrityError(f"{OUTCOMES} has no well-formed line for entry {index}.", mend=_MEND)
        found.append(Outcome(int(line[1]), line[2].decode("ascii")))
        place = line.end()
    if place != len(data):
        raise IntegrityError(f"{OUTCOMES} has more than the lines of {size} entries.", mend=_MEND)
    return found


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise IntegrityError(f"{name} is missing from the pack.", mend=_MEND)
    return files[name]
