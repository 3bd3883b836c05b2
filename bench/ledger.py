"""How fast the ledger is, beside bare signature verification in the same run.

    python bench/ledger.py --events 100000 --json

The floor is Ed25519 verification by `cryptography`, one core, over the same envelopes: whoever trusts
nobody cannot do less. It is measured before and after each of the others, and each is set against the two
next to it, because other work on the machine moves both.

* **append**: parse, check encoding, signature and rules, write to SQLite with one fsync per 100 events.
* **audit**: replay everything from bytes, signatures included, on two cores; checkpoint compared.
* **replay**: the same on one core, of entries whose signatures were verified before.
* **receipt**: a proof file against a trust file, cosignatures included; and its inclusion proof alone.
* **pack**: the evidence of a job of ten rounds and sixteen silos, verified by the command in its own process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.governance.checkpoints import cosign, parse_checkpoint
from fedhouse.governance.envelope import parse_envelope, pre_authentication
from fedhouse.governance.evidence import build_pack
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import leaf_hash, verify_inclusion
from fedhouse.governance.notes import SignedNote, parse_note
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
from fedhouse.governance.trust import Trust, verify_receipt

SILOS = tuple(f"S{index:02d}" for index in range(16))
_BATCH = 100
_FLOOR = 4000


def corpus(parties: SandboxConsortium, events: int) -> list[bytes]:
    """At least so many envelopes after the founding one: jobs of ten rounds across sixteen silos."""
    found = parties.bootstrap()
    job = 0
    while len(found) < events:
        found += parties.job_events(f"job{job}", rounds=10, evaluated=True)
        job += 1
    return found[:events]


def floor_rate(envelopes: Sequence[bytes], parties: SandboxConsortium) -> float:
    """Bare Ed25519 verifications a second, of the envelopes' own signatures."""
    claims = []
    for raw in envelopes[:_FLOOR]:
        envelope = parse_envelope(raw)
        key = Ed25519PublicKey.from_public_bytes(parties.signer(envelope.statement.signer).public.raw)
        claims.append((key, envelope.signature, pre_authentication(envelope.payload)))
    began = time.perf_counter()
    for key, signature, message in claims:
        key.verify(signature, message)
    return len(claims) / (time.perf_counter() - began)


def beside_floor(floor: Callable[[], float], work: Callable[[], float]) -> dict[str, float]:
    """A rate, the floor around it, and their ratio."""
    before = floor()
    rate = work()
    around = (before + floor()) / 2
    return {"per_second": round(rate), "floor": round(around), "ratio": round(rate / around, 3)}


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def finalise(log: MerkleLog, parties: SandboxConsortium, clock: SandboxClock, public: Path) -> None:
    """Publish, let every witness cosign, collect."""
    log.publish(public)
    from fedhouse.chain_adapters.merkle_log.exchange import PublicLog

    exchange = PublicLog(public)
    note = parse_note(exchange.checkpoint())
    trust = Trust.of(log.state)
    for silo in SILOS:
        (key,) = trust.witnesses[silo]
        line = cosign(note.text, key.name, parties.signer(f"{silo}/witness"), clock())
        exchange.write_cosignature(
            parse_checkpoint(note.text).size, key, SignedNote(note.text, (line,)).render()
        )
    log.publish(public)


def measure(events: int, folder: Path) -> dict[str, Any]:
    """All figures but the pack's."""
    clock = SandboxClock()
    parties = SandboxConsortium(SILOS, clock=clock)
    MerkleLog.create(folder / "log", parties.founding(), clock=clock).close()
    envelopes = corpus(parties, events)
    floor = lambda: floor_rate(envelopes, parties)  # noqa: E731
    log = MerkleLog.open(folder / "log", clock=clock, operator=parties.log)

    def append() -> None:
        for start in range(0, len(envelopes), _BATCH):
            log.append(envelopes[start : start + _BATCH])

    told: dict[str, Any] = {"events": events}
    told["append"] = beside_floor(floor, lambda: _rate(events, append))
    finalise(log, parties, clock, folder / "public")
    entries = log.read(0, log.size)
    head = parse_checkpoint(parse_note(log.checkpoint()).text)

    def audit() -> None:
        replay = Replay()
        replay.extend(entries, parallel=2)
        replay.require(head)

    told["audit"] = beside_floor(floor, lambda: _rate(events, audit))
    told["replay"] = beside_floor(
        floor, lambda: _rate(events, lambda: Replay().extend(entries, verified=True))
    )
    told["milliseconds"] = _receipts(log, entries)
    log.close()
    return told


def _receipts(log: MerkleLog, entries: Sequence[Entry]) -> dict[str, float]:
    """Median milliseconds to verify a proof file, and an inclusion proof alone."""
    trust, root = Trust.of(log.state), parse_checkpoint(parse_note(log.checkpoint()).text).root
    receipts, inclusions = [], []
    for index in range(0, len(entries), max(1, len(entries) // 50)):
        proof = log.receipt(index)
        began = time.perf_counter()
        verify_receipt(entries[index].envelope, proof, trust)
        receipts.append(time.perf_counter() - began)
        path = log.prove_inclusion(index, log.size)
        began = time.perf_counter()
        verify_inclusion(leaf_hash(entries[index].envelope), index, log.size, path, root)
        inclusions.append(time.perf_counter() - began)
    return {
        "receipt": round(statistics.median(receipts) * 1000, 3),
        "inclusion": round(statistics.median(inclusions) * 1000, 3),
    }


def measure_pack(folder: Path) -> dict[str, Any]:
    """Size of the pack of a job of ten rounds and sixteen silos, and seconds to verify it."""
    clock = SandboxClock()
    parties = SandboxConsortium(SILOS, clock=clock)
    MerkleLog.create(folder / "log", parties.founding(), clock=clock).close()
    log = MerkleLog.open(folder / "log", clock=clock, operator=parties.log)
    log.append([*parties.bootstrap(), *parties.job_events("late", rounds=10, evaluated=True)])
    finalise(log, parties, clock, folder / "public")
    trust = Trust.of(log.state)
    pack, keys = folder / "evidence.zip", folder / "trust.keys"
    build_pack(log, job=named("late"), bundle_folder=None, out=pack, trust=trust)
    keys.write_bytes(trust.render())
    command = [str(Path(sys.executable).with_name("fedhouse")), "audit", "verify", str(pack), "--json"]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([*command, "--trust", str(keys)], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    size = log.size
    log.close()
    return {
        "entries": size,
        "megabytes": round(pack.stat().st_size / 1e6, 3),
        "verify_seconds": round(statistics.median(seconds), 3),
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="always so; for the others' sake")
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="fedhouse-bench-") as name:
        told = measure(events, Path(name) / "many")
        told["pack"] = measure_pack(Path(name) / "pack")
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
