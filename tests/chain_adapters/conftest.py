"""A consortium with a Merkle log, its published folder, and a witness for each member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.chain_adapters.merkle_log.replica import Replica
from fedhouse.chain_adapters.merkle_log.tip import Tip
from fedhouse.chain_adapters.merkle_log.witness import Witness
from fedhouse.governance.checkpoints import Extensions, LogCheckpoint
from fedhouse.governance.contract import Rig
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, leaf_hash
from fedhouse.governance.notes import SignedNote, sign_note
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium
from fedhouse.governance.trust import Trust
from fedhouse.identity.signer import Signer


@dataclass
class House:
    """Everything of one consortium in one folder."""

    folder: Path
    clock: SandboxClock
    consortium: SandboxConsortium
    log: MerkleLog
    opened: list[Witness | Replica] = field(default_factory=list)

    @property
    def public(self) -> Path:
        """Where the log is published."""
        return self.folder / "public"

    @property
    def trust(self) -> Trust:
        """The trust that the log's state names."""
        return Trust.of(self.log.state)

    def witness(
        self, member: str, *, public: Path | None = None, clock: SandboxClock | None = None
    ) -> Witness:
        """A member's witness, opened anew."""
        actor = f"{member}/witness"
        witness = Witness(
            self.folder / "witnesses" / member,
            public or self.public,
            self.consortium.signer(actor),
            actor,
            self.consortium.id,
            clock=clock or self.clock,
        )
        self.opened.append(witness)
        return witness

    def replica(
        self, name: str = "replica", *, anchor: Trust | str = "", public: Path | None = None
    ) -> Replica:
        """A replica in a folder of this name, opened anew."""
        replica = Replica(
            self.folder / name, public or self.public, anchor or self.consortium.id, clock=self.clock
        )
        self.opened.append(replica)
        return replica

    def cosign(self, *members: str) -> None:
        """Publish, let the witnesses answer, and publish what they answered."""
        self.log.publish(self.public)
        for member in members or self.consortium.members:
            witness = self.witness(member)
            witness.step()
            witness.close()
        self.log.publish(self.public)

    def reopen(self) -> MerkleLog:
        """Close the log and open it again."""
        self.log.close()
        self.log = MerkleLog.open(self.folder / "log", clock=self.clock, operator=self.consortium.log)
        return self.log

    def close(self) -> None:
        """Release everything."""
        for one in self.opened:
            one.close()
        self.log.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A founded consortium of three members."""
    clock = SandboxClock()
    consortium = SandboxConsortium(clock=clock)
    log = MerkleLog.create(tmp_path / "log", consortium.founding(), clock=clock, operator=consortium.log)
    made = House(tmp_path, clock, consortium, log)
    yield made
    made.close()


@pytest.fixture
def rig(house: House) -> Rig:
    """The same, as the contract suite wants it."""
    opener = f"""
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.governance.sandbox import SandboxClock
def open_ledger():
    return MerkleLog.open(Path({str(house.folder / "log")!r}), clock=SandboxClock())
"""
    made = Rig(house.consortium, house.clock, house.log, house.cosign, house.reopen, opener)

    def reopen() -> MerkleLog:
        made.ledger = house.reopen()
        return house.log

    made.reopen = reopen
    return made


@dataclass
class Forger:
    """An operator that signs and publishes whatever it likes, with the log's own key."""

    consortium: SandboxConsortium

    def publish(
        self,
        public: Path,
        steps: Sequence[tuple[bytes, int]],
        *,
        time: int,
        verdicts: Mapping[int, str] = MappingProxyType({}),
        state: bytes | None = None,
        signer: Signer | None = None,
    ) -> bytes:
        """Publish envelopes with these times, and a checkpoint at `time`; gives its note.

        `verdicts` stand in the log in place of those that the rules give, `state` in place of the state's
        hash.
        """
        tip, entries, outcomes, told = Tip.empty(), Frontier(), Frontier(), []
        for index, (envelope, moment) in enumerate(steps):
            outcome, _, _ = tip.record(parse_envelope(envelope), moment)
            outcome = Outcome(moment, verdicts.get(index, outcome.verdict))
            entries.append(leaf_hash(envelope))
            outcomes.append(leaf_hash(outcome.leaf))
            told.append(Entry(index, envelope, outcome))
        digest = bytes.fromhex(tip.state.digest()) if state is None else state
        lines = Extensions(time, outcomes.root(), digest).lines
        text = LogCheckpoint(self.consortium.origin, len(told), entries.root(), lines).text
        note = SignedNote(text, (sign_note(text, self.consortium.origin, signer or self.consortium.log),))
        folder = PublicLog(public)
        for file in folder.files.files():
            file.path.unlink()
        folder.files.write(told)
        folder.write_checkpoint(note.render())
        return note.render()


@pytest.fixture
def forger(house: House) -> Forger:
    """The house's operator, gone bad."""
    return Forger(house.consortium)


@pytest.fixture
def second(house: House, tmp_path: Path) -> Iterator[House]:
    """A second coordinator with the same key and another ledger of the same consortium."""
    log = MerkleLog.create(
        tmp_path / "second" / "log",
        house.consortium.founding(),
        clock=house.clock,
        operator=house.consortium.log,
    )
    made = House(tmp_path / "second", house.clock, house.consortium, log)
    yield made
    made.close()
