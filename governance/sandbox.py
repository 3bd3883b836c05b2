"""A whole consortium in memory, with INSECURE keys: for tests, benchmarks and rehearsals, nothing else.

Every key follows from a seed that anybody can read here, so that a corpus is the same in every run and in
every process. Each member has the actors `admin`, `steward`, `officer` and `owner` (persons with that one
role), `agent` and `witness`; the first member has `operator` too. The log's key belongs to no actor.

Example::

    clock = SandboxClock()
    consortium = SandboxConsortium(("AA", "B6", "DL"), clock=clock)
    envelopes = [consortium.founding(), *consortium.bootstrap(), *consortium.job_events(rounds=2)]
    stop = consortium.sign("B6/officer", "stop.declared", {"scope": "consortium", "subject": ""})

`sign` keeps each actor's sequence. Its keyword arguments make what an honest signer would not: another
sequence, time, consortium or key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from fedhouse.encoding import sha256
from fedhouse.governance.envelope import NO_CONSORTIUM, PayloadRef, Statement, sign_statement
from fedhouse.governance.families.consortium import Charter
from fedhouse.governance.reducer import EVENTS
from fedhouse.identity.binding import prove_binding
from fedhouse.identity.signer import Signer, SoftwareSigner

START: Final = 1_790_000_000
COLUMNS: Final = ("carrier", "delay", "distance", "late")
DATASET: Final = "flights"
PURPOSE: Final = "delay-forecast"
ROLES: Final = ("admin", "officer", "owner", "steward")


class SandboxClock:
    """A clock that stands still until it is moved: whole seconds since 1970."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> int:
        """Move it, backwards if negative; gives the new time."""
        self.now += seconds
        return self.now


class SandboxConsortium:
    """Members with all their keys, which sign whatever they are asked to. INSECURE by purpose.

    Parameters
    ----------
    members
        Their names; the first one founds the consortium and runs its operator.
    colluding
        c of the charter; by default 1, or 0 where there is one member.
    entities
        The legal entity behind a member, where it is not the member's own name.
    clock
        Gives the signers' time.
    rules
        Further rules of the charter, for example `job_approvals`.
    seed
        Other text, other keys.
    """

    def __init__(
        self,
        members: Sequence[str] = ("AA", "B6", "DL"),
        *,
        colluding: int | None = None,
        entities: Mapping[str, str] | None = None,
        clock: Callable[[], int] | None = None,
        rules: Mapping[str, int] | None = None,
        seed: str = "sandbox",
        origin: str = "sandbox.example/ledger",
    ) -> None:
        self.members = tuple(members)
        self.origin = origin
        self.clock = clock or SandboxClock()
        self.sequences: dict[str, int] = {}
        self._seed = seed
        self._signers: dict[str, SoftwareSigner] = {}
        self._entities = dict(entities or {})
        few = min(2, len(self.members))
        votes = dict.fromkeys(("job_approvals", "member_approvals", "lift_approvals"), few)
        c = min(1, len(self.members) - 1) if colluding is None else colluding
        self._rules: dict[str, int] = votes | {"colluding": c} | dict(rules or {})
        self._charter: Charter | None = None
        self._founding = b""

    @property
    def log(self) -> SoftwareSigner:
        """The key that signs checkpoints."""
        return self.signer("log")

    @property
    def operator(self) -> str:
        """The actor that opens and closes rounds."""
        return f"{self.members[0]}/operator"

    @property
    def charter(self) -> Charter:
        """What the founders agree on."""
        if self._charter is None:
            self._charter = Charter.model_validate(
                {
                    "name": "sandbox",
                    "origin": self.origin,
                    "log": self.log.public.to_json(),
                    "rules": self._rules,
                    "founders": [self.founder(member) for member in self.members],
                }
            )
        return self._charter

    @property
    def id(self) -> str:
        """The consortium's name: the digest of its founding envelope."""
        return sha256(self.founding())

    def signer(self, actor: str) -> SoftwareSigner:
        """The key of an actor, or of anybody else who is given a name here."""
        if actor not in self._signers:
            seed = bytes.fromhex(sha256(f"fedhouse-sandbox\0{self._seed}\0{actor}".encode()))
            self._signers[actor] = SoftwareSigner.insecure_from_seed("ed25519", seed)
        return self._signers[actor]

    def replace_signer(self, actor: str, signer: SoftwareSigner) -> None:
        """Let `actor` sign with another key from now on: after `key.rotated` or `key.bound`."""
        self._signers[actor] = signer

    def binding(self, actor: str, signer: Signer | None = None) -> dict[str, Any]:
        """The binding of an actor's key, with its proof; kind and role follow from the actor's name."""
        signer = signer or self.signer(actor)
        name = actor.partition("/")[2].partition("-")[0]
        return {
            "actor": actor,
            "kind": "person" if name in ROLES else name,
            "roles": [name] if name in ROLES else [],
            "key": signer.public.to_json(),
            "proof": prove_binding(signer, actor),
        }

    def founder(self, member: str) -> dict[str, Any]:
        """A member with its legal entity and its first keys, for a charter or an invitation."""
        names = [*ROLES, "agent", "witness"] + ["operator"] * (member == self.members[0])
        return {
            "member": member,
            "entity": self._entities.get(member, member),
            "keys": [self.binding(f"{member}/{name}") for name in names],
        }

    def founding(self) -> bytes:
        """The envelope that creates the consortium; always the same one."""
        if not self._founding:
            body = {"charter": self.charter.model_dump(mode="json")}
            founder = f"{self.members[0]}/admin"
            self._founding = self.sign(founder, "consortium.created", body, consortium=NO_CONSORTIUM)
        return self._founding

    def sign(
        self,
        actor: str,
        event: str,
        body: Mapping[str, Any],
        subjects: Sequence[tuple[str, str]] | None = None,
        *,
        sequence: int | None = None,
        issued: int | None = None,
        consortium: str | None = None,
        payloads: Sequence[PayloadRef] = (),
        signer: Signer | None = None,
        version: int = 1,
    ) -> bytes:
        """The next event of `actor`, as an envelope.

        Subjects follow from the body's schema; a body that does not fit is about the consortium. An
        explicit `sequence` leaves the actor's own count as it is.
        """
        name = self.id if consortium is None else consortium
        if sequence is None:
            sequence = self.sequences[actor] = self.sequences.get(actor, 0) + 1
        statement = Statement(
            event=event,
            signer=actor,
            consortium=name,
            sequence=sequence,
            issued=self.clock() if issued is None else issued,
            subjects=tuple(_subjects(event, body, name) if subjects is None else subjects),
            body=body,
            payloads=tuple(payloads),
            version=version,
        )
        return sign_statement(statement, signer or self.signer(actor))

    def bootstrap(self) -> list[bytes]:
        """All founders join; each registers the dataset and permits its use, for ten years."""
        expires = self.clock() + 10 * 366 * 86_400
        joins = [
            self.sign(f"{member}/admin", "member.joined", {"charter": self.charter.digest()})
            for member in self.members[1:]
        ]
        datasets = [
            self.sign(
                f"{member}/steward",
                "dataset.registered",
                {
                    "name": DATASET,
                    "schema_digest": named("schema"),
                    "columns": list(COLUMNS),
                    "suite": named("suite"),
                    "rows": "10000-99999",
                },
            )
            for member in self.members
        ]
        permissions = [
            self.sign(
                f"{member}/steward",
                "permission.given",
                {"dataset": DATASET, "purpose": PURPOSE, "columns": list(COLUMNS), "expires": expires},
            )
            for member in self.members
        ]
        return [*joins, *datasets, *permissions]

    def proposal(self, job: str, *, rounds: int = 2, evaluated: bool = False) -> bytes:
        """The first member's owner proposes a job on all members' data, named by `named(job)`."""
        body = {
            "job": named(job),
            "name": job,
            "bundle": named(f"{job} bundle"),
            "dataset": DATASET,
            "purpose": PURPOSE,
            "columns": sorted(COLUMNS),
            "silos": sorted(self.members),
            "rounds": rounds,
            "min_cohort": min(2, len(self.members)),
            "evaluated": evaluated,
            "metric": "auc",
            "bounds": {"seconds": 600, "parameters": 10**6, "scratch_mib": 64},
        }
        return self.sign(f"{self.members[0]}/owner", "job.proposed", body)

    def approval(self, job: str, member: str) -> bytes:
        """A member's steward lets the job run at its own silo, and votes for it."""
        body = {"job": named(job), "bundle": named(f"{job} bundle")}
        return self.sign(f"{member}/steward", "job.approved", body)

    def attestation(self, job: str, member: str, *, passed: bool = True) -> bytes:
        """A silo's agent says what its quality gate found."""
        check = {"expectation": "not-null", "column": "late", "looked_at": 20_000}
        check |= {"unexpected": 0 if passed else 7, "passed": passed}
        body = {
            "job": named(job),
            "dataset": DATASET,
            "pin": named(f"pin of {member}"),
            "suite": named("suite"),
            "passed": passed,
            "rows": 20_000,
            "checks": [check],
        }
        return self.sign(f"{member}/agent", "quality.attested", body)

    def step(self, job: str, number: int, purpose: str, base: str, result: str) -> list[bytes]:
        """One step of a job, from opening to publication; every silo commits."""
        place = {"job": named(job), "round": number, "purpose": purpose}
        silos = sorted(self.members)
        commits = [
            self.sign(
                f"{silo}/agent",
                "round.committed",
                place | {"base": base, "commitment": named(f"{job} {number} {purpose} {silo}")},
            )
            for silo in silos
        ]
        return [
            self.sign(self.operator, "round.opened", place | {"base": base, "cohort": silos}),
            *commits,
            self.sign(self.operator, "round.commits-closed", place | {"contributors": silos}),
            self.sign(self.operator, "round.aggregate-published", place | {"result": result}),
        ]

    def job_events(self, job: str = "late", *, rounds: int = 2, evaluated: bool = False) -> list[bytes]:
        """A job from its proposal to its end, with nothing amiss; for after `bootstrap`."""
        base = named(f"{job} bundle")
        found = [self.proposal(job, rounds=rounds, evaluated=evaluated)]
        found += [self.approval(job, member) for member in self.members]
        found += [self.attestation(job, member) for member in self.members]
        found += self.step(job, 0, "statistics", base, named(f"{job} encoder"))
        model = named(f"{job} model 0")
        for number in range(1, rounds + 1):
            before, model = model, named(f"{job} model {number}")
            found += self.step(job, number, "update", before, model)
            if evaluated:
                found += self.step(job, number, "evaluation", model, named(f"{job} metrics {number}"))
        closed = {"job": named(job), "reason": "rounds", "rounds": rounds, "model": model}
        return [*found, self.sign(self.operator, "job.closed", closed)]


def named(text: str) -> str:
    """A digest for something that does not exist, by a name."""
    return sha256(f"fedhouse-sandbox\0{text}".encode())


def _subjects(event: str, body: Mapping[str, Any], consortium: str) -> tuple[tuple[str, str], ...]:
    kind = EVENTS.get(event)
    try:
        found = () if kind is None else kind.body.model_validate(dict(body)).subjects()
    except ValidationError:
        found = ()
    return found or (("consortium", consortium),)
