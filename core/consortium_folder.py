"""Where commands find a consortium's ledger, a person's key, and a job's files.

`--ledger` (or FEDHOUSE_LEDGER) names a consortium's folder, as `fedhouse.local_consortium` describes it.
`--key` (or FEDHOUSE_KEY) names the key file, or the PKCS#11 key, of whoever signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.errors import ConfigurationError, KeyFileError

if TYPE_CHECKING:
    from fedhouse.chain_adapters.merkle_log.log import MerkleLog
    from fedhouse.federation.journal import Journal
    from fedhouse.governance.ledger import Appended
    from fedhouse.governance.state import State
    from fedhouse.identity.signer import Signer
    from fedhouse.jobs import Job

_SHORTEST = 8


def open_ledger(folder: Path, *, operator: Signer | None = None) -> MerkleLog:
    """The ledger of the consortium in `folder`.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    from fedhouse.chain_adapters.merkle_log.log import MerkleLog
    from fedhouse.local_consortium import system_clock

    place = folder / "ledger"
    if not place.is_dir():
        raise ConfigurationError(
            f"{folder} holds no ledger.",
            mend="Give the consortium's folder as --ledger, or set FEDHOUSE_LEDGER; the demo's is "
            "demo-out/consortium.",
        )
    return MerkleLog.open(place, clock=system_clock, operator=operator)


def open_signer(key: str, password_file: Path | None, actor: str | None) -> tuple[str, Signer]:
    """The actor and the signer behind `--key`: a key file, or a `pkcs11:` URI with `--as ACTOR`.

    Raises
    ------
    KeyFileError
        If it does not open, or is not for signing events.
    """
    from fedhouse.identity.keyfile import load_key, read_password

    password = read_password(env="FEDHOUSE_KEY_PASSWORD", file=password_file, prompt=True)
    if key.startswith("pkcs11:"):
        from fedhouse.identity.token import Pkcs11Signer, parse_pkcs11_uri

        if actor is None:
            raise KeyFileError("A token does not say whose key it holds.", mend="Add --as MEMBER/NAME.")
        uri = parse_pkcs11_uri(key)
        return actor, Pkcs11Signer(uri.library, uri.token, uri.label, password)
    stored = load_key(Path(key), password)
    if stored.signer is None or stored.purpose == "seal":
        raise KeyFileError(f"{key} is a delivery key and signs nothing.", mend="Give a key for signing.")
    if actor is not None and actor != stored.actor:
        raise KeyFileError(f"{key} is the key of {stored.actor}, not of {actor}.", mend="Leave out --as.")
    return stored.actor, stored.signer


def open_journal(folder: Path, ledger: MerkleLog, actor: str, signer: Signer) -> Journal:
    """The actor's journal; the same folder that a local consortium uses, so that sequences go on."""
    from fedhouse.federation.journal import Journal
    from fedhouse.local_consortium import system_clock

    return Journal(
        folder / "journals" / actor, actor, signer, ledger, ledger.state.consortium.id, system_clock
    )


@dataclass(frozen=True)
class Signing:
    """Whose event is recorded where: the options of every command that signs."""

    ledger: Path
    key: str
    password_file: Path | None = None
    actor: str | None = None

    def record(self, name: str, event: str, body: dict[str, Any]) -> Appended:
        """Sign an event and record it, once by its name; what the ledger made of it.

        Raises
        ------
        KeyFileError
            If the key does not open.
        PolicyRefusedError
            If the rules refuse the event.
        """
        signed_by, signer = open_signer(self.key, self.password_file, self.actor)
        ledger = open_ledger(self.ledger)
        try:
            return open_journal(self.ledger, ledger, signed_by, signer).require(name, event, body)
        finally:
            ledger.close()


def read_state(folder: Path) -> State:
    """The state of the ledger of the consortium in `folder`."""
    ledger = open_ledger(folder)
    try:
        return ledger.state
    finally:
        ledger.close()


def find_job(state: State, text: str) -> str:
    """The digest of the job that `text` names: a digest, the beginning of one, or a name.

    Raises
    ------
    ConfigurationError
        If none or several fit.
    """
    jobs = state.jobs.jobs
    found = sorted(
        digest
        for digest, job in jobs.items()
        if digest == text or job.name == text or (len(text) >= _SHORTEST and digest.startswith(text))
    )
    if len(found) != 1:
        known = ", ".join(f"{job.name} ({digest[:12]})" for digest, job in sorted(jobs.items())[:8])
        raise ConfigurationError(
            f"{'No job' if not found else f'{len(found)} jobs'} of this ledger fits '{text}'.",
            mend=f"There are {known or 'none'}; give the digest's first {_SHORTEST} digits or more.",
        )
    return found[0]


def proposed_jobs(folder: Path) -> list[str]:
    """Digests of all jobs whose proposal counts, in the ledger's order."""
    from fedhouse.governance.envelope import parse_envelope

    ledger = open_ledger(folder)
    try:
        entries = ledger.read(0, ledger.size)
    finally:
        ledger.close()
    told = (
        parse_envelope(entry.envelope).statement for entry in entries if entry.outcome.verdict == "accepted"
    )
    return [str(statement.body["job"]) for statement in told if statement.event == "job.proposed"]


def load_job_files(folder: Path, digest: str) -> Job:
    """The files of a job, which are the ones that the digest on the ledger names.

    Raises
    ------
    IntegrityError
        If they are missing or not those.
    """
    from fedhouse.errors import IntegrityError
    from fedhouse.jobs import Job

    place = folder / "jobs" / digest
    job = Job.load(place)
    if job.digest != digest:
        raise IntegrityError(
            f"The files in {place} are of another job.", mend="Get them from whoever proposed it."
        )
    return job
