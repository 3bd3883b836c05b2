"""Evidence packs: one file that shows what happened, and proves it without a network or anybody's server.

    build_pack(ledger, job=digest, bundle_folder=folder, out=Path("evidence.zip"), trust=trust)
    report = verify_pack(Path("evidence.zip"), trust)

`fedhouse.governance.pack_layout` says what stands in a pack, `fedhouse.governance.archive` in which bytes.

Verifying is more than comparing digests. The entries are replayed: encodings, signatures, rules, verdicts,
both trees. The checkpoint must be of exactly what was replayed, signed by the log and final by its witnesses;
the bundle must be the one that the job names; every receipt, key and line of the manifest must be what the
entries give. Checks come in this order, and the first that fails names its file or entry.

Whom to believe is the reader's to say, by a trust file that came another way than the pack:

- With it, the pack must be of that consortium and that log, and final by the witnesses in the file. A
  consortium's witnesses change; those that the file does not name must sign well and do not count. So an old
  pack still verifies with a new file, as long as enough witnesses are in both.
- Without it, all is checked against the keys that the entries themselves name. Whoever makes up a whole
  consortium passes this: the answer is "consistent, origin unchecked", and `PackReport.fingerprint` is what
  to compare with somebody who knows.

Not shown by a pack: that the ledger has no later entries. Its checkpoint's time says of when it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedhouse.bundle import Bundle
from fedhouse.encoding import canonical_json, digest_of, parse_json, sha256, write_atomic
from fedhouse.errors import ConfigurationError, IntegrityError, VerificationError
from fedhouse.governance.archive import MAX_ARCHIVE_BYTES, pack_archive, unpack_archive
from fedhouse.governance.checkpoints import Finality, LogCheckpoint, check_finality, parse_checkpoint
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.ledger import Entry, Ledger
from fedhouse.governance.notes import parse_note
from fedhouse.governance.pack_layout import (
    BUNDLE,
    CHECKPOINT,
    MANIFEST,
    Material,
    lay_out,
    naming,
    require_same,
    take_apart,
)
from fedhouse.governance.proof_files import parse_proof
from fedhouse.governance.replay import Replay
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust

_MEND: Final = "Get the pack again, as it was written. If it stays so, whoever made it has changed it."
_OTHER_KEYS: Final = (
    "Ask whoever gave you the trust file whether it is the right one. If it is, do not rely on the pack."
)


@dataclass(frozen=True, slots=True)
class PackReport:
    """What a pack has shown: made by `verify_pack` and `build_pack` only."""

    job: str | None
    """The digest of the job that the pack is of; None for the whole ledger."""
    entries: int
    """All entries up to the checkpoint: each was replayed."""
    accepted: int
    refused: Mapping[str, int]
    """How many entries the rules refused, by code."""
    bundle: bool
    """Whether the job's code and first weights are in the pack."""
    head: LogCheckpoint
    finality: Finality
    """By the witnesses of the trust file; without one, by those that the entries name."""
    origin_checked: bool
    """Whether there was a trust file. If not, the pack is consistent, and anybody may have made it up."""
    fingerprint: str
    """Of the trust that the entries name."""
    state: State = field(repr=False)
    """The state after the entries."""
    history: tuple[Entry, ...] = field(repr=False)
    """The entries, for reports and exports."""


def build_pack(
    ledger: Ledger, *, job: str | None, bundle_folder: Path | None, out: Path, trust: Trust
) -> PackReport:
    """Write the pack of a job, or of the whole ledger, at its newest final checkpoint.

    It is verified before it is written: `out` is a pack that verifies, or is not there.

    Parameters
    ----------
    job
        The digest of the job; None for the whole ledger.
    bundle_folder
        Where the job's bundle lies; None leaves it out, and the manifest says so.

    Raises
    ------
    ConfigurationError
        If a bundle is given without a job.
    IntegrityError
        If no checkpoint is final yet, the job is not among its entries, or the bundle is another.
    VerificationError
        If the ledger is not what it says, or not the one of `trust`.
    """
    if job is None and bundle_folder is not None:
        raise ConfigurationError("A pack of the whole ledger carries no bundle.", mend="Name the job.")
    note = parse_proof(ledger.receipt(0)).checkpoint
    entries = ledger.read(0, parse_checkpoint(note.text).size)
    replay = Replay()
    replay.extend(entries, verified=True)
    bundle: Mapping[str, bytes] = {}
    if job is not None:
        digest = _bundle_of(replay.state, job)
        bundle = {} if bundle_folder is None else _bundle_files(bundle_folder, digest)
    files = lay_out(Material(entries, note.render(), job, bundle), replay.state)
    report = _verified(files, trust, 0)
    write_atomic(out, pack_archive(files))
    return report


def verify_pack(path: Path, trust: Trust | None, *, processes: int = 0) -> PackReport:
    """Verify a hostile pack, offline; what it has shown.

    Parameters
    ----------
    trust
        Whom the reader believes. Without it, the report says that the origin is unchecked.
    processes
        How many processes verify signatures beside this one, if there are many.

    Raises
    ------
    ConfigurationError
        If the file cannot be read.
    VerificationError
        (or a subclass) for the first thing that is not what the pack says; names it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", mend="Check the path."
        ) from error
    return _verified(unpack_archive(data), trust, processes)


def _verified(files: Mapping[str, bytes], trust: Trust | None, processes: int) -> PackReport:
    material = take_apart(files)
    replay = Replay()
    replay.extend(material.entries, parallel=processes)
    state = replay.state
    with naming(CHECKPOINT):
        replay.require(parse_checkpoint(parse_note(material.checkpoint).text))
        own = Trust.of(state)
        head, finality = _by_own_keys(material.checkpoint, own)
        if trust is not None:
            finality = _by_trusted_keys(material.checkpoint, own, trust, finality)
        finality.require()
    if material.job is not None:
        with naming(MANIFEST):
            digest = _bundle_of(state, material.job)
        if material.bundle:
            _check_bundle(material.bundle, digest)
    require_same(files, lay_out(material, state))
    refused = Counter(entry.outcome.verdict for entry in material.entries)
    return PackReport(
        job=material.job,
        entries=head.size,
        accepted=refused.pop(ACCEPTED, 0),
        refused=dict(sorted(refused.items())),
        bundle=bool(material.bundle),
        head=head,
        finality=finality,
        origin_checked=trust is not None,
        fingerprint=own.fingerprint,
        state=state,
        history=material.entries,
    )


def _by_own_keys(note: bytes, own: Trust) -> tuple[LogCheckpoint, Finality]:
    """The checkpoint, signed by keys that the entries name and nobody else, and how final they make it."""
    try:
        return own.check(note, strict=True)
    except ConfigurationError as error:
        # Nothing that the reader has configured: it is the pack's charter that nothing could satisfy.
        raise IntegrityError(error.what, mend="No pack of this ledger can be final yet.") from error


def _by_trusted_keys(note: bytes, own: Trust, trust: Trust, finality: Finality) -> Finality:
    """How final the checkpoint is by the reader's own witnesses.

    The signatures have been verified against all keys that the entries name, so a line by a witness that the
    reader does not know is no free byte: it counts for nothing here.
    """
    if trust.consortium != own.consortium or trust.log != own.log:
        raise VerificationError(
            f"The pack is signed by other keys than yours: its consortium is {own.consortium[:16]} and its "
            f"log key {own.log.public.key_id[:16]}; your trust file names consortium "
            f"{trust.consortium[:16]} and log key {trust.log.public.key_id[:16]}.",
            mend=_OTHER_KEYS,
        )
    believed = check_finality(parse_note(note), trust.log, trust.witnesses, trust.colluding)
    if finality.final and not believed.final:
        raise VerificationError(
            f"The pack's checkpoint is signed by other keys than yours: {len(believed.cosigners)} of the "
            f"entities in your trust file have cosigned it, and {believed.required} are needed.",
            mend=_OTHER_KEYS,
        )
    return believed


def _bundle_of(state: State, job: str) -> str:
    """The digest of the bundle that a job's proposal names."""
    record = state.jobs.jobs.get(job)
    if record is None:
        raise IntegrityError(
            f"Job {job[:16]} is not among the entries up to the checkpoint.",
            mend="Wait until the witnesses have cosigned its proposal, or name a job of this ledger.",
        )
    return record.bundle


def _bundle_files(folder: Path, digest: str) -> dict[str, bytes]:
    """A bundle's files by their path, every byte of them checked."""
    bundle = Bundle.load(folder, expected=digest)
    sources = {f"src/{path}": text.encode() for path, text in bundle.sources.items()}
    manifest = canonical_json(bundle.manifest())
    return {**sources, "manifest.json": manifest, "weights.safetensors": bundle.weights}


def _check_bundle(files: Mapping[str, bytes], digest: str) -> None:
    """Check a bundle in memory: its manifest by the job's digest, and each file by the manifest.

    A proposal can name the digest of anything, so the manifest may be hostile even if its digest is right.
    """
    told = files.get("manifest.json", b"")
    with naming(f"{BUNDLE}manifest.json"):
        manifest = parse_json(told, "This file")
        try:
            good = digest_of("fedhouse-bundle/1", manifest) == digest and canonical_json(manifest) == told
            named = {f"src/{path}": source for path, source in manifest["sources"].items()}
            named |= {"manifest.json": sha256(told), "weights.safetensors": manifest["weights"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise IntegrityError("It is no bundle's manifest.", mend=_MEND) from error
        if not good:
            raise IntegrityError("It is not the manifest of the bundle that the job names.", mend=_MEND)
    for name in sorted({*named, *files}):
        if name not in files or name not in named or sha256(files[name]) != named[name]:
            raise IntegrityError(f"{BUNDLE}{name} is missing, changed, or not of the job.", mend=_MEND)
