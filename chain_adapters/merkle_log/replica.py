"""A replica: a member's own verified copy of the log, to read and to act on.

It follows as a witness does, and keeps besides the newest checkpoint that is final: whoever decrypts, reveals
or lifts a stop acts on entries under that, and on no others. It implements the reading half of
`fedhouse.governance.ledger.Ledger`.

Who makes a checkpoint final: with a `Trust`, the witnesses that it names; with the digest of the consortium
alone, those that the state under that very checkpoint names.

Not promised: that those who may change the witnesses (members, by their votes and bindings) did so rightly.
Nor that nothing newer exists: an operator that publishes no more is noticed by the age of `final_head`, and
by promises that are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fedhouse.chain_adapters.merkle_log.entry_files import read_bounded, write_file
from fedhouse.chain_adapters.merkle_log.exchange import MAX_CHECKPOINT_BYTES
from fedhouse.chain_adapters.merkle_log.follower import Follower
from fedhouse.chain_adapters.merkle_log.promises import check_promise
from fedhouse.errors import HistoryError, IntegrityError, QuorumError
from fedhouse.governance.checkpoints import Finality, LogCheckpoint, open_checkpoint, parse_checkpoint
from fedhouse.governance.event import Effect
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import prove_consistency, prove_inclusion
from fedhouse.governance.notes import parse_note
from fedhouse.governance.proof_files import ProofFile, ProvenOutcome
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust

_ASK = "Ask for entries that the replica has; let it catch up first."


def _now() -> int:
    return int(time.time())


class Replica(Follower):
    """A verified copy with finality. `anchor` is a trust file's content, or the consortium's digest."""

    kind = "replica"

    def __init__(
        self, folder: Path, public: Path, anchor: Trust | str, clock: Callable[[], int] = _now
    ) -> None:
        self._anchor = anchor
        super().__init__(folder, public, anchor.consortium if isinstance(anchor, Trust) else anchor, clock)

    def _load(self) -> None:
        self._final_note = read_bounded(self._folder / "final", MAX_CHECKPOINT_BYTES) or b""
        self._final: LogCheckpoint | None = None
        self._final_state = State()
        self._judged = b""
        super()._load()
        if self._final_note and self._final is None:
            raise IntegrityError(
                f"The final checkpoint in {self._folder} is not of the copy beside it.",
                mend="Restore the folder from a backup, or fetch the log into an empty one.",
            )

    def _loaded(self, chunk: list[Entry]) -> None:
        # A final checkpoint was a head once, and what a head brought ends a file.
        if self._final_note and parse_checkpoint(parse_note(self._final_note).text).size == self.size:
            head, finality = self._trust(self.state).check(self._final_note)
            self._replay.require(head)
            finality.require()
            self._final, self._final_state = head, self.state

    def _trust(self, state: State) -> Trust:
        """Whose cosignatures make a checkpoint with this state final."""
        return self._anchor if isinstance(self._anchor, Trust) else Trust.of(state)

    @property
    def final_head(self) -> LogCheckpoint | None:
        """The newest checkpoint that is final."""
        return self._final

    @property
    def final_size(self) -> int:
        """Number of entries that are final."""
        return 0 if self._final is None else self._final.size

    @property
    def final_state(self) -> State:
        """The state after the final entries; empty if there are none."""
        return self._final_state

    def catch_up(self) -> list[Effect]:
        """Take what is published; gives the effects of the new entries, at least once.

        The first call also gives those of the entries that were there already: their process may have died
        before it acted on them. What an effect asks for may be over, and the state says so.

        Raises
        ------
        HistoryError
            If the log contradicts itself, runs ahead of the own clock, or goes back.
        VerificationError
            If something is not what it says. What was verified before that is kept.
        """
        effects, self._loaded_effects = self._loaded_effects, []
        try:
            final = self.public.final()
            if final is not None:
                effects += self._offer_final(final)
            note = self.public.checkpoint()
            effects += self.advance(note)
            self._judge(note)
        except BaseException:
            self._loaded_effects = effects
            raise
        return effects

    def _offer_final(self, note: bytes) -> list[Effect]:
        """Take the checkpoint that is said to be final; an earlier one must be of the same history."""
        signed = parse_note(note)
        if parse_checkpoint(signed.text).size >= self.size:
            effects = self.advance(note)
            self._judge(note)
            return effects
        head = open_checkpoint(signed, self._trust(self.state).log)
        roots = (self._entries.root(head.size), self._outcomes.root(head.size))
        if roots != (head.root, head.fedhouse.outcomes):
            self._contradiction(note, f"The final checkpoint of {head.size} entries is of another history.")
        if head.size < self.final_size:
            self._contradiction(
                note, f"The log calls {head.size} entries final after it had shown {self.final_size}."
            )
        return []

    def _judge(self, note: bytes) -> None:
        """Count the cosignatures of the present head, and keep it if they make it final."""
        self._judged = b""  # of an earlier head, if the next line raises
        progress = self._trust(self.state).progress(note)
        self._judged = note
        if progress.final and (self._final is None or self._final.size < self.size):
            write_file(self._folder / "final", note)
            self._final_note, self._final, self._final_state = note, self.head, self.state

    def require_final(self, index: int) -> None:
        """Refuse to act on an entry that is not final yet.

        Raises
        ------
        QuorumError
            If it is not; a retry after the next `catch_up` can succeed.
        """
        if not 0 <= index < self.final_size:
            raise QuorumError(
                f"Entry {index} is not final: {self.final_size} entries are.",
                mend="Wait until enough witnesses have cosigned it.",
            )

    def check_promise(self, promise: bytes) -> None:
        """Check that the operator kept a promise, as far as the final entries tell.

        Raises
        ------
        HistoryError
            If it was broken; promise and checkpoint are in `evidence/`.
        QuorumError
            If nothing is final yet.
        """
        self.require_final(0)
        trust = self._trust(self._final_state)
        try:
            check_promise(promise, self._final_note, trust, lambda index: self._entries.read(0, index))
        except HistoryError as error:
            place = self._keep_evidence(self._final_note, promise)
            raise HistoryError(error.what, mend=f"Promise and checkpoint are in {place}.") from error

    def read(self, start: int, stop: int) -> tuple[Entry, ...]:
        """The entries from `start` up to, and not including, `stop`.

        Raises
        ------
        IntegrityError
            If there are not so many, or the copy is damaged.
        """
        self._require_size(stop)
        if not 0 <= start <= stop:
            raise IntegrityError(f"Entries {start} to {stop} are no range.", mend=_ASK)
        return tuple(entry for chunk in self._own.stream(start, stop) for entry in chunk)

    def checkpoint(self) -> bytes:
        """The newest checkpoint, with the cosignatures that came with it.

        Raises
        ------
        IntegrityError
            If there is none yet.
        """
        self._require_size(1)
        return self._covering(self.size)[0]

    def finality(self, size: int) -> Finality:
        """How far the first `size` entries are from being final, and by whom.

        Raises
        ------
        IntegrityError
            If no checkpoint covers them.
        """
        self._require_size(max(size, 1))
        note, state = self._covering(size)
        return self._trust(state).progress(note)

    def _covering(self, size: int) -> tuple[bytes, State]:
        """The final checkpoint if it covers `size` entries, otherwise the newest; and the state under it."""
        if size <= self.final_size:
            return self._final_note, self._final_state
        return self._judged or self.note, self.state

    def prove_inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from entry `index` to the root of the first `size` entries.

        Raises
        ------
        IntegrityError
            If the replica has no such entry or size.
        """
        self._require_size(size)
        return tuple(prove_inclusion(index, size, self._entries.read))

    def prove_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the first `old` entries begin the first `new` ones.

        Raises
        ------
        IntegrityError
            If the replica has no such sizes.
        """
        self._require_size(new)
        return tuple(prove_consistency(old, new, self._entries.read))

    def receipt(self, index: int) -> bytes:
        """Entry and outcome, proved against the final checkpoint if that covers them: a proof file.

        Raises
        ------
        IntegrityError
            If no checkpoint covers the entry yet.
        """
        (entry,) = self.read(index, index + 1)
        note = parse_note(self._covering(index + 1)[0])
        size = parse_checkpoint(note.text).size
        outcomes = prove_inclusion(index, size, self._outcomes.read)
        extra = ProvenOutcome(entry.outcome, tuple(outcomes)).render()
        return ProofFile(extra, index, self.prove_inclusion(index, size), note).render()

    def _require_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise IntegrityError(f"The replica has {self.size} entries, not {size}.", mend=_ASK)
