"""`fedhouse ledger …`: looking at the ledger, taking it out as a table, and verifying all of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from fedhouse.consortium_folder import find_job, open_ledger, open_signer
from fedhouse.errors import ConfigurationError, QuorumError, VerificationError


def show(*, ledger: Path, job: str | None, refused: bool, last: int | None, json_output: bool) -> None:
    """Print entries, the oldest first."""
    from fedhouse.governance.exports import entry_rows

    opened = open_ledger(ledger)
    try:
        rows = list(entry_rows(opened.read(0, opened.size)))
        digest = None if job is None else find_job(opened.state, job)
    finally:
        opened.close()
    if digest is not None:
        rows = [row for row in rows if row["job"] == digest]
    if refused:
        rows = [row for row in rows if row["verdict"] != "accepted"]
    rows = rows if last is None else rows[-last:]
    if json_output:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for title, justify in (("entry", "right"), ("time", "left"), ("event", "left"), ("by", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("about")
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        good = row["verdict"] == "accepted"
        about = " ".join(str(row[name]) for name in ("purpose", "round") if row.get(name) not in (None, ""))
        subject = str(row.get("job") or row.get("subject") or "")[:12]
        table.add_row(
            str(row["index"]),
            str(row["time_iso"]),
            str(row["type"]),
            str(row["signer"]),
            f"{about} {subject}".strip(),
            "accepted" if good else f"[bold red]refused ({row['verdict']})",
        )
    Console().print(table)


def export(*, ledger: Path, out: Path, json_output: bool) -> None:
    """Write all entries as a table, in the format that the file's name asks for.

    Raises
    ------
    ConfigurationError
        If the name ends in something else than .csv, .json or .parquet.
    """
    from fedhouse.governance import exports

    writers = {".csv": exports.write_csv, ".json": exports.write_json_rows, ".parquet": exports.write_parquet}
    if out.suffix not in writers:
        raise ConfigurationError(
            f"{out.name} does not say in which format.", mend="Let it end in .csv, .json or .parquet."
        )
    opened = open_ledger(ledger)
    try:
        rows = list(exports.entry_rows(opened.read(0, opened.size)))
    finally:
        opened.close()
    writers[out.suffix](rows, out)
    told = {"file": str(out), "entries": len(rows)}
    sys.stdout.write((json.dumps(told) if json_output else f"{len(rows):,} entries in {out}") + "\n")


def publish(*, ledger: Path, key: str, password_file: Path | None, wait: float, json_output: bool) -> None:
    """Publish the log as its operator, and collect cosignatures until it is final.

    Raises
    ------
    QuorumError
        If too few witnesses have cosigned after `wait` seconds.
    """
    _, operator = open_signer(key, password_file, None)
    opened = open_ledger(ledger, operator=operator)
    until = time.monotonic() + wait
    try:
        opened.publish(ledger / "public")
        while not (finality := opened.finality(opened.size)).final and time.monotonic() < until:
            time.sleep(min(1.0, wait))
            opened.publish(ledger / "public")
        size = opened.size
    finally:
        opened.close()
    told = {"entries": size, "cosigned_by": list(finality.cosigners), "required": finality.required}
    who = ", ".join(finality.cosigners) or "nobody"
    text = f"{size:,} entries are published, cosigned by {who} ({finality.required} needed)."
    sys.stdout.write((json.dumps(told) if json_output else text) + "\n")
    if not finality.final:
        raise QuorumError(
            f"The ledger's {size:,} entries are published and not final.",
            mend="Start more witnesses (fedhouse witness start), and publish again.",
        )


def verify(*, ledger: Path, trust: Path | None, json_output: bool) -> None:
    """Replay what the newest published checkpoint covers, and check it against that and the trust file.

    Raises
    ------
    VerificationError
        If anything is not what it says; or, without `trust`, because the origin is unchecked.
    QuorumError
        If nothing is published, or too few witnesses have cosigned it.
    """
    from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
    from fedhouse.governance.replay import Replay
    from fedhouse.governance.trust import Trust

    opened = open_ledger(ledger)
    try:
        entries = opened.read(0, opened.size)
    finally:
        opened.close()
    note = PublicLog(ledger / "public").newest()
    if note is None:
        raise QuorumError("Nothing of this ledger is published yet.", mend="See fedhouse ledger publish.")
    replay = Replay()
    believed = Trust.parse(trust.read_bytes()) if trust is not None else None
    replay.extend(entries[: _covered(note)], parallel=2)
    own = Trust.of(replay.state)
    checked = believed or own
    if checked.consortium != replay.state.consortium.id:
        raise VerificationError(
            f"The ledger is of consortium {replay.state.consortium.id[:16]}, and the trust file of another.",
            mend="Ask for the right ledger, or the right file.",
        )
    head, finality = checked.check(note)
    replay.require(head)
    told = {
        "entries": len(entries),
        "covered": head.size,
        "consortium": replay.state.consortium.id,
        "head": head.root.hex(),
        "cosigned_by": list(finality.cosigners),
        "required": finality.required,
        "final": finality.final,
        "origin_checked": believed is not None,
        "fingerprint": own.fingerprint,
    }
    sys.stdout.write(json.dumps(told) + "\n" if json_output else _told(told))
    if believed is None:
        raise VerificationError(
            "Consistent, origin unchecked.", mend="Give the trust file that you were handed: --trust FILE."
        )
    if not finality.final:
        raise QuorumError(
            "What is published is consistent, and not final.", mend="Wait for witnesses, then verify again."
        )


def _covered(note: bytes) -> int:
    from fedhouse.governance.checkpoints import parse_checkpoint
    from fedhouse.governance.notes import parse_note

    return parse_checkpoint(parse_note(note).text).size


def _told(told: dict[str, Any]) -> str:
    who = ", ".join(told["cosigned_by"]) or "nobody"
    return (
        f"{told['covered']:,} of {told['entries']:,} entries replayed: signatures, rules, outcomes, trees.\n"
        f"Head {told['head']}, cosigned by {who} ({told['required']} needed): "
        f"{'final' if told['final'] else 'not final yet'}.\n"
        f"Fingerprint of the trust that the ledger itself names: {told['fingerprint']}\n"
    )
