"""`fedhouse permission …` and `fedhouse stop`: what may be done with a member's data, and the brake."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from fedhouse.consortium_folder import Signing, find_job, read_state
from fedhouse.errors import ConfigurationError

_DAY = 24 * 3600


def give(
    signing: Signing,
    *,
    dataset: str,
    purpose: str,
    columns: str,
    days: int,
    job: str | None,
    json_output: bool,
) -> None:
    """Permit the use of columns of the signer's member's dataset, for a purpose, for so many days."""
    from fedhouse.encoding import digest_of
    from fedhouse.local_consortium import system_clock

    body = {
        "dataset": dataset,
        "purpose": purpose,
        "columns": sorted({name.strip() for name in columns.split(",") if name.strip()}),
        "expires": system_clock() + days * _DAY,
        "jobs": [] if job is None else [find_job(read_state(signing.ledger), job)],
    }
    name = f"permission-{digest_of('fedhouse-permission/1', body)[:16]}"
    answer = signing.record(name, "permission.given", body)
    _tell(
        {"permission": answer.digest, "entry": answer.index},
        f"Permitted as entry {answer.index}. To take it back: "
        f"fedhouse permission withdraw {answer.digest[:16]}",
        json_output,
    )


def withdraw(signing: Signing, *, permission: str, json_output: bool) -> None:
    """Take a permission back. Work under it stops, and prepared copies of rows are deleted."""
    digest = _one(permission, read_state(signing.ledger).permissions.permissions, "permission")
    answer = signing.record(f"withdrawn-{digest[:16]}", "permission.withdrawn", {"permission": digest})
    _tell({"permission": digest, "entry": answer.index}, f"Withdrawn as entry {answer.index}.", json_output)


def stop(signing: Signing, *, job: str | None, member: str | None, json_output: bool) -> None:
    """Stop work at once: everywhere, of one job, or at one member."""
    from fedhouse.local_consortium import system_clock

    if job is not None and member is not None:
        raise ConfigurationError("A stop is of a job or at a member.", mend="Give one of --job and --member.")
    scope, subject = "consortium", ""
    if job is not None:
        scope, subject = "job", find_job(read_state(signing.ledger), job)
    elif member is not None:
        scope, subject = "member", member
    body = {"scope": scope, "subject": subject}
    answer = signing.record(f"stop-{system_clock()}", "stop.declared", body)
    _tell(
        {"stop": answer.digest, "scope": scope, "subject": subject, "entry": answer.index},
        f"Stopped as entry {answer.index}. To vote for going on: fedhouse stop --lift {answer.digest[:16]}",
        json_output,
    )


def lift(signing: Signing, *, stop: str, json_output: bool) -> None:
    """Vote for lifting a stop; enough entities lift it."""
    digest = _one(stop, read_state(signing.ledger).permissions.stops, "stop")
    answer = signing.record(f"lift-{digest[:16]}", "stop.lifted", {"stop": digest})
    lifted = digest not in read_state(signing.ledger).permissions.stops
    _tell(
        {"stop": digest, "lifted": lifted, "entry": answer.index},
        "Lifted; work may go on." if lifted else "Your vote is recorded; others have to vote as well.",
        json_output,
    )


def _one(text: str, known: Mapping[str, Any], what: str) -> str:
    """The digest that begins with `text`, among permissions or stops in force."""
    found = [digest for digest in known if text and digest.startswith(text)]
    if len(found) != 1:
        raise ConfigurationError(
            f"{'No' if not found else 'More than one'} {what} in force begins with '{text}'.",
            mend="See fedhouse dataset show and fedhouse ledger show.",
        )
    return found[0]


def _tell(told: dict[str, Any], text: str, json_output: bool) -> None:
    sys.stdout.write((json.dumps(told) if json_output else text) + "\n")
