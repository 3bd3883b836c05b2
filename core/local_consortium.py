"""A consortium whose parties are all on this machine: for the demo and for `fedhouse.simulate`.

Each party has its own keys and signs its own events; who runs this has them all, and could sign for
anybody. What is recorded, and by which rules it is judged, is what real parties would see.

The folder::

    CONSORTIUM/ledger/      the log's database
    CONSORTIUM/public/      what is published: entries, checkpoints, cosignatures
    CONSORTIUM/journals/    each actor's signed events
    CONSORTIUM/jobs/        each job's files, by its digest
    CONSORTIUM/keys/        key files, and the password that opens them (demo)
    CONSORTIUM/witnesses/   each witness's own copy of the log
    CONSORTIUM/trust.keys   what an auditor needs to verify it all
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from fedhouse.encoding import write_atomic
from fedhouse.errors import IntegrityError
from fedhouse.federation.governed import LedgerRounds, LedgerSilo
from fedhouse.federation.journal import Journal
from fedhouse.governance.envelope import NO_CONSORTIUM, Statement, sign_statement
from fedhouse.governance.families.consortium import Charter
from fedhouse.governance.trust import Trust
from fedhouse.identity.binding import prove_binding
from fedhouse.identity.keyfile import Purpose, create_key, load_key
from fedhouse.identity.signer import Signer, SoftwareSigner
from fedhouse.jobs import Job
from fedhouse.proposals import proposal, registration, terms

if TYPE_CHECKING:
    from fedhouse.chain_adapters.merkle_log.log import MerkleLog

ORIGIN = "fedhouse.local/ledger"
LOG = "log"
_YEAR = 366 * 24 * 3600


def system_clock() -> int:
    """Whole seconds since 1970, UTC."""
    return int(time.time())


class Signers(Protocol):
    """Gives the key of an actor, or of the log (`LOG`); the same one every time."""

    def __call__(self, actor: str) -> Signer: ...


@dataclass
class KeyFolder:
    """Key files under one folder, made as they are first asked for, opened by a password beside them."""

    folder: Path
    _opened: dict[str, Signer] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, actor: str) -> Signer:
        """See `Signers`."""
        if actor not in self._opened:
            self._opened[actor] = self._open(actor)
        return self._opened[actor]

    def path(self, actor: str) -> Path:
        """Where an actor's key file lies."""
        return self.folder / f"{actor}.key"

    @property
    def password_file(self) -> Path:
        """The password of all of them: it protects nothing where it lies beside them."""
        return self.folder / "password"

    def _open(self, actor: str) -> Signer:
        path, password = self.path(actor), self._password()
        name = actor.rpartition("/")[2]
        purpose: Purpose = "witness" if name == "witness" else "log" if name == LOG else "sign"
        if not path.exists():
            create_key(
                path, actor=actor if "/" in actor else f"{actor}/{actor}", purpose=purpose, password=password
            )
        signer = load_key(path, password).signer
        assert signer is not None  # these purposes have one
        return signer

    def _password(self) -> bytes:
        if not self.password_file.exists():
            write_atomic(self.password_file, secrets.token_hex(24).encode() + b"\n", mode=0o600)
        return self.password_file.read_bytes().strip()


@dataclass
class SimulatedKeys:
    """Keys that follow from one random seed, kept in a file beside the run: for simulations."""

    folder: Path

    def __call__(self, actor: str) -> Signer:
        """See `Signers`."""
        from hashlib import sha256

        path = self.folder / "simulation.seed"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(32), mode=0o600)
        return SoftwareSigner.insecure_from_seed(
            "ed25519", sha256(path.read_bytes() + actor.encode()).digest()
        )


@dataclass
class LocalConsortium:
    """The parties, their journals and their ledger. Open it by `open`; close it when done.

    The first silo's organisation also proposes jobs and runs the coordinator.
    """

    folder: Path
    silos: tuple[str, ...]
    signers: Signers
    clock: Callable[[], int]
    ledger: MerkleLog
    _journals: dict[str, Journal] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        silos: Sequence[str],
        *,
        signers: Signers,
        clock: Callable[[], int] = system_clock,
        origin: str = ORIGIN,
    ) -> LocalConsortium:
        """The consortium in `folder`, founded and joined by all `silos` if it is not there yet.

        Raises
        ------
        IntegrityError
            If the folder holds a consortium of others.
        """
        from fedhouse.chain_adapters.merkle_log.log import MerkleLog

        names = tuple(silos)
        place = folder / "ledger"
        founder = names[0]
        if not (place / "log.sqlite").exists():
            charter = _charter(names, signers, origin)
            MerkleLog.create(
                place, _found(charter, f"{founder}/officer-1", signers, clock), clock=clock
            ).close()
        ledger = MerkleLog.open(place, clock=clock, operator=signers(LOG))
        consortium = cls(folder, names, signers, clock, ledger)
        if sorted(ledger.state.consortium.members) != sorted(names):
            raise IntegrityError(f"{folder} holds a consortium of others.", mend="Choose another folder.")
        for silo in names[1:]:
            charter_digest = ledger.state.consortium.charter
            consortium.journal(f"{silo}/officer-1").require(
                "joined", "member.joined", {"charter": charter_digest}
            )
        write_atomic(folder / "trust.keys", Trust.of(ledger.state).render())
        return consortium

    @property
    def id(self) -> str:
        """The consortium's name: the digest of its founding envelope."""
        return self.ledger.state.consortium.id

    @property
    def trust(self) -> Trust:
        """What an auditor needs to verify everything."""
        return Trust.of(self.ledger.state)

    @property
    def operator(self) -> str:
        """The actor that coordinates."""
        return f"{self.silos[0]}/operator"

    @property
    def public(self) -> Path:
        """What the log publishes."""
        return self.folder / "public"

    def journal(self, actor: str) -> Journal:
        """The journal of an actor, which signs with the actor's key."""
        if actor not in self._journals:
            self._journals[actor] = Journal(
                self.folder / "journals" / actor,
                actor,
                self.signers(actor),
                self.ledger,
                self.id,
                self.clock,
            )
        return self._journals[actor]

    def propose(self, job: Job) -> None:
        """Record a job as real parties would: datasets and permissions, proposal, everybody's approval."""
        for silo in self.silos:
            self._offer(silo, job)
        job.save(self.folder / "jobs" / job.digest)
        owner = self.journal(f"{self.silos[0]}/owner-1")
        owner.require(f"proposed-{job.digest[:16]}", "job.proposed", proposal(job, self.silos))
        for silo in self.silos:
            self.journal(f"{silo}/officer-1").require(
                f"approved-{job.digest[:16]}",
                "job.approved",
                {"job": job.digest, "bundle": job.bundle.digest},
            )

    def _offer(self, silo: str, job: Job) -> None:
        """The silo registers the job's dataset, and permits what the job asks for, for a year."""
        journal, key = self.journal(f"{silo}/officer-1"), job.digest[:16]
        body = registration(job.dataset)
        known = self.ledger.state.data.datasets.get(f"{silo}/{job.dataset.name}")
        if known is None or known.suite != body["suite"]:
            journal.require(f"dataset-{key}", "dataset.registered", body)
        if journal.accepted(f"permission-{key}") is None:
            permission = {
                "dataset": job.dataset.name,
                "purpose": job.spec.purpose,
                "columns": sorted(job.spec.columns_read(job.dataset)),
                "expires": self.clock() + _YEAR,
                "jobs": [job.digest],
            }
            journal.require(f"permission-{key}", "permission.given", permission)

    def silo_oversight(self, job: Job, silo: str) -> LedgerSilo:
        """What the silo's agent asks and tells."""
        return LedgerSilo(
            journal=self.journal(f"{silo}/agent"),
            job=job.digest,
            terms=terms(job),
            member=silo,
            suite=job.dataset.digest,
            clock=self.clock,
            notices=self.folder / "notices" / silo,
        )

    def round_oversight(self, job: Job) -> LedgerRounds:
        """What the coordinator asks and tells."""
        return LedgerRounds(self.journal(self.operator), job.digest, self.clock)

    def close(self) -> None:
        """Release the ledger."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _charter(silos: tuple[str, ...], signers: Signers, origin: str) -> Charter:
    few = min(2, len(silos))
    votes = dict.fromkeys(("job_approvals", "member_approvals", "lift_approvals"), few)
    return Charter.model_validate(
        {
            "name": "local",
            "origin": origin,
            "log": signers(LOG).public.to_json(),
            "rules": votes | {"colluding": 1 if len(silos) > 3 else 0},
            "founders": [
                {
                    "member": silo,
                    "entity": silo,
                    "keys": [_binding(actor, signers) for actor in _actors(silo, silos)],
                }
                for silo in silos
            ],
        }
    )


def _actors(silo: str, silos: tuple[str, ...]) -> list[str]:
    names = ["officer-1", "agent", "witness"] + ["owner-1", "operator"] * (silo == silos[0])
    return [f"{silo}/{name}" for name in names]


_ROLES = {"officer-1": ["admin", "officer", "steward"], "owner-1": ["owner"]}


def _binding(actor: str, signers: Signers) -> dict[str, Any]:
    name = actor.partition("/")[2]
    return {
        "actor": actor,
        "kind": "person" if name in _ROLES else name,
        "roles": _ROLES.get(name, []),
        "key": signers(actor).public.to_json(),
        "proof": prove_binding(signers(actor), actor),
    }


def _found(charter: Charter, actor: str, signers: Signers, clock: Callable[[], int]) -> bytes:
    statement = Statement(
        event="consortium.created",
        signer=actor,
        consortium=NO_CONSORTIUM,
        sequence=1,
        issued=clock(),
        subjects=(("charter", charter.digest()),),
        body={"charter": charter.model_dump(mode="json")},
    )
    return sign_statement(statement, signers(actor))
