"""One actor's events, each recorded once, whatever is killed in between.

Invariants
----------
1. An event is signed and on disk before it goes to the ledger. After a kill the same bytes go again, and
   a ledger records the same bytes once.
2. An event has a name of its own in the actor's folder (`round-0003-update-committed`). Recording it again
   gives the first answer, and signs nothing.
3. An event that the ledger refused may be tried again, as a new envelope with the next sequence number:
   a stop that refused it may have been lifted since. Each call tries once.
4. One process at a time writes for an actor: a lock in the folder.

Example::

    journal = Journal(folder, "AA/agent", signer, ledger, consortium, clock)
    answer = journal.record("round-0003-update-committed", "round.committed", body)
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedhouse.encoding import canonical_json, write_atomic
from fedhouse.errors import ConfigurationError, IntegrityError, PolicyRefusedError
from fedhouse.governance.envelope import Envelope, PayloadRef, Statement, parse_envelope, sign_statement
from fedhouse.governance.ledger import Appended, Ledger
from fedhouse.governance.reducer import EVENTS
from fedhouse.identity.signer import Signer

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FILE = re.compile(r"(?P<name>[a-z0-9-]+)\.(?P<attempt>[0-9]+)\.envelope")


class Journal:
    """Signs and records the events of one actor."""

    def __init__(
        self,
        folder: Path,
        actor: str,
        signer: Signer,
        ledger: Ledger,
        consortium: str,
        clock: Callable[[], int],
    ) -> None:
        self.folder, self.actor = folder, actor
        self.ledger, self.consortium = ledger, consortium
        self._signer, self._clock = signer, clock
        self._lock = threading.Lock()

    def record(
        self, name: str, event: str, body: Mapping[str, Any], payloads: tuple[PayloadRef, ...] = ()
    ) -> Appended:
        """Record an event under `name`, once; its answer, also if the ledger refused it.

        Raises
        ------
        IntegrityError
            If an event of this name was accepted and says something else.
        """
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot name an event of a journal.")
        with self._alone():
            attempts = self._attempts(name)
            if attempts:
                answer = self._deliver(attempts[-1])
                if answer.accepted:
                    self._require_same(attempts[-1], event, body)
                    return answer
            self._deliver_pending()
            return self._deliver(self._sign(name, len(attempts) + 1, event, body, payloads))

    def accepted(self, name: str) -> Appended | None:
        """The answer to the event of this name, if one was accepted; signs nothing, and delivers what a
        kill kept back."""
        with self._alone():
            attempts = self._attempts(name)
            answer = self._deliver(attempts[-1]) if attempts else None
        return answer if answer is not None and answer.accepted else None

    def require(
        self, name: str, event: str, body: Mapping[str, Any], payloads: tuple[PayloadRef, ...] = ()
    ) -> Appended:
        """Record an event that has to count.

        Raises
        ------
        PolicyRefusedError
            If the rules refuse it; names the code.
        """
        answer = self.record(name, event, body, payloads)
        if not answer.accepted:
            raise refusal(f"The ledger refused {event} by {self.actor}", answer.outcome.verdict)
        return answer

    def _sign(
        self, name: str, attempt: int, event: str, body: Mapping[str, Any], payloads: tuple[PayloadRef, ...]
    ) -> Path:
        subjects = EVENTS[event].body.model_validate(body).subjects() or (("consortium", self.consortium),)
        statement = Statement(
            event=event,
            signer=self.actor,
            consortium=self.consortium,
            sequence=self.ledger.state.sequences.get(self.actor, 0) + 1,
            issued=self._clock(),
            subjects=subjects,
            body=body,
            payloads=payloads,
        )
        path = self.folder / f"{name}.{attempt}.envelope"
        write_atomic(path, sign_statement(statement, self._signer))
        return path

    def _deliver(self, path: Path) -> Appended:
        (answer,) = self.ledger.append([path.read_bytes()])
        return answer

    def _deliver_pending(self) -> None:
        """What was signed before a kill goes first: its sequence number is taken."""
        known = self.ledger.state.sequences.get(self.actor, 0)
        pending = [path for path in self._files() if self._parse(path).statement.sequence > known]
        for path in sorted(pending, key=lambda item: self._parse(item).statement.sequence):
            self._deliver(path)

    def _attempts(self, name: str) -> list[Path]:
        found = [
            (int(match["attempt"]), path) for path in self._files() if (match := _match(path))["name"] == name
        ]
        return [path for _, path in sorted(found)]

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.envelope") if _FILE.fullmatch(path.name))

    def _parse(self, path: Path) -> Envelope:
        return parse_envelope(path.read_bytes())

    def _require_same(self, path: Path, event: str, body: Mapping[str, Any]) -> None:
        told = self._parse(path).statement
        if (told.event, canonical_json(dict(told.body))) != (event, canonical_json(dict(body))):
            raise IntegrityError(
                f"{self.actor} has recorded another event as {path.name}.",
                mend="Use a fresh run folder; what is on the ledger cannot be said again differently.",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def _match(path: Path) -> re.Match[str]:
    match = _FILE.fullmatch(path.name)
    assert match is not None  # `_files` lists such names only
    return match


def refusal(what: str, code: str) -> PolicyRefusedError:
    """The error of a refusal by the rules, with what can be done about each code."""
    return PolicyRefusedError(f"{what}: {code}.", mend=MENDS.get(code, "See the code in docs/governance.md."))


MENDS: Mapping[str, str] = {
    "closed": "The matter is decided, or the step closed; nothing more can be said to it.",
    "declined": "The organisation declined the job; it has to approve it.",
    "four-eyes": "Another person than the proposer has to do it.",
    "future-dated": "Set this machine's clock.",
    "key-retired": "Sign with the key that replaced it.",
    "key-revoked": "Have an administrator of the organisation bind a new key.",
    "key-ending": "A revocation of the key is on its way; have an administrator bind a new key.",
    "member-inactive": "The organisation has to join, or be approved, first.",
    "not-approved": "Have the job approved: fedhouse job show, then fedhouse job approve.",
    "not-permitted": "Have a steward permit it: fedhouse permission give.",
    "other-entity": "It concerns another legal entity; that entity has to agree.",
    "other-operator": "Another coordinator runs this job.",
    "other-suite": "Register the dataset as it is now: fedhouse dataset register.",
    "payload-known": "The payload was named before; put the text into the store anew.",
    "quality-gate": "The rows failed their quality gate; mend the table and run a new job.",
    "role": "Sign as somebody with the role that this needs.",
    "sequence": "Another process signed for the same actor; try again.",
    "stopped": "An emergency stop is in force; see fedhouse stop --lift.",
    "unknown-job": "Have the job proposed first.",
}
