"""`fedhouse audit …`: evidence packs, their verification with the network off, and the page for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedhouse.errors import ConfigurationError, VerificationError

TRUST_FILE = "trust.keys"


def pack(*, ledger: Path, job: str | None, out: Path, json_output: bool) -> None:
    """Write a pack of the ledger, or of one job with its bundle, and the trust file beside it.

    Raises
    ------
    ConfigurationError
        If the job is unknown.
    IntegrityError
        If the ledger has no final checkpoint yet.
    """
    from fedhouse.consortium_folder import find_job, open_ledger
    from fedhouse.encoding import write_atomic
    from fedhouse.governance.evidence import build_pack
    from fedhouse.governance.trust import Trust

    opened = open_ledger(ledger)
    try:
        trust = Trust.of(opened.state)
        digest = None if job is None else find_job(opened.state, job)
        bundle = None if digest is None else ledger / "jobs" / digest / "bundle"
        build_pack(opened, job=digest, bundle_folder=bundle, out=out, trust=trust)
    finally:
        opened.close()
    keys = out.with_name(TRUST_FILE)
    write_atomic(keys, trust.render())
    told = {"pack": str(out), "trust": str(keys), "fingerprint": trust.fingerprint, "job": digest}
    sys.stdout.write(
        json.dumps(told) + "\n"
        if json_output
        else f"{out} is written, and {keys} beside it. Hand the trust file over by another way than the\n"
        f"pack, and compare its fingerprint by voice: {trust.fingerprint}\n"
    )


def verify(*, pack: Path, trust: Path | None, json_output: bool) -> None:
    """Verify a pack, and say what was found.

    Raises
    ------
    VerificationError
        Naming the first thing that is not what it says; or, without `trust`, because the origin is
        unchecked.
    """
    from fedhouse.governance.evidence import verify_pack
    from fedhouse.governance.trust import Trust

    report = verify_pack(pack, None if trust is None else _trust(trust))
    own = Trust.of(report.state)
    told: dict[str, Any] = {
        "pack": str(pack),
        "scope": report.job or "ledger",
        "entries": report.entries,
        "accepted": report.accepted,
        "refused": dict(report.refused),
        "head": report.head.root.hex(),
        "time": report.head.fedhouse.time,
        "cosigned_by": list(report.finality.cosigners),
        "origin_checked": report.origin_checked,
        "fingerprint": own.fingerprint,
    }
    sys.stdout.write(json.dumps(told) + "\n" if json_output else _told(told))
    if not report.origin_checked:
        raise VerificationError(
            "Consistent, origin unchecked.", mend="Give the trust file that you were handed: --trust FILE."
        )


def _trust(path: Path) -> Any:
    from fedhouse.governance.trust import Trust

    try:
        return Trust.parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", mend="Check the path."
        ) from error


def _told(told: dict[str, Any]) -> str:
    refused = ", ".join(f"{count} {code}" for code, count in sorted(told["refused"].items())) or "none"
    origin = "is the one that you trust" if told["origin_checked"] else "is unchecked"
    return (
        f"{told['pack']} is consistent: {told['entries']:,} entries replayed, {told['accepted']:,} accepted; "
        f"refused: {refused}.\n"
        f"Scope: {told['scope']}.\n"
        f"Head {told['head']}, cosigned by {', '.join(told['cosigned_by'])}.\n"
        f"Its origin {origin}.\n"
        f"Fingerprint: {told['fingerprint']}\n"
    )


def report(*, ledger: Path, out: Path, json_output: bool) -> None:
    """Write the page for people."""
    from fedhouse.audit.report import write_report
    from fedhouse.consortium_folder import open_ledger

    opened = open_ledger(ledger)
    try:
        entries, state = opened.read(0, opened.size), opened.state
    finally:
        opened.close()
    write_report(entries, state, out)
    told = {"report": str(out), "entries": len(entries)}
    sys.stdout.write((json.dumps(told) if json_output else f"{len(entries):,} entries in {out}") + "\n")
