"""A witness: follows the log, replays every rule, and cosigns what it finds to be so.

It runs in a process of its own, with a key of its own that it uses for nothing else. That it never signs two
different checkpoints of one size, or one that does not go on from the last, rests on `follower`: a head is on
its disk before the cosignature leaves.

Killed in between, it finds at its next start that its answer is missing, and gives it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedhouse.chain_adapters.merkle_log.follower import MAX_SKEW, Follower
from fedhouse.errors import ConfigurationError, FedhouseError, HistoryError, VerificationError
from fedhouse.governance.checkpoints import LogCheckpoint, cosign, verify_cosignature
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, parse_note
from fedhouse.governance.trust import Trust
from fedhouse.identity.actors import parse_actor
from fedhouse.identity.signer import Signer

logger = logging.getLogger(__name__)


def _now() -> int:
    return int(time.time())


class Witness:
    """One witness of one log.

    Parameters
    ----------
    folder
        Its own, with its copy of the log: keep it as carefully as the key.
    public
        Where the log is published, and where its answers go.
    name
        The actor that its key is bound to, for example `AA/witness`.
    consortium
        Digest of the founding envelope, by a way that is trusted.
    clock
        Whole seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        public: Path,
        signer: Signer,
        name: str,
        consortium: str,
        clock: Callable[[], int] = _now,
    ) -> None:
        parse_actor(name)
        if signer.public.algorithm != "ed25519":
            raise ConfigurationError(
                f"The key of {name} is of kind {signer.public.algorithm}, and witnesses sign by Ed25519.",
                mend="Make a key for the purpose 'witness', and have it bound.",
            )
        self.name = name
        self.follower = Follower(folder, public, consortium, clock)
        self._signer = signer
        self._named = True  # until the ledger says otherwise, which is logged once
        self._clock = clock

    def close(self) -> None:
        """Release the folder."""
        self.follower.close()

    def step(self) -> bool:
        """Look at the published checkpoint once; whether it was cosigned now.

        Nothing is to do if it is cosigned already, or old and final, or if the ledger does not name this
        witness: then the answer is False.

        Raises
        ------
        HistoryError
            If it contradicts what was seen before, or is dated more than 60 s from the own clock.
        VerificationError
            If it, or an entry under it, is not what it says.
        """
        note = self.follower.public.checkpoint()
        self.follower.advance(note)
        head = self.follower.head
        assert head is not None  # advance has taken one
        trust = Trust.of(self.follower.state)
        key = NoteKey(f"{trust.origin}/{self.name}", NoteKind.COSIGNATURE, self._signer.public)
        named = any(key in keys for keys in trust.witnesses.values())
        if not named and self._named:
            logger.warning("The ledger names no witness %s with this key: nothing is cosigned.", self.name)
        self._named = named
        if not named:
            return False
        if self._answered(head, key):
            return False
        now = self._clock()
        if head.fedhouse.time < now - MAX_SKEW:
            if trust.progress(note).final:
                return False
            raise HistoryError(
                f"The checkpoint is dated {head.fedhouse.time}, and the clock here says {now}.",
                mend="Wait for a newer one; if none comes, set the clocks of this machine and of the log's.",
            )
        signature = cosign(head.text, key.name, self._signer, now)
        answer = SignedNote(head.text, (signature,)).render()
        self.follower.public.write_cosignature(head.size, key, answer)
        return True

    def _answered(self, head: LogCheckpoint, key: NoteKey) -> bool:
        """Whether a good cosignature of exactly this checkpoint is published."""
        try:
            answer = self.follower.public.cosignature(head.size, key)
            if answer is None:
                return False
            signed = parse_note(answer)
            verify_cosignature(signed, key)
        except VerificationError:
            return False  # somebody has spoiled the file; it is written again
        return signed.text == head.text


def run_witness(witness: Witness, *, poll_seconds: float, stop: threading.Event) -> None:
    """Let a witness look every `poll_seconds` until `stop` is set. It logs each refusal once, and goes on."""
    refusal = ""
    while not stop.is_set():
        try:
            if witness.step():
                head = witness.follower.head
                logger.info("cosigned a checkpoint of %d entries", head.size if head else 0)
            refusal = ""
        except FedhouseError as error:
            if str(error) != refusal:
                logger.error("not cosigned (%s): %s", type(error).__name__, error)
            refusal = str(error)
        stop.wait(poll_seconds)
    witness.close()
