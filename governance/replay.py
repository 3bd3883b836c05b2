"""Replaying entries: signatures, encoding, rules, outcomes and both trees, in one pass.

Whoever does not trust the operator replays: replicas, witnesses, auditors. Verifying signatures costs more
than everything else together, so a long replay leaves that to other processes.

Invariants
----------
1. A replay that did not raise has checked every byte of every entry it was given.
2. After an error the replay is as it was before the call: an entry counts whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from fedhouse.errors import HistoryError, IntegrityError, SignatureError, VerificationError
from fedhouse.governance.checkpoints import LogCheckpoint
from fedhouse.governance.envelope import parse_envelope, pre_authentication
from fedhouse.governance.event import Effect
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, leaf_hash
from fedhouse.governance.reducer import admit, apply, find_signer
from fedhouse.governance.state import State
from fedhouse.identity.keys import Algorithm, PublicKey

# Fewer entries are verified in this process: starting others takes longer.
_ALONE: Final = 4000
_CHUNK: Final = 1000

Claim = tuple[Algorithm, bytes, bytes, bytes]
"""Algorithm and bytes of a public key, signature, signed payload."""


class Replay:
    """A ledger's entries up to a point, as replayed: mutable, for one thread at a time.

    Example::

        replay = Replay()
        replay.extend(entries)
        replay.require(checkpoint)
    """

    def __init__(self) -> None:
        self.state = State()
        self.time = 0
        self._entries = Frontier()
        self._outcomes = Frontier()

    @property
    def size(self) -> int:
        """Number of entries replayed."""
        return self._entries.size

    def extend(self, entries: Iterable[Entry], *, verified: bool = False, parallel: int = 0) -> list[Effect]:
        """Replay further entries; with `verified`, their signatures were checked before.

        `parallel` processes verify signatures beside this one, if there are many entries.

        Raises
        ------
        VerificationError
            (or a subclass) for the first entry that is not what the ledger says; names its index.
        """
        before = (self.state, self.time, _copied(self._entries), _copied(self._outcomes))
        try:
            entries = list(entries)
            if verified or parallel == 0 or len(entries) < _ALONE:
                return self._extend(entries, verify=not verified)
            return self._extend_parallel(entries, parallel)
        except BaseException:  # an interrupted replay may be taken up again
            self.state, self.time, self._entries, self._outcomes = before
            raise

    def _extend_parallel(self, entries: Sequence[Entry], processes: int) -> list[Effect]:
        # A forked child would share locks of threads that it does not have.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            waiting: list[tuple[int, Future[int | None]]] = []
            effects: list[Effect] = []
            failure: VerificationError | None = None
            for start in range(0, len(entries), _CHUNK):
                first, claims = self.size, list[Claim]()
                try:
                    effects += self._extend(entries[start : start + _CHUNK], verify=False, claims=claims)
                except VerificationError as error:
                    failure = error
                waiting.append((first, pool.submit(verify_claims, claims)))
                if failure is not None:
                    break
            for first, future in waiting:
                if (bad := future.result()) is not None:
                    raise SignatureError(
                        f"Entry {first + bad}: It is not signed by the key that it names.", mend=_MEND
                    )
            if failure is not None:  # every signature before it is good, so it is the first
                raise failure
        return effects

    def _extend(
        self, entries: Sequence[Entry], *, verify: bool, claims: list[Claim] | None = None
    ) -> list[Effect]:
        effects: list[Effect] = []
        for entry in entries:
            index = self._entries.size
            if entry.index != index:
                raise HistoryError(f"Entry {entry.index} was given where {index} is due.", mend=_MEND)
            try:
                effects += self._one(entry, verify, claims)
            except VerificationError as error:
                raise type(error)(f"Entry {index}: {error.what}", mend=error.mend) from error
        return effects

    def _one(self, entry: Entry, verify: bool, claims: list[Claim] | None) -> tuple[Effect, ...]:
        envelope, outcome = parse_envelope(entry.envelope), entry.outcome
        if outcome.time < self.time:
            raise HistoryError(f"Its time {outcome.time} is before that of the entry before it.", mend=_MEND)
        signer = admit(self.state, envelope) if verify else find_signer(self.state, envelope)
        if claims is not None:
            key = signer.public_key()
            claims.append((key.algorithm, key.raw, envelope.signature, envelope.payload))
        applied = apply(self.state, envelope, outcome.time)
        if applied.verdict.code != outcome.verdict:
            raise IntegrityError(
                f"The ledger says {outcome.verdict!r}, and its rules say {applied.verdict.code!r}.",
                mend=_MEND,
            )
        self.state, self.time = applied.state, outcome.time
        self._entries.append(leaf_hash(entry.envelope))
        self._outcomes.append(leaf_hash(outcome.leaf))
        return applied.effects

    def require(self, checkpoint: LogCheckpoint) -> None:
        """Check that `checkpoint` is of exactly what was replayed.

        Raises
        ------
        HistoryError
            If the entries are others.
        IntegrityError
            If size, outcomes or state differ.
        """
        if checkpoint.size != self.size:
            raise IntegrityError(
                f"The checkpoint covers {checkpoint.size} entries, and {self.size} were replayed.", mend=_MEND
            )
        if checkpoint.root != self._entries.root():
            raise HistoryError(
                f"The checkpoint of {self.size} entries is of another history than these.", mend=_SPLIT
            )
        told = checkpoint.fedhouse
        if told.outcomes != self._outcomes.root() or told.state != bytes.fromhex(self.state.digest()):
            raise IntegrityError(
                f"The checkpoint of {self.size} entries claims other outcomes than the rules give.",
                mend=_MEND,
            )
        if told.time < self.time:
            raise HistoryError("The checkpoint is older than its last entry.", mend=_MEND)

    def describe(self) -> tuple[int, bytes, bytes, bytes]:
        """Size, root, root of the outcomes and digest of the state: what a checkpoint of this says."""
        return (
            self.size,
            self._entries.root(),
            self._outcomes.root(),
            bytes.fromhex(self.state.digest()),
        )


def _copied(frontier: Frontier) -> Frontier:
    return Frontier.of(frontier.size, frontier.nodes)


_MEND: Final = "Keep the files: they show that the ledger's operator, or the copy, is at fault."
_SPLIT: Final = "Keep both checkpoints: together they prove that the operator shows different histories."


def verify_claims(claims: Sequence[Claim]) -> int | None:
    """The place of the first claim whose signature is bad, or None; runs in processes of its own."""
    for place, (algorithm, raw, signature, payload) in enumerate(claims):
        try:
            PublicKey(algorithm, raw).verify(signature, pre_authentication(payload))
        except SignatureError:
            return place
    return None
